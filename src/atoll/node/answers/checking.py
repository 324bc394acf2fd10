"""Running a question again to see whether a server's answer is true: here if the model is here, else at others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from atoll.errors import AtollError, Refused, Unreachable
from atoll.inference import messages as wire
from atoll.inference.answers import Answers, Floats, Sampling
from atoll.inference.messages import Order, Position, Question
from atoll.inference.router import Candidate
from atoll.inference.spotcheck import (
    TOP_OF_CHECKER,
    Case,
    Judgement,
    Spot,
    Verdict,
    compare_numbers,
    compare_text,
    judge,
    prefix,
    shared,
    spots,
)
from atoll.node.answers import questions
from atoll.node.answers.asking import Asker, Exchange

log = logging.getLogger(__name__)

Opinion = Floats | dict[int, Position]
"""What somebody else says: numbers, or what stands at the spots (by their index) of a text."""


@dataclass(frozen=True)
class Finding:
    """What a check found. `told` is a sentence for the record; `other` the exchange of the server that checked,
    None for an own run."""

    judgement: Judgement
    verdict: Verdict
    told: str
    other: Exchange | None = None


@dataclass
class _Asked:
    """What is compared: the server's own answer, and the places of it that are looked at.

    A conversation is answered again (`exact`), a text is read up to each place.
    """

    question: Question
    values: Floats | None
    spots: list[Spot]

    @property
    def exact(self) -> bool:
        """Whether both runs have read the same tokens wherever they are compared."""
        return isinstance(self.question, wire.Chat)

    @property
    def sampled(self) -> tuple[float, float]:
        """Temperature and top_p of the answer."""
        if isinstance(self.question, wire.Chat | wire.Complete):
            return self.question.picking.temperature, self.question.picking.top_p
        return LOOK.temperature, LOOK.top_p

    def compare(self, opinion: Opinion, with_: Opinion | None = None) -> tuple[Verdict, float, int]:
        """An opinion against the answer (or another opinion): the verdict, the distance, how many places counted."""
        if isinstance(opinion, np.ndarray):
            against = self.values if with_ is None else with_
            if not isinstance(against, np.ndarray):
                return Verdict.DOUBT, 0.0, 0
            return *compare_numbers(against, opinion), len(opinion)
        pairs = []
        for index, mine in opinion.items():
            spot = self.spots[index]
            if isinstance(with_, dict):
                if index not in with_:
                    continue
                other = with_[index]
                spot = Spot(spot.before, Position(other.taken, other.top[: len(spot.told.top)]))
            pairs.append((spot, mine))
        temperature, top_p = self.sampled if with_ is None or self.exact else (LOOK.temperature, LOOK.top_p)
        return *compare_text(pairs, temperature, top_p, self.exact), len(pairs)


class Checker:
    """Runs questions again. `own_model`: the name here of the model that a server offers, None if it is not here;
    `unanswered` hears of servers that did not run it."""

    def __init__(
        self,
        local: Answers,
        asker: Asker,
        own_model: Callable[[Candidate], str | None],
        unanswered: Callable[[bytes, AtollError], None],
    ) -> None:
        self._local, self._asker, self._own_model, self._unanswered = local, asker, own_model, unanswered

    async def check(
        self, exchange: Exchange, values: Floats | None, others: Sequence[Candidate], dice: bytes
    ) -> Finding | None:
        """What a second (and if need be a third) run says of an answer; None if nobody could run it again."""
        choose = prefix if isinstance(exchange.question, wire.Chat) else spots
        asked = _Asked(exchange.question, values, choose(exchange.chunks, dice))
        case = self._asker.payments.case(exchange.candidate.server)
        own = self._own_model(exchange.candidate)
        if own is not None:
            try:
                opinion = await self._here(own, asked)
            except AtollError as error:
                log.warning("an answer was not checked: %s", error)
                return None
            verdict, found, places = asked.compare(opinion)
            if not places:
                return None
            return Finding(judge(case, verdict, own_run=True), verdict, _sentence(asked, found, "run here"))
        return await self._by_others(asked, case, others)

    async def _by_others(self, asked: _Asked, case: Case, others: Sequence[Candidate]) -> Finding | None:
        opinions: list[Opinion] = []
        for candidate in others:
            if len(opinions) == 2:
                break
            try:
                opinion, exchange = await self._there(candidate, asked)
            except (Refused, Unreachable) as error:
                self._unanswered(candidate.server, error)
                continue
            verdict, found, places = asked.compare(opinion)
            if not places:
                continue
            opinions.append(opinion)
            told = _sentence(asked, found, f"run by 0x{candidate.server.hex()}")
            if len(opinions) == 1:
                first = Finding(judge(case, verdict, own_run=False), verdict, told, exchange)
                if first.judgement != Judgement.ASK_A_THIRD:
                    return first
        if not opinions:
            return None
        if len(opinions) == 1:
            return Finding(Judgement.SUSPECT, first.verdict, first.told, first.other)
        checker, third = opinions
        votes = asked.compare(third)[0], asked.compare(third, checker)[0]
        judgement = judge(case, first.verdict, own_run=False, third=votes)
        return Finding(judgement, first.verdict, first.told, first.other)

    # -- here ----------------------------------------------------------------------------------------------------
    async def _here(self, model: str, asked: _Asked) -> Opinion:
        question = asked.question
        if isinstance(question, wire.Classify):
            info = next(one for one in self._local.models() if one.id == model)
            values, _ = await self._local.classify(model, questions.inputs_of(question, info))
            return values
        if isinstance(question, wire.Embed):
            return (await self._local.embed(model, question.texts)).vectors
        if isinstance(question, wire.Chat):
            again = questions.sampling_of(_again(question, asked.spots, question.order).picking, TOP_OF_CHECKER)
            stream = questions.start(self._local, model, question, again)
            try:
                mine = [questions.position_of(one) async for piece in stream for one in piece.logprobs or ()]
            finally:
                await stream.aclose()
            return shared(asked.spots, mine)
        found = {}
        for index, spot in enumerate(asked.spots):
            stream = questions.start(self._local, model, at_spot(question, spot, question.order), LOOK)
            try:
                async for piece in stream:
                    if piece.logprobs:
                        found[index] = questions.position_of(piece.logprobs[0])
                        break
            finally:
                await stream.aclose()
        return found

    # -- there ---------------------------------------------------------------------------------------------------
    async def _there(self, candidate: Candidate, asked: _Asked) -> tuple[Opinion, Exchange | None]:
        """Another server's answer to the same; to it, this is a question like any other, and it is paid."""
        question = asked.question
        if isinstance(question, wire.Classify | wire.Embed):
            exchange = await self._paid(candidate, lambda order: msgspec.structs.replace(question, order=order))
            count = question.count if isinstance(question, wire.Classify) else len(question.texts)
            result = exchange.done.result if exchange.done else b""
            return questions.decode_array(result, count), exchange
        if isinstance(question, wire.Chat):
            exchange = await self._paid(candidate, lambda order: _again(question, asked.spots, order))
            mine = [position for chunk in exchange.chunks for position in chunk.positions]
            return shared(asked.spots, mine), exchange
        found, last = {}, None
        for index, spot in enumerate(asked.spots):

            def make(order: Order, spot: Spot = spot) -> Question:
                return at_spot(question, spot, order)

            last = await self._paid(candidate, make)
            positions = [one for chunk in last.chunks for one in chunk.positions]
            if positions:
                found[index] = positions[0]
        return found, last

    async def _paid(self, candidate: Candidate, make: Callable[[Order], Question]) -> Exchange:
        exchange = self._asker.begin(candidate, make)
        await exchange.finish()
        exchange.accept()
        return exchange


LOOK = Sampling(max_tokens=1, temperature=0.0, top_p=1.0, seed=0, top_logprobs=TOP_OF_CHECKER)
"""One token, and the likeliest in its place."""


def at_spot(question: wire.Complete, spot: Spot, order: Order) -> wire.Complete:
    """The question whose first token is the one at this place of the answer: the text before it is already there."""
    return wire.Complete(order, questions.picking_of(LOOK, 0), question.prompt + spot.before)


def _again(question: wire.Chat, places: Sequence[Spot], order: Order) -> wire.Chat:
    """The same question, for the first tokens of its answer only, with more to compare."""
    picking = msgspec.structs.replace(question.picking, max_tokens=max(1, len(places)), top=TOP_OF_CHECKER)
    return wire.Chat(order, picking, question.turns)


def _sentence(asked: _Asked, found: float, by: str) -> str:
    what = "relative L2 distance" if asked.values is not None else f"mean drift at {len(asked.spots)} places, in nats,"
    return f"{by}, the answer differs: {what} {found:.3g}"
