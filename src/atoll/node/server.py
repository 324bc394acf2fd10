"""What a node answers to others beyond training, blobs and pieces: greetings, signatures, stored models, answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.graph.archive import ModelFile
from atoll.inference import answer
from atoll.inference.messages import ALPN as INFERENCE_ALPN
from atoll.inference.messages import MAX_REQUEST_BYTES, Predict, Scores
from atoll.node.settler import PEER_ALPN, SignPost
from atoll.node.survey import Describe, Graded, about, scores_from
from atoll.storage.client import fetch_blob
from atoll.training.context import HOLDER
from atoll.wire import rpc
from atoll.wire.identity import MAX_RECORD_BYTES
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Hash, Request

if TYPE_CHECKING:
    from atoll.node.daemon import Node

MAX_PEER_BYTES = 256 * 1024
MAX_RECORDS = 64
CACHED_MODELS = 4

Record = Annotated[bytes, msgspec.Meta(max_length=MAX_RECORD_BYTES)]


class Hello(Request, frozen=True, tag=1):
    """The sender's signed peer record; the answer lists records that the receiver knows, its own first."""

    record: Record


class Stored(Request, frozen=True, tag=3):
    """The trained model of a job is stored in the network under this blob id."""

    job: Hash
    blob: Hash


class Server:
    """The peer and inference protocols of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._table = rpc.handlers(
            (Hello, self._hello),
            (SignPost, self._sign),
            (Stored, self._stored),
            (Describe, lambda _: rpc.encode_body(about(node))),
            (Graded, lambda request: scores_from(node, request)),
        )
        self._models: dict[bytes, ModelFile] = {}

    def peer(self, payload: bytes) -> bytes:
        """The response to a request of `/atoll/peer/1`."""
        return rpc.dispatch(self._table, payload, MAX_PEER_BYTES)

    def _hello(self, request: Hello) -> bytes:
        self._node.learn([request.record])
        return rpc.encode_body([self._node.record(), *self._node.directory.records()][:MAX_RECORDS])

    def _sign(self, request: SignPost) -> bytes:
        return self._node.settler.sign(request)

    def _stored(self, request: Stored) -> bytes:
        self._node.spawn(self._node.jobs.check_stored(request.job, request.blob))
        return b""

    async def greet(self, account: bytes, record: bytes) -> None:
        """Exchange peer records with a peer; raises Unreachable or Refused."""
        response = await self._node.network.ask(account, PEER_ALPN, rpc.encode_body(Hello(record)))
        kind = Annotated[list[Record], msgspec.Meta(max_length=MAX_RECORDS)]
        self._node.learn(rpc.decode_body(kind, rpc.decode_response(response)))

    async def tell_stored(self, account: bytes, job: bytes, blob: bytes) -> None:
        """Tell a peer where a job's model is."""
        rpc.decode_response(await self._node.network.ask(account, PEER_ALPN, rpc.encode_body(Stored(job, blob))))

    # -- inference -----------------------------------------------------------------------------------------------
    async def predict(self, payload: bytes) -> bytes:
        """The response to a request of `/atoll/inference/1`."""
        if self._node.paused:
            return rpc.encode_refusal(Reason.PAUSED)
        try:
            if len(payload) > MAX_REQUEST_BYTES + 1024:
                raise Refused(Reason.TOO_LARGE, f"{len(payload)} bytes")
            request = rpc.decode_body(Predict, payload)
            model = await self.model(request.model)
            values = await answer.scores(model, answer.read_inputs(model, request), self._node.engine)
            return rpc.encode_ok(rpc.encode_body(answer.encode_scores(values)))
        except Refused as refusal:
            return rpc.encode_refusal(refusal.reason, refusal.detail)

    async def model(self, blob: bytes) -> ModelFile:
        """A trained model by its blob id, from here or put together from its pieces; raises Refused or Unreachable."""
        known = self._models.get(blob)
        if known is None:
            known = answer.open_model(await self.stored_blob(blob))
            self._models[blob] = known
            while len(self._models) > CACHED_MODELS:
                self._models.pop(next(iter(self._models)))
        return known

    async def stored_blob(self, blob: bytes) -> bytes:
        """A blob that the network stores: a copy here, or any k of its pieces."""
        if self._node.blobs.has(blob):
            return self._node.blobs.get(blob)
        return await fetch_blob(blob, self._node.directory.with_role(HOLDER), self._node.network.ask)

    async def ask_server(self, account: bytes, model: bytes, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Scores of inputs x [n, ...] by a serving node; raises Refused or Unreachable."""
        request = rpc.encode_body(Predict(model, len(x), x.tobytes()))
        response = rpc.decode_response(await self._node.network.ask(account, INFERENCE_ALPN, request))
        return answer.decode_scores(rpc.decode_body(Scores, response), len(x))
