"""Makes storage.json with nothing of Atoll's own: run once, by hand; the vectors are never edited.

GF(2^8) is multiplied digit by digit, msgpack is put together byte by byte, keccak comes from pycryptodome.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from blake3 import blake3
from Crypto.Hash import keccak as pycryptodome


def product(a: int, b: int) -> int:
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return total


INVERSE = [0] + [next(b for b in range(1, 256) if product(a, b) == 1) for a in range(1, 256)]


def parity(k: int, n: int, data: list[bytes]) -> list[bytes]:
    rows = []
    for i in range(k, n):
        row = [0] * len(data[0])
        for j, shard in enumerate(data):
            row = [old ^ product(INVERSE[i ^ j], value) for old, value in zip(row, shard, strict=True)]
        rows.append(bytes(row))
    return rows


def name(data: bytes) -> bytes:
    return blake3(data).digest()


def generated(size: int, seed: str) -> bytes:
    return b"".join(name(f"{seed}/{count}".encode()) for count in range(-(-size // 32)))[:size]


def tagged(tag: str, *parts: bytes) -> bytes:
    framed = b"".join(struct.pack(">I", len(part)) + part for part in (tag.encode(), *parts))
    return bytes(pycryptodome.new(digest_bits=256, data=framed).digest())


def number(value: int) -> bytes:
    for limit, head, form in ((1 << 7, b"", ">B"), (1 << 8, b"\xcc", ">B"), (1 << 16, b"\xcd", ">H")):
        if value < limit:
            return head + struct.pack(form, value)
    return b"\xce" + struct.pack(">I", value)


def binary(value: bytes) -> bytes:
    head = b"\xc4" + struct.pack(">B", len(value)) if len(value) < 256 else b"\xc5" + struct.pack(">H", len(value))
    return head + value


def array(*parts: bytes) -> bytes:
    head = bytes([0x90 | len(parts)]) if len(parts) < 16 else b"\xdc" + struct.pack(">H", len(parts))
    return head + b"".join(parts)


def text(value: str) -> bytes:
    return bytes([0xA0 | len(value)]) + value.encode()  # short ASCII only


def erasure_case(k: int, n: int, length: int) -> dict[str, Any]:
    data = [generated(length, f"shard {k}/{n}/{j}") for j in range(k)]
    return {"k": k, "n": n, "data": [d.hex() for d in data], "parity": [p.hex() for p in parity(k, n, data)]}


def layout_case(k: int, n: int, size: int) -> dict[str, Any]:
    blob = generated(size, f"blob {k}/{n}")
    piece_size = max(1, -(-size // k))
    data = [blob[i * piece_size : (i + 1) * piece_size].ljust(piece_size, b"\0") for i in range(k)]
    pieces = data + parity(k, n, data)
    holders = [generated(20, f"holder {i}") for i in range(n)]

    def encoded(accounts: list[bytes]) -> bytes:
        ids = array(*(binary(name(piece)) for piece in pieces))
        numbers = [number(value) for value in (size, k, n, piece_size)]
        return array(number(1), binary(name(blob)), *numbers, ids, array(*map(binary, accounts)))

    return {
        "k": k,
        "n": n,
        "blob": blob.hex(),
        "pieces": [piece.hex() for piece in pieces],
        "holders": [holder.hex() for holder in holders],
        "encoded": encoded(holders).hex(),
        "id": name(encoded([])).hex(),
    }


def placement_case(groups: list[str]) -> dict[str, Any]:
    blob = name(b"placed")
    nodes = [(generated(20, f"node {i}"), group) for i, group in enumerate(groups)]
    weight = {account: tagged("atoll/placement/1", blob, account) for account, _ in nodes}
    queues: dict[str, list[bytes]] = {}
    for account, group in sorted(nodes, key=lambda node: weight[node[0]], reverse=True):
        queues.setdefault(group, []).append(account)
    order = []
    while any(queues.values()):  # a turn: the first of each group, heaviest first
        turn = [queue.pop(0) for queue in queues.values() if queue]
        order += sorted(turn, key=lambda account: weight[account], reverse=True)
    return {
        "blob": blob.hex(),
        "nodes": [[account.hex(), group] for account, group in nodes],
        "order": [account.hex() for account in order],
    }


def message(tag: int, fields: list[Any], *encoded: bytes) -> dict[str, Any]:
    return {"fields": fields, "encoded": array(number(tag), *encoded).hex()}


def messages(layout: str) -> dict[str, Any]:
    one, two = name(b"one"), name(b"two")
    both, pair = [one.hex(), two.hex()], array(binary(one), binary(two))
    indices = [0, 127, 128, 9999]
    storage = {
        "PutLayout": message(1, [layout], binary(bytes.fromhex(layout))),
        "PutPiece": message(2, [one.hex(), 300, "0a0b"], binary(one), number(300), binary(b"\x0a\x0b")),
        "GetLayout": message(3, [one.hex()], binary(one)),
        "GetPiece": message(4, [one.hex()], binary(one)),
        "HavePieces": message(5, [both], pair),
    }
    transfer = {
        "GetBlob": message(1, [one.hex(), 1 << 20, 65536], binary(one), number(1 << 20), number(65536)),
        "HasBlob": message(2, [both], pair),
        "GetSamples": message(3, [one.hex(), indices], binary(one), array(*map(number, indices))),
    }
    return {"storage": storage, "transfer": transfer}


def main() -> None:
    layouts = [layout_case(*code) for code in ((1, 1, 0), (1, 2, 5), (4, 6, 1000), (10, 16, 37))]
    vectors = {
        "about": "Golden vectors of /atoll/storage/1 and /atoll/transfer/1, made by make_storage.py. Never edited.",
        "erasure": [erasure_case(*code) for code in ((1, 3, 8), (2, 3, 16), (4, 6, 96), (10, 16, 80))],
        "layout": layouts,
        "placement": [placement_case(list("0123456")), placement_case(list("aaabbcc"))],
        "messages": messages(layouts[1]["encoded"]),
        "responses": {
            "ok": {"body": "0102", "encoded": array(number(0), binary(b"\x01\x02")).hex()},
            "refusal": {"reason": 10, "detail": "not here", "encoded": array(number(10), text("not here")).hex()},
        },
    }
    Path(__file__).with_name("storage.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
