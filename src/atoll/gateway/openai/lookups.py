"""What is answered at once: the list of models, vectors of texts, classes of pictures, health and counters."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.gateway.openai import metrics, shapes
from atoll.gateway.openai.faults import ApiError
from atoll.gateway.openai.questions import Classify, Embedding
from atoll.gateway.openai.service import Call, Reply, Service, reply
from atoll.inference.picture import read_picture

USUAL_CLASSES = 5


class Health(msgspec.Struct, frozen=True):
    """The server answers; how many models it has, how many requests it works on and how many wait."""

    status: str
    models: int
    running: int
    waiting: int


def health(service: Service, _: Mapping[str, str]) -> Reply:
    """Whether the server answers."""
    models = len(service.answers.models())
    return reply(Health("ok", models, service.slots.running, service.slots.waiting))


def counters(service: Service, _: Mapping[str, str]) -> Reply:
    """All counters."""
    gauges: metrics.Gauges = {
        "requests_running": lambda: service.slots.running,
        "requests_waiting": lambda: service.slots.waiting,
        **service.gauges,
    }
    return Reply(service.meter.text(gauges).encode(), metrics.CONTENT_TYPE)


def models(service: Service, _: Mapping[str, str]) -> Reply:
    """All models."""
    return reply(shapes.Models("list", [shapes.model(one, service.started) for one in service.answers.models()]))


def one_model(service: Service, path: Mapping[str, str]) -> Reply:
    """One model; raises UnknownModel."""
    return reply(shapes.model(service.model(path["model"]), service.started))


async def embeddings(call: Call, question: Embedding) -> Reply:
    """Vectors of texts."""
    work = call.service.answers.embed(question.model, question.texts)
    found = await call.whole(work, lambda made: call.used(question.model, made.tokens, 0, made.served))
    return reply(shapes.vectors(found, question.model, question.encoding_format == "base64"), found.served)


async def classify(call: Call, question: Classify) -> Reply:
    """Classes of pictures."""
    info = call.service.model(question.model)
    form = info.card.get("input")
    if info.kind != "classifier":
        raise ApiError(400, f"The model {info.id} is no classifier.", "bad_input", "model")
    if not isinstance(form, Mapping):
        told = f"Nothing here tells what the model {info.id} takes: its file has to be on this device first."
        raise ApiError(400, told, "bad_input", "model")
    x = await asyncio.to_thread(_pictures, question, form)
    work = call.service.answers.classify(question.model, x)
    scores, served = await call.whole(work, lambda made: call.used(question.model, 0, 0, made[1]))
    labels = info.card.get("labels", ())
    top = question.top or USUAL_CLASSES
    data = [classified(index, row.reshape(-1), labels, top) for index, row in enumerate(scores)]
    return reply(shapes.Classes("list", data, question.model, shapes.atoll(served)), served)


def classified(index: int, scores: NDArray[np.float32], labels: Any, top: int) -> shapes.Classified:
    """The `top` likeliest classes by their scores [classes]."""
    names = labels if isinstance(labels, list | tuple) and len(labels) == len(scores) else range(len(scores))
    order = np.argsort(-scores, kind="stable")[:top]
    classes = [shapes.Class(int(one), str(names[one]), float(scores[one])) for one in order]
    return shapes.Classified(index, classes[0].label, classes)


def _pictures(question: Classify, form: Mapping[str, Any]) -> NDArray[Any]:
    """The inputs of the model, [n, channels, height, width] in its dtype; raises ApiError 400."""
    made = []
    for index, text in enumerate(question.pictures):
        param = "input" if isinstance(question.input, str) else f"input[{index}]"
        try:
            data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(
                400, f"`{param}` is not base64: expected the bytes of a picture.", "bad_field", param
            ) from None
        try:
            made.append(read_picture(data, form["shape"], bool(question.invert)))
        except BadInput as error:
            raise ApiError(400, str(error), "bad_field", param) from None
    return np.stack(made).astype(form["dtype"])
