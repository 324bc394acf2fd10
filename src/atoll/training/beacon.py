"""Randomness that nobody chooses alone: hash chains whose tips are on chain, revealed link by link.

Each validator enlists in a job with the tip of a hash chain. Round r uses two links: `AUDIT` (revealed once the commit
list is locked) and `ASSIGN` (carried by the votes that open the reveals; it draws the next round). A member can only
withhold its link, never choose it; what bias is left is one bit for each member that withholds, and the leader's choice
of which quorum it includes (docs/protocol/round.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from atoll.wire.hashing import Domain, Tag, tagged, u32


class Draw(IntEnum):
    """Which of a round's two beacons a link belongs to."""

    AUDIT = 0
    ASSIGN = 1


def chain_length(rounds: int) -> int:
    """Links needed for a job of so many rounds."""
    return 2 * rounds


def link(seed: bytes, rounds: int, round_number: int, draw: Draw) -> bytes:
    """The link to reveal: the seed hashed so often that the tip is (2 * round + draw + 1) hashes further."""
    value = seed
    for _ in range(chain_length(rounds) - 1 - (2 * round_number + draw)):
        value = tagged(Tag.PREIMAGE, value)
    return value


def tip(seed: bytes, rounds: int) -> bytes:
    """What is enlisted on chain before anything is revealed."""
    return tagged(Tag.PREIMAGE, link(seed, rounds, 0, Draw.AUDIT))


def belongs(value: bytes, enlisted_tip: bytes, round_number: int, draw: Draw) -> bool:
    """Whether `value` is the link of this round and draw in the chain with this tip."""
    for _ in range(2 * round_number + draw + 1):
        value = tagged(Tag.PREIMAGE, value)
    return value == enlisted_tip


def combine(domain: Domain, job: bytes, round_number: int, draw: Draw, links: Mapping[bytes, bytes]) -> bytes:
    """The beacon drawn from revealed links (account -> link), whatever order they came in."""
    parts = [account + value for account, value in sorted(links.items())]
    return tagged(Tag.BEACON, domain.encode(), job, u32(round_number), bytes([draw]), *parts)


def first_beacon(domain: Domain, job: bytes, tips: Mapping[bytes, bytes]) -> bytes:
    """The assignment beacon of round 0, before any link is revealed: drawn from all enlisted tips.

    The last to enlist could try several tips; all that it decides is who trains on which shard in round 0.
    """
    return tagged(Tag.BEACON, domain.encode(), job, b"first", *(a + t for a, t in sorted(tips.items())))
