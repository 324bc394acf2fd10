"""Receipts: one line per piece of work, saying who is owed how much for it, or why nothing.

A receipt is an EIP-712 struct, so that a contract can check it. Amounts are integers in base units (10^18 = 1 ATL).
Receipts have one canonical order, (job, round, unit, kind, account); their digests in that order are the leaves of an
epoch's receipts tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Annotated

import msgspec

from atoll.errors import BadInput, Refused
from atoll.wire.eip712 import ADDRESS_BYTES, RECEIPT, Value, Verifier
from atoll.wire.hashing import HASH_BYTES
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason

DECIMALS = 18
TOKEN = "ATL"  # noqa: S105 - the symbol of the token, not a secret
MAX_AMOUNT = (1 << 128) - 1
"""Largest amount of one receipt: 2^64 of them still add up within a uint256."""


class Kind(IntEnum):
    """What a receipt is for. Numbers are never reused; those from 16 on are reserved until their room pays."""

    label: str

    def __new__(cls, value: int, label: str = "") -> Kind:
        member = int.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member

    TRAINING = 1, "training unit"
    AUDIT = 2, "audit"
    REPLICA = 3, "replica of a disputed unit"
    VALIDATION = 4, "committee duty"
    STORAGE = 16, "storage"
    TRANSFER = 17, "transfer"
    INFERENCE = 18, "inference"
    RELAY = 19, "relay"
    EXIT = 20, "exit"
    DATA_SET = 21, "data set"


PAID_KINDS = frozenset({Kind.TRAINING, Kind.AUDIT, Kind.REPLICA, Kind.VALIDATION})
"""Kinds that this version pays; a receipt of a reserved kind is refused."""

Key = tuple[bytes, int, bytes, int, bytes]
"""What makes a receipt unique, in its canonical order: (job, round, unit, kind, account)."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One piece of work. Well-formed by construction: anything else is Refused(MALFORMED).

    `job` and `unit` have 32 bytes, `account` 20; `round` is a uint32, `reason` a uint16, `amount` at most MAX_AMOUNT
    base units. A reason other than OK (0) means refused, and then the amount is 0.
    """

    kind: int
    job: bytes
    round: int
    unit: bytes
    account: bytes
    reason: int
    amount: int

    def __post_init__(self) -> None:
        for name, size in (("job", HASH_BYTES), ("unit", HASH_BYTES), ("account", ADDRESS_BYTES)):
            value = getattr(self, name)
            if not isinstance(value, bytes) or len(value) != size:
                raise _malformed(f"{name} must have {size} bytes, found {value!r}")
        for name, limit in (("round", 1 << 32), ("reason", 1 << 16), ("amount", MAX_AMOUNT + 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
                raise _malformed(f"{name} must be an integer from 0 to {limit - 1}, found {value!r}")
        if self.kind not in PAID_KINDS:
            raise _malformed(f"kind {self.kind!r} is reserved or unknown; this version pays kinds 1 to 4")
        if self.reason != Reason.OK and self.amount != 0:
            raise _malformed(f"refused with reason {self.reason}, yet it pays {self.amount}")

    @property
    def key(self) -> Key:
        """Canonical order and identity: (job, round, unit, kind, account)."""
        return (self.job, self.round, self.unit, int(self.kind), self.account)

    def digest(self, verifier: Verifier) -> bytes:
        """EIP-712 digest (32 bytes) for the Settlement contract at `verifier`."""
        values: dict[str, Value] = {
            "kind": self.kind,
            "job": self.job,
            "round": self.round,
            "unit": self.unit,
            "account": self.account,
            "reason": self.reason,
            "amount": self.amount,
        }
        return RECEIPT.digest(verifier, values)

    def __str__(self) -> str:
        name = f"{Kind(self.kind).label} 0x{self.unit.hex()} of 0x{self.account.hex()}"
        return f"{name} (job 0x{self.job.hex()}, round {self.round})"


def _malformed(detail: str) -> Refused:
    return Refused(Reason.MALFORMED, f"receipt: {detail}")


def in_order(receipts: Iterable[Receipt]) -> tuple[Receipt, ...]:
    """The receipts in canonical order. Two for the same piece of work are Refused(DUPLICATE)."""
    ordered = tuple(sorted(receipts, key=lambda receipt: receipt.key))
    for before, after in pairwise(ordered):
        if before.key == after.key:
            raise Refused(Reason.DUPLICATE, f"two receipts for {after}")
    return ordered


def receipts_tree(receipts: Sequence[Receipt], verifier: Verifier) -> MerkleTree:
    """Tree over the digests of receipts that are in canonical order; leaf i is receipt i."""
    return MerkleTree([receipt.digest(verifier) for receipt in receipts])


# On the wire a receipt is an array of seven; amounts are big-endian bytes without leading zeros, since msgpack's
# integers end at 64 bits.
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Account = Annotated[bytes, msgspec.Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]


class WireReceipt(msgspec.Struct, array_like=True, frozen=True):
    """A receipt's form inside msgpack."""

    kind: int
    job: _Hash
    round: int
    unit: _Hash
    account: _Account
    reason: int
    amount: Annotated[bytes, msgspec.Meta(max_length=16)]


def amount_bytes(amount: int) -> bytes:
    """An amount as it travels in msgpack: big-endian, no leading zeros, b"" for zero."""
    return amount.to_bytes((amount.bit_length() + 7) // 8, "big")


def to_wire(receipt: Receipt) -> WireReceipt:
    """The msgpack form of a receipt."""
    work = (int(receipt.kind), receipt.job, receipt.round, receipt.unit, receipt.account)
    return WireReceipt(*work, int(receipt.reason), amount_bytes(receipt.amount))


def from_wire(form: WireReceipt) -> Receipt:
    """The receipt in a msgpack form; Refused(MALFORMED) when it breaks a rule of `Receipt`."""
    work = (form.kind, form.job, form.round, form.unit, form.account)
    return Receipt(*work, form.reason, int.from_bytes(form.amount, "big"))


def encode_receipt(receipt: Receipt) -> bytes:
    """Canonical msgpack bytes."""
    return msgspec.msgpack.encode(to_wire(receipt))


def decode_receipt(data: bytes) -> Receipt:
    """Inverse of `encode_receipt`; bytes that are not exactly what it yields are Refused(MALFORMED)."""
    try:
        form = msgspec.msgpack.decode(data, type=WireReceipt)
    except msgspec.DecodeError as error:  # ValidationError is one, too
        raise _malformed(str(error)) from None
    if msgspec.msgpack.encode(form) != data:
        raise _malformed("the bytes are not in canonical form")
    receipt = from_wire(form)
    if amount_bytes(receipt.amount) != form.amount:
        raise _malformed("the amount has leading zeros")
    return receipt


def receipt_json(receipt: Receipt) -> dict[str, int | str]:
    """JSON form: numbers for kind, round and reason, 0x-hex for bytes, the amount as a string of base units."""
    return {
        "kind": int(receipt.kind),
        "job": "0x" + receipt.job.hex(),
        "round": receipt.round,
        "unit": "0x" + receipt.unit.hex(),
        "account": "0x" + receipt.account.hex(),
        "reason": int(receipt.reason),
        "amount": str(receipt.amount),
    }


_JSON_FIELDS = frozenset({"kind", "job", "round", "unit", "account", "reason", "amount"})
_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")
_DIGITS = re.compile(r"0|[1-9][0-9]{0,38}")


def receipt_from_json(fields: Mapping[str, object]) -> Receipt:
    """Inverse of `receipt_json`; Refused(MALFORMED) otherwise."""
    if fields.keys() != _JSON_FIELDS:
        raise _malformed(f"the fields must be {sorted(_JSON_FIELDS)}, found {sorted(fields)}")
    amount = fields["amount"]
    if not isinstance(amount, str) or not _DIGITS.fullmatch(amount):
        raise _malformed(f"amount must be a string of decimal digits, found {amount!r}")
    job, unit, account = (_unhex(name, fields[name]) for name in ("job", "unit", "account"))
    kind, number, reason = (_number(name, fields[name]) for name in ("kind", "round", "reason"))
    return Receipt(kind, job, number, unit, account, reason, int(amount))


def _unhex(name: str, value: object) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _malformed(f"{name} must be lowercase hex with 0x, found {value!r}")
    return bytes.fromhex(value[2:])


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed(f"{name} must be an integer, found {value!r}")
    return value


def amount_text(amount: int) -> str:
    """Base units as exact decimal tokens without trailing zeros: 1500000000000000000 -> "1.5"."""
    whole, rest = divmod(abs(amount), 10**DECIMALS)
    digits = f"{whole}.{rest:0{DECIMALS}d}".rstrip("0").rstrip(".")
    return f"-{digits}" if amount < 0 else digits


def amount_from_text(text: str) -> int:
    """Tokens, as a person types them ("1.5", "1000"), in base units; raises BadInput with what was expected."""
    match = re.fullmatch(rf"([0-9]{{1,21}})(?:\.([0-9]{{1,{DECIMALS}}}))?", text, re.ASCII)
    if match is None:
        expected = f"write digits with at most {DECIMALS} decimals, like 12.5"
        raise BadInput(f"{text!r} is not an amount of {TOKEN}: {expected}.")
    whole, rest = match.group(1), match.group(2) or ""
    return int(whole + rest.ljust(DECIMALS, "0"))
