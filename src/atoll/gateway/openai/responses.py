"""POST /v1/responses: a text or a conversation in, one message out; whole, or as named events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

import msgspec

from atoll.gateway.openai import shapes
from atoll.gateway.openai.faults import ApiError
from atoll.gateway.openai.questions import Ask
from atoll.gateway.openai.service import Asked, Call, Flow, Reply, event, reply
from atoll.inference.answers import Piece, Served

Status = Literal["in_progress", "completed", "incomplete"]


class Part(msgspec.Struct, frozen=True):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[str]
    logprobs: list[str]


class OutMessage(msgspec.Struct, frozen=True):
    """The message of an answer."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[Part]


class InDetail(msgspec.Struct, frozen=True):
    """Nothing is kept between two requests."""

    cached_tokens: int = 0


class OutDetail(msgspec.Struct, frozen=True):
    """Nothing is thought apart from what is said."""

    reasoning_tokens: int = 0


class Used(msgspec.Struct, frozen=True):
    """How many tokens were read and written."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InDetail = InDetail()
    output_tokens_details: OutDetail = OutDetail()


class Incomplete(msgspec.Struct, frozen=True):
    """Why an answer ended before its end."""

    reason: Literal["max_output_tokens"]


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of /v1/responses."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Status
    output: list[OutMessage]
    usage: Used | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    metadata: dict[str, str]
    atoll: shapes.Atoll | None = None
    error: None = None
    previous_response_id: None = None
    parallel_tool_calls: bool = False
    store: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[str] = []
    truncation: Literal["disabled"] = "disabled"


class _Draft:
    """An answer on its way: the objects that events and the whole answer show."""

    def __init__(self, call: Call, question: Ask) -> None:
        self._question = question
        self.id, self.item = call.fresh("resp"), call.fresh("msg")
        self._created = call.created
        self._numbers = iter(range(1 << 62))

    def part(self, text: str) -> Part:
        return Part("output_text", text, [], [])

    def message(self, status: Status, text: str | None) -> OutMessage:
        return OutMessage(self.item, "message", status, "assistant", [] if text is None else [self.part(text)])

    def response(
        self, status: Status, output: list[OutMessage], used: Used | None = None, served: Served | None = None
    ) -> ResponseBody:
        question, picked = self._question, self._question.sampling()
        return ResponseBody(
            id=self.id,
            object="response",
            created_at=self._created,
            model=question.model,
            status=status,
            output=output,
            usage=used,
            incomplete_details=Incomplete("max_output_tokens") if status == "incomplete" else None,
            instructions=question.instructions,
            max_output_tokens=question.max_output_tokens,
            temperature=picked.temperature,
            top_p=picked.top_p,
            metadata=question.metadata or {},
            atoll=None if served is None else shapes.atoll(served),
        )

    def whole(self, asked: Asked, text: str, last: Piece | None) -> ResponseBody:
        """The finished answer."""
        status: Status = "incomplete" if shapes.finish_of(last) == "length" else "completed"
        used = Used(asked.prompt_tokens, asked.tokens, asked.prompt_tokens + asked.tokens)
        return self.response(status, [self.message(status, text)], used, asked.served)

    def event(self, name: str, **fields: Any) -> bytes:
        """A named event with the next number."""
        return event({"type": name, "sequence_number": next(self._numbers), **fields}, name)

    def failed(self, fault: ApiError) -> bytes:
        """The event that tells of an error amid a stream."""
        return self.event("error", code=fault.code, message=fault.message, param=fault.param)


async def responses(call: Call, question: Ask) -> Reply | Flow:
    """An answer to a text or a conversation."""
    draft = _Draft(call, question)
    stream = call.service.answers.chat(question.model, question.messages(), question.sampling())
    asked = Asked(call, question.model, stream)
    if question.stream:
        return Flow(_events(draft, asked), draft.failed)
    text, last, _ = await asked.whole()
    return reply(draft.whole(asked, text, last), asked.served)


async def _events(draft: _Draft, asked: Asked) -> AsyncGenerator[bytes]:
    place: Mapping[str, Any] = {"item_id": draft.item, "output_index": 0, "content_index": 0}
    text, last = "", None
    async with asked:
        async for piece in asked:
            if last is None:
                for first in _opening(draft, place):
                    yield first
            last = piece
            text += piece.text
            if piece.text:
                yield draft.event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
    made = draft.whole(asked, text, last)
    yield draft.event("response.output_text.done", **place, text=text, logprobs=[])
    yield draft.event("response.content_part.done", **place, part=draft.part(text))
    yield draft.event("response.output_item.done", output_index=0, item=made.output[0])
    yield draft.event(f"response.{made.status}", response=made)


def _opening(draft: _Draft, place: Mapping[str, Any]) -> list[bytes]:
    begun = draft.response("in_progress", [])
    return [
        draft.event("response.created", response=begun),
        draft.event("response.in_progress", response=begun),
        draft.event("response.output_item.added", output_index=0, item=draft.message("in_progress", None)),
        draft.event("response.content_part.added", **place, part=draft.part("")),
    ]
