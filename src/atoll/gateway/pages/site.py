"""The dashboard over HTTP: each page of the registry and its twin, and the few routes beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from atoll import __version__
from atoll.gateway import qr
from atoll.gateway.assets import Assets, version_of
from atoll.gateway.guard import owner_token
from atoll.gateway.pages import money, network, store, words
from atoll.gateway.pages.actions import Actions
from atoll.gateway.pages.facts import Missing, ModelFacts, Snapshot, unhexed
from atoll.gateway.pages.live import Feed
from atoll.gateway.pages.openapi import document, merged
from atoll.gateway.pages.reading import Reader
from atoll.gateway.pages.registry import PAGES, Page
from atoll.ledger.receipts import TOKEN

if TYPE_CHECKING:
    from atoll.node.daemon import Node

Json = Any
_TEMPLATES = Path(__file__).parents[1] / "templates"
BYTES = "application/octet-stream"
KEPT = {"Cache-Control": "private, max-age=3600", "Content-Disposition": "attachment"}
"""Of bytes that never change under their address."""


def routes(node: Node, more: Sequence[Json] = ()) -> list[BaseRoute]:
    """Everything that the dashboard answers; the guard stands before it.

    `more` are OpenAPI documents of the gateway's other parts: /openapi.json describes them all.
    """
    return Site(Reader(node), Actions(node, owner_token(node.home)), more).routes()


class Source(Protocol):
    """Where the pages have their facts from (`reading.Reader`)."""

    def snapshot(self) -> Snapshot:
        """Everything at this moment."""

    async def model(self, blob: bytes) -> ModelFacts:
        """A trained model; raises Missing."""

    async def model_file(self, blob: bytes) -> Path:
        """The file of a trained model; raises Missing."""

    def published(self, blob: bytes) -> bytes:
        """What was published for an epoch; raises Missing."""


class Site:
    """The routes and what they share."""

    def __init__(self, reader: Source, actions: Actions, more: Sequence[Json] = ()) -> None:
        self._reader, self._actions = reader, actions
        self._described = merged([document(__version__), *more])
        self._feed, self._environment = Feed(reader.snapshot), make_environment()

    def routes(self) -> list[BaseRoute]:
        """In an order in which a twin goes before a page whose address it could be taken for."""
        twins = [Route(page.twin, self._page(page, twin=True)) for page in PAGES]
        pages = [Route(page.path, self._page(page, twin=False)) for page in PAGES]
        return [
            *twins,
            Route("/models/{model}/file", self._found(self._model_file)),
            Route("/settlement/{epoch}/blob", self._found(self._epoch_blob)),
            Route("/join.svg", self._found(self._join_code)),
            Route("/events", self._feed.answer),
            Route("/openapi.json", self._openapi),
            Route("/favicon.ico", self._icon),
            Route("/actions/claim", self._actions.claim, methods=["POST"]),
            Route("/actions/stop", self._actions.stop, methods=["POST"]),
            *pages,
            Mount("/static", Assets()),
        ]

    def _page(self, page: Page, twin: bool) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            named = {name: str(value) for name, value in request.path_params.items()}
            if page.paged:
                named["page"] = request.query_params.get("page", "1")
            as_json = twin or _wants_json(request)
            try:
                found = await self._show(page, named)
            except Missing as missing:
                return error(request, 404, str(missing), as_json)
            if as_json:
                return JSONResponse(found, headers={"Vary": "Accept"})
            return HTMLResponse(self._render(page, named, found), headers={"Vary": "Accept"})

        return answer

    async def _show(self, page: Page, named: Mapping[str, str]) -> Json:
        if page.show is not None:
            return page.show(self._reader.snapshot(), named)
        model = await self._reader.model(unhexed(named["model"], 32, "model"))
        return store.model_page(self._reader.snapshot(), model)

    def _render(self, page: Page, named: Mapping[str, str], found: Json) -> str:
        twin = page.twin.format(**named)
        if page.paged and named["page"] != "1":
            twin += "?" + urlencode({"page": named["page"]})
        topics = " ".join(topic.format(**named) for topic in page.topics)
        return self._environment.get_template(page.template).render(
            data=found, topics=topics, twin=twin, here=page.path
        )

    def _found(self, work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await work(request)
            except Missing as missing:
                return error(request, 404, str(missing))

        return answer

    async def _model_file(self, request: Request) -> Response:
        blob = unhexed(request.path_params["model"], 32, "model")
        path = await self._reader.model_file(blob)
        return FileResponse(path, media_type=BYTES, headers=KEPT)  # in parts: who reads slowly holds none of it here

    async def _epoch_blob(self, request: Request) -> Response:
        blob = money.epoch_blob(self._reader.snapshot(), request.path_params)
        return _bytes(self._reader.published(blob))

    async def _join_code(self, _: Request) -> Response:
        url = network.phone(self._reader.snapshot())["url"]
        if not url:
            raise Missing("This gateway answers on this device only: start it with --host 0.0.0.0.")
        return Response(qr.svg(url), media_type="image/svg+xml")

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(self._described)

    async def _icon(self, _: Request) -> Response:
        return RedirectResponse("/static/icon.svg", 308)


def error(request: Request, status: int, sentence: str, as_json: bool | None = None) -> Response:
    """A page, or its twin, that says why there is nothing to show."""
    if as_json if as_json is not None else _wants_json(request):
        return JSONResponse({"error": sentence}, status)
    template = make_environment().get_template("error.html")
    shown = template.render(data={"status": status, "error": sentence}, topics="", twin="", here="")
    return HTMLResponse(shown, status)


async def not_found(request: Request, _: Exception) -> Response:
    """For an address that no part of a gateway answers: an exception handler of Starlette."""
    return error(request, 404, f"There is no page {request.url.path[:200]} here.")


@cache
def make_environment() -> jinja2.Environment:
    """The templates: everything is escaped, a name that is not there is an error."""
    version = version_of()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    environment.globals.update(
        asset=lambda path: f"/static/{path}?v={version}",
        menu=[(page.path, page.menu) for page in PAGES if page.menu],
        version=__version__,
        token=TOKEN,
    )
    return environment


def _bytes(data: bytes) -> Response:
    """Bytes that never change under their address."""
    return Response(data, media_type=BYTES, headers=KEPT)


def _wants_json(request: Request) -> bool:
    """Whether a client asks for JSON and not for a page."""
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted
