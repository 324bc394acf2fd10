"""Spot checks of answers: how often, what is run again, and what the comparison means. Pure.

**How often.** With probability p = min(1, max(FLOOR, 1.5 / (delta (1 + v)))), where v is the number of checks in a row
that agreed and delta the chance that one check sees a lie. A liar that is caught is not paid R for the answer and loses
its record, which is worth the v checked answers that it takes to earn it again: the expected gain of a lie is
R - p delta (R + v R) = -R/2 above the floor. A server without a record is always checked. In whole parts per 10,000,
rounded up, as with the audits of training.

**What is compared.** Classifiers and embeddings: relative L2 distance of each row; honest CPUs differ by about 1e-5,
TOLERANCE is 1e-3. Language models, in the manner of TOPLOC (https://arxiv.org/abs/2501.16007): a server commits to the
most likely tokens and their log-probabilities at every position before it can know which will be looked at. A
conversation is answered again from its beginning, with the same seed, up to a drawn length, and compared as far as both
take the same tokens and at the first where they part: until there both have read the same. In a text that is continued
the checker lets the model read it up to a few drawn positions. Compared are the likeliest tokens with their
log-probabilities (another model, or the same one cut down, shows at once), and whether the model itself could have
taken the token: the likeliest one at temperature 0, else one within the likeliest that make up `top_p`.

**What it means.** A comparison AGREES, is in DOUBT, or is FALSE. Doubt is what honest drift could explain if it were
large; it counts against a server's record, and MAX_DOUBTS of them without a long row of good answers in between make
a lie. FALSE is out of any honest device's reach. It convicts at once only when this node ran the model itself; when
another server did, either may be the liar, and a third decides (`judge`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadSetting, InternalError
from atoll.inference.messages import Chunk, Position
from atoll.wire.generator import Generator

ALWAYS = 10_000
FLOOR = 200
"""One answer in fifty of the best server is still checked."""
DETECTION = {"classifier": 9_500, "embedding": 9_500, "language": 7_500}
"""Chance that a check sees a lie, in parts per 10,000: text is looked at in a few places only."""
TOLERANCE = 1e-3
CERTAIN = 5e-2
"""Relative L2 distance of numbers beyond which no honest device lies."""
POSITIONS = 4
"""Places of a text that are looked at."""
SHORTEST, LONGEST = 16, 256
"""Tokens of a conversation's answer that are made again: a drawn number between these."""
TOP = 5
"""Likeliest tokens that a server tells of every position."""
TOP_OF_CHECKER = 20
LOG_TOLERANCE, LOG_CERTAIN = 0.1, 0.5
"""Mean difference of log-probabilities, in nats, that is fine, and that no honest device reaches."""
MISSING = 1.0
"""Nats for a token that one side has among its likeliest and the other has not among four times as many."""
MARGIN = 0.1
"""At temperature 0 a token may be this many nats below the likeliest one: a near tie."""
SLACK = 0.02
"""Probability that may lie above a sampled token beyond `top_p`."""
MAX_DOUBTS = 3
DOUBTS_FADE = 50
"""Good checks in a row after which a doubt no longer counts."""

Floats = NDArray[np.float32]


class Verdict(IntEnum):
    """What a comparison says."""

    AGREES = 0
    DOUBT = 1
    FALSE = 2


def rate(checked: int, kind: str) -> int:
    """Chance, in parts per 10,000, that the next answer is checked after `checked` checks in a row that agreed."""
    if checked < 0:
        raise InternalError(f"{checked} checks")
    if kind not in DETECTION:
        raise BadSetting(f"{kind!r} is no kind of model; expected one of: {', '.join(DETECTION)}.")
    if checked == 0:
        return ALWAYS
    return min(ALWAYS, max(FLOOR, -(-3 * ALWAYS * ALWAYS // (2 * DETECTION[kind] * (1 + checked)))))


def is_drawn(checked: int, kind: str, dice: bytes) -> bool:
    """Whether this answer is checked; `dice` are 32 random bytes that the server cannot know."""
    return Generator(dice, b"spot check").uniform(ALWAYS) < rate(checked, kind)


# -- numbers -----------------------------------------------------------------------------------------------------------
def distance(answer: Floats, mine: Floats) -> float:
    """The largest relative L2 distance of a row: max over rows |answer - mine| / |mine|; infinite for another shape."""
    if answer.shape != mine.shape:
        return float("inf")
    if not answer.size:
        return 0.0
    a, b = (one.reshape(len(one), -1).astype(np.float64) for one in (answer, mine))
    if not np.isfinite(a).all():
        return float("inf")
    scale = np.maximum(np.linalg.norm(b, axis=1), 1e-12)
    return float(np.max(np.linalg.norm(a - b, axis=1) / scale))


def compare_numbers(answer: Floats, mine: Floats) -> tuple[Verdict, float]:
    """The verdict on scores or vectors [n, ...] against one's own, and the distance."""
    found = distance(answer, mine)
    return _graded(found, TOLERANCE, CERTAIN), found


def _graded(value: float, tolerance: float, certain: float) -> Verdict:
    return Verdict.AGREES if value <= tolerance else Verdict.DOUBT if value < certain else Verdict.FALSE


# -- text --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Spot:
    """A place of an answer that is looked at: the text before it, and the position that the server told of it."""

    before: str
    told: Position


def spots(chunks: Sequence[Chunk], dice: bytes, count: int = POSITIONS) -> list[Spot]:
    """The first place of an answer and others drawn by the dice, `count` in all; those where a piece of text begins.

    Only chunks that begin at a whole character can be named by the text before them, so others are passed over.
    """
    places = []
    text = ""
    for chunk in chunks:
        if chunk.positions:
            places.append(Spot(text, chunk.positions[0]))
        text += chunk.text
    if len(places) <= count:
        return places
    rest = Generator(dice, b"spots").draw(places[1:], count - 1)
    return [places[0], *rest]


def prefix(chunks: Sequence[Chunk], dice: bytes) -> list[Spot]:
    """The first positions of an answer, as many as the dice say: all of SHORTEST, or up to LONGEST."""
    told = [Spot("", position) for chunk in chunks for position in chunk.positions]
    low, high = min(SHORTEST, len(told)), min(LONGEST, len(told))
    return told[: low + Generator(dice, b"prefix").uniform(high - low + 1)]


def shared(told: Sequence[Spot], mine: Sequence[Position]) -> dict[int, Position]:
    """What a second answer says at the positions where it has read the same as the first, by their index: those where
    both took the same tokens, and the first where they part."""
    found = {}
    for index, (spot, own) in enumerate(zip(told, mine, strict=False)):
        found[index] = own
        if own.taken.token != spot.told.taken.token:
            break
    return found


def drift(told: Position, mine: Position) -> float:
    """Mean difference, in nats, between the log-probabilities of the likeliest tokens on both sides.

    Each token that the server told is looked up among the checker's (which has more); one that is not there is MISSING.
    So is the checker's likeliest if the server left it out. Infinite if the server told nothing, or no real numbers.
    """
    own = {one.token: one.logprob for one in mine.top}
    theirs = {one.token: one.logprob for one in told.top}
    if not theirs or not np.isfinite(list(theirs.values())).all():
        return float("inf")
    parts = [min(abs(theirs[token] - own[token]), MISSING) if token in own else MISSING for token in theirs]
    parts += [MISSING] * (mine.top[0].token not in theirs)
    return float(np.mean(parts))


def plausible(told: Position, mine: Position, temperature: float, top_p: float) -> bool:
    """Whether the model itself could have taken the token that the server says it took."""
    own = {one.token: one.logprob for one in mine.top}
    taken = told.taken.token
    if temperature == 0:
        return taken in own and own[taken] >= mine.top[0].logprob - MARGIN
    if temperature > 1:
        return True  # flattened, the tail that the checker does not see may be anything
    # What is not among the checker's likeliest has at least all of them above it. Probabilities are those before the
    # temperature: below 1 it narrows the choice, so this admits what any order of the two settings can take.
    limit = own.get(taken, float("-inf"))
    return sum(math.exp(logprob) for logprob in own.values() if logprob > limit) <= top_p + SLACK


def compare_text(
    found: Sequence[tuple[Spot, Position]], temperature: float, top_p: float, exact: bool = False
) -> tuple[Verdict, float]:
    """The verdict on a text: (what was told of a place, what the checker's model says there), and the mean drift.

    `exact`: both have read the same tokens, so that one place that is far off is FALSE. Otherwise it may be a text that
    splits into tokens otherwise when it is read again, and FALSE needs most of them. A server that told nothing to
    compare is FALSE.
    """
    if not found:
        return Verdict.AGREES, 0.0
    drifts = [drift(spot.told, mine) for spot, mine in found]
    odd = sum(not plausible(spot.told, mine, temperature, top_p) for spot, mine in found)
    off = sum(one > LOG_TOLERANCE for one in drifts)
    wrong = max(odd, sum(one >= LOG_CERTAIN for one in drifts))
    worst = float(np.mean([min(one, MISSING) for one in drifts]))
    if 2 * wrong > len(found) or (exact and wrong):
        return Verdict.FALSE, worst
    if exact:
        return (Verdict.DOUBT if off else Verdict.AGREES), worst
    # The first place is read right after the question: nothing there can be split otherwise.
    if wrong or 2 * off > len(found) or drifts[0] > LOG_TOLERANCE:
        return Verdict.DOUBT, worst
    return Verdict.AGREES, worst


# -- conviction --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """What was found against a server so far: doubts that still count, and checks that agreed since the last."""

    doubts: int = 0
    since: int = 0

    def after(self, verdict: Verdict) -> Case:
        """The case after one more comparison."""
        if verdict == Verdict.AGREES:
            return Case(0, 0) if self.since + 1 >= DOUBTS_FADE else Case(self.doubts, self.since + bool(self.doubts))
        return Case(self.doubts + 1, 0)


class Judgement(IntEnum):
    """What follows from a comparison."""

    FINE = 0
    SUSPECT = 1
    ASK_A_THIRD = 2
    LIAR = 3
    OTHER_IS_LIAR = 4


def judge(case: Case, verdict: Verdict, own_run: bool, third: tuple[Verdict, Verdict] | None = None) -> Judgement:
    """What follows for the server, `case` being what stood against it before.

    `own_run`: this node ran the model itself. `third`: a third server's answer compared with the server's, and with
    that of the one which checked. Two that agree outvote one; where nobody agrees, nobody is convicted.
    """
    if verdict == Verdict.AGREES:
        return Judgement.FINE
    if own_run:
        convicted = verdict == Verdict.FALSE or case.doubts + 1 >= MAX_DOUBTS
        return Judgement.LIAR if convicted else Judgement.SUSPECT
    if verdict == Verdict.DOUBT:
        return Judgement.SUSPECT
    if third is None:
        return Judgement.ASK_A_THIRD
    with_server, with_checker = third
    if with_server == Verdict.FALSE and with_checker == Verdict.AGREES:
        return Judgement.LIAR
    if with_checker == Verdict.FALSE and with_server == Verdict.AGREES:
        return Judgement.OTHER_IS_LIAR
    return Judgement.SUSPECT
