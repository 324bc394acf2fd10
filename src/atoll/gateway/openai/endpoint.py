"""One path of the API as an ASGI app: who may ask, what is read, when the work stops, how errors are told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from atoll.errors import InternalError, MachineError
from atoll.gateway.guard import bearer, is_loopback
from atoll.gateway.openai.faults import ApiError, fault_of
from atoll.gateway.openai.keys import ApiKey, Keys
from atoll.gateway.openai.questions import MAX_BODY_BYTES, Question, parse
from atoll.gateway.openai.service import JSON, Answer, Call, Flow, Reply, Service

log = logging.getLogger(__name__)

BODY_SECONDS = 60.0
ANSWER_SECONDS = 900.0
GONE = 499  # how a client that went away is counted; nothing is sent to it
EVENTS = "text/event-stream; charset=utf-8"

Shown = Callable[[Service, Mapping[str, str]], Reply]


@dataclass(frozen=True)
class Post:
    """What a POST takes, at most how many bytes of it, and what answers."""

    kind: type[Question]
    answer: Answer
    max_bytes: int = MAX_BODY_BYTES


class Endpoint:
    """A path with one method: `get` shows something, `post` answers a question. `free` ones need no key."""

    def __init__(
        self, service: Service, path: str, *, get: Shown | None = None, post: Post | None = None, free: bool = False
    ) -> None:
        self._service, self._path, self._free = service, path, free
        self._get, self._post = get, post
        self._methods = ("POST",) if post else ("GET", "HEAD")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing is raised."""
        service, out, code = self._service, _Out(send), ""
        began = service.clock()
        try:
            await self._serve(Request(scope, receive), out, began)
        except ClientDisconnect:
            out.status, code = GONE, "gone"
        except Exception as error:  # whatever it is, the client gets JSON and the others go on
            fault = fault_of(error)
            code = fault.code
            if fault.code in (InternalError.code, MachineError.code):
                log.exception("a request to %s failed", self._path)
            with contextlib.suppress(OSError):
                await out.fault(fault)
        service.meter.answered(self._path, out.status, service.clock() - began, code)

    async def _serve(self, request: Request, out: _Out, began: float) -> None:
        if request.method not in self._methods:
            allowed = ", ".join(self._methods)
            told = f"{request.method} is not answered here: expected {self._methods[0]}."
            raise ApiError(405, told, "method_not_allowed", headers={"Allow": allowed})
        key = None if self._free else admitted(self._service.keys, request)
        if self._post is None:
            if self._get is not None:
                await out.reply(self._get(self._service, request.path_params))
            return
        async with self._body(request, self._post.max_bytes) as body:
            question = parse(body, self._post.kind)
        _check_budget(self._service.keys, key)
        call = Call(self._service, self._path, began, key)
        await _while_connected(request.receive, self._answer(self._post.answer, call, question, out))

    async def _answer(self, answer: Answer, call: Call, question: Question, out: _Out) -> None:
        async with self._service.slots.taken():
            _check_budget(self._service.keys, call.key)  # again: others have spent while this one waited
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    made = await answer(call, question)
                    await (out.reply(made) if isinstance(made, Reply) else out.flow(made))
            except TimeoutError:
                told = f"The answer was not complete after {ANSWER_SECONDS:g} seconds and was stopped: ask for less."
                raise ApiError(504, told, "too_slow") from None

    @contextlib.asynccontextmanager
    async def _body(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The body; raises ApiError 413 for one that is too large, 415 for one that is not JSON, 408 for a slow one."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != JSON:  # this also keeps out pages of other sites, which may not send this type unasked
            told = f"The body has the content type {media or 'none'!r}: expected {JSON}."
            raise ApiError(415, told, "unsupported_media_type", headers={"Accept-Post": JSON})
        parts, size, room = [], 0, self._service.room
        too_large = ApiError(413, f"The body is too large: at most {most} bytes are read.", "too_large")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:18]) > most:
            raise too_large
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    if size + len(part) > most:
                        raise too_large
                    room.take(len(part))
                    size += len(part)
                    parts.append(part)
            yield b"".join(parts)
        except TimeoutError:
            raise ApiError(408, f"The body was not complete after {BODY_SECONDS:g} seconds.", "too_slow") from None
        finally:
            room.give_back(size)


class NoEndpoint:
    """Every other path of the API: nothing is there."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404."""
        told = f"There is no {scope['path']!r:.80} here: /openapi.json lists what there is."
        await _Out(send).fault(ApiError(404, told, "not_found"))
        self._service.meter.answered("/v1/*", 404, 0.0, "not_found")


def admitted(keys: Keys, request: Request) -> ApiKey | None:
    """The key of a request, None where none is needed: from this device, as long as there are no keys.

    Raises ApiError 401.
    """
    challenge = {"WWW-Authenticate": "Bearer"}
    if not keys:
        if request.client is not None and is_loopback(request.client.host):
            return None
        told = "There are no keys yet, so that only programs on the node's own device may ask: make a key there with "
        raise ApiError(401, told + "`atoll key api add NAME`.", "no_keys", headers=challenge)
    key = keys.find(bearer(request.headers))
    if key is None:
        told = "The key is missing or unknown: expected the header `Authorization: Bearer KEY`, with a key that "
        raise ApiError(401, told + "`atoll key api add NAME` made on this node.", "invalid_api_key", headers=challenge)
    return key


def _check_budget(keys: Keys, key: ApiKey | None) -> None:
    if key is not None and key.most is not None and keys.spent(key) >= key.most:
        told = f"The key {key.name!r} has spent what it may: raise its limit by a new key (`atoll key api add`)."
        raise ApiError(402, told, "insufficient_quota")


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and stop it as soon as the client goes away; raises ClientDisconnect then."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Out:
    """What is sent to one client."""

    def __init__(self, send: Send) -> None:
        self._send: Callable[[Message], Awaitable[None]] = send
        self._flow: Flow | None = None
        self.status = 0

    async def reply(self, made: Reply, status: int = 200) -> None:
        await self._start(status, made.media, {**made.headers, "content-length": str(len(made.body))})
        await self._send({"type": "http.response.body", "body": made.body})

    async def flow(self, made: Flow) -> None:
        """Send events as they come. The first one is there before the answer begins, so that errors have a status."""
        async with contextlib.aclosing(made.events) as events:
            first = await anext(events)
            self._flow = made
            await self._start(200, EVENTS, {"cache-control": "no-store", "x-accel-buffering": "no"})
            await self._send({"type": "http.response.body", "body": first, "more_body": True})
            async for event in events:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def fault(self, fault: ApiError) -> None:
        """Tell of an error: as the answer, or as the last event of one that has begun."""
        if self._flow is not None:
            await self._send({"type": "http.response.body", "body": self._flow.failed(fault)})
        elif not self.status:
            await self.reply(Reply(fault.body, JSON, fault.headers), fault.status)

    async def _start(self, status: int, media: str, headers: Mapping[str, str]) -> None:
        self.status = status
        listed = [(name.lower().encode(), text.encode("latin-1", "replace")) for name, text in headers.items()]
        listed.append((b"content-type", media.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": listed})
