"""The EIP-712 and ABI encoders against eth_account and eth_abi, and against the golden vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak as oracle_keccak
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import InternalError, Refused
from atoll.wire.eip712 import (
    CERTIFICATE,
    POST,
    RECEIPT,
    Struct,
    Value,
    Verifier,
    committee_hash,
    encode_array,
    encode_values,
    word,
)
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text())
HASHES = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def values_of(kind: str) -> st.SearchStrategy[Value]:
    if kind.startswith("uint"):
        return st.integers(0, 2 ** int(kind[4:]) - 1)
    return {"bool": st.booleans(), "bytes32": HASHES, "address": ADDRESSES}[kind]


def oracle_digest(struct: Struct, verifier: Verifier, values: dict[str, Value]) -> bytes:
    domain = {
        "name": "Atoll",
        "version": "1",
        "chainId": verifier.chain_id,
        "verifyingContract": "0x" + verifier.address.hex(),
    }
    types = {struct.name: [{"type": kind, "name": name} for kind, name in struct.fields]}
    message = {
        name: "0x" + values[name].hex() if kind == "address" else values[name]  # type: ignore[union-attr]
        for kind, name in struct.fields
    }
    signable = encode_typed_data(domain, types, message)
    return oracle_keccak(b"\x19" + signable.version + signable.header + signable.body)


@pytest.mark.parametrize("struct", [CERTIFICATE, RECEIPT, POST], ids=lambda struct: struct.name)
@given(data=st.data(), chain_id=st.integers(1, 2**64), address=ADDRESSES)
def test_digest_equals_eth_account(struct: Struct, data: st.DataObject, chain_id: int, address: bytes) -> None:
    verifier = Verifier(chain_id, address)
    values = {name: data.draw(values_of(kind)) for kind, name in struct.fields}
    assert struct.digest(verifier, values) == oracle_digest(struct, verifier, values)


def test_a_signature_over_our_digest_recovers_in_eth_account() -> None:
    account = Account.from_key(b"\x07" * 32)
    verifier = Verifier(1, b"\x01" * 20)
    values: dict[str, Value] = {"epoch": 3, "root": b"\x02" * 32, "receiptsRoot": b"\x03" * 32}
    values |= {"accounts": 5, "receipts": 8, "totals": b"\x04" * 32}
    signed = account.unsafe_sign_hash(POST.digest(verifier, values))
    types = {"Post": [{"type": kind, "name": name} for kind, name in POST.fields]}
    domain = {"name": "Atoll", "version": "1", "chainId": 1, "verifyingContract": "0x" + "01" * 20}
    assert (
        Account.recover_message(encode_typed_data(domain, types, values), signature=signed.signature) == account.address
    )


def test_golden_vectors() -> None:
    for name in ("settlement", "jobs"):
        verifier = Verifier(VECTORS["chain_id"], unhex(VECTORS[name]))
        assert verifier.separator == unhex(VECTORS["separator"][name])
    for struct in (CERTIFICATE, RECEIPT, POST):
        assert struct.type_hash == unhex(VECTORS["type_hash"][struct.name])
    found = VECTORS["certificate"]
    fields = {name: unhex(value) if isinstance(value, str) else value for name, value in found["fields"].items()}
    assert committee_hash([unhex(account) for account in found["committee"]]) == fields["committee"]
    jobs = Verifier(VECTORS["chain_id"], unhex(VECTORS["jobs"]))
    assert CERTIFICATE.digest(jobs, fields) == unhex(found["digest"])


@given(st.lists(st.tuples(HASHES, st.integers(0, 2**256 - 1), st.booleans()), max_size=6))
def test_array_of_structs_equals_eth_abi(rows: list[tuple[bytes, int, bool]]) -> None:
    assert encode_array(("bytes32", "uint256", "bool"), rows) == abi_encode(["(bytes32,uint256,bool)[]"], [rows])


@given(st.lists(ADDRESSES, max_size=6))
def test_committee_hash_is_that_of_an_address_array(accounts: list[bytes]) -> None:
    assert committee_hash(accounts) == oracle_keccak(abi_encode(["address[]"], [accounts]))


@given(ADDRESSES, st.integers(0, 2**256 - 1))
def test_encode_values_equals_eth_abi(account: bytes, amount: int) -> None:
    assert encode_values(("address", "uint256"), (account, amount)) == abi_encode(
        ["address", "uint256"], [account, amount]
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("uint256", 2**256),
        ("uint64", True),
        ("uint64", b"\x01"),
        ("uint64", 1.0),
        ("bool", 1),
        ("bytes32", b"\x00" * 31),
        ("bytes32", "00" * 32),
        ("address", b"\x00" * 32),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: str, value: Value) -> None:
    with pytest.raises(Refused) as caught:
        word(kind, value)
    assert caught.value.reason == Reason.MALFORMED
    assert kind in caught.value.detail


def test_the_refusal_names_the_field() -> None:
    values: dict[str, Value] = {"epoch": 1 << 64, "root": bytes(32), "receiptsRoot": bytes(32)}
    values |= {"accounts": 0, "receipts": 0, "totals": bytes(32)}
    with pytest.raises(Refused, match=r"Post\.epoch: uint64 expected"):
        POST.hash(values)


def test_missing_and_additional_fields_are_our_own_mistake() -> None:
    pair = Struct("Pair", (("uint8", "left"), ("bool", "right")))
    assert pair.signature == "Pair(uint8 left,bool right)"
    for values in ({"left": 1}, {"left": 1, "right": True, "up": 1}, {"left": 1, "up": True}):
        with pytest.raises(InternalError):
            pair.hash(values)


@pytest.mark.parametrize("kind", ["string", "uint7", "uint264", "uint", "bytes", "uint8[]", "int8"])
def test_types_that_we_do_not_sign_are_refused_at_definition(kind: str) -> None:
    with pytest.raises(InternalError):
        Struct("Odd", ((kind, "value"),))
    with pytest.raises(InternalError):
        word(kind, 1)


def test_a_digest_counts_for_one_chain_and_one_contract_only() -> None:
    values: dict[str, Value] = {"left": 1}
    single = Struct("Single", (("uint8", "left"),))
    verifiers = [Verifier(1, b"\x01" * 20), Verifier(2, b"\x01" * 20), Verifier(1, b"\x02" * 20)]
    assert len({single.digest(verifier, values) for verifier in verifiers}) == 3
