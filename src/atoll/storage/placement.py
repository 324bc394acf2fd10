"""Which nodes hold a blob: rendezvous (highest random weight) hashing, spread over network groups.

Everybody computes the same order from the blob id and the list of nodes; no table is kept. A node that comes or goes
changes at most one holder of a blob. (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.)
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from atoll.wire.hashing import Tag, tagged


class Node(NamedTuple):
    """A node that may hold pieces: its account (20 bytes) and its network group (`group_of`)."""

    account: bytes
    group: str


def group_of(host: str) -> str:
    """The part of the network that fails, or is owned, together: /24 of an IPv4 address, /48 of an IPv6 one.

    An IPv4 address written as IPv6 counts as IPv4. Anything that is not an address is a group of its own.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))


def order(blob: bytes, nodes: Iterable[Node]) -> list[bytes]:
    """Every account, most preferred first: the best node of each group, then the second of each, and so on.

    Weight = keccak(Tag.PLACEMENT, blob id, account), highest first. An account that is listed twice counts once.
    """
    groups = dict(sorted(nodes))
    weighed = sorted(((tagged(Tag.PLACEMENT, blob, account), account) for account in groups), reverse=True)
    seen: Counter[str] = Counter()
    turns = []
    for place, (_, account) in enumerate(weighed):
        turns.append((seen[groups[account]], place, account))
        seen[groups[account]] += 1
    return [account for _, _, account in sorted(turns)]


def place(blob: bytes, count: int, nodes: Iterable[Node]) -> list[bytes]:
    """The accounts that hold pieces 0..count-1 of each segment: distinct, over as many groups as there are.

    Raises ValueError when there are fewer nodes than pieces.
    """
    ranked = order(blob, nodes)
    if not 0 <= count <= len(ranked):
        raise ValueError(f"{count} pieces need as many nodes, there are {len(ranked)}")
    return ranked[:count]
