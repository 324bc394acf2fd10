"""The messages of `/atoll/transfer/1`: numbers, fields and limits. All since version 1; numbers are never reused.

| number | request | body of the response |
|---|---|---|
| 1 | GetBlob: blob id, offset, length (1 byte to 1 MiB) | array of the blob's whole size and the bytes |
| 2 | HasBlob: up to 1024 blob ids | array of as many booleans |
| 3 | GetSamples: root of a data set, up to 1024 indices | array of as many [sample, siblings lowest first] |
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from atoll.wire.rpc import Hash, Request

ALPN = b"/atoll/transfer/1"
CHUNK_BYTES = 1 << 20
MAX_REQUEST_BYTES = 64 << 10
MAX_RESPONSE_BYTES = 8 << 20
MAX_BLOB_BYTES = 1 << 40  # no blob is larger, so offsets stay small integers everywhere
MAX_ASKED = 1024


class GetBlob(Request, frozen=True, tag=1):
    """Send part of a blob; the part is shorter at the blob's end."""

    blob: Hash
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB_BYTES)]
    length: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES)]


class HasBlob(Request, frozen=True, tag=2):
    """Which of these blobs does the node have?"""

    blobs: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_ASKED)]


class GetSamples(Request, frozen=True, tag=3):
    """Send samples of a data set with the Merkle proof of each."""

    root: Hash
    indices: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)], ...], msgspec.Meta(min_length=1, max_length=MAX_ASKED)
    ]


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to GetBlob."""

    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB_BYTES)]
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class ProvenSample(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One sample of the answer to GetSamples: leaf content and its proof."""

    sample: bytes
    proof: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=32)]
