"""What a tab fetches and uploads over HTTP: blobs and samples. Whatever it gets, it checks by hash or by proof."""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from atoll.errors import AtollError, Corrupt, Refused
from atoll.gateway.guard import bearer
from atoll.gateway.tabs import telling
from atoll.gateway.tabs.relay import Relay, Tab
from atoll.gateway.tabs.samples import Samples, read_rows
from atoll.gateway.tabs.socket import Door
from atoll.gateway.tabs.supply import Supply
from atoll.wire.reasons import Reason

_HASH = re.compile(r"[0-9a-f]{64}")
_ROUND = re.compile(r"[0-9]{1,10}")
_STATUS: dict[int, int] = {
    Reason.NOT_FOUND: 404,
    Reason.TOO_LARGE: 413,
    Reason.MALFORMED: 400,
    Reason.BUSY: 429,
    Reason.BAD_SIGNATURE: 401,
}
UPLOAD_SECONDS = 30.0
UPLOAD_BYTES_A_SECOND = 16 * 1024
"""An upload may take UPLOAD_SECONDS, and longer when it is large: this much a second is the least."""
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}  # a name that is a hash means one thing only


def routes(relay: Relay) -> list[BaseRoute]:
    """The routes of a relay that runs."""
    web = _Web(relay)
    return [
        WebSocketRoute("/join/socket", Door(relay).serve),
        Route("/join/blob/{blob}", web.blob),
        Route("/join/blob", web.upload, methods=["PUT"]),
        Route("/join/samples/{job}", web.samples),
        Route("/join/certificates/{job}", web.certificates),
    ]


class _Web:
    """The HTTP side of a relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay, self._node = relay, relay.node
        self._supply = Supply(relay.node)
        self._samples = Samples(relay.node, self._supply)

    async def blob(self, request: Request) -> Response:
        """GET: a blob that belongs to a job or was revealed in its present round."""
        name = request.path_params["blob"]
        try:
            if not _HASH.fullmatch(name) or not self._relay.serves(bytes.fromhex(name)):
                raise Refused(Reason.NOT_FOUND, "no job here asks a tab to have this blob")
            path = await self._supply.blob(bytes.fromhex(name))
        except AtollError as error:
            return _failed(error)
        return FileResponse(path, media_type="application/octet-stream", headers=_FOREVER)

    async def samples(self, request: Request) -> Response:
        """GET ?rows=1,2,3: samples of a job with their Merkle proofs, as msgpack [[sample, [sibling, ...]], ...]."""
        name = request.path_params["job"]
        try:
            known = self._node.jobs.materials.get(bytes.fromhex(name)) if _HASH.fullmatch(name) else None
            if known is None:
                raise Refused(Reason.NOT_FOUND, "this gateway does not follow that job")
            rows = read_rows(request.query_params.get("rows", ""), known.manifest.data.count)
            packed = await self._samples.proven(bytes.fromhex(name), known.manifest, rows)
        except AtollError as error:
            return _failed(error)
        body = msgspec.msgpack.encode([msgspec.Raw(one) for one in packed])
        return Response(body, media_type="application/msgpack")

    async def certificates(self, request: Request) -> Response:
        """GET ?from=N: what the committees of a job signed from round N on, as msgpack [envelope, ...]."""
        name, first = request.path_params["job"], request.query_params.get("from", "")
        try:
            if not _HASH.fullmatch(name):
                raise Refused(Reason.NOT_FOUND, "a job is named by 64 hexadecimal digits")
            if not _ROUND.fullmatch(first):
                raise Refused(Reason.MALFORMED, "from is the number of a round")
            found = telling.certificates(self._relay.runner_of(bytes.fromhex(name)).job, int(first))
        except AtollError as error:
            return _failed(error)
        return Response(msgspec.msgpack.encode(found), media_type="application/msgpack")

    async def upload(self, request: Request) -> Response:
        """PUT: a state or an update of the unit that the tab works on; answers with its id."""
        tab = self._relay.tab_of(bearer(request.headers))
        if tab is None:
            return _failed(Refused(Reason.BAD_SIGNATURE, "an upload needs the token of an open tab of this gateway"))
        loads = self._relay.loads
        try:
            size = _size_of(request)
            self._relay.allowance(tab.account, size)
            if not loads.take(size):
                raise Refused(Reason.BUSY, "too many uploads at the same time; try again in a moment")
            try:
                return await self._take(request, tab, size)
            finally:
                loads.give(size)
        except AtollError as error:
            return _failed(error)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _take(self, request: Request, tab: Tab, size: int) -> Response:
        data = bytearray()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UPLOAD_SECONDS + size / UPLOAD_BYTES_A_SECOND):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > size:
                        break
        if len(data) != size:
            raise Refused(Reason.MALFORMED, f"{len(data)} bytes came, {size} were announced")
        return JSONResponse({"id": self._relay.keep(tab.account, bytes(data)).hex()})


def _size_of(request: Request) -> int:
    text = request.headers.get("content-length", "")
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) == 0:
        raise Refused(Reason.MALFORMED, "an upload says how long it is, and is not empty")
    return int(text)


def _failed(error: AtollError) -> Response:
    if isinstance(error, Refused):
        reason, status, detail = error.name, _STATUS.get(error.reason, 400), error.detail
    else:
        reason, status, detail = error.code, 500 if isinstance(error, Corrupt) else 503, str(error)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"error": {"reason": reason, "detail": detail[:500]}}, status, headers)
