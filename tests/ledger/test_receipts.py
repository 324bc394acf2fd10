"""Receipts: form, canonical order, digests, tree and codecs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import BadInput, Refused
from atoll.ledger.receipts import (
    MAX_AMOUNT,
    PAID_KINDS,
    Kind,
    Receipt,
    amount_from_text,
    amount_text,
    decode_receipt,
    encode_receipt,
    in_order,
    receipt_from_json,
    receipt_json,
    receipts_tree,
)
from atoll.wire.eip712 import Verifier
from atoll.wire.merkle import verify
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text())
SETTLEMENT = Verifier(VECTORS["chain_id"], bytes.fromhex(VECTORS["settlement"][2:]))
GOOD = {
    "kind": Kind.TRAINING,
    "job": b"\x01" * 32,
    "round": 2,
    "unit": b"\x03" * 32,
    "account": b"\x04" * 20,
    "reason": Reason.OK,
    "amount": 5,
}


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    reason = draw(st.sampled_from([0, 0, 0, 33, 37, 65_535]))
    return Receipt(
        draw(st.sampled_from(sorted(PAID_KINDS))),
        draw(st.binary(min_size=32, max_size=32)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.binary(min_size=32, max_size=32)),
        draw(st.binary(min_size=20, max_size=20)),
        reason,
        draw(st.integers(0, MAX_AMOUNT)) if reason == 0 else 0,
    )


def test_golden_vectors() -> None:
    for epoch in VECTORS["epochs"]:
        given_order = [receipt_from_json(fields) for fields in epoch["receipts"]]
        ordered = in_order(given_order)
        assert [given_order.index(receipt) for receipt in ordered] == epoch["canonical_order"]
        assert ["0x" + receipt.digest(SETTLEMENT).hex() for receipt in ordered] == epoch["digests"]
        assert ["0x" + encode_receipt(receipt).hex() for receipt in ordered] == epoch["encoded"]
        assert [receipt_json(receipt) for receipt in given_order] == epoch["receipts"]
        assert "0x" + receipts_tree(ordered, SETTLEMENT).root.hex() == epoch["receipts_root"]


def test_kinds_keep_their_numbers() -> None:
    numbers = {"TRAINING": 1, "AUDIT": 2, "REPLICA": 3, "VALIDATION": 4, "STORAGE": 16, "TRANSFER": 17}
    numbers |= {"INFERENCE": 18, "RELAY": 19, "EXIT": 20, "DATA_SET": 21}
    assert {kind.name: int(kind) for kind in Kind} == numbers
    assert {int(kind) for kind in PAID_KINDS} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", 0),
        ("kind", Kind.STORAGE),
        ("kind", 5),
        ("job", b"\x01" * 31),
        ("job", "01" * 32),
        ("round", -1),
        ("round", 1 << 32),
        ("round", True),
        ("unit", b""),
        ("account", b"\x04" * 32),
        ("reason", 1 << 16),
        ("reason", Reason.NOT_REVEALED),  # the amount is 5: refused work cannot be paid
        ("amount", -1),
        ("amount", MAX_AMOUNT + 1),
        ("amount", 0.5),
    ],
)
def test_what_is_not_a_receipt_is_refused(field: str, value: object) -> None:
    with pytest.raises(Refused) as caught:
        Receipt(**{**GOOD, field: value})  # type: ignore[arg-type]
    assert caught.value.reason == Reason.MALFORMED


def test_the_digest_depends_on_every_field() -> None:
    other = {
        "kind": Kind.AUDIT,
        "job": b"\x02" * 32,
        "round": 3,
        "unit": b"\x04" * 32,
        "account": b"\x05" * 20,
        "amount": 6,
    }
    variants = [{**GOOD, field: value} for field, value in other.items()]
    variants += [GOOD, {**GOOD, "amount": 0}, {**GOOD, "amount": 0, "reason": 33}]
    digests = {Receipt(**fields).digest(SETTLEMENT) for fields in variants}  # type: ignore[arg-type]
    assert len(digests) == len(variants)


@given(st.lists(receipts(), max_size=8, unique_by=lambda receipt: receipt.key), st.randoms(use_true_random=False))
def test_order_does_not_depend_on_arrival(found: list[Receipt], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordered = in_order(shuffled)
    assert ordered == in_order(found)
    rows = [(r.job, r.round, r.unit, r.kind, r.account) for r in ordered]
    assert rows == sorted(rows)


def test_the_round_orders_as_a_number() -> None:
    late, early = Receipt(**{**GOOD, "round": 256}), Receipt(**{**GOOD, "round": 3})  # type: ignore[arg-type]
    assert in_order([late, early]) == (early, late)


def test_two_receipts_for_one_piece_of_work_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        in_order([Receipt(**GOOD), Receipt(**{**GOOD, "amount": 6})])  # type: ignore[arg-type]
    assert caught.value.reason == Reason.DUPLICATE


@given(st.lists(receipts(), min_size=1, max_size=9, unique_by=lambda receipt: receipt.key))
def test_every_receipt_can_be_proven_at_its_place(found: list[Receipt]) -> None:
    ordered = in_order(found)
    tree = receipts_tree(ordered, SETTLEMENT)
    for index, receipt in enumerate(ordered):
        digest = receipt.digest(SETTLEMENT)
        assert verify(tree.root, len(ordered), index, digest, tree.prove(index))
        assert not verify(tree.root, len(ordered), (index + 1) % 16, digest, tree.prove(index))


@given(receipts())
def test_codecs_return_the_receipt(receipt: Receipt) -> None:
    assert decode_receipt(encode_receipt(receipt)) == receipt
    text = json.dumps(receipt_json(receipt))
    assert receipt_from_json(json.loads(text)) == receipt


@given(receipts(), st.data())
def test_altered_bytes_are_refused_or_another_receipt(receipt: Receipt, data: st.DataObject) -> None:
    encoded = bytearray(encode_receipt(receipt))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_receipt(bytes(encoded))
    except Refused as error:
        assert error.reason == Reason.MALFORMED
    else:
        assert found != receipt
        assert encode_receipt(found) == bytes(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        decode_receipt(data)


def test_other_spellings_of_the_same_receipt_are_refused() -> None:
    receipt = Receipt(**GOOD)  # type: ignore[arg-type]
    row = [1, receipt.job, 2, receipt.unit, receipt.account, 0, b"\x05"]
    assert msgspec.msgpack.encode(row) == encode_receipt(receipt)
    for other in ([*row[:6], b"\x00\x05"], [*row, 0], row[:6], [*row[:6], 5]):
        with pytest.raises(Refused):
            decode_receipt(msgspec.msgpack.encode(other))
    with pytest.raises(Refused):
        decode_receipt(encode_receipt(receipt) + b"\x00")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 5),
        ("amount", "05"),
        ("amount", "+5"),
        ("amount", "٥"),
        ("amount", "1" * 40),
        ("job", "01" * 32),
        ("job", "0x" + "0G" * 32),
        ("account", "0x" + "AB" * 20),
        ("kind", "1"),
        ("round", True),
        ("extra", 1),
    ],
)
def test_json_of_another_form_is_refused(field: str, value: object) -> None:
    fields = receipt_json(Receipt(**GOOD))  # type: ignore[arg-type]
    with pytest.raises(Refused):
        receipt_from_json({**fields, field: value})


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1, "0.000000000000000001"), (15 * 10**17, "1.5"), (10**21, "1000"), (-(10**17), "-0.1")],
)
def test_amounts_as_text(amount: int, text: str) -> None:
    assert amount_text(amount) == text


@given(st.integers(0, MAX_AMOUNT))
def test_amounts_survive_text(amount: int) -> None:
    assert amount_from_text(amount_text(amount)) == amount


@pytest.mark.parametrize(
    "text", ["", "-1", "1.", ".5", "1e3", "1,5", "1_000", "0.0000000000000000001", "٣", " 1", "1\n"]
)
def test_amounts_that_nobody_should_have_to_guess(text: str) -> None:
    with pytest.raises(BadInput, match="is not an amount of ATL"):
        amount_from_text(text)
