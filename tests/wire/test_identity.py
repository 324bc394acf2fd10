"""Keys, signatures, bindings and peer records against independent implementations (tests/vectors/make_wire.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from eth_account import Account
from eth_keys.datatypes import Signature
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadInput, Refused
from atoll.wire import identity
from atoll.wire.hashing import Domain, keccak
from atoll.wire.identity import AccountKey, Binding, EndpointKey, PeerRecord
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire.json").read_text())["identity"]
DOMAIN = Domain(31337, b"\x11" * 20)
KEY = AccountKey(b"\x01" * 32)
ENDPOINT = EndpointKey(b"\x02" * 32)
DIGEST = keccak(b"a message")


def record(**changes: object) -> PeerRecord:
    plain = PeerRecord(KEY.address, ENDPOINT.public, ("10.0.0.7:4711", "[fd00::1]:80"), 15, "0.1.0", 7)
    return msgspec.structs.replace(plain, **changes)


def domain_of(case: dict[str, str]) -> Domain:
    return Domain(int(case["chain_id"]), bytes.fromhex(case["registry"]))


@pytest.mark.parametrize("case", VECTORS, ids=["first", "second"])
def test_golden_vectors(case: dict[str, str]) -> None:
    key, endpoint = (
        AccountKey(bytes.fromhex(case["account_private"])),
        EndpointKey(bytes.fromhex(case["endpoint_private"])),
    )
    assert identity.format_account(key.address) == case["account"]
    assert endpoint.public.hex() == case["endpoint_id"]
    domain = domain_of(case)
    assert identity.binding_digest(domain, key.address, endpoint.public).hex() == case["binding_digest"]
    binding = identity.make_binding(domain, key, endpoint)
    assert binding.account_signature.hex() == case["account_signature"]
    assert binding.endpoint_signature.hex() == case["endpoint_signature"]
    identity.verify_binding(domain, binding)
    known = identity.decode_record(domain, bytes.fromhex(case["peer_record"]))
    assert known.addresses == ("192.0.2.7:4711", "[2001:db8::1]:1")
    assert (known.account, known.roles, known.version, known.sequence) == (key.address, 15, "0.1.0", 300)
    unsigned = msgspec.structs.replace(known, signature=b"")
    assert identity.sign_record(domain, key, unsigned).encode().hex() == case["peer_record"]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, identity.CURVE_ORDER - 1), st.binary(min_size=32, max_size=32))
def test_signatures_agree_with_eth_account(secret: int, digest: bytes) -> None:
    private = secret.to_bytes(32, "big")
    key, theirs = AccountKey(private), Account.from_key(private)
    signature = key.sign_digest(digest)
    assert identity.format_account(key.address) == theirs.address
    assert signature == theirs.unsafe_sign_hash(digest).signature
    assert identity.recover(digest, signature) == key.address
    vrs = (signature[64] - 27, int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"))
    assert Signature(vrs=vrs).recover_public_key_from_msg_hash(digest).to_canonical_address() == key.address


def test_signatures_are_refused_if_malleable_or_malformed() -> None:
    good = KEY.sign_digest(DIGEST)
    high = identity.CURVE_ORDER - int.from_bytes(good[32:64], "big")
    bad = {
        "high s": good[:32] + high.to_bytes(32, "big") + bytes([55 - good[64]]),
        "short": good[:64],
        "long": good + b"\0",
        "v 0": good[:64] + b"\0",
        "v 29": good[:64] + bytes([29]),
        "r 0": bytes(32) + good[32:],
        "s 0": good[:32] + bytes(32) + good[64:],
        "r beyond the order": b"\xff" * 32 + good[32:],
        "no point has this r": (5).to_bytes(32, "big") + good[32:],
    }
    for name, signature in bad.items():
        with pytest.raises(Refused) as refused:
            identity.recover(DIGEST, signature)
        assert refused.value.reason == Reason.BAD_SIGNATURE, name
    with pytest.raises(Refused):
        identity.recover(DIGEST[:31], good)
    with pytest.raises(ValueError):
        KEY.sign_digest(b"not a digest")
    assert identity.recover(keccak(b"another message"), good) != KEY.address


def test_private_keys_outside_the_range() -> None:
    for wrong in (bytes(32), b"\xff" * 32, identity.CURVE_ORDER.to_bytes(32, "big"), b"\1" * 31, b""):
        with pytest.raises(BadInput):
            AccountKey(wrong)
    with pytest.raises(BadInput):
        EndpointKey(b"\1" * 33)


def test_secrets_stay_out_of_representations() -> None:
    assert (b"\x01" * 32).hex() not in repr(KEY)
    assert (b"\x02" * 32).hex() not in repr(ENDPOINT)
    assert KEY.private == b"\x01" * 32
    assert ENDPOINT.private == b"\x02" * 32


def test_endpoint_signatures() -> None:
    signature = ENDPOINT.sign(b"hello")
    assert identity.verify_endpoint(ENDPOINT.public, b"hello", signature)
    assert not identity.verify_endpoint(ENDPOINT.public, b"hallo", signature)
    assert not identity.verify_endpoint(EndpointKey(b"\x03" * 32).public, b"hello", signature)
    assert not identity.verify_endpoint(ENDPOINT.public[:31], b"hello", signature)
    assert not identity.verify_endpoint(ENDPOINT.public, b"hello", signature[:63])
    assert not identity.verify_endpoint(b"\xff" * 32, b"hello", signature)


def test_bindings_hold_for_one_pair_on_one_network() -> None:
    good = identity.make_binding(DOMAIN, KEY, ENDPOINT)
    other_account, other_endpoint = AccountKey(b"\x03" * 32), EndpointKey(b"\x04" * 32)
    stolen = identity.binding_digest(DOMAIN, other_account.address, ENDPOINT.public)
    bad = [
        replace(good, account=other_account.address),
        replace(good, endpoint_id=other_endpoint.public),
        replace(good, account_signature=good.account_signature[:64]),
        replace(good, account_signature=other_account.sign_digest(stolen)),
        replace(good, endpoint_signature=bytes(64)),
        # An account that claims somebody else's endpoint has no signature of that endpoint:
        Binding(other_account.address, ENDPOINT.public, other_account.sign_digest(stolen), other_endpoint.sign(stolen)),
        replace(good, account=b"", endpoint_id=b""),
    ]
    for binding in bad:
        with pytest.raises(Refused) as refused:
            identity.verify_binding(DOMAIN, binding)
        assert refused.value.reason == Reason.BAD_BINDING
    for domain in (Domain(1, DOMAIN.registry), Domain(DOMAIN.chain_id, b"\x12" * 20)):
        with pytest.raises(Refused):
            identity.verify_binding(domain, good)


def test_peer_records_round_trip_and_bind_every_field() -> None:
    signed = identity.sign_record(DOMAIN, KEY, record())
    assert identity.decode_record(DOMAIN, signed.encode()) == signed
    changes: list[dict[str, object]] = [
        {"account": b"\x05" * 20},
        {"endpoint_id": bytes(32)},
        {"addresses": ("10.0.0.7:4712", "[fd00::1]:80")},
        {"roles": 14},
        {"version": "0.1.1"},
        {"sequence": 8},
    ]
    for change in changes:
        with pytest.raises(Refused) as refused:
            identity.decode_record(DOMAIN, msgspec.structs.replace(signed, **change).encode())
        assert refused.value.reason == Reason.BAD_SIGNATURE, change
    with pytest.raises(Refused):
        identity.decode_record(Domain(2, DOMAIN.registry), signed.encode())
    with pytest.raises(ValueError):
        identity.sign_record(DOMAIN, AccountKey(b"\x09" * 32), record())


@pytest.mark.parametrize(
    "change",
    [
        {"account": b"\x05" * 19},
        {"endpoint_id": b""},
        {"roles": 256},
        {"roles": -1},
        {"sequence": -1},
        {"sequence": 2**63},
        {"version": "v" * 33},
        {"version": "1\n"},
        {"addresses": tuple(f"10.0.0.{i}:1" for i in range(9))},
        {"addresses": ("10.0.0.1:1", "10.0.0.1:1")},
        {"addresses": ("example.org:80",)},
    ],
    ids=str,
)
def test_peer_records_beyond_their_limits(change: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        identity.sign_record(DOMAIN, KEY, record(**change))
    assert refused.value.reason == Reason.MALFORMED
    with pytest.raises(Refused):  # unsigned on purpose: the limits are checked before the signature
        identity.decode_record(DOMAIN, record(**change).encode())


def test_peer_records_that_are_not_canonical_or_no_records() -> None:
    good = identity.sign_record(DOMAIN, KEY, record()).encode()
    longer = good.replace(b"\xc4\x14" + KEY.address, b"\xc5\x00\x14" + KEY.address)  # the same value, encoded otherwise
    for wrong, reason in [
        (longer, Reason.MALFORMED),
        (good + b"\0", Reason.MALFORMED),
        (good[:-1], Reason.MALFORMED),
        (b"", Reason.MALFORMED),
        (msgspec.msgpack.encode({"account": 1}), Reason.MALFORMED),
        (b"\x00" * 1025, Reason.TOO_LARGE),
        (record().encode(), Reason.BAD_SIGNATURE),
    ]:
        with pytest.raises(Refused) as refused:
            identity.decode_record(DOMAIN, wrong)
        assert refused.value.reason == reason


def test_the_largest_record_fits() -> None:
    longest = "[2001:db80:1234:5678:9abc:def0:1234:5678]:65535"
    addresses = tuple(longest.replace("5678]", f"567{i}]") for i in range(8))
    largest = record(addresses=addresses, version="é" * 32, sequence=2**63 - 1, roles=255)
    encoded = identity.sign_record(DOMAIN, KEY, largest).encode()
    assert len(encoded) <= identity.MAX_RECORD_BYTES
    identity.decode_record(DOMAIN, encoded)


def test_addresses_of_one_device() -> None:
    good = ["127.0.0.1:1", "192.168.1.2:65535", "8.8.8.8:443", "[::1]:80", "[fe80::1]:80"]
    bad = ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:01", "1.2.3.4:+1", "01.2.3.4:1"]
    bad += ["0.0.0.0:80", "[::]:80", "::1:80", "[::0:1]:80", "224.0.0.1:1", "localhost:1", "1.2.3.4:١", "[1.2.3.4]:1"]
    bad += ["[fe80::1%" + "x" * 60 + "]:80"]
    assert identity.unusable_addresses(good + bad) == bad


# The test cases of EIP-55 itself.
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("text", EIP_55)
def test_checksummed_accounts(text: str) -> None:
    account = identity.parse_account(text)
    assert account == bytes.fromhex(text[2:])
    assert identity.format_account(account) == text
    assert identity.parse_account(text.lower()) == account
    swapped = text[:2] + text[2:].swapcase()
    if text[2:] not in (text[2:].upper(), text[2:].lower()):
        with pytest.raises(BadInput, match="checksum"):
            identity.parse_account(swapped)


def test_texts_that_are_no_accounts() -> None:
    for text in (
        "",
        "0x",
        "52908400098527886E0F7030069857D2E4169EE7",
        "0x" + "0" * 39,
        "0x" + "0" * 41,
        "0x" + "g" * 40,
    ):
        with pytest.raises(BadInput, match="40 hexadecimal"):
            identity.parse_account(text)
    with pytest.raises(ValueError):
        identity.format_account(b"short")
