"""What tabs have said and uploaded, remembered by account and not by socket, so that leaving loses nothing. Pure.

Each envelope is said again, first after half a second and then ever less often, as long as its phase lasts: a
committee's member that missed it hears it, whether the tab is still there or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from atoll.errors import Refused
from atoll.gateway.tabs.duties import PHASES
from atoll.wire.messages import Body, Phase, Present, Signed, Work
from atoll.wire.reasons import Reason

NUDGE_SECONDS = 0.5
LONGEST_PAUSE = 2.0
GROWTH = 1.25
ACCOUNTS = 1024
"""Accounts of one job that are remembered at a time: four full rosters."""


@dataclass
class Saying:
    """An envelope, in which phase it counts (None: in all), and when it is said next."""

    signed: Signed
    phase: Phase | None
    due: float
    pause: float = NUDGE_SECONDS


@dataclass
class Share:
    """One account's part in one round: sayings by what they are about, and blobs that are kept for it."""

    sayings: dict[bytes, Saying] = field(default_factory=dict)
    blobs: set[bytes] = field(default_factory=set)


class _Stored(msgspec.Struct, array_like=True):
    """A share as it is written down: round, account, envelopes, blobs."""

    round: int
    account: bytes
    envelopes: list[bytes]
    blobs: list[bytes]


_STORED = msgspec.msgpack.Decoder(list[_Stored])


def key_of(body: Body) -> bytes:
    """One name for each thing that an account says once in a round."""
    return type(body).__name__.encode() + (body.unit if isinstance(body, Work) else b"")


class Memory:
    """What the accounts of one job have said and uploaded, by round."""

    def __init__(self) -> None:
        self._shares: dict[tuple[int, bytes], Share] = {}
        self.changed = False

    def _share(self, number: int, account: bytes) -> Share:
        share = self._shares.get((number, account))
        if share is None:
            if len(self._shares) >= ACCOUNTS:
                raise Refused(Reason.BUSY, "too many browser tabs take part in this job here")
            share = self._shares[number, account] = Share()
        return share

    def said(self, number: int, account: bytes) -> list[bytes]:
        """The envelopes of an account in a round, in the order in which they came."""
        share = self._shares.get((number, account), Share())
        return [saying.signed.raw for saying in share.sayings.values()]

    def say(self, signed: Signed, now: float) -> bool:
        """Take in an envelope that was checked; False when it was said before.

        Raises Refused(EQUIVOCATION) for another one about the same thing: it would make honest work look like a lie.
        """
        body, key = signed.body, key_of(signed.body)
        known = self._shares.get((body.round, signed.account), Share()).sayings.get(key)
        if known is not None:
            if known.signed.raw != signed.raw:
                raise Refused(Reason.EQUIVOCATION, f"another {type(body).__name__} of this unit was said before")
            return False
        phase = None if isinstance(body, Present) else PHASES[type(body)]
        share = self._share(body.round, signed.account)
        share.sayings[key] = Saying(signed, phase, now + NUDGE_SECONDS)
        self.changed = True
        return True

    def due(self, number: int, phase: Phase, now: float) -> Iterator[Signed]:
        """What is to be said again now in this round and phase; the next time comes later."""
        for (of, _), share in self._shares.items():
            for saying in share.sayings.values() if of == number else ():
                if saying.phase in (None, phase) and saying.due <= now:
                    saying.due = now + saying.pause
                    saying.pause = min(GROWTH * saying.pause, LONGEST_PAUSE)
                    yield saying.signed

    # -- blobs -----------------------------------------------------------------------------------------------------
    def uploaded(self, number: int, account: bytes) -> int:
        """How many blobs an account has uploaded for a round."""
        return len(self._shares.get((number, account), Share()).blobs)

    def keep(self, number: int, account: bytes, blob: bytes) -> None:
        """Note an uploaded blob; raises Refused(BUSY)."""
        self._share(number, account).blobs.add(blob)
        self.changed = True

    def holds(self, blob: bytes) -> bool:
        """Whether a blob is kept for some account."""
        return any(blob in share.blobs for share in self._shares.values())

    def forget(self, before: int) -> set[bytes]:
        """Drop the rounds before `before`; the blobs that nobody needs any more."""
        old = {key: share for key, share in self._shares.items() if key[0] < before}
        for key in old:
            del self._shares[key]
        self.changed = self.changed or bool(old)
        kept: set[bytes] = set().union(*(share.blobs for share in self._shares.values()))
        return set().union(*(share.blobs for share in old.values())) - kept

    # -- across restarts -------------------------------------------------------------------------------------------
    def pack(self) -> bytes:
        """Everything, to be written down."""
        self.changed = False
        rows = [
            _Stored(number, account, [one.signed.raw for one in share.sayings.values()], sorted(share.blobs))
            for (number, account), share in self._shares.items()
        ]
        return msgspec.msgpack.encode(rows)

    def unpack(self, data: bytes) -> list[tuple[int, bytes, list[bytes]]]:
        """Take back the blobs of what was packed; returns (round, account, envelopes), which are to be said anew."""
        rows = _STORED.decode(data)
        for row in rows:
            self._shares.setdefault((row.round, row.account), Share()).blobs.update(row.blobs)
        return [(row.round, row.account, row.envelopes) for row in rows]
