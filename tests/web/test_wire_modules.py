"""Hashes, draws, signatures, messages in the browser: golden vectors, and Python's own answers to random input."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.errors import Refused
from atoll.training.beacon import Draw, belongs, combine, first_beacon, link, tip
from atoll.training.committee import decode as decode_payload
from atoll.training.committee import encode as encode_payload
from atoll.training.committee import next_beacon, verify_quorum
from atoll.wire import eip712
from atoll.wire.generator import Generator
from atoll.wire.hashing import Domain, blob_id, tagged
from atoll.wire.identity import CURVE_ORDER, AccountKey, format_account, recover
from atoll.wire.merkle import MerkleTree, verify
from atoll.wire.messages import MESSAGES, Phase, Quorum, unseal
from atoll.wire.reasons import Reason
from tests.training.test_committee import PLACE, certificate, signed_quorum

from .modules import Big, Modules, NotTaken

VECTORS = Path(__file__).parents[1] / "vectors"
WIRE, TRAINING, MESSAGE_VECTORS, LEDGER = (
    json.loads((VECTORS / f"{name}.json").read_text("utf-8")) for name in ("wire", "training", "messages", "ledger")
)
DOMAIN = Domain(MESSAGE_VECTORS["chain_id"], bytes.fromhex(MESSAGE_VECTORS["registry"]))
JS_DOMAIN = {"chainId": DOMAIN.chain_id, "registry": DOMAIN.registry}
DICE = random.Random(4)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def reason_here(call: Callable[..., Any], *arguments: Any) -> str:
    """The reason with which Python refuses, "OK" if it does not."""
    try:
        call(*arguments)
    except Refused as error:
        return error.reason.name
    return "OK"


def reason_there(modules: Modules, name: str, *arguments: Any) -> str:
    """The reason with which the browser's module refuses, "OK" if it does not."""
    try:
        modules.call(name, *arguments)
    except NotTaken as error:
        return error.reason
    return "OK"


def test_reasons_are_those_of_the_nodes(modules: Modules) -> None:
    assert modules.call("refused.reasons") == {reason.name: int(reason) for reason in Reason}
    assert all(modules.call("hashing.hex", bytes([n])) == f"{n:02x}" for n in (0, 15, 16, 255))


def test_sentences_are_those_of_the_nodes() -> None:
    source = (Path(__file__).parents[2] / "src/atoll/gateway/static/atoll/refused.js").read_text("utf-8")
    for reason in Reason:
        assert f"  {reason.name}: [{int(reason)}, {json.dumps(reason.sentence)}]," in source


def test_hashes(modules: Modules) -> None:
    for case in WIRE["keccak"]:
        assert modules.call("hashing.keccak", unhex(case["data"])).hex() == case["hash"]
    for case in WIRE["blake3"]:
        assert modules.call("hashing.blobId", unhex(case["data"])).hex() == case["hash"]
    for chunks in (0, 1, 2, 3, 4, 5, 7, 8, 31, 100):  # around the borders of blocks and chunks
        for more in (-65, -1, 0, 1, 63, 64, 65):
            data = DICE.randbytes(max(0, 1024 * chunks + more))
            assert modules.call("hashing.blobId", data) == blob_id(data)
    domain = DOMAIN.encode()
    for tag in ("atoll/unit/1", ""):
        parts = [DICE.randbytes(n) for n in (0, 1, 300)]
        expected = tagged(_Tag(tag), *parts)  # type: ignore[arg-type]
        assert modules.call("hashing.tagged", tag, *parts) == expected
    assert modules.call("hashing.encodeDomain", JS_DOMAIN) == domain


class _Tag(str):
    @property
    def value(self) -> str:
        return str(self)


def test_merkle_trees(modules: Modules) -> None:
    for case in WIRE["merkle"]:
        assert modules.call("merkle.root", [unhex(leaf) for leaf in case["leaves"]]).hex() == case["root"]
    for count in (1, 2, 3, 8, 11):
        leaves = [DICE.randbytes(DICE.randrange(50)) for _ in range(count)]
        tree = MerkleTree(leaves)
        for index in range(count):
            proof = tree.prove(index)
            assert modules.call("merkle.prove", leaves, index) == proof
            for other in range(count):
                for length in (count, count + 1):
                    expected = verify(tree.root, length, other, leaves[index], proof)
                    assert modules.call("merkle.verify", tree.root, length, other, leaves[index], proof) == expected
        assert not modules.call("merkle.verify", tree.root, count, 0, leaves[0] + b"x", tree.prove(0))
        assert not modules.call("merkle.verify", tree.root, count, -1, leaves[0], tree.prove(0))


def test_drawn_numbers(modules: Modules) -> None:
    for case in TRAINING["generator"]:
        beacon, context = unhex(case["beacon"]), unhex(case["context"])
        assert modules.call("generator.take", beacon, context, len(case["bytes"]) // 2).hex() == case["bytes"]
        bounds = [Big(int(bound)) for bound, _ in case["uniform"]]
        generator = Generator(beacon, context)
        expected = [generator.uniform(bound.value) for bound in bounds]
        assert modules.call("generator.uniforms", beacon, context, 0, bounds) == expected
    for count in (0, 1, 2, 1_000, 70_000):
        beacon, context = DICE.randbytes(32), DICE.randbytes(5)
        found = modules.call("generator.permutation", beacon, context, count)
        assert found.tolist() == Generator(beacon, context).permutation(count).tolist()
    items = list(range(100))
    assert modules.call("generator.draw", b"b", b"c", items, 30) == Generator(b"b", b"c").draw(items, 30)


# Keys and signatures
def test_signatures_are_those_of_libsecp256k1(modules: Modules) -> None:
    for secret in (
        bytes(31) + b"\x01",
        (CURVE_ORDER - 1).to_bytes(32, "big"),
        *(DICE.randbytes(32) for _ in range(20)),
    ):
        key, digest = AccountKey(secret), DICE.randbytes(32)
        assert modules.call("identity.account", secret) == key.address
        signature = modules.call("identity.signDigest", secret, digest)
        assert signature == key.sign_digest(digest)
        assert modules.call("identity.recover", digest, signature) == key.address
        assert modules.call("identity.formatAccount", key.address) == format_account(key.address)
        assert modules.call("identity.parseAccount", format_account(key.address)) == key.address
    for secret in (bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01" * 31):
        assert reason_there(modules, "identity.account", secret) == "RangeError"


def test_bad_signatures_are_refused_alike(modules: Modules) -> None:
    digest = DICE.randbytes(32)
    good = AccountKey(DICE.randbytes(32)).sign_digest(digest)
    high = (CURVE_ORDER - int.from_bytes(good[32:64], "big")).to_bytes(32, "big")
    cases = [
        good[:64] + bytes([55 - good[64]]),
        good[:32] + high + good[64:],
        bytes(32) + good[32:],
        good[:32] + bytes(32) + good[64:],
        good[:64] + b"\x00",
        good[:64],
        good + b"\x00",
        CURVE_ORDER.to_bytes(32, "big") + good[32:],
    ]
    cases += [DICE.randbytes(64) + bytes([27 + DICE.randrange(2)]) for _ in range(20)]
    for case in cases:
        try:
            expected: object = recover(digest, case)
        except Refused as error:
            expected = error.reason.name
        try:
            found = modules.call("identity.recover", digest, case)
        except NotTaken as error:
            found = error.reason
        assert found == expected


@pytest.mark.parametrize("name", ["CERTIFICATE", "RECEIPT", "POST", "REGISTRATION", "ENLIST", "VOUCHER"])
def test_typed_statements(name: str, modules: Modules) -> None:
    struct = getattr(eip712, name)
    verifier = eip712.Verifier(31337, DICE.randbytes(20))
    assert modules.call("eip712.signature", name) == struct.signature
    for _ in range(5):
        values: dict[str, Any] = {}
        for kind, field in struct.fields:
            bits = int(kind[4:]) if kind.startswith("uint") else 0
            values[field] = (
                DICE.getrandbits(bits)
                if bits
                else DICE.randrange(2) == 1
                if kind == "bool"
                else DICE.randbytes(20 if kind == "address" else 32)
            )
        there = {"chainId": verifier.chain_id, "address": verifier.address}
        assert modules.call("eip712.digest", name, there, values) == struct.digest(verifier, values)
        kind, field = struct.fields[0]
        wrong = {**values, field: -1 if kind.startswith("uint") else b"x"}
        assert reason_there(modules, "eip712.digest", name, there, wrong) == "MALFORMED"


def test_golden_certificate(modules: Modules) -> None:
    case = LEDGER["certificate"]
    fields = {key: unhex(v) if isinstance(v, str) else v for key, v in case["fields"].items()}
    verifier = {"chainId": LEDGER["chain_id"], "address": unhex(LEDGER["jobs"])}
    assert modules.call("eip712.digest", "CERTIFICATE", verifier, fields) == unhex(case["digest"])
    committee = [unhex(each) for each in case["committee"]]
    assert modules.call("eip712.committeeHash", committee) == unhex(case["fields"]["committee"])


# Msgpack and envelopes
_NUMBERS = (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53, 2**64 - 1)
_BELOW = (-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63))
_TEXTS = ("", "a" * 31, "a" * 32, "ä" * 200, "a" * 70_000)
_BYTES = (b"", b"x" * 255, b"x" * 256, b"x" * 70_000)
_LISTS = ([], [1] * 15, [1] * 16, [[[b"a"]], "b", 3], list(range(70_000)))
VALUES = [*_NUMBERS, *_BELOW, True, False, None, *_TEXTS, *_BYTES, *_LISTS]


def test_msgpack_is_that_of_msgspec(modules: Modules) -> None:
    for value in VALUES:
        packed = msgspec.msgpack.encode(value)
        assert modules.call("msgpack.encode", value) == packed
        assert modules.call("msgpack.decode", packed) == value
    for packed in (
        b"",
        b"\xc4",
        b"\xc4\x05ab",
        b"\x92\x01",
        b"\x01\x02",
        b"\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc1",
        b"\xcb" + bytes(8),
        b"\x80",
        b"\xd4\x01\x02",
        b"\x91" * 1_000 + b"\x01",
    ):
        assert reason_there(modules, "msgpack.decode", packed) == "MALFORMED"
    assert modules.call("msgpack.decode", b"\xc6\x00\x00\x00\x01a") == b"a"  # a long form is a form


def plain(body: Any) -> dict[str, Any]:
    """A body as the browser has it."""
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    return {"type": type(body).__name__, **{name: int(v) if isinstance(v, int) else v for name, v in fields.items()}}


def listed(value: Any) -> Any:
    """Tuples as lists, at every depth."""
    if isinstance(value, dict):
        return {key: listed(each) for key, each in value.items()}
    return [listed(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", sorted(MESSAGE_VECTORS["messages"]))
def test_envelopes_byte_for_byte(name: str, modules: Modules) -> None:
    raw = unhex(MESSAGE_VECTORS["messages"][name]["envelope"])
    signed = unseal(DOMAIN, raw)
    found = modules.call("messages.unseal", JS_DOMAIN, raw)
    assert found == {"account": signed.account, "body": listed(plain(signed.body)), "raw": raw}
    secret = unhex(MESSAGE_VECTORS["private"])
    assert modules.call("messages.seal", JS_DOMAIN, plain(signed.body), secret) == raw


def test_all_messages_are_known(modules: Modules) -> None:
    assert len(MESSAGE_VECTORS["messages"]) == len(MESSAGES)


def test_tampered_envelopes_are_refused_for_the_same_reason(modules: Modules) -> None:
    for case in MESSAGE_VECTORS["messages"].values():
        raw = unhex(case["envelope"])
        number, packed, signature = msgspec.msgpack.decode(raw)
        body = msgspec.msgpack.decode(packed)
        bodies: list[Any] = [
            body[:-1],
            [*body, 1],
            [b"x", *body[1:]],
            [body[0], 2**32, *body[2:]],
            [body[0], -1, *body[2:]],
            [body[0], True, *body[2:]],
            {},
            7,
            [body[0], "1", *body[2:]],
        ]
        bodies += [[*body[:-1], each] for each in (300, b"", [b"x"], None, "x", 7.0)]
        raws = [msgspec.msgpack.encode((number, msgspec.msgpack.encode(each), signature)) for each in bodies]
        raws += [
            msgspec.msgpack.encode(each)
            for each in (
                (99, packed, signature),
                (2**60, packed, signature),
                (-1, packed, signature),
                (number, packed),
                (number, packed, signature[:-1]),
                (True, packed, signature),
                (number, "x", signature),
                b"x",
                (number, packed, signature, 1),
                (number, packed, bytes(65)),
            )
        ]
        raws += [raw[:-1], raw + b"\x00", raw[:2] + b"\xc6\x00\x00" + raw[2:]]
        padded = msgspec.msgpack.encode((number, packed + bytes(9 << 10), signature))
        for each in (*raws, padded):
            assert reason_there(modules, "messages.unseal", JS_DOMAIN, each) == reason_here(unseal, DOMAIN, each)
    changed = bytearray(unhex(MESSAGE_VECTORS["messages"]["Commit"]["envelope"]))
    changed[20] ^= 1  # another body: the signature then belongs to another account, or to none
    try:
        account: object = unseal(DOMAIN, bytes(changed)).account
        assert modules.call("messages.unseal", JS_DOMAIN, bytes(changed))["account"] == account
    except Refused as error:
        assert reason_there(modules, "messages.unseal", JS_DOMAIN, bytes(changed)) == error.reason.name


# Committees
JS_PLACE = {
    "domain": {"chainId": PLACE.domain.chain_id, "registry": PLACE.domain.registry},
    "jobsContract": PLACE.jobs_contract,
    "job": PLACE.job,
    "round": PLACE.round,
    "committee": PLACE.committee,
}


def quorum_cases() -> list[Quorum]:
    payload = encode_payload(certificate())
    lock = msgspec.msgpack.encode([[b"a commit"]])
    good = [signed_quorum(Phase.LOCK, lock, range(5)), signed_quorum(Phase.CERTIFY, payload, range(5), 3)]
    return [
        *good,
        signed_quorum(Phase.LOCK, lock, range(4)),
        signed_quorum(Phase.CERTIFY, payload, range(4)),
        *(msgspec.structs.replace(each, signatures=each.signatures[:4] * 2) for each in good),
        *(msgspec.structs.replace(each, view=each.view + 1) for each in good),
        msgspec.structs.replace(good[0], phase=Phase.AUDIT),
        msgspec.structs.replace(good[1], payload=encode_payload(certificate(last=True))),
        msgspec.structs.replace(good[1], payload=payload + b"\x00"),
        msgspec.structs.replace(good[0], signatures=(*good[0].signatures, bytes(65))),
        signed_quorum(Phase.LOCK, b"\x93\x01", range(5)),
        signed_quorum(Phase.LOCK, b"\xdc\x00\x01\x90", range(5)),
    ]


def test_quorums_are_accepted_and_refused_alike(modules: Modules) -> None:
    reasons = []
    for case in quorum_cases():
        expected = reason_here(verify_quorum, PLACE, case)
        assert reason_there(modules, "committee.verifyQuorum", JS_PLACE, plain(case)) == expected
        reasons.append(expected)
    assert reasons[:2] == ["OK", "OK"]
    assert set(reasons[2:]) >= {"BAD_SIGNATURE", "UNKNOWN_ACCOUNT", "MALFORMED"}


def test_payloads_say_the_same(modules: Modules) -> None:
    payload = certificate()
    found = modules.call("committee.decodePayload", 4, encode_payload(payload))
    assert (found["model"], found["lockRoot"], found["last"]) == (payload.model, payload.lock_root, False)
    assert found["roster"] == list(payload.roster)
    assert found["verdicts"] == [[row.kind, row.unit, row.account, row.reason] for row in payload.verdicts]
    assert modules.call("committee.nextBeacon", JS_PLACE, found) == next_beacon(PLACE, payload)
    for phase in range(5):
        for data in (b"", b"\x90", b"\x91\x90", b"\x93\x90\x90\x90", b"\x91\x91\x01"):
            expected = reason_here(decode_payload, Phase(phase), data)
            assert reason_there(modules, "committee.decodePayload", phase, data) == expected


def test_hash_chains_and_beacons(modules: Modules) -> None:
    seed, rounds = DICE.randbytes(32), 7
    assert modules.call("beacon.tip", seed, rounds) == tip(seed, rounds)
    for draw in Draw:
        value = link(seed, rounds, 3, draw)
        assert modules.call("beacon.link", seed, rounds, 3, int(draw)) == value
        assert modules.call("beacon.belongs", value, tip(seed, rounds), 3, int(draw))
        assert belongs(value, tip(seed, rounds), 3, draw)
        assert not modules.call("beacon.belongs", value, tip(seed, rounds), 4, int(draw))
    links = {DICE.randbytes(20): DICE.randbytes(32) for _ in range(5)}
    job = DICE.randbytes(32)
    pairs = list(links.items())
    found = modules.call("beacon.combine", JS_DOMAIN, job, 3, 1, pairs)
    assert found == combine(DOMAIN, job, 3, Draw.ASSIGN, links)
    assert modules.call("beacon.firstBeacon", JS_DOMAIN, job, pairs) == first_beacon(DOMAIN, job, links)
