"""How this node asks others: by account, over the transport, with the directory's addresses; own requests stay here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from atoll.errors import Refused, Unreachable
from atoll.node.peers import Directory
from atoll.node.transport import PeerAddress, Transport
from atoll.transfer.meter import Meter
from atoll.wire.reasons import Reason

Answer = Callable[[bytes, bytes], Awaitable[bytes]]
"""(endpoint id of the asker, request) -> response."""

REQUEST_SECONDS = 15.0


class Network:
    """The client side of every protocol. `meter` counts bytes by peer and room."""

    def __init__(self, account: bytes, directory: Directory, handlers: Mapping[bytes, Answer]) -> None:
        self.account, self.directory = account, directory
        self.meter = Meter()
        self._handlers = handlers
        self._transport: Transport | None = None

    def attach(self, transport: Transport) -> None:
        """Start to reach others."""
        self._transport = transport

    async def ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        """A peer's response; raises Unreachable or Refused. What a node asks itself does not cross the network."""
        if account == self.account:
            return await self._answer_here(alpn, payload)
        if self._transport is None:
            raise Unreachable("This node is not on the network yet: wait until it has started.")
        peer = self.directory.get(account)
        if peer.endpoint_id == self._transport.endpoint_id:  # a browser tab that is reached through this node
            return await self._answer_here(alpn, payload)
        address = PeerAddress(peer.endpoint_id, peer.addresses)
        answer = await self._transport.request(address, alpn, payload, timeout=REQUEST_SECONDS)
        room = alpn.decode().split("/")[2]
        self.meter = self.meter.add(account, room, up=len(payload), down=len(answer))
        return answer

    async def _answer_here(self, alpn: bytes, payload: bytes) -> bytes:
        answer = self._handlers.get(alpn)
        if answer is None:
            raise Refused(Reason.BAD_VERSION, f"this node does not speak {alpn.decode()}")
        return await answer(b"", payload)

    def served(self, endpoint_id: bytes, alpn: bytes, received: int, sent: int) -> None:
        """Count what a peer asked of us."""
        account = self.directory.account_of(endpoint_id)
        if account is not None:
            self.meter = self.meter.add(account, alpn.decode().split("/")[2], up=sent, down=received)
