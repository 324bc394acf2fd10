"""The description of every route of the dashboard, as OpenAPI 3.1 data. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from atoll.gateway.pages.registry import PAGES, Page

Json = Any
PARAMETERS: dict[str, Json] = {
    "job": ("Id of a job: 0x and 64 hexadecimal digits.", {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}),
    "account": ("An account: 0x and 40 hexadecimal digits.", {"type": "string", "pattern": "^0x[0-9a-f]{40}$"}),
    "model": ("Blob id of a model: 64 hexadecimal digits.", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
    "round": ("Number of a round, from 0 on.", {"type": "integer", "minimum": 0}),
    "epoch": ("Number of an epoch, from 0 on.", {"type": "integer", "minimum": 0}),
    "page": ("Which page of a long list, from 1 on.", {"type": "integer", "minimum": 1, "default": 1}),
}
_OBJECT = {"schema": {"type": "object"}}
_TEXT = {"schema": {"type": "string"}}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_MISSING = {
    "description": "There is no such thing on this network, as far as this gateway knows.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}, "text/html": _TEXT},
}
_BUSY = {"description": "Too many requests from this address.", "content": {"text/plain": _TEXT}}


def document(version: str) -> Json:
    """The whole description; other parts of a gateway merge their `paths` and `components` into it."""
    paths: dict[str, Json] = {}
    for page in PAGES:
        paths[page.path] = {"get": _page(page, {"text/html": _TEXT, "application/json": _OBJECT}, "")}
        paths[page.twin] = {"get": _page(page, {"application/json": _OBJECT}, " (JSON)")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll gateway",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Every page has a JSON twin: the same address with .json, or with Accept: application/json. "
            "Amounts are strings of base units (10^18 = 1 ATL). Reading needs no token.",
        },
        "paths": {**paths, **_others()},
        "components": {
            "schemas": {
                "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
                "Done": {"type": "object", "required": ["done"], "properties": {"done": {"type": "string"}}},
            },
            "securitySchemes": {"owner": {"type": "http", "scheme": "bearer"}},
        },
    }


def merged(documents: Sequence[Json]) -> Json:
    """One description of several parts: the first one's, with the paths and components of all."""
    paths: dict[str, Json] = {}
    components: dict[str, dict[str, Json]] = {}
    for one in documents:
        paths |= one["paths"]
        for kind, found in one["components"].items():
            components.setdefault(kind, {}).update(found)
    return {**documents[0], "paths": paths, "components": components}


def _page(page: Page, content: Json, suffix: str) -> Json:
    responses = {"200": {"description": page.summary, "content": content}, "429": _BUSY}
    if "{" in page.path or page.paged:
        responses["404"] = _MISSING
    where = [*_in_path(page.path), *([_parameter("page", "query")] if page.paged else [])]
    return {"summary": page.summary + suffix, "tags": ["dashboard"], "parameters": where, "responses": responses}


def _in_path(path: str) -> list[Json]:
    return [_parameter(name, "path") for name in re.findall(r"{(\w+)}", path)]


def _parameter(name: str, where: str) -> Json:
    description, schema = PARAMETERS[name]
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


def _others() -> dict[str, Json]:
    """What is no page."""
    return {
        "/models/{model}/file": {"get": _file("The file of a trained model: its BLAKE3 is its id", "model")},
        "/settlement/{epoch}/blob": {"get": _file("The published receipts of an epoch, as msgpack", "epoch")},
        "/join.svg": {
            "get": {
                "summary": "The address of /join for a phone in the same network, as a QR code",
                "tags": ["dashboard"],
                "responses": {
                    "200": {"description": "A picture", "content": {"image/svg+xml": _TEXT}},
                    "404": _MISSING,
                    "429": _BUSY,
                },
            }
        },
        "/events": {
            "get": {
                "summary": "What changed, as server-sent events: {topics: [...], points: {job: [{round, ...}]}}",
                "tags": ["dashboard"],
                "responses": {
                    "200": {"description": "An endless stream", "content": {"text/event-stream": _TEXT}},
                    "429": _BUSY,
                    "503": {"description": "Too many pages listen already.", "content": {"text/plain": _TEXT}},
                },
            }
        },
        "/openapi.json": {
            "get": {
                "summary": "This description",
                "tags": ["dashboard"],
                "responses": {
                    "200": {"description": "OpenAPI 3.1", "content": {"application/json": _OBJECT}},
                    "429": _BUSY,
                },
            }
        },
        "/actions/claim": {"post": _action("Claim what posted epochs grant the gateway's own account", {})},
        "/actions/stop": {
            "post": _action("End a job that the gateway's own account pays for", {"job": PARAMETERS["job"][1]})
        },
    }


def _file(summary: str, name: str) -> Json:
    responses = {"200": {"description": summary, "content": _BYTES}, "404": _MISSING, "429": _BUSY}
    return {"summary": summary, "tags": ["dashboard"], "parameters": [_parameter(name, "path")], "responses": responses}


def _action(summary: str, properties: Json) -> Json:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    sentences = {
        "400": "The body is not what was expected.",
        "401": "The owner's token is missing or wrong.",
        "409": "It cannot be done now; the sentence says why.",
        "413": "The body is too large.",
        "415": "The body is not JSON.",
        "502": "The chain did not take it.",
    }
    refusals = {code: {"description": sentence, "content": error} for code, sentence in sentences.items()}
    done = {"application/json": {"schema": {"$ref": "#/components/schemas/Done"}}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {
        "summary": summary,
        "tags": ["dashboard"],
        "security": [{"owner": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": "Done.", "content": done},
            **refusals,
            "403": {"description": "A page of another site asked.", "content": {"text/plain": _TEXT}},
            "429": _BUSY,
        },
    }
