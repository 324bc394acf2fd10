"""Which server is asked: by price, measured speed, and record. Pure: the dice are handed in.

The expected cost of asking a server is

    (price + SECOND_VALUE_PER_10K / 10,000 * price_scale * seconds * (1 + load / 1000)) / chance

- `price`: the most that this question may cost there, in base units; `price_scale` is the dearest price among the
  candidates (1 if all are free), so the weight of a second does not depend on the unit of money.
- `seconds`: first word after `first` seconds plus `per_token` seconds for each token expected, both moving averages of
  what was measured (weight SMOOTHING for the newest).
- `chance` that an answer is good: (good + 1) / (good + bad + 1), where `bad` counts refusals, timeouts and doubts, all
  of which fade by half in HALF_LIFE seconds. A server that was caught in a lie is out for good.

Servers that were never asked come cheapest first, equal ones in an order drawn by the dice. One question in TRY_ONE_IN
is first offered to those of them that ask no more than the best server with a record; otherwise they come after all
that have one. So everybody gets a fair first try, and an endless row of fresh accounts gets no more than its share.
Newcomers' answers are always checked (`spotcheck.rate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from atoll.inference.messages import ModelOffer, amount
from atoll.inference.vouchers import Price
from atoll.wire.generator import Generator

SECOND_VALUE_PER_10K = 1_000
"""A second of waiting weighs as much as a tenth of the dearest price."""
SMOOTHING = 0.25
HALF_LIFE = 3600.0
TRY_ONE_IN = 5
USUAL_FIRST, USUAL_PER_TOKEN = 1.0, 0.1
"""Seconds assumed where no server's speed is known yet."""


class Outcome(StrEnum):
    """How a question to a server ended."""

    GOOD = "good"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    DOUBT = "doubt"
    LIE = "lie"


WEIGHT = {Outcome.REFUSED: 1.0, Outcome.TIMEOUT: 2.0, Outcome.DOUBT: 2.0, Outcome.LIE: 0.0}
"""How much an outcome adds to `bad`; a lie closes the door instead."""


@dataclass(frozen=True)
class Record:
    """What this node knows of one server. `good` and `bad` fade from time `at` (Unix seconds) on; `first` and
    `per_token` are seconds, 0 if never measured; `answers`, `refusals`, `timeouts`, `doubts` are whole counts for the
    dashboard; `checked` good checks in a row; `lied` says why it is refused from now on ("" if it is not)."""

    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0
    first: float = 0.0
    per_token: float = 0.0
    answers: int = 0
    refusals: int = 0
    timeouts: int = 0
    doubts: int = 0
    checked: int = 0
    lied: str = ""

    @property
    def known(self) -> bool:
        """Whether it was ever asked."""
        return bool(self.answers or self.refusals or self.timeouts or self.doubts or self.lied)

    def faded(self, now: float) -> Record:
        """The same with `good` and `bad` as they count at `now`."""
        kept = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return replace(self, good=self.good * kept, bad=self.bad * kept, at=now)

    def after(self, outcome: Outcome, now: float, why: str = "") -> Record:
        """The record after one more question."""
        old = self.faded(now)
        if outcome == Outcome.GOOD:
            return replace(old, good=old.good + 1, answers=old.answers + 1)
        if outcome == Outcome.LIE:
            return replace(old, lied=why or "a lie", checked=0)
        bad = old.bad + WEIGHT[outcome]
        return replace(
            old,
            bad=bad,
            refusals=old.refusals + (outcome == Outcome.REFUSED),
            timeouts=old.timeouts + (outcome == Outcome.TIMEOUT),
            doubts=old.doubts + (outcome == Outcome.DOUBT),
            checked=0 if outcome == Outcome.DOUBT else old.checked,
        )

    def timed(self, first: float, seconds: float, tokens: int) -> Record:
        """The record after an answer whose first part came after `first` and whose last after `seconds`."""
        each = max(0.0, seconds - first) / tokens if tokens > 1 else self.per_token
        return replace(self, first=_smooth(self.first, first), per_token=_smooth(self.per_token, each))

    def agreed(self) -> Record:
        """The record after a check that agreed."""
        return replace(self, checked=self.checked + 1)


def _smooth(old: float, new: float) -> float:
    return new if old == 0.0 else (1 - SMOOTHING) * old + SMOOTHING * new


@dataclass(frozen=True)
class Candidate:
    """A server that offers the model: its account, its offer, its load (0 to 1,000)."""

    server: bytes
    offer: ModelOffer
    load: int

    @property
    def price(self) -> Price:
        """The offer's price."""
        return Price(amount(self.offer.per_input), amount(self.offer.per_1000))


@dataclass(frozen=True)
class Wanted:
    """What is asked: inputs or texts, tokens that the question can have at most, tokens that may be made."""

    inputs: int
    question_tokens: int
    new_tokens: int

    def ceiling(self, price: Price) -> int:
        """The most that it may cost, in base units."""
        return price.of(self.inputs, self.question_tokens + self.new_tokens)


def chance(record: Record, now: float) -> float:
    """Chance, by its record, that a server's next answer is good: 0 to 1."""
    faded = record.faded(now)
    return (faded.good + 1) / (faded.good + faded.bad + 1)


def expected_cost(
    candidate: Candidate, record: Record, wanted: Wanted, now: float, scale: int, speed: tuple[float, float]
) -> float:
    """The formula above; `speed` (first, per token) stands in where nothing was measured."""
    first, per_token = record.first or speed[0], record.per_token or speed[1]
    seconds = (first + per_token * wanted.new_tokens) * (1 + candidate.load / 1000)
    price = wanted.ceiling(candidate.price)
    return (price + SECOND_VALUE_PER_10K / 10_000 * scale * seconds) / chance(record, now)


def ranked(
    candidates: Sequence[Candidate], records: Mapping[bytes, Record], wanted: Wanted, now: float, dice: bytes
) -> list[Candidate]:
    """The servers in the order in which they are asked, liars left out. The same inputs give the same order.

    `dice`: 32 random bytes, fresh for each question.
    """
    none = Record()
    open_to = [one for one in candidates if not records.get(one.server, none).lied]
    scale = max((wanted.ceiling(one.price) for one in open_to), default=0) or 1
    measured = [records[one.server] for one in open_to if one.server in records and records[one.server].first]
    speed = (
        min((record.first for record in measured), default=USUAL_FIRST),
        min((record.per_token for record in measured if record.per_token), default=USUAL_PER_TOKEN),
    )

    def cost(one: Candidate) -> tuple[float, bytes]:
        return expected_cost(one, records.get(one.server, none), wanted, now, scale, speed), one.server

    known = sorted((one for one in open_to if records.get(one.server, none).known), key=cost)
    newcomers = sorted((one for one in open_to if not records.get(one.server, none).known), key=lambda one: one.server)
    generator = Generator(dice, b"router")
    first_try = generator.uniform(TRY_ONE_IN) == 0
    generator.shuffle(newcomers)
    newcomers.sort(key=lambda one: wanted.ceiling(one.price))  # a stable sort: the dice decide among equal prices
    if not known:
        return newcomers
    fair = wanted.ceiling(known[0].price)
    early = [one for one in newcomers if first_try and wanted.ceiling(one.price) <= fair]
    return [*early, *known, *(one for one in newcomers if one not in early)]
