"""The OpenAI-compatible API of a node: its paths, put together."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from atoll.gateway.openai import chat, lookups, questions, responses
from atoll.gateway.openai.endpoint import Endpoint, NoEndpoint, Post
from atoll.gateway.openai.keys import Keys
from atoll.gateway.openai.metrics import Gauges, Meter
from atoll.gateway.openai.service import Service
from atoll.gateway.openai.slots import Room, Slots
from atoll.inference.answers import Answers

if TYPE_CHECKING:
    from atoll.node.daemon import Node


class _Anything(Convertor[str]):
    """The rest of a path, line ends included: the convertor `path` stops at them, and the request would be lost."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Limits:
    """How much is done at once. `running` answers at the same time, `waiting` requests behind them for `wait_seconds`
    at most; `body_bytes` of all bodies that are being read together."""

    running: int = 4
    waiting: int = 32
    wait_seconds: float = 60.0
    body_bytes: int = 128 << 20


def routes(node: Node, gauges: Gauges | None = None) -> list[BaseRoute]:
    """The API of a node, with the keys of its home; `gauges` as for `make_routes`."""
    return make_routes(node.answers, Keys(node.home), gauges=gauges)


def make_routes(
    answers: Answers, keys: Keys, meter: Meter | None = None, gauges: Gauges | None = None, limits: Limits | None = None
) -> list[BaseRoute]:
    """The API on top of `answers`. `gauges` are shown among the metrics as they are then."""
    limits = limits or Limits()
    register_url_convertor("anything", _Anything())
    service = Service(
        answers=answers,
        keys=keys,
        meter=meter or Meter(),
        slots=Slots(limits.running, limits.waiting, limits.wait_seconds),
        room=Room(limits.body_bytes),
        now=time.time,
        clock=time.perf_counter,
        fresh=lambda: secrets.token_hex(12),
        gauges=gauges or {},
        started=int(time.time()),
    )
    endpoints: dict[str, ASGIApp] = {
        "/health": Endpoint(service, "/health", get=lookups.health, free=True),
        "/metrics": Endpoint(service, "/metrics", get=lookups.counters, free=True),
        "/v1/models": Endpoint(service, "/v1/models", get=lookups.models),
        "/v1/models/{model:anything}": Endpoint(service, "/v1/models/{model}", get=lookups.one_model),
        "/v1/{path:anything}": NoEndpoint(service),
    }
    posts = {
        "/v1/chat/completions": Post(questions.Chat, chat.chat),
        "/v1/completions": Post(questions.Completion, chat.completions),
        "/v1/embeddings": Post(questions.Embedding, lookups.embeddings),
        "/v1/responses": Post(questions.Ask, responses.responses),
        "/v1/classify": Post(questions.Classify, lookups.classify, questions.MAX_PICTURE_BYTES),
    }
    first = [Route(path, Endpoint(service, path, post=post)) for path, post in posts.items()]
    return [*first, *(Route(path, endpoint) for path, endpoint in endpoints.items())]
