"""Typed statements that contracts can check: a minimal EIP-712 encoder, and every type that Atoll signs.

Only flat structs of static values (`uint8`..`uint256`, `bytes32`, `address`, `bool`) are needed, and only they are
supported. The same 32-byte words serve `abi.encode`. Specification: https://eips.ethereum.org/EIPS/eip-712
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from atoll.errors import InternalError, Refused
from atoll.wire.hashing import keccak
from atoll.wire.reasons import Reason

ADDRESS_BYTES = 20
WORD_BYTES = 32
DOMAIN_NAME = "Atoll"
DOMAIN_VERSION = "1"

Value = int | bytes
"""What a field may hold: an int (also bool) or exactly as many bytes as the type names."""

_BYTES_OF = {"bytes32": WORD_BYTES, "address": ADDRESS_BYTES}
_UINT_BITS = {f"uint{bits}": bits for bits in range(8, 257, 8)}


def word(kind: str, value: Value) -> bytes:
    """One value as the 32-byte word that `abi.encode` and EIP-712 agree on.

    Raises Refused(MALFORMED) when the value does not fit its type, InternalError when the type is not supported.
    """
    if kind in _UINT_BITS:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << _UINT_BITS[kind]:
            raise Refused(Reason.MALFORMED, f"{kind} expected, found {value!r}")
        return value.to_bytes(WORD_BYTES, "big")
    if kind == "bool":
        if not isinstance(value, bool):
            raise Refused(Reason.MALFORMED, f"bool expected, found {value!r}")
        return int(value).to_bytes(WORD_BYTES, "big")
    if kind not in _BYTES_OF:
        raise InternalError(f"{kind} is not a type that Atoll signs")
    if not isinstance(value, bytes) or len(value) != _BYTES_OF[kind]:
        raise Refused(Reason.MALFORMED, f"{kind} ({_BYTES_OF[kind]} bytes) expected, found {value!r}")
    return value.rjust(WORD_BYTES, b"\x00")


def encode_values(kinds: Sequence[str], values: Sequence[Value]) -> bytes:
    """`abi.encode(...)` of static values: one word each, in order."""
    return b"".join(word(kind, value) for kind, value in zip(kinds, values, strict=True))


def encode_array(kinds: Sequence[str], rows: Iterable[Sequence[Value]]) -> bytes:
    """`abi.encode(T[])`, where T is a static struct with fields of these types (or a single static value)."""
    encoded = [encode_values(kinds, row) for row in rows]
    offset = WORD_BYTES.to_bytes(WORD_BYTES, "big")
    return offset + len(encoded).to_bytes(WORD_BYTES, "big") + b"".join(encoded)


def committee_hash(accounts: Sequence[bytes]) -> bytes:
    """keccak256(abi.encode(address[])): the committee as a certificate names it, in leader order."""
    return keccak(encode_array(("address",), ((account,) for account in accounts)))


@dataclass(frozen=True)
class Verifier:
    """The contract that checks a signature: nothing signed for one contract or chain counts at another.

    `address` has 20 bytes.
    """

    chain_id: int
    address: bytes

    @cached_property
    def separator(self) -> bytes:
        """The EIP-712 domain separator, 32 bytes."""
        return _separator(self.chain_id, self.address)


_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


@lru_cache(maxsize=64)
def _separator(chain_id: int, address: bytes) -> bytes:
    hashes = keccak(_DOMAIN_TYPE) + keccak(DOMAIN_NAME.encode()) + keccak(DOMAIN_VERSION.encode())
    return keccak(hashes + encode_values(("uint256", "address"), (chain_id, address)))


@dataclass(frozen=True)
class Struct:
    """A flat EIP-712 struct type: its name and its fields as (type, name), in order."""

    name: str
    fields: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for kind, name in self.fields:
            if kind not in _UINT_BITS and kind not in _BYTES_OF and kind != "bool":
                raise InternalError(f"{self.name}.{name}: {kind} is not a type that Atoll signs")

    @property
    def signature(self) -> str:
        """The type as EIP-712 writes it: `Name(type field,...)`."""
        return f"{self.name}({','.join(f'{kind} {name}' for kind, name in self.fields)})"

    @cached_property
    def type_hash(self) -> bytes:
        """keccak-256 of the signature."""
        return keccak(self.signature.encode())

    def hash(self, values: Mapping[str, Value]) -> bytes:
        """hashStruct: 32 bytes.

        `values` names every field and no other (InternalError). A value that does not fit is Refused(MALFORMED).
        """
        if len(values) != len(self.fields) or any(name not in values for _, name in self.fields):
            raise InternalError(f"{self.signature} does not have the fields {sorted(values)}")
        out = [self.type_hash]
        for kind, name in self.fields:
            try:
                out.append(word(kind, values[name]))
            except Refused as error:
                raise Refused(Reason.MALFORMED, f"{self.name}.{name}: {error.detail}") from None
        return keccak(b"".join(out))

    def digest(self, verifier: Verifier, values: Mapping[str, Value]) -> bytes:
        """What is signed: keccak256(0x19 0x01 || separator || hashStruct), 32 bytes."""
        return keccak(b"\x19\x01" + verifier.separator + self.hash(values))


# Every type that Atoll signs for a contract. A changed type needs a new domain version.
CERTIFICATE = Struct(  # checked by Jobs: the committee's word for the result of a round
    "Certificate",
    (
        ("bytes32", "job"),
        ("uint32", "round"),
        ("uint32", "attempt"),
        ("bytes32", "lockRoot"),
        ("bytes32", "verdictRoot"),
        ("bytes32", "modelRoot"),
        ("bytes32", "committee"),
        ("bytes32", "nextCommittee"),
        ("bool", "last"),
    ),
)
RECEIPT = Struct(  # checked by Settlement: one party owes another for one piece of work
    "Receipt",
    (
        ("uint8", "kind"),
        ("bytes32", "job"),
        ("uint32", "round"),
        ("bytes32", "unit"),
        ("address", "account"),
        ("uint16", "reason"),
        ("uint256", "amount"),
    ),
)
POST = Struct(  # checked by Settlement: what an epoch adds up to
    "Post",
    (
        ("uint64", "epoch"),
        ("bytes32", "root"),
        ("bytes32", "receiptsRoot"),
        ("uint64", "accounts"),
        ("uint64", "receipts"),
        ("bytes32", "totals"),
    ),
)
PERMIT = Struct(  # checked by Token, whose domain has the same name and version: an approval by signature (EIP-2612)
    "Permit",
    (
        ("address", "owner"),
        ("address", "spender"),
        ("uint256", "value"),
        ("uint256", "nonce"),
        ("uint256", "deadline"),
    ),
)
REGISTRATION = Struct(  # checked by Registry: an account's entry, brought by somebody else
    "Registration",
    (
        ("address", "account"),
        ("bytes32", "endpointId"),
        ("uint8", "roles"),
        ("bytes32", "hints"),  # keccak-256 of the text
        ("uint256", "nonce"),
    ),
)
ENLIST = Struct(  # checked by Jobs: an account offers itself to a job, brought by somebody else
    "Enlist", (("bytes32", "job"), ("address", "account"), ("bytes32", "tip"))
)
VOUCHER = Struct(  # checked by Deposits: what a payer has owed a payee in all
    "Voucher", (("address", "payer"), ("address", "payee"), ("uint256", "cumulative"))
)
