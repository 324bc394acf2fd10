"""The API in OpenAPI 3.1, made from the very classes that read and write its bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from atoll.gateway.openai import faults, lookups, metrics, questions, responses, shapes

Json = Any

_REF = "#/components/schemas/{name}"
_BODIES = (
    questions.Chat, questions.Completion, questions.Embedding, questions.Ask, questions.Classify,
    shapes.Models, shapes.Model, shapes.ChatAnswer, shapes.ChatChunk, shapes.TextAnswer, shapes.Vectors,
    shapes.Classes, responses.ResponseBody, faults.ProblemBody, lookups.Health,
)  # fmt: skip

_ERRORS = {
    "400": "The body is not JSON, or a field is unknown, missing or has a value that is not served.",
    "401": "A key is needed, and none or an unknown one was given.",
    "402": "The key has spent what it may, or nobody answers for the money that is left.",
    "404": "There is no such model.",
    "405": "The path takes another method; `Allow` names it.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "429": "Too many requests wait already; `Retry-After` says when to ask again.",
    "500": "The model, this device or Atoll itself failed.",
    "501": "The runtime of this model is not installed on the node.",
    "502": "A node that was asked failed.",
    "503": "The models are busy; `Retry-After` says when to ask again.",
    "504": "The answer took too long and was stopped.",
}
_SHOW_ERRORS = ("401", "405")
_HEADERS = {
    "x-atoll-node": "Who answered: an account, or this device.",
    "x-atoll-cost": "What the answer cost, in base units (10^18 to a token).",
    "x-atoll-checked": "local: it ran on this device. yes: it was run again and agreed. no: it was not checked.",
}


def paths() -> dict[str, Json]:
    """The paths of the API, for the field `paths` of an OpenAPI description."""
    chat = _post("chat", "The next turn of a conversation", "Chat", "ChatAnswer", stream="ChatChunk")
    text = _post("complete", "What comes after a text", "Completion", "TextAnswer", stream="TextAnswer")
    answer = _post("respond", "An answer to a text or a conversation", "Ask", "ResponseBody", stream="ResponseBody")
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/models": {"get": _get("models", "All models", "Models", _SHOW_ERRORS)},
        "/v1/models/{model}": {
            "parameters": [model],
            "get": _get("model", "One model", "Model", ("401", "404", "405")),
        },
        "/v1/chat/completions": {"post": chat},
        "/v1/completions": {"post": text},
        "/v1/embeddings": {"post": _post("embed", "Vectors of texts", "Embedding", "Vectors")},
        "/v1/responses": {"post": answer},
        "/v1/classify": {"post": _post("classify", "Classes of pictures", "Classify", "Classes")},
        "/health": {"get": _free(_get("health", "Whether the server answers", "Health", ("405",)))},
        "/metrics": {"get": _free(_metrics())},
    }


def components() -> dict[str, Json]:
    """What the paths refer to, for the field `components`."""
    _, schemas = msgspec.json.schema_components(_BODIES, ref_template=_REF)
    return {
        "schemas": schemas,
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "A key that `atoll key api add` made."}
        },
        "responses": {f"Error{status}": _error(told) for status, told in _ERRORS.items()},
        "headers": {name: {"description": told, "schema": {"type": "string"}} for name, told in _HEADERS.items()},
    }


def document(version: str) -> dict[str, Json]:
    """A whole OpenAPI description of the API alone."""
    info = {"title": "Atoll, OpenAI-compatible", "version": version}
    return {"openapi": "3.1.0", "info": info, "paths": paths(), "components": components()}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _error(told: str) -> Json:
    return {"description": told, "content": {"application/json": {"schema": _ref("schemas", "ProblemBody")}}}


def _faults(statuses: Mapping[str, str] | tuple[str, ...]) -> Json:
    return {status: _ref("responses", f"Error{status}") for status in statuses}


def _get(name: str, told: str, body: str, statuses: tuple[str, ...]) -> Json:
    fine = {"description": told, "content": {"application/json": {"schema": _ref("schemas", body)}}}
    return {
        "operationId": name, "summary": told, "security": [{"bearer": []}, {}],
        "responses": {"200": fine, **_faults(statuses)},
    }  # fmt: skip


def _free(operation: Json) -> Json:
    return {**operation, "security": []}


def _metrics() -> Json:
    media = metrics.CONTENT_TYPE.partition(";")[0]
    fine = {"description": "Counters for Prometheus", "content": {media: {"schema": {"type": "string"}}}}
    return {"operationId": "metrics", "summary": "Counters", "responses": {"200": fine, **_faults(("405",))}}


def _post(name: str, told: str, question: str, answer: str, stream: str = "") -> Json:
    told_of = "tells what is new" if stream == "ResponseBody" else f"holds a {stream}"
    content: dict[str, Json] = {"application/json": {"schema": _ref("schemas", answer)}}
    if stream:
        content["text/event-stream"] = {
            "schema": {"description": f"With `stream`: server-sent events; each {told_of} in JSON."}
        }
    return {
        "operationId": name,
        "summary": told,
        "security": [{"bearer": []}, {}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("schemas", question)}}},
        "responses": {
            "200": {
                "description": told,
                "headers": {header: _ref("headers", header) for header in _HEADERS},
                "content": content,
            },
            **_faults(_ERRORS),
        },
    }
