"""Fetching blobs and samples from other nodes, through an injected `request` that reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll.errors import Refused, Unreachable
from atoll.transfer.messages import ALPN, CHUNK_BYTES, MAX_ASKED, Chunk, GetBlob, GetSamples, HasBlob, ProvenSample
from atoll.wire.hashing import blob_id
from atoll.wire.merkle import verify
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask, Request, decode_body, decode_response, encode_body

IN_FLIGHT = 4  # chunks asked for at once: fills a link of 100 ms and 40 MB/s


async def _ask(request: Ask, account: bytes, message: Request) -> bytes:
    return decode_response(await request(account, ALPN, encode_body(message)))


async def has_blobs(blobs: Sequence[bytes], source: bytes, request: Ask) -> list[bool]:
    """For each id (at most 1024), whether a node has the blob; raises Unreachable or Refused."""
    answer = decode_body(list[bool], await _ask(request, source, HasBlob(tuple(blobs))))
    if len(answer) != len(blobs):
        raise Refused(Reason.MALFORMED, f"{len(answer)} answers about {len(blobs)} blobs")
    return answer


@dataclass
class _Partial:
    """The beginning of a blob, and who sent it; `size` is the whole as they say."""

    size: int | None = None
    data: bytearray = field(default_factory=bytearray)
    senders: set[bytes] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return self.size == len(self.data)

    def is_blob(self, blob: bytes) -> bool:
        return blob_id(self.data) == blob

    def accept(self, sender: bytes, chunk: Chunk, limit: int) -> bool:
        """Appends the next chunk, or begins again when it contradicts earlier senders; whether it was appended.

        Raises Refused when it cannot be part of the blob.
        """
        if chunk.size > limit:
            raise Refused(Reason.TOO_LARGE, f"{chunk.size} bytes, the limit is {limit}")
        if self.size not in (None, chunk.size):
            if sender in self.senders:
                raise Refused(Reason.MALFORMED, "the size changed between chunks")
            # One of the two is wrong. The one before has failed already, so the blob begins again with this one.
            self.size, self.senders = chunk.size, {sender}
            self.data.clear()
            return False
        if len(chunk.data) != min(CHUNK_BYTES, chunk.size - len(self.data)):
            raise Refused(Reason.MALFORMED, f"{len(chunk.data)} bytes at offset {len(self.data)} of {chunk.size}")
        self.size = chunk.size
        self.data += chunk.data
        self.senders.add(sender)
        return True


async def fetch_blob(blob: bytes, sources: Sequence[bytes], request: Ask, limit: int) -> bytes:
    """The blob of this id, of at most `limit` bytes, from the accounts in `sources`, tried in order.

    When a source fails, the next continues where it stopped. If the whole has the wrong hash and several had sent
    parts, the last one is asked for all of it: a lie costs one download, never the blob. Raises Refused with the reason
    that all sources have in common (NOT_FOUND, TOO_LARGE, WRONG_HASH, ...), else Unreachable with what each said.
    """
    failures: list[Unreachable | Refused] = []
    partial = _Partial()
    for source in sources:
        try:
            await _continue(partial, blob, source, request, limit)
            if not partial.is_blob(blob) and len(partial.senders) > 1:
                partial = _Partial()
                await _continue(partial, blob, source, request, limit)
            if partial.is_blob(blob):
                return bytes(partial.data)
            partial = _Partial()
            raise Refused(Reason.WRONG_HASH, f"account 0x{source.hex()} sent other bytes")
        except (Unreachable, Refused) as failure:
            failures.append(failure)
    raise _summary(blob, failures)


async def _continue(partial: _Partial, blob: bytes, source: bytes, request: Ask, limit: int) -> None:
    """Adds chunks from one source until the blob is complete; what arrived before a failure stays."""
    while not partial.complete:
        start = len(partial.data)
        end = start + 1 if partial.size is None else partial.size  # before the first chunk nobody knows the size
        offsets = range(start, end, CHUNK_BYTES)[:IN_FLIGHT]
        asked = [asyncio.create_task(_chunk(blob, offset, source, request)) for offset in offsets]
        try:
            for task in asked:
                if not partial.accept(source, await task, limit):
                    break
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def _chunk(blob: bytes, offset: int, source: bytes, request: Ask) -> Chunk:
    return decode_body(Chunk, await _ask(request, source, GetBlob(blob, offset, CHUNK_BYTES)))


def _summary(blob: bytes, failures: Sequence[Unreachable | Refused]) -> Unreachable | Refused:
    reasons = {failure.reason if isinstance(failure, Refused) else None for failure in failures}
    last = failures[-1] if failures else None
    if isinstance(last, Refused) and len(reasons) == 1:
        return Refused(last.reason, f"blob {blob.hex()} from any of {len(failures)} nodes: {last.detail}")
    told = "; ".join(str(failure) for failure in failures) or "there is no node to ask"
    return Unreachable(f"blob {blob.hex()} could not be fetched: {told}. Start more nodes, then ask again.")


async def fetch_samples(
    root: bytes, count: int, indices: Sequence[int], sources: Sequence[bytes], request: Ask
) -> list[bytes]:
    """Samples `indices` of the data set of `count` samples with this Merkle root, each checked by its proof.

    Asks `sources` in order for up to 1024 at once, for fewer where those exceed the limit of a response. Raises
    Refused or Unreachable as `fetch_blob`.
    """
    got: dict[int, bytes] = {}
    failures: list[Unreachable | Refused] = []
    wanted = list(dict.fromkeys(indices))
    for source in sources:
        batch = MAX_ASKED
        while missing := [index for index in wanted if index not in got][:batch]:
            try:
                got |= await _samples(root, count, missing, source, request)
            except (Unreachable, Refused) as failure:
                if isinstance(failure, Refused) and failure.reason == Reason.TOO_LARGE and len(missing) > 1:
                    batch = len(missing) // 2
                    continue
                failures.append(failure)
                break
        else:
            return [got[index] for index in indices]
    raise _summary(root, failures)


async def _samples(root: bytes, count: int, indices: Sequence[int], source: bytes, request: Ask) -> dict[int, bytes]:
    answer = decode_body(list[ProvenSample], await _ask(request, source, GetSamples(root, tuple(indices))))
    if len(answer) != len(indices):
        raise Refused(Reason.MALFORMED, f"{len(answer)} samples, asked for {len(indices)}")
    for index, proven in zip(indices, answer, strict=True):
        if not verify(root, count, index, proven.sample, proven.proof):
            raise Refused(Reason.BAD_PROOF, f"sample {index} from account 0x{source.hex()}")
    return {index: proven.sample for index, proven in zip(indices, answer, strict=True)}
