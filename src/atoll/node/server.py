"""What a node answers to others beyond training, blobs, pieces and questions: greetings, signatures, stored models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from atoll.graph.archive import ModelFile
from atoll.inference import answer
from atoll.node.settler import PEER_ALPN, SignPost
from atoll.node.survey import Describe, Graded, about, scores_from
from atoll.storage.client import fetch_blob
from atoll.training.context import HOLDER
from atoll.wire import rpc
from atoll.wire.identity import MAX_RECORD_BYTES
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
    """The peer protocol of one node, and the models that the network stores."""

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

    # -- stored models -------------------------------------------------------------------------------------------
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
