"""The child process of a language model: llama.cpp through `xllamacpp`, one request at a time.

llama.cpp's engine comes with an HTTP server that cannot be left out. Here it listens on a socket in a private folder,
behind a key that nobody keeps, and the socket's name is removed at once, so that nobody can connect.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from atoll.errors import EngineFailed
from atoll.inference.local import pipe
from atoll.inference.local.station import Station

BATCH = 256  # tokens of a prompt that are read at once: between batches a request can be stopped


class _Token(msgspec.Struct):
    id: int
    token: str
    logprob: float


class _Taken(_Token):
    top_logprobs: tuple[_Token, ...] = ()


class _Logprobs(msgspec.Struct):
    content: tuple[_Taken, ...] = ()


class _Delta(msgspec.Struct):
    content: str | None = None


class _Option(msgspec.Struct):
    text: str = ""
    delta: _Delta = msgspec.field(default_factory=_Delta)
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Progress(msgspec.Struct):
    total: int


class _Error(msgspec.Struct):
    code: int
    message: str
    n_prompt_tokens: int = 0
    n_ctx: int = 0

    @property
    def sentence(self) -> str:
        if self.n_ctx:
            return (
                f"the prompt has {self.n_prompt_tokens} tokens; the model reads at most {self.n_ctx}, those of its "
                "answer included"
            )
        return self.message[:500]


class _Chunk(msgspec.Struct):
    """One event of llama.cpp's stream, as far as it matters here."""

    choices: tuple[_Option, ...] = ()
    usage: _Usage | None = None
    prompt_progress: _Progress | None = None
    error: _Error | None = None


_chunks = msgspec.json.Decoder(_Chunk)


class Speech:
    """One request at work: turns llama.cpp's events into messages for the parent."""

    def __init__(self, number: int, wanted: int, say: Callable[[pipe.Answer], None]) -> None:
        self.number = number
        self.failed = False
        self._wanted = wanted
        self._say = say
        self._finish: Literal["", "stop", "length"] = ""
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def hear(self, event: bytes) -> None:
        """Take one event of the stream."""
        chunk = _chunks.decode(event)
        if chunk.error is not None:
            self.failed = True
            self._say(pipe.Failure("input" if chunk.error.code < 500 else "model", chunk.error.sentence))
            return
        if chunk.prompt_progress is not None and not self._prompt_tokens:
            self._begin(chunk.prompt_progress.total)
        if chunk.usage is not None:
            self._prompt_tokens = chunk.usage.prompt_tokens
            self._completion_tokens = chunk.usage.completion_tokens
        for option in chunk.choices:
            text = option.text or option.delta.content or ""
            logprobs = tuple(map(self._logprob, option.logprobs.content)) if option.logprobs else ()
            if text or logprobs:
                self._say(pipe.Part(text, logprobs))
            if option.finish_reason:
                self._finish = "length" if option.finish_reason == "length" else "stop"

    def done(self) -> None:
        """Tell that the stream has ended."""
        if not self.failed:
            self._say(pipe.Done(self._finish, self._prompt_tokens, self._completion_tokens))

    def _begin(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._say(pipe.Begun(prompt_tokens))

    def _logprob(self, taken: _Taken) -> pipe.Logprob:
        return pipe.Logprob(_choice(taken), tuple(map(_choice, taken.top_logprobs[: self._wanted])))


def _choice(token: _Token) -> pipe.Choice:
    return pipe.Choice(token.id, token.token, token.logprob)


def engine_request(request: pipe.Generate) -> dict[str, Any]:
    """The request in llama.cpp's terms: temperature and top_p as asked for, none of its other samplers.

    Sorting the whole vocabulary for top_p takes a tenth of a small model's time, so it is left out where it would
    change nothing.
    """
    samplers = ["top_p"] if request.top_p < 1 else []
    asked: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "samplers": [*samplers, "temperature"] if request.temperature else ["top_k"],
        "top_k": 1,  # the likeliest, where that is the sampler
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop),
        "cache_prompt": request.reuse,
    }
    if request.turns:
        asked["messages"] = [{"role": turn.role, "content": turn.content} for turn in request.turns]
        return asked | ({"logprobs": True, "top_logprobs": request.top_logprobs} if request.top_logprobs else {})
    return asked | {"prompt": request.prompt, "n_probs": request.top_logprobs}


def _open(station: Station, request: pipe.Load) -> tuple[Any, int]:
    """llama.cpp's engine with the model of the request; raises whatever the library raises."""
    import xllamacpp

    wanted = xllamacpp.CommonParams()
    wanted.model.path = request.path
    wanted.n_ctx = request.context
    wanted.n_parallel = 1
    wanted.n_batch = wanted.n_ubatch = BATCH
    wanted.n_gpu_layers = 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = station.threads
    wanted.fit_params = False
    wanted.cache_ram_mib = wanted.n_ctx_checkpoints = 0
    wanted.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    wanted.force_pure_content_parser = True
    wanted.verbosity = -1
    wanted.ui = wanted.endpoint_slots = False
    wanted.cors_origins = ""
    wanted.api_keys = [secrets.token_hex(32)]
    wanted.n_threads_http = 1
    socket = Path(station.folder) / "s"
    if sys.platform != "win32":
        wanted.hostnames = [f"{socket}.sock"]
    try:
        engine = xllamacpp.Server(wanted)
    except RuntimeError as error:
        raise EngineFailed("llama.cpp could not load the file") from error
    Path(f"{socket}.sock").unlink(missing_ok=True)
    return engine, request.context


def main() -> None:
    """Entry point of the child process."""
    station = Station()
    engine = station.load(partial(_open, station))
    for request in station.requests():
        if not isinstance(request, pipe.Generate):
            station.answer(pipe.Failure("input", "a language model continues texts, nothing else"))
            continue
        speech = Speech(request.number, request.top_logprobs, station.answer)
        _serve(engine, station, speech, request)
        speech.done()


def _serve(engine: Any, station: Station, speech: Speech, request: pipe.Generate) -> None:
    work = engine.handle_chat_completions if request.turns else engine.handle_completions
    fault: list[Exception] = []

    def heard(event: bytes) -> bool:
        """Whether to stop. Nothing may be raised through the library."""
        try:
            speech.hear(event)
        except Exception as error:
            fault.append(error)
        return bool(fault) or speech.failed or station.stopped >= speech.number

    work(msgspec.json.encode(engine_request(request)), heard)
    if fault:
        raise EngineFailed(f"llama.cpp's answer was not understood: {fault[0]}")


if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stderr.flush()
        os._exit(1)  # the library's threads would outlive this one
