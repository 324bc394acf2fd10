"""Merkle trees against the recursive definition (tests/vectors/make_wire.py), and every way to cheat a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.wire.hashing import keccak
from atoll.wire.merkle import MerkleTree, leaf_hash, verify

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire.json").read_text())["merkle"]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{len(case['leaves'])} leaves")
def test_roots_and_proofs(case: dict[str, Any]) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in case["leaves"]]
    tree = MerkleTree(leaves)
    assert tree.root.hex() == case["root"]
    assert tree.count == len(leaves)
    for i, leaf in enumerate(leaves):
        proof = tree.prove(i)
        assert [p.hex() for p in proof] == case["proofs"][i]
        assert verify(tree.root, len(leaves), i, leaf, proof)


def test_two_leaves_by_hand() -> None:
    left, right = keccak(b"\0a"), keccak(b"\0b")
    top = keccak(b"\1" + left + right)
    assert MerkleTree([b"a", b"b"]).root == keccak(b"\2" + b"\0" * 7 + b"\2" + top)
    assert leaf_hash(b"a") == left


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20, unique=True), st.data())
def test_nothing_but_the_true_leaf_at_its_place_is_proven(leaves: list[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = tree.prove(index)
    assert verify(tree.root, len(leaves), index, leaves[index], proof)
    assert not verify(tree.root, len(leaves), index, leaves[index] + b"x", proof)
    for other in range(len(leaves)):
        assert verify(tree.root, len(leaves), other, leaves[index], proof) == (other == index)
    for count in (0, index, len(leaves) - 1, len(leaves) + 1, 2 * len(leaves)):
        assert not verify(tree.root, count, index, leaves[index], proof)
    assert not verify(tree.root, len(leaves), index, leaves[index], [*proof, bytes(32)])
    for i in range(len(proof)):
        assert not verify(tree.root, len(leaves), index, leaves[index], [*proof[:i], bytes([7] * 32), *proof[i + 1 :]])
        assert not verify(tree.root, len(leaves), index, leaves[index], proof[:i] + proof[i + 1 :])


def test_an_inner_node_is_not_a_leaf() -> None:
    """Second preimage: the concatenation of two children must not pass for the content of a leaf."""
    tree = MerkleTree([b"a", b"b", b"c", b"d"])
    inner = leaf_hash(b"a") + leaf_hash(b"b")
    assert not verify(tree.root, 2, 0, inner, tree.prove(0)[1:])


def test_leaves_outside_the_tree() -> None:
    tree = MerkleTree([b"a", b"b", b"c"])
    for index in (-1, 3, 4):
        with pytest.raises(IndexError):
            tree.prove(index)
        assert not verify(tree.root, 3, index, b"", [bytes(32), bytes(32)])
    with pytest.raises(IndexError):
        MerkleTree([]).prove(0)
    assert MerkleTree([]).root != MerkleTree([b""]).root
