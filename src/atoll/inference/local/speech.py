"""An answer of a language model on this device, piece by piece: what may be asked for, and the stream of what comes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from atoll.errors import BadInput
from atoll.inference.answers import LOCAL, MAX_TOP_LOGPROBS, Candidate, Piece, Sampling, Served, TokenLogprob
from atoll.inference.local import pipe

ROLES = ("system", "user", "assistant")
MAX_LETTERS = 4 << 20  # of a prompt or a conversation; its tokens are counted by the model
MAX_TURNS = 1024
MAX_STOPS, MAX_STOP_LETTERS = 16, 256
ANY_SEED = (1 << 32) - 1  # llama.cpp draws one

Said = AsyncGenerator[pipe.Begun | pipe.Part | pipe.Done, None]


class Speech:
    """A stream of pieces; implements `answers.Stream`. `begin` starts the model, at the first piece."""

    def __init__(self, begin: Callable[[], Awaitable[Said]]) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.served: Served = LOCAL
        self._begin = begin
        self._said: Said | None = None
        self._pieces = self._spoken()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._pieces

    async def aclose(self) -> None:
        """See `Stream.aclose`."""
        await self._pieces.aclose()
        if self._said is not None:
            await self._said.aclose()

    async def _spoken(self) -> AsyncGenerator[Piece, None]:
        self._said = await self._begin()
        async for message in self._said:
            match message:
                case pipe.Begun():
                    self.prompt_tokens = message.prompt_tokens
                case pipe.Part():
                    yield _piece(message)
                case pipe.Done():
                    self.prompt_tokens, self.completion_tokens = message.prompt_tokens, message.completion_tokens
                    yield Piece("", finish=message.finish or "stop")


def _piece(part: pipe.Part) -> Piece:
    if not part.logprobs:
        return Piece(part.text)
    logprobs = tuple(TokenLogprob(_candidate(one.taken), tuple(map(_candidate, one.top))) for one in part.logprobs)
    return Piece(part.text, tuple(one.taken.token for one in logprobs), logprobs)


def _candidate(choice: pipe.Choice) -> Candidate:
    return Candidate(choice.token, choice.text, choice.logprob)


def checked(prompt: str, turns: Sequence[pipe.Turn], sampling: Sampling) -> None:
    """Raises BadInput for a request that no language model can serve."""
    letters = len(prompt) + sum(len(turn.content) for turn in turns)
    if not letters:
        raise BadInput("The prompt is empty: expected a text to continue or a message to answer.")
    if letters > MAX_LETTERS or len(turns) > MAX_TURNS:
        raise BadInput(f"{letters} letters in {len(turns)} messages: at most {MAX_LETTERS} in {MAX_TURNS} are read.")
    for turn in turns:
        if turn.role not in ROLES:
            raise BadInput(f"A message has the role {turn.role[:40]!r}: expected one of {', '.join(ROLES)}.")
    if sampling.max_tokens < 1:
        raise BadInput(f"max_tokens is {sampling.max_tokens}: expected 1 or more.")
    if not math.isfinite(sampling.temperature) or not 0 <= sampling.temperature <= 10:
        raise BadInput(f"The temperature is {sampling.temperature}: expected a number from 0 to 10.")
    if not 0 < sampling.top_p <= 1:
        raise BadInput(f"top_p is {sampling.top_p}: expected a number above 0, at most 1.")
    if not 0 <= sampling.top_logprobs <= MAX_TOP_LOGPROBS:
        raise BadInput(f"{sampling.top_logprobs} log-probabilities: expected 0 to {MAX_TOP_LOGPROBS}.")
    if len(sampling.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_LETTERS for stop in sampling.stop):
        raise BadInput(f"Expected at most {MAX_STOPS} stop strings of 1 to {MAX_STOP_LETTERS} letters.")


def generation(number: int, prompt: str, turns: tuple[pipe.Turn, ...], sampling: Sampling) -> pipe.Generate:
    """The request to the model's process. An answer that could be asked for again, word for word, reads its prompt
    anew: what is left from the request before would change the last bits of its numbers."""
    return pipe.Generate(
        number=number,
        prompt=prompt,
        turns=turns,
        max_tokens=min(sampling.max_tokens, 1 << 30),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=ANY_SEED if sampling.seed is None else sampling.seed % ANY_SEED,
        stop=sampling.stop,
        top_logprobs=sampling.top_logprobs,
        reuse=sampling.seed is None and sampling.temperature > 0,
    )
