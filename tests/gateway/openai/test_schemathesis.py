"""The API holds to its own OpenAPI description, for thousands of requests that fit it and that do not."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.gateway.openai import schema as description
from tests.gateway.openai.serving import Echo, make_app

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra `clients`")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

KINDS = {"Chat": "language", "Completion": "language", "Ask": "language"} | {
    "Embedding": "embedding", "Classify": "classifier",
}  # fmt: skip

QUESTIONS = [path for path, methods in description.paths().items() if "post" in methods]


def picture(size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.new("L", size, 7).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


schemathesis.openapi.format("picture", st.tuples(st.integers(1, 9), st.integers(1, 9)).map(picture))


def described() -> dict[str, Any]:
    """The description, with the models of this server, so that questions reach them."""
    found = description.document("1")
    for name, kind in KINDS.items():
        names = [model for model, of in Echo.kinds.items() if of == kind and model not in ("broken", "poor")]
        found["components"]["schemas"][name]["properties"]["model"] = {"type": "string", "enum": names}
    return found


def app() -> ASGIApp:
    made = make_app(Echo(), Path("nowhere-at-all"))

    async def openapi(_: Request) -> Response:
        return JSONResponse(described())

    made.router.routes.append(Route("/openapi.json", openapi))

    async def from_this_device(scope: Scope, receive: Receive, send: Send) -> None:
        await made({**scope, "client": ("127.0.0.1", 1000)}, receive, send)

    return from_this_device


api = schemathesis.openapi.from_asgi("/openapi.json", app())


@pytest.fixture(scope="module")
def statuses() -> Iterator[dict[str, set[int]]]:
    """Which statuses each path answered a POST with: some questions were served and some refused."""
    found: dict[str, set[int]] = defaultdict(set)
    yield found
    assert all(some >= {200, 400, 415} for some in found.values()), found


@api.parametrize()
@hypothesis.settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_the_api_is_as_it_is_described(case: Any, statuses: dict[str, set[int]]) -> None:
    # That a text is a picture in base64 cannot be said in a schema: what fits the schema may still be none.
    excluded = [positive_data_acceptance] if case.path == "/v1/classify" else []
    response = case.call_and_validate(excluded_checks=excluded)
    if case.method == "POST" and case.path in QUESTIONS:
        statuses[case.path].add(response.status_code)
