"""The bodies that clients send, and what of OpenAI's interface they may ask for.

A field that is in OpenAI's interface but not served here is known and may hold the value that asks for nothing (null,
an empty list, one answer, no penalty); any other value, and any field that is unknown, is an error that names it. The
OpenAPI description is made from these very classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from atoll.gateway.openai.faults import ApiError
from atoll.inference.answers import MAX_TOP_LOGPROBS, Message, Sampling
from atoll.wire.nesting import is_shallow

MAX_BODY_BYTES = 4 << 20
MAX_PICTURE_BYTES = 16 << 20  # a body with pictures
MAX_PICTURES = 16
MAX_TEXTS = 256
MAX_PROMPTS = 16
MAX_TOKENS = 1 << 20

Name = Annotated[str, Meta(min_length=1, max_length=200, description="Id of a model, as /v1/models lists them.")]
Text = Annotated[str, Meta(min_length=1)]
Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Temperature = Annotated[float, Meta(ge=0, le=2, description="0 takes the likeliest token each time. Default: 0.8.")]
TopP = Annotated[
    float, Meta(ge=0, le=1, description="Keep the likeliest tokens that reach this together. Default: 0.95.")
]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=200)]
Stops = Annotated[list[StopText], Meta(max_length=4)]
One = Annotated[int, Meta(ge=1, le=1)]
Zero = Annotated[float, Meta(ge=0, le=0)]
No = Annotated[bool, Meta(extra_json_schema={"enum": [False]})]
Empty = Annotated[list[None], Meta(max_length=0)]
NoBias = Annotated[dict[str, float], Meta(max_length=0)]
Labels = Annotated[dict[str, str], Meta(max_length=16)]
Note = Annotated[str, Meta(max_length=512)]
Picture = Annotated[str, Meta(min_length=1, extra_json_schema={"format": "picture"})]
Role = Literal["system", "developer", "user", "assistant"]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all bodies have in common: fields that are not known are errors."""


class TextPart(Question, frozen=True):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Turn(Question, frozen=True):
    """A message of a conversation. An answer of this server may be sent back as it came."""

    role: Role
    content: str | list[TextPart]
    name: Note | None = None
    refusal: None = None
    tool_calls: Empty | None = None
    function_call: None = None
    audio: None = None
    annotations: Empty | None = None

    def message(self) -> Message:
        """As the models take it."""
        return _message(self.role, self.content)


class StreamOptions(Question, frozen=True):
    """`include_usage` asks for one more chunk, with the number of tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PlainText(Question, frozen=True):
    """The only form of answer that is served: text."""

    type: Literal["text"]


class Writing(Question, frozen=True, kw_only=True):
    """What chat and completions have in common."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: StopText | Stops | None = None
    n: One | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: NoBias | None = None
    user: Note | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(self, max_tokens: int | None, top_logprobs: int) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return sampling(max_tokens, self.temperature, self.top_p, self.seed, stop, top_logprobs)


class Chat(Writing, frozen=True, kw_only=True):
    """POST /v1/chat/completions: the next turn of a conversation."""

    messages: Annotated[list[Turn], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: PlainText | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    tools: Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: Labels | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Note | None = None
    prompt_cache_key: Note | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer tells log-probabilities; naming a number of them asks for them."""
        return bool(self.logprobs or self.top_logprobs)

    def sampling(self) -> Sampling:
        """How the model picks its tokens. A log-probability of the token alone is asked for as the likeliest one."""
        top = max(1, self.top_logprobs or 0) if self.wants_logprobs else 0
        return self._sampling(self.max_completion_tokens or self.max_tokens, top)


class Completion(Writing, frozen=True, kw_only=True):
    """POST /v1/completions: what comes after a text, or after each of a few."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_PROMPTS)]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: One | None = None
    echo: No | None = None
    suffix: None = None

    def __post_init__(self) -> None:
        if self.echo:
            raise ValueError("Expected `false` at `echo`: put the prompt before the answer yourself")

    @property
    def prompts(self) -> Sequence[str]:
        """The texts, in order."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    def sampling(self) -> Sampling:
        """How the model picks its tokens."""
        return self._sampling(self.max_tokens, 0 if self.logprobs is None else max(1, self.logprobs))


class InputText(Question, frozen=True, tag_field="type", tag="input_text"):
    """A part of what the person said."""

    text: str


class OutputText(Question, frozen=True, tag_field="type", tag="output_text"):
    """A part of what the model said before, as it came."""

    text: str
    annotations: Empty | None = None
    logprobs: Empty | None = None


class Item(Question, frozen=True):
    """A message of a conversation, in the form of /v1/responses."""

    role: Role
    content: str | list[InputText | OutputText]
    type: Literal["message"] = "message"
    id: Note | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    def message(self) -> Message:
        """As the models take it."""
        return _message(self.role, self.content)


class TextForm(Question, frozen=True):
    """How the text is to look: as it comes."""

    format: PlainText | None = None


class Ask(Question, frozen=True, kw_only=True):
    """POST /v1/responses: an answer to a text or a conversation."""

    model: Name
    input: Text | Annotated[list[Item], Meta(min_length=1, max_length=1000)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    text: TextForm | None = None
    metadata: Labels | None = None
    user: Note | None = None
    store: bool | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Note | None = None
    prompt_cache_key: Note | None = None
    tools: Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    include: Empty | None = None
    background: No | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    reasoning: None = None

    def __post_init__(self) -> None:
        if self.background:
            raise ValueError("Expected `false` at `background`: ask and wait, or ask for a stream")

    def messages(self) -> list[Message]:
        """The conversation, instructions first."""
        first = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*first, Message("user", self.input)]
        return first + [item.message() for item in self.input]

    def sampling(self) -> Sampling:
        """How the model picks its tokens."""
        return sampling(self.max_output_tokens, self.temperature, self.top_p, None, (), 0)


class Embedding(Question, frozen=True):
    """POST /v1/embeddings: vectors of texts."""

    model: Name
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    user: Note | None = None

    @property
    def texts(self) -> Sequence[str]:
        """The texts, in order."""
        return (self.input,) if isinstance(self.input, str) else self.input


class Classify(Question, frozen=True):
    """POST /v1/classify: which class a picture belongs to (of Atoll; OpenAI has nothing like it)."""

    model: Name
    input: Picture | Annotated[list[Picture], Meta(min_length=1, max_length=MAX_PICTURES)]
    invert: bool | None = None
    top: Annotated[int, Meta(ge=1, le=1000)] | None = None
    user: Note | None = None

    @property
    def pictures(self) -> Sequence[str]:
        """The pictures in base64, in order."""
        return (self.input,) if isinstance(self.input, str) else self.input


def sampling(
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    top_logprobs: int,
) -> Sampling:
    """Sampling with the defaults of the models where nothing is asked for; `top_p` 0 means temperature 0."""
    usual = Sampling()
    heat = usual.temperature if temperature is None else temperature
    return Sampling(
        max_tokens=usual.max_tokens if max_tokens is None else max_tokens,
        temperature=0.0 if top_p == 0 else heat,
        top_p=top_p or usual.top_p,
        seed=seed,
        stop=stop,
        top_logprobs=top_logprobs,
    )


def _message(role: Role, content: str | Sequence[TextPart | InputText | OutputText]) -> Message:
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    return Message("system" if role == "developer" else role, text)


# What to tell about fields that are in OpenAI's interface but not served here.
HINTS = {
    "n": "one answer a request is served; ask again for another",
    "best_of": "one answer a request is served",
    "presence_penalty": "penalties are not served; leave it out",
    "frequency_penalty": "penalties are not served; leave it out",
    "logit_bias": "biases are not served; leave it out",
    "tools": "tools are not served; leave it out",
    "tool_choice": "tools are not served; leave it out",
    "tool_calls": "tools are not served; leave such messages out",
    "response_format": 'only {"type": "text"} is served',
    "format": 'only {"type": "text"} is served',
    "modalities": "models here write text only",
    "content": "models here read text only: a string, or a list of text parts",
    "dimensions": "vectors come with all dimensions of the model; leave it out",
    "suffix": "models here write on at the end of a text; leave it out",
    "previous_response_id": "answers are not kept here; send the whole conversation as `input`",
    "conversation": "conversations are not kept here; send the whole conversation as `input`",
    "reasoning": "models here do not reason apart from their answer; leave it out",
    "include": "nothing more can be included; leave it out",
    "truncation": "what is too long is refused; leave it out",
}
_TEXT = "numbers of tokens mean nothing to other models, send the text"
_HINTS_OF: dict[type, dict[str, str]] = {
    Completion: {"prompt": f"a text, or a list of up to {MAX_PROMPTS} that are not empty; {_TEXT}"},
    Embedding: {
        "input": f"a text, or a list of up to {MAX_TEXTS} that are not empty; {_TEXT} "
        "(langchain: check_embedding_ctx_length=False)"
    },
}

Body = TypeVar("Body", bound=Question)


def parse(body: bytes, kind: type[Body]) -> Body:
    """The body of a request; raises ApiError 400 that names the field at fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        told = str(error)
        if "got `float`" not in told or not is_shallow(body):
            raise _bad_field(told, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not JSON ({error}): expected an object.", "invalid_json") from None
    try:  # to JSON 20.0 is a whole number too, and some languages write it so
        return msgspec.convert(_whole(msgspec.json.decode(body)), kind)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error), kind) from None
    except msgspec.DecodeError as error:  # behind the field that was looked at first
        raise ApiError(400, f"The body is not JSON ({error}): expected an object.", "invalid_json") from None


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bad_field(told: str, kind: type[Any]) -> ApiError:
    sentence, _, path = told.partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    named = re.search(r"(?:unknown field|required field|at) `([^`]*)`", sentence)
    if named:
        param = f"{param}.{named[1]}" if param else named[1]
    hints = HINTS | _HINTS_OF.get(kind, {})
    hint = next((hints[name] for name in reversed(re.findall(r"[a-z_]+", param)) if name in hints), "")
    code = "unknown_field" if "unknown field" in sentence else "missing_field" if "missing" in sentence else "bad_field"
    where = f" at `{param}`" if param and not named else ""
    return ApiError(400, f"{sentence}{where}{': ' if hint else '.'}{hint}{'.' if hint else ''}", code, param or None)
