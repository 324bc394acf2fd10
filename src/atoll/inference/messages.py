"""The inference protocol `/atoll/inference/1`: ask a node to run a trained model on a few inputs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from atoll.wire.rpc import Hash, Request

ALPN = b"/atoll/inference/1"
MAX_REQUEST_BYTES = 8 << 20
MAX_INPUTS = 64


class Predict(Request, frozen=True, tag=1):
    """Run model `model` (blob id of a model file) on `count` inputs: their bytes, C order, in the manifest's dtype."""

    model: Hash
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_INPUTS)]
    inputs: Annotated[bytes, msgspec.Meta(max_length=MAX_REQUEST_BYTES)]


class Scores(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer: float32 little-endian [count, *shape], C order."""

    shape: tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 20)], ...]
    values: bytes
