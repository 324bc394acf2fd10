"""Index-directed Merkle trees over keccak-256: a proof shows a leaf *and its position*, so omission can be proven too.

leaf = keccak(0x00 || data); node = keccak(0x01 || left || right); the row is padded with 32 zero bytes to a power of
two; root = keccak(0x02 || uint64(count) || top), so that the number of leaves is part of the root. The contracts
check the same proofs (`contracts/Merkle.sol`).
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.wire.hashing import ZERO_HASH, keccak


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf's content."""
    return keccak(b"\x00" + data)


def depth(count: int) -> int:
    """How many siblings a proof has in a tree of `count` leaves, one at least."""
    return (count - 1).bit_length()


def _node(left: bytes, right: bytes) -> bytes:
    return keccak(b"\x01" + left + right)


def _seal(count: int, top: bytes) -> bytes:
    return keccak(b"\x02" + count.to_bytes(8, "big") + top)


class MerkleTree:
    """A tree over the given leaf contents; `root` is 32 bytes, `prove(i)` lists the siblings from the leaf upwards."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.count = len(leaves)
        row = [leaf_hash(leaf) for leaf in leaves] or [ZERO_HASH]
        row += [ZERO_HASH] * ((1 << depth(len(row))) - len(row))
        self._rows = [row]
        while len(row) > 1:
            row = [_node(row[i], row[i + 1]) for i in range(0, len(row), 2)]
            self._rows.append(row)
        self.root = _seal(self.count, row[0])

    def prove(self, index: int) -> list[bytes]:
        """Siblings of leaf `index`, lowest first; raises IndexError outside 0..count-1."""
        if not 0 <= index < self.count:
            raise IndexError(f"leaf {index} of {self.count}")
        proof = []
        for row in self._rows[:-1]:
            proof.append(row[index ^ 1])
            index >>= 1
        return proof


def verify(root: bytes, count: int, index: int, data: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `data` is leaf `index` of the tree of `count` leaves with this root."""
    if not 0 <= index < count or len(proof) != depth(count):
        return False
    value = leaf_hash(data)
    for sibling in proof:
        value = _node(sibling, value) if index & 1 else _node(value, sibling)
        index >>= 1
    return _seal(count, value) == root
