"""Every hash that Atoll computes, and every domain tag, in one file.

Two hash functions: **BLAKE3** names bytes that only nodes look at (blobs, states, updates); **keccak-256** names
whatever a contract may have to check (commits, statements, trees, receipts). A tag is never reused for another
meaning; a changed meaning takes a new number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import sha3
from blake3 import blake3

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)


class Tag(StrEnum):
    """Domain tags: what a hash or a signature is for, and which version of that meaning."""

    BINDING = "atoll/binding/1"  # account <-> endpoint id, signed by both
    MESSAGE = "atoll/message/1"  # envelope of a training message
    STATEMENT = "atoll/statement/1"  # what a committee's quorum signs
    COMMIT = "atoll/commit/1"  # a worker's or auditor's commitment to its states
    UNIT = "atoll/unit/1"  # the name of a unit of work
    JOB = "atoll/job/1"  # the name of a job
    BEACON = "atoll/beacon/1"  # randomness of a round
    PREIMAGE = "atoll/preimage/1"  # hash chains from which beacons are drawn
    COMMITTEE = "atoll/committee/1"  # an ordered committee
    VERDICTS = "atoll/verdicts/1"  # a round's verdicts
    GENERATOR = "atoll/generator/1"  # key of the ChaCha20 generator
    PLACEMENT = "atoll/placement/1"  # which node holds which piece
    PEER_RECORD = "atoll/peer-record/1"  # where a node can be reached
    SAMPLE = "atoll/sample/1"  # a data sample with its label
    JOIN = "atoll/join/1"  # a browser tab shows a gateway that an account is its own
    QUESTION = "atoll/question/1"  # the name of a question to a model
    ANSWER = "atoll/answer/1"  # a server's statement about an answer


@dataclass(frozen=True)
class Domain:
    """Where a signature counts: nothing signed for one network can be replayed on another.

    `registry` is the 20-byte address of the registry contract.
    """

    chain_id: int
    registry: bytes

    def encode(self) -> bytes:
        """52 bytes: chain id (big-endian, 32 bytes) and registry address."""
        return self.chain_id.to_bytes(32, "big") + self.registry


def keccak(data: bytes) -> bytes:
    """keccak-256 as Ethereum uses it (before NIST's padding change)."""
    return bytes(sha3.keccak_256(data).digest())


def blob_id(data: bytes | bytearray | memoryview) -> bytes:
    """Name of content-addressed bytes: BLAKE3, 32 bytes."""
    return blake3(data).digest()


def tagged(tag: Tag, *parts: bytes) -> bytes:
    """keccak-256 over the tag and the parts, each preceded by its length (u32, big-endian): no two inputs collide."""
    out = bytearray()
    for part in (tag.value.encode(), *parts):
        out += len(part).to_bytes(4, "big")
        out += part
    return keccak(bytes(out))


def u32(value: int) -> bytes:
    """A counter as it enters a hash: four bytes, big-endian."""
    return value.to_bytes(4, "big")
