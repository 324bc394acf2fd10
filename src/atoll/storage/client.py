"""Storing a blob on other nodes, and bringing it back, through an injected `request` that reaches them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from atoll.errors import Refused, Unreachable
from atoll.storage.layout import UNHELD, Layout, choose_code, encode, join_segment, parse, split, verified
from atoll.storage.messages import ALPN, GetLayout, GetPiece, HavePieces, PutLayout, PutPiece
from atoll.storage.placement import Node, order
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask, Request, decode_body, decode_response, encode_body

LAYOUT_COPIES = 32  # nodes that keep the layout: more than the most holders that `choose_code` asks for

_Answer = TypeVar("_Answer")


async def _ask(request: Ask, account: bytes, message: Request) -> bytes:
    return decode_response(await request(account, ALPN, encode_body(message)))


async def store_blob(blob: bytes, nodes: Sequence[Node], request: Ask, code: tuple[int, int] | None = None) -> Layout:
    """Cuts a blob, gives a piece of each segment to each holder, and returns the layout with the holders.

    `code` is (k, n), by default `choose_code(len(nodes))`. A node that fails is replaced by the next in order; where
    none is left, the layout says UNHELD. Storing the same blob again sends only what is missing. Raises Unreachable
    when fewer than k + (n - k) // 2 holders took their pieces, Refused(TOO_LARGE) for a blob above 1 GiB.
    """
    if not nodes:
        raise Unreachable("there is no node to hold the blob: start at least one, then store it again")
    ranked = order(blob_id(blob), nodes)
    k, n = code or choose_code(len(ranked))
    if n > len(ranked):
        raise ValueError(f"a code of {n} pieces needs as many nodes, there are {len(ranked)}")
    layout, pieces = split(blob, k, n)
    layout = layout.with_holders(tuple(ranked[:n]))
    spares = deque(ranked[n:])
    givers = (_give_to_any(layout, pieces, shard, spares, request) for shard in range(n))
    layout = layout.with_holders(tuple(await asyncio.gather(*givers)))
    held, expected = n - layout.holders.count(UNHELD), k + (n - k) // 2
    if held < expected:
        raise Unreachable(
            f"{held} of {n} holders took their pieces of blob {layout.blob.hex()}, expected at least {expected}; "
            "start more nodes, or give the present ones more disk, then store it again"
        )
    keepers = dict.fromkeys([holder for holder in layout.holders if holder != UNHELD] + ranked)
    await asyncio.gather(*(_give_layout(layout, account, request) for account in list(keepers)[:LAYOUT_COPIES]))
    return layout


async def _give_to_any(
    layout: Layout, pieces: Sequence[bytes], shard: int, spares: deque[bytes], request: Ask
) -> bytes:
    """Gives one shard of every segment to its holder or, where that fails, to the next spare; who took it."""
    account = layout.holders[shard]
    mine = range(shard, len(pieces), layout.n)
    while True:
        try:
            await _give(layout, pieces, mine, account, request)
        except (Unreachable, Refused):
            if not spares:
                return UNHELD
            account = spares.popleft()
        else:
            return account


async def _give(layout: Layout, pieces: Sequence[bytes], mine: Sequence[int], account: bytes, request: Ask) -> None:
    await _ask(request, account, PutLayout(encode(layout)))
    has = await _which(account, [layout.pieces[index] for index in mine], request)
    for index in mine:
        if layout.pieces[index] not in has:
            await _ask(request, account, PutPiece(layout.id, index, pieces[index]))


async def _give_layout(layout: Layout, account: bytes, request: Ask) -> None:
    try:
        await _ask(request, account, PutLayout(encode(layout)))
    except (Unreachable, Refused):
        return  # one copy more or less: every holder has had the layout before its first piece


async def _which(account: bytes, pieces: Sequence[bytes], request: Ask) -> set[bytes]:
    """The ids among `pieces` (a shard of each segment at most, hence within HavePieces' limit) that a node has."""
    answer = decode_body(list[bool], await _ask(request, account, HavePieces(tuple(pieces))))
    if len(answer) != len(pieces):
        raise Refused(Reason.MALFORMED, f"{len(answer)} answers about {len(pieces)} pieces")
    return {piece for piece, there in zip(pieces, answer, strict=True) if there}


async def fetch_blob(blob: bytes, nodes: Iterable[bytes], request: Ask) -> bytes:
    """The blob of this id, from any k good pieces of each segment; `nodes` are the accounts that may know of it.

    Holders are asked at once and the first k good answers count; pieces that are not with their holders are looked
    for on every other node; damaged ones are ignored. Layouts that contradict one another are tried in turn. Raises
    Unreachable, whose message says how many of k pieces were found and what to do, or Refused(NOT_FOUND) when every
    node answered and none knows the blob.
    """
    accounts = list(dict.fromkeys(nodes))
    tally, tried, failures = _Tally(), set[bytes](), list[str]()
    async with aclosing(_layouts(blob, accounts, request, tally)) as layouts:
        async for layout in layouts:
            if layout.id in tried:
                continue  # the same pieces; holders that it does not name are found by asking everybody
            tried.add(layout.id)
            try:
                return await _Fetch(layout, accounts, request, tally).run()
            except Refused as refusal:
                failures.append(refusal.detail)
    if not tried and not tally.unreachable:
        raise Refused(Reason.NOT_FOUND, f"none of {len(accounts)} nodes knows blob {blob.hex()}")
    raise Unreachable(
        f"blob {blob.hex()} could not be put together: {'; '.join(failures) or 'no layout was found'} ({tally}). "
        f"Start more of the nodes that hold it, then run `atoll get {blob.hex()}` again."
    )


@dataclass
class _Tally:
    """What went wrong on the way, by account."""

    unreachable: set[bytes] = field(default_factory=set)
    damaged: set[bytes] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{len(self.unreachable)} nodes did not answer, {len(self.damaged)} sent damaged pieces"


async def _layouts(blob: bytes, accounts: Sequence[bytes], request: Ask, tally: _Tally) -> AsyncGenerator[Layout, None]:
    """Layouts of a blob as the nodes answer; a slow node delays nobody."""

    async def ask(account: bytes) -> list[Layout]:
        try:
            answer = decode_body(list[bytes], await _ask(request, account, GetLayout(blob)))
            return [layout for layout in map(parse, answer) if layout.blob == blob and layout.holders]
        except Unreachable:
            tally.unreachable.add(account)
        except Refused:
            pass  # it does not know the blob, or what it sent is no layout: others are asked anyway
        return []

    async with aclosing(_answers(ask, accounts)) as answers:
        async for layouts in answers:
            for layout in layouts:
                yield layout


async def _answers(
    ask: Callable[[bytes], Coroutine[Any, Any, _Answer]], accounts: Iterable[bytes]
) -> AsyncGenerator[_Answer, None]:
    """Asks every account at once and yields what they answer, first come first; closing it cancels the rest."""
    pending = {asyncio.create_task(ask(account)) for account in accounts}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        await _cancel(pending)


async def _cancel(pending: Iterable[asyncio.Task[_Answer]]) -> None:
    tasks = list(pending)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Fetch:
    """Brings the pieces of one layout together, segment by segment."""

    def __init__(self, layout: Layout, accounts: Sequence[bytes], request: Ask, tally: _Tally) -> None:
        self._layout, self._accounts, self._request, self._tally = layout, accounts, request, tally
        self._reliable: list[int] = []  # shards whose holders answered for the segment before

    async def run(self) -> bytes:
        """The blob; raises Refused as `join` does."""
        parts = []
        for segment in range(self._layout.segments):
            good = await self._from_holders(segment)
            if len(good) < self._layout.k:
                good |= await self._from_anybody(segment, good)
            parts.append(join_segment(self._layout, segment, good))
        return verified(self._layout, b"".join(parts))

    async def _from_holders(self, segment: int) -> dict[int, bytes]:
        """Piece index -> bytes. All holders are asked for the first segment; then those that answered, and others
        only as those fail."""
        layout = self._layout
        first = segment * layout.n
        others = [shard for shard in range(layout.n) if shard not in self._reliable]
        queue = deque(first + shard for shard in self._reliable + others if layout.holders[shard] != UNHELD)
        good: dict[int, bytes] = {}
        pending: dict[asyncio.Task[bytes | None], int] = {}
        try:
            while len(good) < layout.k:
                wanted = layout.k - len(good) if self._reliable else len(queue)
                while queue and len(pending) < wanted:
                    index = queue.popleft()
                    pending[asyncio.create_task(self._piece(index, layout.holder_of(index)))] = index
                if not pending:
                    break
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answers = {pending.pop(task): task.result() for task in done}
                good |= {index: piece for index, piece in answers.items() if piece is not None}
        finally:
            await _cancel(pending)
        self._reliable = sorted(index - first for index in good)
        return good

    async def _from_anybody(self, segment: int, good: Mapping[int, bytes]) -> dict[int, bytes]:
        """Pieces that nodes have although the layout does not say so: after a repair, or under a false layout."""
        layout = self._layout
        row = range(segment * layout.n, (segment + 1) * layout.n)
        missing = {layout.pieces[index]: index for index in row if index not in good}
        found: dict[int, bytes] = {}

        async def search(account: bytes) -> None:
            try:
                has = await _which(account, list(missing), self._request)
            except (Unreachable, Refused):
                return
            for index in sorted(missing[piece] for piece in has):
                if len(found) + len(good) >= layout.k:
                    return
                if index not in found and (data := await self._piece(index, account)) is not None:
                    found[index] = data

        async with aclosing(_answers(search, self._accounts)) as answers:
            async for _ in answers:
                if len(found) + len(good) >= layout.k:
                    break
        return found

    async def _piece(self, index: int, account: bytes) -> bytes | None:
        """Piece `index` from a node, or None when it cannot or does not give it."""
        name = self._layout.pieces[index]
        try:
            data = await _ask(self._request, account, GetPiece(name))
        except Unreachable:
            self._tally.unreachable.add(account)
            return None
        except Refused:
            return None
        if blob_id(data) != name:
            self._tally.damaged.add(account)
            return None
        return data
