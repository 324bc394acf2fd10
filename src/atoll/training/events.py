"""What goes into a round (events) and what comes out of it (effects). The node or the simulator carries effects out."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.training.committee import CertifyPayload
from atoll.training.unit import UnitSpec
from atoll.wire.messages import Reveal, Signed


# Events
@dataclass(frozen=True)
class Received:
    """A message whose signature has been checked."""

    signed: Signed


@dataclass(frozen=True)
class Trained:
    """The work on a unit is done: ids of its states (first to last) and of its update."""

    unit: bytes
    states: tuple[bytes, ...]
    update: bytes


@dataclass(frozen=True)
class Examined:
    """What this node found about a revealed unit: OK, a reason code or DISPUTED; None if bytes could not be had."""

    key: bytes
    finding: int | None


@dataclass(frozen=True)
class Replayed:
    """The re-run of a disputed unit: the first differing segment, and the id of the own state (zeros if there is none).

    0: all agree; the number of segments + 1: the update is not that of the last state; 255: something was not opened.
    """

    unit: bytes
    segment: int
    state: bytes


@dataclass(frozen=True)
class Judged:
    """Whether the replicas are right about a segment; None if bytes could not be had."""

    key: bytes
    guilty: bool | None


@dataclass(frozen=True)
class Aggregated:
    """The new model's id for a list of updates; None if bytes could not be had."""

    key: bytes
    model: bytes | None


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Received | Trained | Examined | Replayed | Judged | Aggregated | Tick


# Effects
@dataclass(frozen=True)
class Send:
    """Send a message to these accounts. A `promise` has to be in the journal, as received, before it leaves."""

    to: tuple[bytes, ...]
    message: Signed
    promise: bool = False


@dataclass(frozen=True)
class Train:
    """Do the work of a unit, own or (`audit`) another's: comes back as Trained."""

    unit: UnitSpec
    audit: bool


@dataclass(frozen=True)
class Examine:
    """Fetch and check a revealed update and, when `audit` differs from it, compare the two end states."""

    key: bytes
    unit: UnitSpec
    reveal: Reveal
    audit_states: tuple[bytes, ...]  # empty: not audited, or the audit found the very same bytes


@dataclass(frozen=True)
class Rerun:
    """Run each segment of a disputed unit from the worker's own committed states: comes back as Replayed.

    The first state is named by the model's id.
    """

    unit: UnitSpec
    reveal: Reveal


@dataclass(frozen=True)
class Judge:
    """Compare the worker's end of a segment with the replicas': comes back as Judged.

    For the segment after the last: whether the update is that of the last state.
    """

    key: bytes
    unit: UnitSpec
    reveal: Reveal
    segment: int
    replicas: tuple[tuple[bytes, bytes], ...]  # (account, id of its own end state)


@dataclass(frozen=True)
class Aggregate:
    """Combine updates in this order onto the round's model: comes back as Aggregated."""

    key: bytes
    updates: tuple[tuple[bytes, bytes], ...]  # (account, update id)


@dataclass(frozen=True)
class Finished:
    """The round is certified: payload, its bytes, and a quorum's signatures."""

    round: int
    certificate: CertifyPayload
    payload: bytes
    signatures: tuple[bytes, ...]


@dataclass(frozen=True)
class Note:
    """Something that a person may want to see in the log."""

    text: str


Effect = Send | Train | Examine | Rerun | Judge | Aggregate | Finished | Note
