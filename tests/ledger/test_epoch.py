"""Epochs: totals, trees, posts, claims and the blob."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from eth_abi import encode as abi_encode
from eth_utils import keccak as oracle_keccak
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import BadInput, Refused
from atoll.ledger.epoch import (
    MAX_EPOCH_BYTES,
    JobTotal,
    PublishedEpoch,
    Totals,
    account_tree,
    build_epoch,
    claims_of,
    decode_epoch,
    encode_epoch,
    post_of,
    totals_hash,
)
from atoll.ledger.receipts import Receipt, receipt_from_json
from atoll.wire.eip712 import Verifier
from atoll.wire.hashing import blob_id
from atoll.wire.merkle import verify
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text())
SETTLEMENT = Verifier(VECTORS["chain_id"], bytes.fromhex(VECTORS["settlement"][2:]))
JOB_A, JOB_B = b"\x0a" * 32, b"\x0b" * 32


def hex0x(data: bytes) -> str:
    return "0x" + data.hex()


def account(number: int) -> bytes:
    return number.to_bytes(20, "big")


def receipt(number: int, owner: int, amount: int, job: bytes = JOB_A) -> Receipt:
    return Receipt(1, job, number, bytes(32), account(owner), 0, amount)


rows = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 5), st.sampled_from([JOB_A, JOB_B]), st.integers(0, 10**24)),
    max_size=12,
    unique_by=lambda row: row[:3],
)
lists = rows.map(lambda found: [receipt(number, owner, amount, job) for number, owner, job, amount in found])


def test_golden_vectors() -> None:
    totals = Totals()
    for found in VECTORS["epochs"]:
        settled = {bytes.fromhex(job[2:]) for job in found["settled"]}
        receipts = [receipt_from_json(fields) for fields in found["receipts"]]
        epoch = build_epoch(found["number"], totals, receipts, settled)
        assert [[hex0x(name), str(amount)] for name, amount in epoch.accounts] == found["accounts"]
        assert [[hex0x(total.job), str(total.total), total.settled] for total in epoch.jobs] == found["jobs"]
        post = post_of(epoch, SETTLEMENT)
        assert hex0x(post.root) == found["root"]
        assert hex0x(post.receipts_root) == found["receipts_root"]
        assert hex0x(post.totals) == found["totals"]
        assert (post.epoch, post.accounts, post.receipts) == (found["number"], len(epoch.accounts), len(receipts))
        assert hex0x(post.digest(SETTLEMENT)) == found["post_digest"]
        claims = claims_of(epoch, [name for name, _ in epoch.accounts])
        assert [[hex0x(sibling) for sibling in claim.proof] for claim in claims] == found["proofs"]
        blob = encode_epoch(epoch)
        assert (hex0x(blob), blob_id(blob).hex()) == (found["blob"], found["blob_id"])
        assert decode_epoch(blob) == epoch
        totals = totals.after(epoch)


def test_two_epochs_by_hand() -> None:
    first = build_epoch(0, Totals(), [receipt(1, 7, 10), receipt(1, 3, 5), receipt(1, 5, 0)])
    assert first.accounts == ((account(3), 5), (account(7), 10))  # an account that is owed nothing is not listed
    assert first.jobs == (JobTotal(JOB_A, 15, False),)
    totals = Totals().after(first)
    second = build_epoch(1, totals, [receipt(2, 7, 4), receipt(2, 9, 1, JOB_B)], {JOB_B})
    assert second.accounts == ((account(3), 5), (account(7), 14), (account(9), 1))
    assert second.jobs == (JobTotal(JOB_A, 19, False), JobTotal(JOB_B, 1, True))
    third = build_epoch(2, totals.after(second), [receipt(3, 3, 1)])
    assert third.jobs == (JobTotal(JOB_A, 20, False),)  # only what the epoch touches
    assert totals.after(second).after(third).jobs == {
        JOB_A: JobTotal(JOB_A, 20, False),
        JOB_B: JobTotal(JOB_B, 1, True),
    }


def test_a_job_can_be_settled_without_receipts() -> None:
    assert build_epoch(0, Totals(), [], {JOB_B, JOB_A}).jobs == (JobTotal(JOB_A, 0, True), JobTotal(JOB_B, 0, True))


def test_a_settled_job_pays_no_more() -> None:
    totals = Totals(jobs={JOB_A: JobTotal(JOB_A, 5, True)})
    for receipts, settled in (([receipt(1, 1, 0)], frozenset()), ([], frozenset({JOB_A}))):
        with pytest.raises(Refused, match="settled in an earlier epoch") as caught:
            build_epoch(1, totals, receipts, settled)
        assert caught.value.reason == Reason.OVER_BUDGET


def test_no_job_owes_more_than_its_escrow() -> None:
    totals = Totals(jobs={JOB_A: JobTotal(JOB_A, 90)})
    assert build_epoch(1, totals, [receipt(1, 1, 10)], budgets={JOB_A: 100}).jobs[0].total == 100
    for budgets in ({JOB_A: 99}, {}):
        with pytest.raises(Refused) as caught:
            build_epoch(1, totals, [receipt(1, 1, 10)], budgets=budgets)
        assert caught.value.reason == Reason.OVER_BUDGET


@given(lists, lists)
def test_sums_are_conserved(before: list[Receipt], receipts: list[Receipt]) -> None:
    """What accounts gain is what jobs owe more, in every epoch."""
    previous = Totals().after(build_epoch(0, Totals(), before))
    after = previous.after(build_epoch(1, previous, receipts))
    gained = sum(after.accounts.values()) - sum(previous.accounts.values())
    owed = sum(job.total for job in after.jobs.values()) - sum(job.total for job in previous.jobs.values())
    assert gained == owed == sum(receipt.amount for receipt in receipts)
    assert all(after.accounts[name] >= amount for name, amount in previous.accounts.items())


@given(lists, st.randoms(use_true_random=False))
def test_arrival_order_does_not_matter(receipts: list[Receipt], random: object) -> None:
    shuffled = list(receipts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = build_epoch(0, Totals(), receipts), build_epoch(0, Totals(), shuffled)
    assert one == other
    assert encode_epoch(one) == encode_epoch(other)
    assert post_of(one, SETTLEMENT) == post_of(other, SETTLEMENT)


@given(lists, st.integers(0, 12))
def test_cutting_epochs_elsewhere_pays_the_same(receipts: list[Receipt], cut: int) -> None:
    whole = Totals().after(build_epoch(0, Totals(), receipts))
    half = Totals().after(build_epoch(0, Totals(), receipts[:cut]))
    both = half.after(build_epoch(1, half, receipts[cut:]))
    assert both == whole


@given(lists)
def test_every_listed_account_can_claim(receipts: list[Receipt]) -> None:
    epoch = build_epoch(4, Totals(), receipts)
    post = post_of(epoch, SETTLEMENT)
    for claim in claims_of(epoch, [name for name, _ in reversed(epoch.accounts)]):
        leaf = abi_encode(["address", "uint256"], [claim.account, claim.cumulative])
        assert claim.epoch == 4
        assert verify(post.root, post.accounts, claim.index, leaf, claim.proof)
        richer = abi_encode(["address", "uint256"], [claim.account, claim.cumulative + 1])
        assert not verify(post.root, post.accounts, claim.index, richer, claim.proof)


def test_an_account_without_earnings_cannot_claim() -> None:
    epoch = build_epoch(2, Totals(), [receipt(1, 1, 5), receipt(1, 2, 0)])
    with pytest.raises(BadInput, match=r"0x0{39}2 has earned nothing up to epoch 2"):
        claims_of(epoch, [account(2)])


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**256 - 1), st.booleans()), max_size=5))
def test_totals_hash_equals_eth_abi(jobs: list[tuple[bytes, int, bool]]) -> None:
    expected = oracle_keccak(abi_encode(["(bytes32,uint256,bool)[]"], [jobs]))
    assert totals_hash([JobTotal(*job) for job in jobs]) == expected


def test_an_empty_epoch_has_a_root_of_its_own() -> None:
    post = post_of(build_epoch(0, Totals(), []), SETTLEMENT)
    empty = oracle_keccak(b"\x02" + bytes(8) + bytes(32))
    assert (post.root, post.receipts_root, post.accounts, post.receipts) == (empty, empty, 0, 0)
    assert account_tree(()).root == empty


@given(lists, st.data())
def test_altered_blobs_are_refused_or_another_epoch(receipts: list[Receipt], data: st.DataObject) -> None:
    epoch = build_epoch(1, Totals(), receipts)
    blob = bytearray(encode_epoch(epoch))
    assert decode_epoch(bytes(blob)) == epoch
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_epoch(bytes(blob))
    except Refused:
        return
    assert found != epoch
    assert encode_epoch(found) == bytes(blob)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        decode_epoch(data)


def blob(*parts: object) -> bytes:
    return msgspec.msgpack.encode(["atoll/epoch/1", *parts])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (msgspec.msgpack.encode(["atoll/epoch/2", 0, [], [], []]), Reason.BAD_VERSION),
        (
            msgspec.msgpack.encode(["atoll/epoch/1\udcff".encode("utf-8", "surrogatepass"), 0, [], [], []]),
            Reason.MALFORMED,
        ),
        (blob(-1, [], [], []), Reason.MALFORMED),
        (blob(0, [], []), Reason.MALFORMED),
        (blob(0, [], [], [], []), Reason.MALFORMED),
        (blob(0, [], [[b"\x01" * 19, b"\x01"]], []), Reason.MALFORMED),
        (blob(0, [], [[b"\x01" * 20, b"\x00\x01"]], []), Reason.MALFORMED),
        (blob(0, [], [[b"\x01" * 20, b"\x01" * 33]], []), Reason.MALFORMED),
        (blob(0, [], [], [[b"\x01" * 32, b"\x01", 1]]), Reason.MALFORMED),
        (blob(0, [[16, b"\x01" * 32, 0, b"\x01" * 32, b"\x01" * 20, 0, b"\x01"]], [], []), Reason.MALFORMED),
        (blob(0, [], [], []) + b"\x00", Reason.MALFORMED),
        (b"\xa2\xff\xff", Reason.MALFORMED),
        (b"\x95" + b"\xa2\xff\xff" + b"\x00\x90\x90\x90", Reason.MALFORMED),
    ],
)
def test_blobs_of_another_form_are_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        decode_epoch(data)
    assert caught.value.reason == reason


def test_limits_hold_when_building_and_reading() -> None:
    epoch = build_epoch(0, Totals(), [receipt(1, 1, 5), receipt(1, 2, 5)])
    data = encode_epoch(epoch)
    too_many = PublishedEpoch(0, epoch.receipts * 100_001, epoch.accounts, epoch.jobs)
    with pytest.raises(Refused) as caught:
        encode_epoch(too_many)
    assert caught.value.reason == Reason.TOO_LARGE
    with pytest.raises(Refused):
        build_epoch(1 << 64, Totals(), [])
    big = data + bytes(MAX_EPOCH_BYTES)
    with pytest.raises(Refused) as caught:
        decode_epoch(big)
    assert caught.value.reason == Reason.TOO_LARGE
