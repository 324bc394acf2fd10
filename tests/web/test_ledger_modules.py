"""Payments worked out again in the browser: golden epochs, and Python's own answers to whatever was tampered with."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.errors import Refused
from atoll.ledger.epoch import JobTotal, PublishedEpoch, claims_of, decode_epoch, encode_epoch, post_of
from atoll.ledger.receipts import Receipt, receipts_tree
from atoll.ledger.rewards import Prices
from atoll.ledger.statement import ChainView, explain, statement
from atoll.wire.eip712 import Verifier
from atoll.wire.merkle import verify
from atoll.wire.reasons import Reason
from tests.graph.test_manifest import example
from tests.ledger.test_statement import JOB_A, JOB_B, PRICES, SETTLEMENT, account, chain_of, change, history, unit

from .modules import Big, Modules, NotTaken

LEDGER = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text("utf-8"))
JS_SETTLEMENT = {"chainId": SETTLEMENT.chain_id, "address": SETTLEMENT.address}


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def there(modules: Modules, name: str, *arguments: Any) -> Any:
    try:
        return modules.call(name, *arguments)
    except NotTaken as error:
        return error.reason


def test_golden_epochs(modules: Modules) -> None:
    verifier = {"chainId": LEDGER["chain_id"], "address": unhex(LEDGER["settlement"])}
    for case in LEDGER["epochs"]:
        blob = unhex(case["blob"])
        post = modules.call("receipts.post", blob, verifier)
        assert post["receiptsRoot"] == unhex(case["receipts_root"])
        assert post["root"] == unhex(case["root"])
        assert post["totals"] == unhex(case["totals"])
        assert post["digest"] == unhex(case["post_digest"])
        assert modules.call("receipts.again", blob) == blob
        for index, (name, cumulative) in enumerate(case["accounts"]):
            claim = modules.call("receipts.claim", blob, unhex(name))
            assert (claim["index"], int(claim["cumulative"])) == (index, int(cumulative))
            assert claim["proof"] == [unhex(each) for each in case["proofs"][index]]


def test_proofs_of_receipts_and_accounts(modules: Modules) -> None:
    epoch = history()[1]
    blob = encode_epoch(epoch)
    tree = receipts_tree(epoch.receipts, SETTLEMENT)
    for index, receipt in enumerate(epoch.receipts):
        proof = modules.call("receipts.proof", blob, index, JS_SETTLEMENT)
        assert proof == tree.prove(index)
        assert verify(tree.root, len(epoch.receipts), index, receipt.digest(SETTLEMENT), proof)
    for claim in claims_of(epoch, [name for name, _ in epoch.accounts]):
        assert modules.call("receipts.claim", blob, claim.account)["proof"] == list(claim.proof)
    assert modules.call("receipts.claim", blob, b"\xee" * 20) is None
    assert there(modules, "receipts.proof", blob, 99, JS_SETTLEMENT) == "NOT_FOUND"


def seen(chain: ChainView) -> dict[str, Any]:
    """What the chain says, as the browser has it."""
    jobs = [[{"job": t.job, "total": Big(t.total), "settled": t.settled} for t in each.jobs] for each in chain.epochs]
    return {
        "verifier": {"chainId": chain.verifier.chain_id, "address": chain.verifier.address},
        "epochs": [
            {
                "number": each.number,
                "root": each.root,
                "receiptsRoot": each.receipts_root,
                "accounts": each.accounts,
                "receipts": each.receipts,
                "jobs": totals,
            }
            for each, totals in zip(chain.epochs, jobs, strict=True)
        ],
        "claimed": [(name, Big(amount)) for name, amount in chain.claimed.items()],
        "budgets": [(job, Big(amount)) for job, amount in chain.budgets.items()],
        "light": [(job, list(accounts)) for job, accounts in chain.light.items()],
    }


def same_answer(
    modules: Modules, epochs: Sequence[PublishedEpoch], chain: ChainView, prices: dict[bytes, Prices] | None = None
) -> str | None:
    """Both explain the same; returns the first difference."""
    expected = explain(epochs, chain, prices)
    named = [
        (
            job,
            {
                "unit": Big(p.unit_price),
                "audit": Big(p.audit_price),
                "validator": Big(p.validator_price),
                "segments": p.segments,
            },
        )
        for job, p in (prices or {}).items()
    ]
    found = modules.call("receipts.explain", [encode_epoch(epoch) for epoch in epochs], seen(chain), named)
    assert found["firstDifference"] == expected.first_difference
    assert (found["match"], found["checked"]) == (expected.match, dict(expected.checked))
    return expected.first_difference


def test_an_honest_history_matches(modules: Modules) -> None:
    epochs = history()
    chain = chain_of(epochs, {account(1): 33, account(3): 4, account(2): 0})
    assert same_answer(modules, epochs, chain, PRICES) is None
    assert same_answer(modules, epochs[::-1], chain) is None
    assert same_answer(modules, [], ChainView(SETTLEMENT, (), {})) is None


def forgeries() -> list[tuple[list[PublishedEpoch], ChainView]]:
    """Whatever can be altered in a published epoch or on the chain, one thing at a time."""
    epochs, dice = history(), random.Random(4)
    chain, cases = chain_of(epochs, {account(1): 33}), []
    for epoch in epochs:
        for index, before in enumerate(epoch.receipts):
            values = {"job": b"\x0c" * 32, "round": 9, "unit": unit(8), "account": account(7), "kind": 2, "amount": 11}
            for name, value in values.items():
                if name != "amount" or before.reason == 0:
                    rows = [*epoch.receipts[:index], replace(before, **{name: value}), *epoch.receipts[index + 1 :]]  # type: ignore[arg-type]
                    cases.append((change(epochs, epoch.number, receipts=tuple(rows)), chain))
            fewer = epoch.receipts[:index] + epoch.receipts[index + 1 :]
            cases.append((change(epochs, epoch.number, receipts=fewer), chain))
        cases.append((change(epochs, epoch.number, receipts=(*epoch.receipts, epoch.receipts[-1])), chain))
        shuffled = dice.sample(epoch.receipts, len(epoch.receipts))
        cases.append((change(epochs, epoch.number, receipts=tuple(shuffled)), chain))
        rows = epoch.accounts
        more = ((account(9), 5),)
        for accounts in (rows[1:], rows + more, rows[::-1], (rows[0], *rows), ((rows[0][0], 1), *rows[1:])):
            cases.append((change(epochs, epoch.number, accounts=accounts), chain))
        jobs = epoch.jobs
        for totals in (
            (),
            jobs[::-1],
            (replace(jobs[0], total=26), *jobs[1:]),
            (replace(jobs[0], settled=not jobs[0].settled), *jobs[1:]),
            (*jobs, JobTotal(b"\x0f" * 32, 0)),
        ):
            cases.append((change(epochs, epoch.number, jobs=totals), chain))
        for name, value in (
            ("root", bytes(32)),
            ("receipts_root", bytes(32)),
            ("accounts", 5),
            ("receipts", 4),
            ("jobs", ()),
        ):
            posted = [replace(each, **{name: value}) if each.number == epoch.number else each for each in chain.epochs]  # type: ignore[arg-type]
            cases.append((epochs, replace(chain, epochs=tuple(posted))))
        cases.append(([each for each in epochs if each is not epoch], chain))
    cases += [
        (epochs, replace(chain, epochs=chain.epochs[:2])),
        (epochs, replace(chain, claimed={account(1): 34})),
        ([*epochs, epochs[0]], chain),
        (epochs, replace(chain, budgets={JOB_A: 26})),
    ]
    back = change(epochs, 2, jobs=(JobTotal(JOB_A, 27, False), *epochs[2].jobs))
    late = Receipt(1, JOB_A, 9, unit(9), account(1), Reason.UPDATE_MISMATCH, 0)
    after = change(epochs, 2, receipts=(late, *epochs[2].receipts))
    return [*cases, (back, chain_of(back)), (after, chain_of(after))]


@pytest.mark.parametrize("prices", [None, PRICES])
def test_the_first_difference_is_the_same_whatever_was_tampered_with(
    prices: dict[bytes, Prices] | None, modules: Modules
) -> None:
    cases = forgeries()
    found = [same_answer(modules, epochs, chain, prices) for epochs, chain in cases]
    assert len(cases) > 100
    assert sum(each is not None for each in found) > 100


def test_light_units_pay_their_part(modules: Modules) -> None:
    prices = {JOB_A: replace(PRICES[JOB_A], segments=2), JOB_B: replace(PRICES[JOB_B], segments=3)}
    epochs = history()
    for light in ({JOB_A: {account(1)}}, {JOB_A: {account(2)}}, {JOB_B: {account(1)}, JOB_A: set()}):
        chain = replace(chain_of(epochs), light=light)
        assert same_answer(modules, epochs, chain, prices) is not None
    assert same_answer(modules, epochs, replace(chain_of(epochs), light={JOB_A: {account(3)}}), prices) is None
    found = modules.call("receipts.prices", example().to_bytes())
    policy = example().policy
    expected = [policy.unit_price, policy.audit_price, policy.validator_price]
    assert [int(found[name]) for name in ("unit", "audit", "validator")] == expected
    assert found["segments"] == example().segments


def test_statements(modules: Modules) -> None:
    epochs = history()
    for number in (*range(1, 5), 99):
        expected = statement(account(number), epochs)
        found = modules.call("receipts.statement", account(number), [encode_epoch(epoch) for epoch in epochs[::-1]])
        assert int(found["earned"]) == expected.earned
        assert (found["refused"], [int(sum_) for _, sum_ in found["byEpoch"]]) == (
            expected.refused,
            [sum_ for _, sum_ in expected.by_epoch],
        )
        lines = [
            (line["epoch"], line["unit"], line["kind"], int(line["amount"]), line["reason"], line["label"])
            for line in found["lines"]
        ]
        assert lines == [
            (line.epoch, line.unit, line.kind, line.amount, line.reason, line.kind.label) for line in expected.lines
        ]
        for line in found["lines"]:
            assert epochs[line["epoch"]].receipts[line["index"]].unit == line["unit"]


def test_blobs_that_are_no_epoch_are_refused_alike(modules: Modules) -> None:
    epoch = history()[1]
    good = encode_epoch(epoch)
    schema, number, receipts, accounts, jobs = msgspec.msgpack.decode(good)
    receipt = receipts[0]

    def with_receipt(**fields: Any) -> bytes:
        names = ("kind", "job", "round", "unit", "account", "reason", "amount")
        row = [fields.get(name, value) for name, value in zip(names, receipt, strict=True)]
        return msgspec.msgpack.encode([schema, number, [row], accounts, jobs])

    forms = [
        good,
        good[:-1],
        good + b"\x00",
        b"",
        b"\x01",
        msgspec.msgpack.encode(["atoll/epoch/2", number, receipts, accounts, jobs]),
        msgspec.msgpack.encode([schema, -1, receipts, accounts, jobs]),
        msgspec.msgpack.encode([schema, number, receipts, accounts]),
        msgspec.msgpack.encode([schema, number, receipts, accounts, jobs, 1]),
        msgspec.msgpack.encode([schema, number, receipts, [[b"x", b""]], jobs]),
        msgspec.msgpack.encode([schema, number, receipts, [[*accounts[0], 1]], jobs]),
        msgspec.msgpack.encode([schema, number, receipts, [[accounts[0][0], b"\x00\x01"]], jobs]),
        msgspec.msgpack.encode([schema, number, receipts, accounts, [[bytes(32), b"\x01", 1]]]),
        with_receipt(kind=16),
        with_receipt(kind=0),
        with_receipt(round=2**32),
        with_receipt(round=-1),
        with_receipt(reason=2**16),
        with_receipt(reason=33),
        with_receipt(amount=b"\x00\x0a"),
        with_receipt(amount=bytes(17)),
        with_receipt(unit=b""),
        with_receipt(amount=b"\xff" * 16),
        with_receipt(reason=True),
    ]
    for form in forms:
        expected: str = "OK"
        try:
            decode_epoch(form)
        except Refused as error:
            expected = error.reason.name
        found = there(modules, "receipts.again", form)
        assert ("OK" if isinstance(found, bytes) else found) == expected


def test_amounts_as_text(modules: Modules) -> None:
    for amount, text in (
        (0, "0"),
        (1, "0.000000000000000001"),
        (15 * 10**17, "1.5"),
        (10**21, "1000"),
        (-5 * 10**17, "-0.5"),
    ):
        assert modules.call("receipts.amountText", Big(amount)) == text


def test_roots_follow_the_settlement_contract(modules: Modules) -> None:
    epoch = history()[0]
    other = Verifier(SETTLEMENT.chain_id + 1, SETTLEMENT.address)
    for verifier in (SETTLEMENT, other):
        there_ = {"chainId": verifier.chain_id, "address": verifier.address}
        assert (
            modules.call("receipts.post", encode_epoch(epoch), there_)["receiptsRoot"]
            == post_of(epoch, verifier).receipts_root
        )
