"""One browser tab's WebSocket: who it is, what it asks, what it is told. The protocol is docs/protocol/tabs.md."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from atoll.errors import AtollError, Refused
from atoll.gateway.guard import Buckets, Limits, address_of
from atoll.gateway.tabs import frames, telling
from atoll.gateway.tabs.frames import Bye, Claim, Enlist, Hello, Pause, Register, Say
from atoll.gateway.tabs.limits import (
    FRAMES_BURST,
    FRAMES_PER_SECOND,
    HELLO_SECONDS,
    REFUSALS_AT_ONCE,
    SOCKETS_PER_ADDRESS,
)
from atoll.gateway.tabs.outbox import Outbox
from atoll.gateway.tabs.relay import Relay, Tab
from atoll.wire.hashing import Tag, tagged
from atoll.wire.identity import recover
from atoll.wire.reasons import Reason

log = logging.getLogger(__name__)

GOODBYE, REFUSED, TRY_LATER = 1000, 1008, 1013
"""Close codes (RFC 6455): as agreed; against the rules; ask again later."""
SEND_SECONDS = 20.0
"""A tab that does not take a frame for so long is given up."""


class Door:
    """Lets sockets in, as long as there are places; those that are refused are told why."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._refusing = 0

    async def serve(self, websocket: WebSocket) -> None:
        """The whole life of one socket."""
        places, address = self._relay.places, address_of(websocket.client.host if websocket.client else None)
        refusal = self._refusal(address)
        if refusal:
            await self._refuse(websocket, refusal)
            return
        places.enter(address)
        try:
            with contextlib.suppress(WebSocketDisconnect, TimeoutError):
                await websocket.accept()
                await _Conversation(self._relay, websocket, address).hold()
        finally:
            places.leave(address)

    def _refusal(self, address: str) -> str:
        places = self._relay.places
        if places.crowded(address):
            return f"this address has {SOCKETS_PER_ADDRESS} tabs here already; close one, then try again"
        if places.full:
            self._relay.make_room(time.monotonic())
            return f"this gateway has places for {places.tabs} tabs and all are taken; try again in a minute"
        return ""

    async def _refuse(self, websocket: WebSocket, detail: str) -> None:
        """Tell a newcomer that there is no room. Telling takes memory, so only some are told at the same time."""
        if self._refusing >= REFUSALS_AT_ONCE:
            await websocket.close(TRY_LATER)
            return
        self._refusing += 1
        try:
            with contextlib.suppress(WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(HELLO_SECONDS):
                    await websocket.accept()
                    await websocket.send_text(frames.write("full", detail=detail))
                    await websocket.close(TRY_LATER, "full")
        finally:
            self._refusing -= 1


class _Conversation:
    """A socket that has a place."""

    def __init__(self, relay: Relay, websocket: WebSocket, address: str) -> None:
        self._relay, self._node, self._socket, self._address = relay, relay.node, websocket, address
        self._filled, self._leave = asyncio.Event(), asyncio.Event()
        self._outbox = Outbox(self._filled.set, self._leave.set)
        self._rate = Buckets(Limits(FRAMES_BURST, FRAMES_PER_SECOND, addresses=1))
        self._errand: asyncio.Task[None] | None = None  # what waits for the chain

    async def hold(self) -> None:
        """Greet the tab, learn its account, then talk until one of the two ends it."""
        tab = await self._greet()
        if tab is None:
            return
        self._relay.enter(tab)
        talking = [asyncio.ensure_future(one) for one in (self._listen(tab), self._speak(), self._leave.wait())]
        try:
            await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._relay.leave(tab)
            for task in talking:
                task.cancel()
            results = await asyncio.gather(*talking, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | TimeoutError):
                log.error("a browser tab's socket ended: %r", result, exc_info=result)
        if self._outbox.overflowed:
            await self._close(TRY_LATER, "too slow")
        elif tab.reason:
            await self._close(GOODBYE, tab.reason)
        elif not any(isinstance(result, WebSocketDisconnect) for result in results):
            await self._close(*next((result for result in results if isinstance(result, tuple)), (GOODBYE, "")))

    # -- hello -----------------------------------------------------------------------------------------------------
    async def _greet(self) -> Tab | None:
        node, challenge = self._node, secrets.token_bytes(32)
        where, endpoint = node.chain.addresses, node.keys.endpoint.public
        place = telling.Place(where.chain_id, where.registry, where.jobs, where.settlement, endpoint)
        await self._send(telling.welcome(place, challenge))
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                text = await self._socket.receive_text()
        except (TimeoutError, KeyError):  # KeyError: a binary frame
            await self._close(REFUSED, "a hello was expected")
            return None
        try:
            account = self._account_of(text, challenge)
            nonce = await self._relay.sponsor.nonce(account)
        except AtollError as error:
            await self._send(_refused(frames.id_of(text), error))
            await self._close(REFUSED, "no account was proven")
            return None
        self._outbox.event(frames.write("taken", id=frames.id_of(text)))
        token = secrets.token_hex(32)
        return Tab(account, self._address, token, self._outbox, self._leave, nonce, time.monotonic())

    def _account_of(self, text: str, challenge: bytes) -> bytes:
        """The account that a hello proves; raises Refused."""
        frame = frames.read(text)
        if not isinstance(frame, Hello):
            raise Refused(Reason.MALFORMED, "the first frame must be a hello")
        node, account = self._node, bytes.fromhex(frame.account)
        digest = tagged(Tag.JOIN, node.domain.encode(), node.keys.endpoint.public, challenge, account)
        if recover(digest, bytes.fromhex(frame.signature)) != account:
            raise Refused(Reason.BAD_SIGNATURE, "the account did not sign this challenge")
        return account

    # -- listening -------------------------------------------------------------------------------------------------
    async def _listen(self, tab: Tab) -> tuple[int, str]:
        """Answer frames until the tab says goodbye, or breaks a rule; returns how to close."""
        while True:
            try:
                text = await self._socket.receive_text()
            except KeyError:
                return REFUSED, "frames are text"
            tab.heard = time.monotonic()
            if self._rate.take("tab", 1.0, tab.heard):
                return REFUSED, "too many frames"
            try:
                frame = frames.read(text)
                if isinstance(frame, Bye):
                    return GOODBYE, "goodbye"
                if not self._answer_later(tab, frame):
                    self._outbox.event(frames.write("taken", id=frame.id))
            except AtollError as error:
                self._outbox.event(_refused(frames.id_of(text), error))

    def _answer_later(self, tab: Tab, frame: frames.FromTab) -> bool:
        """Do what a frame asks; True when the answer has to wait for the chain. Raises Refused."""
        match frame:
            case Say():
                self._relay.say(tab.account, bytes.fromhex(frame.raw))
            case Claim():
                self._relay.sponsor.claim_soon(tab.account)
            case Pause():
                tab.paused = frame.paused
                self._relay.tell_rounds(tab)
            case Register() | Enlist():
                if self._errand is not None and not self._errand.done():
                    raise Refused(Reason.BUSY, "the last request still waits for the chain")
                self._errand = asyncio.create_task(self._on_chain(tab, frame))
                return True
            case _:
                raise Refused(Reason.MALFORMED, "this socket has an account already")
        return False

    async def _on_chain(self, tab: Tab, frame: Register | Enlist) -> None:
        """Goes on when the tab leaves: a transaction that was sent cannot be taken back."""
        sponsor = self._relay.sponsor
        try:
            if isinstance(frame, Register):
                await sponsor.register(tab.account, self._address, frame)
            else:
                await sponsor.enlist(tab.account, self._address, frame)
            answer = frames.write("taken", id=frame.id)
        except AtollError as error:
            answer = _refused(frame.id, error)
        with contextlib.suppress(AtollError):  # a nonce that is out of date is told again after the next attempt
            tab.nonce = await sponsor.nonce(tab.account)
        self._outbox.event(answer)

    # -- speaking --------------------------------------------------------------------------------------------------
    async def _speak(self) -> None:
        """Send what the outbox holds; raises TimeoutError when the tab does not take a frame."""
        while True:
            self._filled.clear()
            while (text := self._outbox.take()) is not None:
                await self._send(text)
            await self._filled.wait()

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            try:
                await self._socket.send_text(text)
            except RuntimeError:  # the server has closed it already: the tab did not answer a ping
                raise WebSocketDisconnect from None

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it may be closed already
            async with asyncio.timeout(HELLO_SECONDS):
                await self._socket.close(code, reason)


def _refused(name: str, error: AtollError) -> str:
    if not isinstance(error, Refused):
        return frames.write("refused", id=name, reason=error.code, detail=str(error)[:500])
    return frames.write("refused", id=name, reason=error.name, detail=error.detail[:500])
