"""What the owner can do from the dashboard, with the token of the gateway's home: claim, and end a job of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atoll.errors import AtollError, BadInput, ChainError
from atoll.gateway.guard import is_owner
from atoll.node.settler import NOTHING_WAITS
from atoll.wire.identity import format_account

if TYPE_CHECKING:
    from atoll.node.daemon import Node

Json = Any
MAX_BODY = 4096


class Claim(msgspec.Struct, forbid_unknown_fields=True):
    """Claim what posted epochs grant the gateway's own account."""


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """End a job that the gateway's own account pays for, as soon as the chain allows."""

    job: Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{64}$")]


class Actions:
    """`POST /actions/claim` and `/actions/stop`: a JSON body, answered with {"done": a sentence} or {"error": one}."""

    def __init__(self, node: Node, token: str) -> None:
        self._node, self._token = node, token

    async def claim(self, request: Request) -> Response:
        """Claim for the gateway's own account."""
        return await self._act(request, Claim, self._claim)

    async def stop(self, request: Request) -> Response:
        """End a job of the gateway's own account."""
        return await self._act(request, Stop, self._stop)

    async def _act(self, request: Request, kind: type[Any], work: Callable[[Any], Awaitable[str]]) -> Response:
        if not is_owner(request.headers, self._token):
            headers = {"WWW-Authenticate": 'Bearer realm="atoll"'}
            return _error(401, "This needs the owner's token: it is in gateway.token in the gateway's home.", headers)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "Expected a JSON body (Content-Type: application/json).")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _error(413, f"At most {MAX_BODY} bytes are read.")
        try:
            asked = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, f"This is not what was expected: {error}")
        try:
            return JSONResponse({"done": await work(asked)})
        except AtollError as error:
            return _error(502 if isinstance(error, ChainError) else 409, str(error))

    async def _claim(self, _: Claim) -> str:
        me = self._node.account
        amount = await self._node.settler.collect(me)
        return f"Claimed {amount} base units for {format_account(me)}." if amount else NOTHING_WAITS

    async def _stop(self, asked: Stop) -> str:
        node, job = self._node, bytes.fromhex(asked.job[2:])
        known = node.view.jobs.get(job)
        if known is None:
            raise BadInput(f"No job {asked.job} is on this network's chain.")
        if known.developer != node.account:
            raise BadInput(f"This job belongs to {format_account(known.developer)}: only that account can end it.")
        rounds = known.certified + 2  # what is under way is still certified and paid
        if rounds >= known.end:
            raise BadInput(f"The job is nearly over: {known.certified} of {known.end} rounds are certified.")
        await node.send(node.chain.shorten, job, rounds)
        return f"The job ends after round {rounds - 1}; what is left of its budget goes back."


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)
