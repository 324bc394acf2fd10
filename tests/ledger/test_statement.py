"""Statements, and the offline check that finds the first difference wherever it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.ledger.epoch import JobTotal, PublishedEpoch, Totals, build_epoch, decode_epoch, encode_epoch, post_of
from atoll.ledger.receipts import Kind, Receipt
from atoll.ledger.rewards import Prices
from atoll.ledger.statement import (
    STATEMENT_HEADER,
    ChainEpoch,
    ChainView,
    explain,
    explanation_json,
    explanation_text,
    statement,
    statement_json,
    statement_rows,
)
from atoll.wire.eip712 import Verifier
from atoll.wire.reasons import Reason

SETTLEMENT = Verifier(31337, b"\x05" * 20)
JOB_A, JOB_B = b"\x0a" * 32, b"\x0b" * 32
PRICES = {JOB_A: Prices(10, 3, 1), JOB_B: Prices(20, 6, 2)}
ATL = 10**18


def account(number: int) -> bytes:
    return number.to_bytes(20, "big")


def unit(number: int) -> bytes:
    return number.to_bytes(32, "big")


def history() -> list[PublishedEpoch]:
    """Two jobs, three epochs; unit 4 could not be settled in its round and is paid one epoch later."""
    rounds = [
        [
            Receipt(1, JOB_A, 0, unit(1), account(1), 0, 10),
            Receipt(1, JOB_A, 0, unit(2), account(2), Reason.SEGMENT_MISMATCH, 0),
            Receipt(2, JOB_A, 0, unit(2), account(3), 0, 3),
            Receipt(3, JOB_A, 0, unit(2), account(1), 0, 3),
            Receipt(4, JOB_A, 0, bytes(32), account(3), 0, 1),
            Receipt(1, JOB_A, 0, unit(4), account(4), Reason.UNSETTLED, 0),
        ],
        [
            Receipt(1, JOB_A, 0, unit(4), account(4), 0, 10),
            Receipt(1, JOB_B, 5, unit(5), account(1), 0, 20),
            Receipt(4, JOB_B, 5, bytes(32), account(2), 0, 2),
        ],
        [Receipt(1, JOB_B, 6, unit(6), account(1), 0, 20)],
    ]
    endings = [frozenset(), frozenset({JOB_A}), frozenset({JOB_B})]
    totals, epochs = Totals(), []
    for number, (receipts, settled) in enumerate(zip(rounds, endings, strict=True)):
        epochs.append(build_epoch(number, totals, receipts, settled))
        totals = totals.after(epochs[-1])
    return epochs


def chain_of(epochs: Sequence[PublishedEpoch], claimed: Mapping[bytes, int] | None = None) -> ChainView:
    posted = []
    for epoch in epochs:
        post = post_of(epoch, SETTLEMENT)
        counts = (post.accounts, post.receipts)
        posted.append(ChainEpoch(epoch.number, post.root, post.receipts_root, *counts, epoch.jobs))
    return ChainView(SETTLEMENT, tuple(posted), claimed or {}, {JOB_A: 27, JOB_B: 100})


def change(epochs: list[PublishedEpoch], number: int, **fields: object) -> list[PublishedEpoch]:
    return [replace(epoch, **fields) if epoch.number == number else epoch for epoch in epochs]  # type: ignore[arg-type]


def difference(epochs: Sequence[PublishedEpoch], chain: ChainView, prices: Mapping[bytes, Prices] | None = None) -> str:
    found = explain(epochs, chain, prices)
    assert not found.match
    assert found.first_difference is not None
    return found.first_difference


# Statement
def test_statement_by_hand() -> None:
    found = statement(account(4), history())
    assert [(line.epoch, line.round, line.unit, line.kind, line.amount, line.reason) for line in found.lines] == [
        (0, 0, unit(4), Kind.TRAINING, 0, 37),
        (1, 0, unit(4), Kind.TRAINING, 10, 0),
    ]
    assert found.by_epoch == ((0, 0), (1, 10))
    assert (found.earned, found.refused) == (10, 1)
    assert [line.sentence for line in found.lines] == [
        "Refused (training unit, UNSETTLED): The unit could not be settled in time; "
        "it counts neither for nor against the worker.",
        "Training unit: accepted and paid.",
    ]


def test_statements_of_all_accounts_cover_every_receipt() -> None:
    epochs = history()
    found = [statement(account(number), reversed_order) for number in range(1, 5) for reversed_order in [epochs[::-1]]]
    assert sum(len(each.lines) for each in found) == sum(len(epoch.receipts) for epoch in epochs)
    assert {each.account: each.earned for each in found} == dict(epochs[-1].accounts)
    assert statement(account(99), epochs).lines == ()


def test_lines_come_in_the_order_of_epochs_however_they_are_given() -> None:
    found = statement(account(1), history()[::-1])
    assert [line.epoch for line in found.lines] == [0, 0, 1, 2]
    assert found.by_epoch == ((0, 13), (1, 20), (2, 20))


def test_a_reason_from_a_later_version_is_shown_as_such() -> None:
    epoch = build_epoch(0, Totals(), [Receipt(1, JOB_A, 0, unit(1), account(1), 9_999, 0)])
    assert "reason 9999, which this version does not know" in statement(account(1), [epoch]).lines[0].sentence


def test_rows_and_their_json_twin() -> None:
    epoch = build_epoch(7, Totals(), [Receipt(4, JOB_A, 2, bytes(32), account(1), 0, 3 * ATL // 2)])
    found = statement(account(1), [epoch])
    assert statement_rows(found) == [
        ("7", "0x0a0a0a0a…", "2", "-", "committee duty", "1.5", "Committee duty: accepted and paid.")
    ]
    assert len(STATEMENT_HEADER) == 7
    twin = json.loads(json.dumps(statement_json(found)))
    assert twin["earned"] == "1500000000000000000"
    assert twin["epochs"] == [{"epoch": 7, "earned": "1500000000000000000"}]
    assert twin["lines"][0]["job"] == "0x" + "0a" * 32
    assert twin["lines"][0]["amount"] == "1500000000000000000"


# Explain: what is right
def test_an_honest_history_matches() -> None:
    epochs = [decode_epoch(encode_epoch(epoch)) for epoch in history()]
    chain = chain_of(epochs, {account(1): 33, account(3): 4, account(2): 0})
    found = explain(epochs[::-1], chain, PRICES)
    assert found.first_difference is None
    assert found.match
    assert found.checked == {"epochs": 3, "receipts": 10, "accounts": 2 + 4 + 4, "jobs": 4, "claims": 3}
    assert explanation_text(found).startswith("matches the chain (3 epochs, 10 receipts, ")
    assert explanation_json(found)["explain"] == "match"


def test_nothing_at_all_matches() -> None:
    assert explain([], ChainView(SETTLEMENT, (), {})).match


# Explain: what is wrong, and where
def test_an_altered_amount_points_to_the_receipt_or_the_account() -> None:
    epochs = history()
    chain = chain_of(epochs)
    index = next(i for i, receipt in enumerate(epochs[1].receipts) if receipt.account == account(4))
    receipts = list(epochs[1].receipts)
    receipts[index] = replace(receipts[index], amount=11)
    forged = change(epochs, 1, receipts=tuple(receipts))
    assert difference(forged, chain) == (
        f"epoch 1, account 0x{account(4).hex()}: the receipts add up to 11, but the published cumulative amount is 10"
    )
    by_price = difference(forged, chain, PRICES)
    assert by_price.startswith(f"epoch 1: training unit 0x{unit(4).hex()} of 0x{account(4).hex()}")
    assert by_price.endswith("pays 11; expected 10 by the job's prices")


@pytest.mark.parametrize("amount", [9, 11, 0])
def test_a_price_other_than_the_jobs_is_found_although_everything_adds_up(amount: int) -> None:
    epochs = [build_epoch(0, Totals(), [Receipt(1, JOB_A, 0, unit(1), account(1), 0, amount)])]
    assert explain(epochs, chain_of(epochs)).match
    assert difference(epochs, chain_of(epochs), PRICES).endswith(f"pays {amount}; expected 10 by the job's prices")


def test_light_work_is_recomputed_from_the_roles_on_the_chain() -> None:
    """Account 1 is light in job A: its unit and the audit of it pay a quarter, its audit of another unit does not."""
    prices = {JOB_A: Prices(10, 6, 1, segments=4)}
    receipts = [
        Receipt(1, JOB_A, 0, unit(1), account(1), 0, 2),
        Receipt(2, JOB_A, 0, unit(1), account(2), 0, 1),
        Receipt(1, JOB_A, 0, unit(2), account(2), 0, 10),
        Receipt(2, JOB_A, 0, unit(2), account(1), 0, 6),
        Receipt(4, JOB_A, 0, bytes(32), account(1), 0, 1),
    ]
    epochs = [build_epoch(0, Totals(), receipts)]
    chain = chain_of(epochs)
    light = {JOB_A: frozenset({account(1)}), JOB_B: frozenset({account(2)})}
    assert explain(epochs, replace(chain, light=light), prices).match
    assert difference(epochs, chain, prices).endswith("pays 2; expected 10 by the job's prices")
    other = replace(chain, light={JOB_A: frozenset({account(1), account(2)})})
    assert difference(epochs, other, prices).endswith("pays 10; expected 2 by the job's prices")
    for index, amount in ((0, 10), (0, 3), (1, 6), (3, 1)):
        forged = [*receipts[:index], replace(receipts[index], amount=amount), *receipts[index + 1 :]]
        epochs = [build_epoch(0, Totals(), forged)]
        found = difference(epochs, replace(chain_of(epochs), light=light), prices)
        assert f"pays {amount}; expected {receipts[index].amount} by the job's prices" in found


@given(data=st.data())
def test_any_altered_receipt_is_found_in_its_epoch(data: st.DataObject) -> None:
    epochs = history()
    number = data.draw(st.integers(0, 2))
    index = data.draw(st.integers(0, len(epochs[number].receipts) - 1))
    before = epochs[number].receipts[index]
    changes: dict[str, st.SearchStrategy[object]] = {
        "job": st.just(b"\x0c" * 32),
        "round": st.integers(0, 9),
        "unit": st.integers(0, 9).map(unit),
        "account": st.integers(1, 9).map(account),
        "kind": st.integers(1, 4),
        "reason": st.sampled_from([31, 33, 37]) if before.amount == 0 else st.just(0),
        "amount": st.integers(0, 30) if before.reason == 0 else st.just(0),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    after = replace(before, **{name: data.draw(changes[name])})  # type: ignore[arg-type]
    if after == before:
        return
    receipts = list(epochs[number].receipts)
    receipts[index] = after
    forged = change(epochs, number, receipts=tuple(receipts))
    assert difference(forged, chain_of(epochs)).startswith(f"epoch {number}")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_left_out_and_added_receipts_are_found(number: int) -> None:
    epochs = history()
    for index in range(len(epochs[number].receipts)):
        fewer = list(epochs[number].receipts)
        fewer.pop(index)
        found = difference(change(epochs, number, receipts=tuple(fewer)), chain_of(epochs))
        assert found.startswith(f"epoch {number}")
    twice = (*epochs[number].receipts, epochs[number].receipts[-1])
    assert "appears twice" in difference(change(epochs, number, receipts=twice), chain_of(epochs))


def test_the_same_work_in_two_epochs_is_found_even_when_all_sums_agree() -> None:
    again = Receipt(1, JOB_A, 0, unit(1), account(1), 0, 10)
    first = build_epoch(0, Totals(), [again])
    second = build_epoch(1, Totals().after(first), [again])
    epochs = [first, second]
    chain = replace(chain_of(epochs), budgets={})
    assert difference(epochs, chain).startswith(f"epoch 1: training unit 0x{unit(1).hex()}")
    assert "already settled in an earlier epoch" in difference(epochs, chain)


@pytest.mark.parametrize("by", [1, -1])
def test_altered_account_totals_name_the_account(by: int) -> None:
    epochs = history()
    for index, (name, amount) in enumerate(epochs[1].accounts):
        accounts = list(epochs[1].accounts)
        accounts[index] = (name, amount + by)
        found = difference(change(epochs, 1, accounts=tuple(accounts)), chain_of(epochs))
        assert found == (
            f"epoch 1, account 0x{name.hex()}: the receipts add up to {amount}, "
            f"but the published cumulative amount is {amount + by}"
        )


def test_missing_foreign_and_disordered_accounts_are_found() -> None:
    epochs = history()
    rows = epochs[1].accounts
    cases = {
        rows[1:]: "but the published cumulative amount is missing",
        (*rows, (account(9), 5)): f"account 0x{account(9).hex()}: the receipts add up to 0",
        (*rows, (account(9), 0)): f"account 0x{account(9).hex()}: the receipts add up to 0",
        rows[::-1]: "not in rising order",
        (rows[0], *rows): "not in rising order",
    }
    for accounts, expected in cases.items():
        assert expected in difference(change(epochs, 1, accounts=accounts), chain_of(epochs))


def test_altered_job_totals_name_the_job() -> None:
    epochs = history()
    a, b = epochs[1].jobs
    name = f"epoch 1, job 0x{JOB_A.hex()}: "
    cases = {
        (replace(a, total=26), b): name + "the receipts add up to 27, but the published total is 26",
        (b,): name + "its receipts add up to 27, but no total is published for it",
        (b, a): "epoch 1: the published job totals are not in rising order without repetition",
        (
            replace(a, settled=False),
            b,
        ): f"epoch 1: expected job 0x{JOB_A.hex()} with a total of 27 by the receipts, but "
        f"the chain has job 0x{JOB_A.hex()} with a total of 27, settled",
    }
    for jobs, expected in cases.items():
        assert difference(change(epochs, 1, jobs=jobs), chain_of(epochs)) == expected


def test_a_job_is_listed_only_when_something_about_it_is_new() -> None:
    receipts = [Receipt(1, JOB_A, 0, unit(1), account(1), Reason.UPDATE_MISMATCH, 0)]
    epoch = build_epoch(0, Totals(), receipts)
    assert epoch.jobs == ()
    assert explain([epoch], chain_of([epoch])).match
    listed = replace(epoch, jobs=(JobTotal(JOB_A, 0, False),))
    assert difference([listed], chain_of([listed])) == (
        f"epoch 0, job 0x{JOB_A.hex()}: it is listed, but neither its total nor its end is new"
    )


def test_a_receipt_after_the_end_of_its_job_is_found_even_when_it_pays_nothing() -> None:
    epochs = history()
    late = Receipt(1, JOB_A, 9, unit(9), account(1), Reason.UPDATE_MISMATCH, 0)
    forged = change(epochs, 2, receipts=(late, *epochs[2].receipts))
    found = difference(forged, chain_of(forged))
    assert found.startswith(f"epoch 2: training unit 0x{unit(9).hex()}")
    assert found.endswith("belongs to a job that was settled in an earlier epoch")


def test_a_settled_job_cannot_come_back() -> None:
    epochs = history()
    back = change(epochs, 2, jobs=(JobTotal(JOB_A, 27, False), *epochs[2].jobs))
    assert difference(back, chain_of(back)) == (
        f"epoch 2, job 0x{JOB_A.hex()}: it was settled in an earlier epoch, yet it appears again"
    )


def test_a_total_above_the_escrow_is_found() -> None:
    epochs = history()
    chain = replace(chain_of(epochs), budgets={JOB_A: 26})
    assert difference(epochs, chain) == f"epoch 1, job 0x{JOB_A.hex()}: its total is 27, but its escrow was only 26"


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("root", b"\x01" * 32, "account root"),
        ("receipts_root", b"\x01" * 32, "receipts root"),
        ("accounts", 5, "number of accounts"),
        ("receipts", 4, "number of receipts"),
    ],
)
def test_an_altered_post_is_found(field: str, value: object, name: str) -> None:
    epochs = history()
    chain = chain_of(epochs)
    posted = [chain.epochs[0], replace(chain.epochs[1], **{field: value}), chain.epochs[2]]  # type: ignore[arg-type]
    found = explain(epochs, replace(chain, epochs=tuple(posted)))
    shown = value if isinstance(value, int) else "0x" + "01" * 32
    assert found.first_difference is not None
    assert found.first_difference.startswith(f"epoch 1: the {name} is ")
    assert found.first_difference.endswith(f"by the receipts, but the chain has {shown}")
    assert found.checked["epochs"] == 1
    assert explanation_text(found).startswith("does not match the chain. First difference: epoch 1: ")
    assert explanation_json(found)["explain"] == "differs"


def test_job_totals_on_the_chain_must_be_those_of_the_receipts() -> None:
    epochs = history()
    chain = chain_of(epochs)
    for jobs, expected in (
        ((JobTotal(JOB_B, 43, True),), f"the chain has job 0x{JOB_B.hex()} with a total of 43, settled"),
        ((), "the chain has no further job"),
        ((*epochs[2].jobs, JobTotal(b"\x0c" * 32, 1)), "expected no further job by the receipts"),
    ):
        posted = (*chain.epochs[:2], replace(chain.epochs[2], jobs=jobs))
        found = difference(epochs, replace(chain, epochs=posted))
        assert found.startswith("epoch 2: ")
        assert expected in found


def test_another_contract_has_other_receipt_digests() -> None:
    epochs = history()
    chain = replace(chain_of(epochs), verifier=Verifier(31338, SETTLEMENT.address))
    assert difference(epochs, chain).startswith("epoch 0: the receipts root is 0x")


def test_epochs_missing_on_either_side_are_found() -> None:
    epochs = history()
    chain = chain_of(epochs)
    assert difference([epochs[0], epochs[2]], chain) == (
        "epoch 1: the chain has a post, but no receipts were published for it"
    )
    assert difference(epochs, replace(chain, epochs=chain.epochs[:2])) == (
        "epoch 2: receipts were published, but the chain has no post for it"
    )
    assert "given twice" in difference([*epochs, epochs[0]], chain)


@pytest.mark.parametrize("claimed", [9, 11, 100])
def test_a_claim_that_no_root_granted_names_the_account(claimed: int) -> None:
    epochs = history()
    assert difference(epochs, chain_of(epochs, {account(4): claimed})) == (
        f"account 0x{account(4).hex()}: it has claimed {claimed} on the chain, which no epoch granted "
        "(the latest cumulative amount is 10)"
    )


def test_a_claim_of_an_earlier_epoch_is_fine() -> None:
    epochs = history()
    assert [dict(epoch.accounts)[account(1)] for epoch in epochs] == [13, 33, 53]
    for claimed in (0, 13, 33, 53):
        assert explain(epochs, chain_of(epochs, {account(1): claimed})).match
