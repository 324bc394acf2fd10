"""The serving side of `/atoll/transfer/1`: request bytes in, response bytes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.errors import Corrupt, Refused
from atoll.transfer.blobs import BlobStore
from atoll.transfer.messages import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    Chunk,
    GetBlob,
    GetSamples,
    HasBlob,
    ProvenSample,
)
from atoll.wire.reasons import Reason
from atoll.wire.rpc import dispatch, encode_body, handlers

Samples = Callable[[bytes, Sequence[int]], Sequence[tuple[bytes, Sequence[bytes]]]]
"""Samples of a data set: (root, indices) -> (leaf content, proof) each; raises Refused(NOT_FOUND)."""


def no_samples(root: bytes, indices: Sequence[int]) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    """What a node without data sets answers."""
    raise Refused(Reason.NOT_FOUND, f"sample {indices[0]} of data set 0x{root.hex()}")


def _ignore(_: Corrupt) -> None:
    """Nobody wants to hear of damage."""


class TransferService:
    """Answers from one BlobStore and from `samples`; `report` hears of each damaged file, the asker of NOT_FOUND."""

    def __init__(
        self, blobs: BlobStore, samples: Samples = no_samples, report: Callable[[Corrupt], None] = _ignore
    ) -> None:
        self._blobs, self._samples, self._report = blobs, samples, report
        self._handlers = handlers((GetBlob, self._get_blob), (HasBlob, self._has_blob), (GetSamples, self._get_samples))

    def handle(self, payload: bytes) -> bytes:
        """The response to one request; raises MachineError only, when the disk fails."""
        return dispatch(self._handlers, payload, MAX_REQUEST_BYTES)

    def _get_blob(self, request: GetBlob) -> bytes:
        size = self._blobs.size(request.blob)
        try:
            data = self._blobs.read(request.blob, request.offset, request.length)
        except Corrupt as damage:
            self._report(damage)
            raise Refused(Reason.NOT_FOUND, "the blob was damaged") from damage
        return encode_body(Chunk(size, data))

    def _has_blob(self, request: HasBlob) -> bytes:
        return encode_body([self._blobs.has(blob) for blob in request.blobs])

    def _get_samples(self, request: GetSamples) -> bytes:
        proven = [ProvenSample(sample, tuple(proof)) for sample, proof in self._samples(request.root, request.indices)]
        body = encode_body(proven)
        if len(body) > MAX_RESPONSE_BYTES - 64:  # what the response's frame may add
            raise Refused(Reason.TOO_LARGE, f"{len(body)} bytes of samples: ask for fewer at once")
        return body
