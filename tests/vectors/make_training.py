"""Makes training.json with plain Python integers that share nothing with Atoll: run once; the vectors are never edited.

ChaCha20 is written out after RFC 8439, half-even rounding is Python's `round` of a Fraction, keccak comes from
pycryptodome. The tests of the aggregation rules also use the functions here, on inputs of their own.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from blake3 import blake3
from Crypto.Hash import keccak as pycryptodome

MASK = 0xFFFFFFFF
BLOCK = 256


def keccak(data: bytes) -> bytes:
    return pycryptodome.new(digest_bits=256, data=data).digest()


def tagged(tag: str, *parts: bytes) -> bytes:
    return keccak(b"".join(struct.pack(">I", len(part)) + part for part in (tag.encode(), *parts)))


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """Section 2.3 of RFC 8439."""
    start = list(struct.unpack("<4I8II3I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce))
    state = start.copy()
    columns = [(i, 4 + i, 8 + i, 12 + i) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for _ in range(10):
        for a, b, c, d in columns + diagonals:
            for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[x] = (state[x] + state[y]) & MASK
                mixed = state[z] ^ state[x]
                state[z] = (mixed << turn | mixed >> (32 - turn)) & MASK
    return struct.pack("<16I", *((a + b) & MASK for a, b in zip(start, state, strict=True)))


class Draws:
    """The generator, one word at a time."""

    def __init__(self, beacon: bytes, context: bytes) -> None:
        self.key, self.block, self.left = tagged("atoll/generator/1", beacon, context), 0, b""

    def take(self, count: int) -> bytes:
        while len(self.left) < count:
            self.left += chacha20_block(self.key, self.block, bytes(12))
            self.block += 1
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def uniform(self, bound: int) -> int:
        width = 4 if bound <= 1 << 32 else 8
        while True:
            word = int.from_bytes(self.take(width), "little")
            if word < (256**width // bound) * bound:
                return word % bound

    def permutation(self, count: int) -> list[int]:
        order = list(range(count))
        for i in reversed(range(1, count)):
            j = self.uniform(i + 1)
            order[i], order[j] = order[j], order[i]
        return order

    def draw(self, items: Sequence[int], count: int) -> list[int]:
        pool = list(items)
        for i in range(count):
            j = i + self.uniform(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    row = [keccak(b"\0" + leaf) for leaf in leaves]
    while len(row) & (len(row) - 1):
        row.append(bytes(32))
    while len(row) > 1:
        row = [keccak(b"\1" + row[i] + row[i + 1]) for i in range(0, len(row), 2)]
    return keccak(b"\2" + struct.pack(">Q", len(leaves)) + row[0])


def quantise(change: Sequence[int]) -> bytes:
    exponents, values = [], []
    for start in range(0, len(change), BLOCK):
        part = change[start : start + BLOCK]
        exponent = 0
        while any(abs(round(Fraction(value, 2**exponent))) > 127 for value in part):
            exponent += 1
        exponents.append(exponent)
        values += [round(Fraction(value, 2**exponent)) for value in part]
    return struct.pack(f"{len(exponents)}b{len(values)}b", *exponents, *values)


def dequantise(update: bytes, length: int) -> list[int]:
    blocks = math.ceil(length / BLOCK)
    numbers = struct.unpack(f"{blocks + length}b", update)
    return [numbers[blocks + i] * 2 ** numbers[i // BLOCK] for i in range(length)]


def trimmed_mean(rows: Sequence[Sequence[int]], trim: int) -> list[int]:
    kept = [sorted(column)[trim : len(rows) - trim] for column in zip(*rows, strict=True)]
    return [round(Fraction(sum(column), len(column))) for column in kept]


def clipped(rows: Sequence[Sequence[int]], faulty: int) -> list[list[int]]:
    norms = [math.isqrt(sum(value * value for value in row)) for row in rows]
    cap = 2 * sorted(norms)[(len(norms) - 1) // 2]
    longest = sorted((min(norm, cap) for norm in norms), reverse=True)
    limit = longest[2 * faulty * (len(rows) - faulty) // len(rows)]
    result = []
    for row, norm in zip(rows, norms, strict=True):
        ratio = limit * 2**30 // norm if norm > limit else 2**30
        result.append([round(Fraction(value * ratio, 2**30)) for value in row])
    return result


def mixed(rows: Sequence[Sequence[int]], ids: Sequence[bytes], faulty: int) -> list[list[int]]:
    result = []
    for row in rows:
        distances = [sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) for other in rows]
        nearest = sorted(zip(distances, ids, rows, strict=True))[: len(rows) - faulty]
        columns = zip(*(other for _, _, other in nearest), strict=True)
        result.append([round(Fraction(sum(column), len(nearest))) for column in columns])
    return result


def aggregate(updates: Sequence[bytes], length: int) -> list[int]:
    rows = [dequantise(update, length) for update in updates]
    if len(rows) < 10:
        return trimmed_mean(rows, (len(rows) - 1) // 4)
    faulty = math.ceil(len(rows) / 5)
    ids = [blake3(update).digest() for update in updates]
    return trimmed_mean(mixed(clipped(rows, faulty), ids, faulty), faulty)


def apply(model: Sequence[int], change: Sequence[int]) -> list[int]:
    return [min(max(a + b, -(2**31)), 2**31 - 1) for a, b in zip(model, change, strict=True)]


def generator_vector(beacon: bytes, context: bytes) -> dict[str, Any]:
    bounds = [1, 2, 10, 1000, 2**31 + 1, 2**31 + 1, 2**31 + 1, 2**32, 2**32 + 1, 2**63 + 1, 2**63 + 1, 2**64]
    draws = Draws(beacon, context)
    return {
        "beacon": beacon.hex(),
        "context": context.hex(),
        "bytes": Draws(beacon, context).take(80).hex(),
        "uniform": [[str(bound), str(draws.uniform(bound))] for bound in bounds],
        "permutation": Draws(beacon, context).permutation(20),
        "draw": Draws(beacon, context).draw(range(100), 7),
    }


def changes(draws: Draws, length: int, spread: int) -> list[int]:
    """A change whose blocks differ in size, so that exponents do too."""
    return [(draws.uniform(2 * spread + 1) - spread) >> (3 * (i // BLOCK) % 11) for i in range(length)]


def quantise_vectors() -> list[dict[str, Any]]:
    ties = [127, -127, 128, 129, 130, 131, 254, 255, -254, -255, 256, 509, 510, 511]
    edges = [[value] for value in ties] + [[2**32 - 1], [-(2**32 - 1)], [0, 0], [1] * 300 + [400]]
    edges += [[3, 5, 7, 1000, 4, 12], changes(Draws(b"quantise", b""), 600, 2**20)]
    return [{"change": change, "update": quantise(change).hex()} for change in edges]


def aggregate_vector(count: int, length: int, spread: int) -> dict[str, Any]:
    draws = Draws(b"aggregate", bytes([count]))
    direction = changes(draws, length, spread)
    rows = [[a + b for a, b in zip(direction, changes(draws, length, spread), strict=True)] for _ in range(count)]
    rows[0] = [-30 * value for value in rows[0]]
    updates = [quantise(row) for row in rows]
    change = aggregate(updates, length)
    model = [draws.uniform(2**32) - 2**31 for _ in range(length)]
    return {
        "length": length,
        "updates": [update.hex() for update in updates],
        "change": change,
        "model": struct.pack(f"<{length}i", *model).hex(),
        "next_model": struct.pack(f"<{length}i", *apply(model, change)).hex(),
    }


def unit_vector() -> dict[str, Any]:
    chain_id, registry, job = 31337, bytes(range(20)), bytes(range(32))
    domain, beacon, number = chain_id.to_bytes(32, "big") + registry, keccak(b"beacon"), 7
    workers, shards, root = [bytes([i]) * 20 for i in (9, 3, 200)], 2, keccak(b"data")
    place = struct.pack(">I", number)
    dealer = Draws(beacon, b"shards" + domain + job + place)
    dealt = (dealer.permutation(shards) + dealer.permutation(shards))[: len(workers)]
    ids = [
        tagged("atoll/unit/1", domain, job, place, beacon, struct.pack(">I", i), worker, struct.pack(">I", shard))
        for i, (worker, shard) in enumerate(zip(workers, dealt, strict=True))
    ]
    order = Draws(root, b"samples").permutation(11)
    parts = [order[:5], order[5:]]
    draws, shard = Draws(beacon, ids[0]), parts[dealt[0]]
    epochs = [shard[i] for _ in range(3) for i in draws.permutation(len(shard))]
    states = [keccak(bytes([i])) for i in range(3)]
    update, salt = keccak(b"update"), keccak(b"salt")
    top = merkle_root(states)
    return {
        "chain_id": chain_id,
        "registry": registry.hex(),
        "job": job.hex(),
        "round": number,
        "beacon": beacon.hex(),
        "workers": [worker.hex() for worker in workers],
        "shards": shards,
        "dealt": dealt,
        "ids": [value.hex() for value in ids],
        "data_root": root.hex(),
        "samples": 11,
        "parts": parts,
        "batches": [epochs[4 * i : 4 * i + 4] for i in range(3)],
        "states": [state.hex() for state in states],
        "states_root": top.hex(),
        "update": update.hex(),
        "salt": salt.hex(),
        "commit": tagged("atoll/commit/1", domain, job, place, ids[0], workers[0], top, update, salt).hex(),
    }


def main() -> None:
    images = [bytes([i, i + 1, i + 2, i + 3]) for i in range(5)]
    vectors = {
        "generator": [generator_vector(b"", b""), generator_vector(keccak(b"beacon"), b"audit")],
        "quantise": quantise_vectors(),
        "aggregate": [aggregate_vector(6, 300, 2**18), aggregate_vector(12, 300, 2**22)],
        "unit": unit_vector(),
        "samples": {
            "images": [image.hex() for image in images],
            "labels": list(range(5)),
            "root": merkle_root([image + struct.pack("<I", i) for i, image in enumerate(images)]).hex(),
        },
    }
    path = Path(__file__).with_name("training.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
