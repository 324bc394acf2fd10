"""The description of the API: one with the code, and fit to be part of the gateway's."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.routing import Route

from atoll.gateway.openai import schema
from atoll.gateway.pages import openapi
from tests.gateway.openai.serving import Echo, make_app


def test_every_path_that_is_answered_is_described(tmp_path: Any) -> None:
    app = make_app(Echo(), tmp_path)
    routes = {re.sub(r":\w+}", "}", route.path) for route in app.routes if isinstance(route, Route)}
    assert routes - {"/v1/{path}"} == set(schema.paths())


def test_it_joins_the_description_of_the_pages() -> None:
    pages = openapi.document("1")
    joined = openapi.merged([pages, schema.document("1")])
    assert not set(pages["paths"]) & set(schema.paths())
    for kind, named in schema.components().items():
        assert not set(named) & set(pages["components"].get(kind, {})), kind
    references = set(re.findall(r'"#/components/(\w+)/([\w-]+)"', json.dumps(joined)))
    assert len(references) > 30
    assert all(name in joined["components"][kind] for kind, name in references)


def test_questions_take_no_field_that_is_unknown() -> None:
    schemas = schema.components()["schemas"]
    for name in ("Chat", "Turn", "Completion", "Ask", "Item", "Embedding", "Classify", "StreamOptions"):
        assert schemas[name]["additionalProperties"] is False
