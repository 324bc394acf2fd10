"""Makes messages.json without Atoll and without a msgpack library: run once, by hand; the vectors are never edited.

msgpack is put together byte by byte (https://github.com/msgpack/msgpack/blob/master/spec.md), keccak comes from
pycryptodome, secp256k1 from eth_keys' pure Python.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from Crypto.Hash import keccak as pycryptodome
from eth_keys.backends import NativeECCBackend
from eth_keys.datatypes import PrivateKey

Item = int | bytes | list["Item"]

CHAIN, REGISTRY = 31337, bytes(range(1, 21))
LOCK, BEACON, AUDIT, OPEN, CERTIFY = range(5)


def keccak(data: bytes) -> bytes:
    return pycryptodome.new(digest_bits=256, data=data).digest()


def tagged(tag: str, *parts: bytes) -> bytes:
    return keccak(b"".join(struct.pack(">I", len(p)) + p for p in (tag.encode(), *parts)))


def pack(item: Item) -> bytes:
    """The shortest msgpack form of a number, bytes or an array."""
    if isinstance(item, int):
        if item < 0x80:
            return bytes([item])
        for mark, form, limit in ((0xCC, ">B", 1 << 8), (0xCD, ">H", 1 << 16), (0xCE, ">I", 1 << 32)):
            if item < limit:
                return bytes([mark]) + struct.pack(form, item)
        raise ValueError(item)
    if isinstance(item, bytes):
        if len(item) < 1 << 8:
            return b"\xc4" + struct.pack(">B", len(item)) + item
        return b"\xc5" + struct.pack(">H", len(item)) + item
    if len(item) < 16:
        return bytes([0x90 + len(item)]) + b"".join(map(pack, item))
    return b"\xdc" + struct.pack(">H", len(item)) + b"".join(map(pack, item))


KEY = PrivateKey(keccak(b"the sender"), backend=NativeECCBackend())


def sign(digest: bytes) -> bytes:
    raw = KEY.sign_msg_hash(digest).to_bytes()
    return raw[:64] + bytes([raw[64] + 27])


def envelope(number: int, fields: list[Item]) -> bytes:
    body = pack(fields)
    domain = CHAIN.to_bytes(32, "big") + REGISTRY
    signature = sign(tagged("atoll/message/1", domain, bytes([number]), body))
    return pack([number, body, signature])


def messages() -> dict[str, tuple[int, list[Item]]]:
    job, unit = keccak(b"job"), keccak(b"unit")
    name: Callable[[bytes], bytes] = keccak
    head: list[Item] = [job, 300]
    states: list[Item] = [name(b"state %d" % i) for i in range(3)]
    many: list[Item] = [name(b"state %d" % i) for i in range(20)]
    prepare = envelope(13, [*head, 1, OPEN, name(b"statement")])
    return {
        "Commit": (1, [*head, unit, name(b"commit")]),
        "AuditCommit": (2, [*head, unit, name(b"audit commit")]),
        "Reveal": (3, [*head, unit, states, name(b"update"), name(b"salt")]),
        "AuditReveal": (4, [*head, unit, many, name(b"update"), name(b"salt")]),
        "Replay": (5, [*head, unit, 255, bytes(32)]),
        "Proposal": (6, [*head, 70_000, LOCK, b"payload", [b"handover", b"another"]]),
        "Vote": (7, [*head, 5, BEACON, name(b"statement"), sign(name(b"statement"))]),
        "Quorum": (8, [*head, 0, CERTIFY, bytes(300), [sign(name(b"a")), sign(name(b"b"))]]),
        "Handover": (9, [*head, 2, OPEN, b"payload", [prepare]]),
        "Preimage": (10, [*head, name(b"link")]),
        "Present": (11, [*head]),
        "HistoryAsk": (12, [*head, AUDIT]),
        "Prepare": (13, [*head, 1, OPEN, name(b"statement")]),
    }


def main() -> None:
    vectors = {
        "chain_id": CHAIN,
        "registry": REGISTRY.hex(),
        "private": KEY.to_bytes().hex(),
        "account": KEY.public_key.to_canonical_address().hex(),
        "messages": {
            kind: {"number": number, "body": pack(fields).hex(), "envelope": envelope(number, fields).hex()}
            for kind, (number, fields) in messages().items()
        },
    }
    Path(__file__).with_name("messages.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
