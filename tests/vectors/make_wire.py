"""Makes wire.json with implementations that share nothing with Atoll: run once, by hand; the vectors are never edited.

keccak and Ed25519 come from pycryptodome, secp256k1 from eth_keys' pure Python, BLAKE3 and the Merkle tree are
written out here (BLAKE3 after section 5.1 of its paper), msgpack is put together byte by byte.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from Crypto.Hash import keccak as pycryptodome
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from eth_keys.backends import NativeECCBackend
from eth_keys.datatypes import PrivateKey

MASK = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def keccak(data: bytes) -> bytes:
    return pycryptodome.new(digest_bits=256, data=data).digest()


def compress(chain: tuple[int, ...], block: bytes, counter: int, flags: int, length: int = 64) -> list[int]:
    state = [*chain, *IV[:4], counter & MASK, counter >> 32, length, flags]
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))

    def mix(a: int, b: int, c: int, d: int, x: int, y: int) -> None:
        for word, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = (state[a] + state[b] + word) & MASK
            state[d] = turn(state[d] ^ state[a], first)
            state[c] = (state[c] + state[d]) & MASK
            state[b] = turn(state[b] ^ state[c], second)

    def turn(value: int, by: int) -> int:
        return (value >> by | value << (32 - by)) & MASK

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, words[8 + 2 * i], words[9 + 2 * i])
        words = [words[i] for i in ORDER]
    return [state[i] ^ state[i + 8] for i in range(8)]


def blake3(data: bytes, counter: int = 0, root: int = ROOT) -> bytes:
    """Hash of a subtree that starts at chunk `counter`: one chunk, or two subtrees with the left one full."""
    if len(data) <= 1024:
        chain: Any = IV
        blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            flags = (CHUNK_START if i == 0 else 0) | (CHUNK_END | root if i == len(blocks) - 1 else 0)
            chain = compress(tuple(chain), block, counter, flags, len(block))
        return struct.pack("<8I", *chain)
    chunks = (len(data) + 1023) // 1024
    left = 1 << ((chunks - 1).bit_length() - 1)
    both = blake3(data[: left * 1024], counter, 0) + blake3(data[left * 1024 :], counter + left, 0)
    return struct.pack("<8I", *compress(IV, both, 0, PARENT | root))


def tagged(tag: str, *parts: bytes) -> bytes:
    return keccak(b"".join(struct.pack(">I", len(p)) + p for p in (tag.encode(), *parts)))


def merkle(leaves: list[bytes], index: int) -> tuple[bytes, list[bytes]]:
    """Root and proof, from the definition: recursively over halves of the padded row."""
    hashes = [keccak(b"\0" + leaf) for leaf in leaves]
    size = 1
    while size < len(hashes):
        size *= 2
    hashes += [bytes(32)] * ((size if leaves else 1) - len(hashes))

    def top(low: int, high: int) -> bytes:
        if high - low == 1:
            return hashes[low]
        middle = (low + high) // 2
        return keccak(b"\1" + top(low, middle) + top(middle, high))

    def path(low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = (low + high) // 2
        if index < middle:
            return [*path(low, middle), top(middle, high)]
        return [*path(middle, high), top(low, middle)]

    root = keccak(b"\2" + struct.pack(">Q", len(leaves)) + top(0, len(hashes)))
    return root, path(0, len(hashes)) if leaves else []


def packed_record(account: bytes, endpoint: bytes, addresses: list[str], version: str, signature: bytes) -> bytes:
    """msgpack of (account, endpoint id, addresses, roles 15, version, sequence 300[, signature])."""
    out = bytes([0x90 + (7 if signature else 6)]) + b"\xc4\x14" + account + b"\xc4\x20" + endpoint
    out += bytes([0x90 + len(addresses)]) + b"".join(bytes([0xA0 + len(a)]) + a.encode() for a in addresses)
    out += b"\x0f" + bytes([0xA0 + len(version)]) + version.encode() + b"\xcd\x01\x2c"
    return out + (b"\xc4\x41" + signature if signature else b"")


def identity(seed: int, chain: int, registry: bytes) -> dict[str, Any]:
    key = PrivateKey(keccak(b"account" + bytes([seed])), backend=NativeECCBackend())
    account = key.public_key.to_canonical_address()
    endpoint_private = keccak(b"endpoint" + bytes([seed]))
    endpoint = ECC.construct(curve="Ed25519", seed=endpoint_private)
    endpoint_id = endpoint.public_key().export_key(format="raw")
    domain = chain.to_bytes(32, "big") + registry
    digest = tagged("atoll/binding/1", domain, account, endpoint_id)

    def signed(value: bytes) -> bytes:
        raw = key.sign_msg_hash(value).to_bytes()
        return raw[:64] + bytes([raw[64] + 27])

    addresses = ["192.0.2.7:4711", "[2001:db8::1]:1"]
    body = packed_record(account, endpoint_id, addresses, "0.1.0", b"")
    record = packed_record(
        account, endpoint_id, addresses, "0.1.0", signed(tagged("atoll/peer-record/1", domain, body))
    )
    return {
        "account_private": key.to_bytes().hex(),
        "account": key.public_key.to_checksum_address(),
        "endpoint_private": endpoint_private.hex(),
        "endpoint_id": endpoint_id.hex(),
        "chain_id": chain,
        "registry": registry.hex(),
        "binding_digest": digest.hex(),
        "account_signature": signed(digest).hex(),
        "endpoint_signature": eddsa.new(endpoint, "rfc8032").sign(digest).hex(),
        "peer_record": record.hex(),
    }


def main() -> None:
    inputs = [bytes(i % 251 for i in range(n)) for n in (0, 1, 63, 64, 65, 1023, 1024, 1025, 2049, 5000)]
    trees = []
    for count in (0, 1, 2, 3, 5, 8, 13):
        leaves = [b"leaf %d" % i for i in range(count)]
        proofs = [[p.hex() for p in merkle(leaves, i)[1]] for i in range(count)]
        trees.append({"leaves": [x.hex() for x in leaves], "root": merkle(leaves, 0)[0].hex(), "proofs": proofs})
    parts = [[b""], [b"", b""], [b"ab", b"c"], [b"a", b"bc"], [b"abc"], [bytes(300)]]
    vectors = {
        "keccak": [{"data": x.hex(), "hash": keccak(x).hex()} for x in inputs],
        "blake3": [{"data": x.hex(), "hash": blake3(x).hex()} for x in inputs],
        "tagged": [{"parts": [p.hex() for p in ps], "hash": tagged("atoll/unit/1", *ps).hex()} for ps in parts],
        "merkle": trees,
        "identity": [identity(1, 1, bytes(range(20))), identity(2, 31337, b"\xff" * 20)],
    }
    Path(__file__).with_name("wire.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
