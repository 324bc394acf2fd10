"""Training, checking, replaying, judging and aggregating on a real model, against numbers worked out apart."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from atoll.errors import EngineFailed, Unreachable
from atoll.graph.fixed import decode_model
from atoll.graph.session import LocalEngine, Pace
from atoll.training.events import (
    Aggregate,
    Aggregated,
    Examine,
    Examined,
    Judge,
    Judged,
    Note,
    Replayed,
    Rerun,
    Train,
    Trained,
)
from atoll.training.unit import batches, shards_of
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.messages import Reveal
from atoll.wire.reasons import Reason

from .bench import ACCOUNTS, SHARDS, Shelf, run, softmax, unit, vector

OTHERS = tuple(ACCOUNTS[1:])
KEY = keccak(b"key")
BLOCK = 256


@cache
def honest() -> tuple[Trained, dict[bytes, bytes]]:
    shelf = Shelf()
    return run(shelf.bench.train(unit(), shelf.model, OTHERS)), shelf.blobs


def trained() -> tuple[Shelf, Trained]:
    """A shelf on which an honest unit lies."""
    shelf, (found, blobs) = Shelf(), honest()
    shelf.blobs.update(blobs)
    return shelf, found


def reveal(found: Trained, **changes: object) -> Reveal:
    fields = {"states": found.states, "update": found.update, **changes}
    return Reveal(keccak(b"job"), 0, found.unit, fields["states"], fields["update"], bytes(32))  # type: ignore[arg-type]


def moved(state: bytes, start: bytes, share: float) -> bytes:
    """A state off by this share of what it moved from the start, in a random direction."""
    length = softmax().manifest.vector_length
    noise = np.random.default_rng(5).standard_normal(length)
    change = noise * share * np.linalg.norm(vector(state) - vector(start)) / np.linalg.norm(noise)
    return (vector(state) + np.rint(change).astype(np.int64)).astype("<i4").tobytes() + state[4 * length :]


def update_by_hand(state: bytes, start: bytes) -> bytes:
    """int8 in blocks of 256 with the smallest power of two that fits, one element after another."""
    change = [int(value) for value in vector(state) - vector(start)]
    exponents, values = [], []
    for first in range(0, len(change), BLOCK):
        block, exponent = change[first : first + BLOCK], 0
        while any(abs(round(Fraction(value, 1 << exponent))) > 127 for value in block):
            exponent += 1
        exponents.append(exponent)
        values += [round(Fraction(value, 1 << exponent)) for value in block]  # round: half to even
    return bytes(exponents) + np.array(values, np.int8).tobytes()


# -- training ----------------------------------------------------------------------------------------------------
def test_training_keeps_every_state() -> None:
    shelf, found = trained()
    assert found.states[0] == shelf.model
    assert len(found.states) == 3
    assert all(len(shelf.blobs[state]) == softmax().manifest.state_bytes for state in found.states[1:])
    assert shelf.blobs[found.update] == update_by_hand(shelf.blobs[found.states[-1]], softmax().initial)


def test_training_is_the_graph_on_the_units_batches() -> None:
    """Twenty steps in one go, without stopping at the segment's end, come to the same up to the grid."""
    shelf, found = trained()
    manifest = softmax().manifest
    shard = shards_of(bytes.fromhex(manifest.data.root[2:]), manifest.data.count, SHARDS)[0]
    rows = batches(unit(), shard, 20, 32)
    tensors = {**decode_model(manifest, softmax().initial)}
    tensors |= {t.name: np.zeros(t.shape, np.float32) for t in manifest.reset_tensors}
    whole = LocalEngine().train(
        softmax().step_graph,
        tensors,
        softmax().x[rows],
        softmax().y[rows],
        Pace(0, 0, manifest.hyper.learning_rate),
    )
    expected = np.concatenate(
        [whole.tensors[t.name].reshape(-1).astype(np.float64) * 2.0**t.bits for t in manifest.vector_tensors]
    )
    end = vector(shelf.blobs[found.states[-1]])
    assert np.linalg.norm(end - expected) < 1e-4 * np.linalg.norm(end - vector(softmax().initial))


def test_a_light_unit_is_the_first_segment_of_the_full_one() -> None:
    shelf, found = trained()
    light = run(shelf.bench.train(unit(segments=1), shelf.model, OTHERS))
    assert light.unit == found.unit
    assert light.states == found.states[:2]
    assert shelf.blobs[light.update] == update_by_hand(shelf.blobs[found.states[1]], softmax().initial)


def test_training_repeats_to_the_bit_and_differs_from_unit_to_unit() -> None:
    shelf, found = trained()
    assert run(shelf.bench.train(unit(), shelf.model, OTHERS)) == found
    assert run(shelf.bench.train(unit(1), shelf.model, OTHERS)).update != found.update
    assert run(shelf.bench.train(unit(0, 1), shelf.model, OTHERS)).update != found.update


def test_work_comes_back_as_its_event() -> None:
    shelf, found = trained()
    assert run(shelf.bench.carry_out(Train(unit(), False), shelf.model, OTHERS)) == found
    assert run(shelf.bench.carry_out(Note("hello"), shelf.model, OTHERS)) is None


def test_training_without_the_model_fails() -> None:
    shelf, _ = trained()
    with pytest.raises(Unreachable):
        run(shelf.bench.train(unit(), bytes(32), OTHERS))


# -- examining ---------------------------------------------------------------------------------------------------
def examined(shelf: Shelf, opened: Reveal, audit: tuple[bytes, ...] = ()) -> int | None:
    event = run(shelf.bench.carry_out(Examine(KEY, unit(), opened, audit), shelf.model, OTHERS))
    assert isinstance(event, Examined)
    assert event.key == KEY
    return event.finding


def test_an_update_that_nobody_audits_needs_the_right_form() -> None:
    shelf, found = trained()
    assert examined(shelf, reveal(found)) == Reason.OK
    update = shelf.blobs[found.update]
    for bad in (b"", update[:-1], update + b"\0", b"\x7f" + update[1:], update[:-1] + b"\x80"):
        assert examined(shelf, reveal(found, update=shelf.keep(bad))) == Reason.UPDATE_MISMATCH


def test_audits_that_agree_within_the_tolerance() -> None:
    """One hundredth of the way from the model to the audited state; honest machines differ a thousand times less."""
    shelf, found = trained()
    end = shelf.blobs[found.states[-1]]
    for share, finding in ((3e-5, Reason.OK), (0.009, Reason.OK), (0.011, 255), (0.5, 255)):
        audit = (shelf.model, found.states[1], shelf.keep(moved(end, softmax().initial, share)))
        assert examined(shelf, reveal(found), audit) == finding, share


def test_an_update_that_is_not_that_of_the_state() -> None:
    shelf, found = trained()
    end = shelf.blobs[found.states[-1]]
    lie = shelf.keep(update_by_hand(moved(end, softmax().initial, 0.3), softmax().initial))
    audit = (shelf.model, found.states[1], found.states[2])
    assert examined(shelf, reveal(found, update=lie), audit) == Reason.UPDATE_MISMATCH


def test_states_that_are_none_are_disputed() -> None:
    shelf, found = trained()
    audit = (shelf.model, found.states[1], found.states[2])
    junk = shelf.keep(b"junk")
    assert examined(shelf, reveal(found, states=(shelf.model, found.states[1], junk)), audit) == 255
    assert examined(shelf, reveal(found), (shelf.model, found.states[1], junk)) == 255


def test_bytes_that_cannot_be_had() -> None:
    shelf, found = trained()
    audit = (shelf.model, found.states[1], bytes(32))
    assert examined(shelf, reveal(found), audit) is None
    assert shelf.asked == [(bytes(32), (ACCOUNTS[0], *OTHERS))]  # the worker first, then everybody
    assert examined(shelf, reveal(found, update=bytes(32))) is None


def test_a_broken_engine_is_not_taken_for_a_missing_byte() -> None:
    class Broken:
        async def train(self, *_: object) -> object:
            raise EngineFailed("out of memory")

    shelf, found = trained()
    object.__setattr__(shelf.bench.bench, "engine", Broken())
    with pytest.raises(EngineFailed):
        run(shelf.bench.carry_out(Rerun(unit(), reveal(found)), shelf.model, OTHERS))


# -- replaying ---------------------------------------------------------------------------------------------------
def replayed(shelf: Shelf, opened: Reveal) -> tuple[int, bytes]:
    event = run(shelf.bench.carry_out(Rerun(unit(), opened), shelf.model, OTHERS))
    assert isinstance(event, Replayed)
    assert event.unit == unit().id
    return event.segment, event.state


def test_a_replay_of_an_honest_unit() -> None:
    shelf, found = trained()
    assert replayed(shelf, reveal(found)) == (0, ZERO_HASH)


def test_honest_drift_does_not_add_up() -> None:
    """Every state off by 3e-5, as on another processor: each segment starts from the worker's own."""
    shelf, found = trained()
    first = moved(shelf.blobs[found.states[1]], softmax().initial, 3e-5)
    again = run(shelf.bench.run_segment(unit(), 1, first))
    second = moved(again, first, 3e-5)
    drifted = (shelf.model, shelf.keep(first), shelf.keep(second))
    update = shelf.keep(update_by_hand(second, softmax().initial))
    assert replayed(shelf, reveal(found, states=drifted, update=update)) == (0, ZERO_HASH)


def test_a_replay_names_the_first_segment_that_differs() -> None:
    shelf, found = trained()
    start, one, two = softmax().initial, shelf.blobs[found.states[1]], shelf.blobs[found.states[2]]
    false_second = (*found.states[:2], shelf.keep(moved(two, one, 0.002)))
    assert replayed(shelf, reveal(found, states=false_second)) == (2, found.states[2])
    false_first = (shelf.model, shelf.keep(moved(one, start, 0.002)), found.states[2])
    assert replayed(shelf, reveal(found, states=false_first)) == (1, found.states[1])


def test_a_replay_finds_a_false_update() -> None:
    shelf, found = trained()
    start, two = softmax().initial, shelf.blobs[found.states[2]]
    lie = shelf.keep(update_by_hand(moved(two, start, 0.3), start))
    assert replayed(shelf, reveal(found, update=lie)) == (3, ZERO_HASH)


def test_a_replay_of_what_is_not_there() -> None:
    shelf, found = trained()
    missing = reveal(found, states=(shelf.model, bytes(32), found.states[2]))
    assert replayed(shelf, missing) == (255, ZERO_HASH)
    junk = reveal(found, states=(shelf.model, found.states[1], shelf.keep(b"junk")))
    assert replayed(shelf, junk) == (255, ZERO_HASH)
    assert replayed(shelf, reveal(found, update=bytes(32))) == (255, ZERO_HASH)
    nothing = (*found.states[:1], shelf.keep(_with_nan(shelf.blobs[found.states[1]])), found.states[2])
    assert replayed(shelf, reveal(found, states=nothing)) in ((255, ZERO_HASH), (1, found.states[1]))


def _with_nan(state: bytes) -> bytes:
    return state[:-4] + np.array([np.nan], "<f4").tobytes()


def test_a_replay_of_a_light_unit() -> None:
    shelf, _ = trained()
    small = unit(segments=1)
    found = run(shelf.bench.train(small, shelf.model, OTHERS))

    def segment_of(opened: Reveal) -> int:
        event = run(shelf.bench.carry_out(Rerun(small, opened), shelf.model, OTHERS))
        assert isinstance(event, Replayed)
        return event.segment

    assert segment_of(reveal(found)) == 0
    false_state = shelf.keep(moved(shelf.blobs[found.states[1]], softmax().initial, 0.002))
    assert segment_of(reveal(found, states=(shelf.model, false_state))) == 1
    lie = shelf.keep(update_by_hand(moved(shelf.blobs[found.states[1]], softmax().initial, 0.3), softmax().initial))
    assert segment_of(reveal(found, update=lie)) == 2

    def guilty(opened: Reveal, segment: int, *replicas: bytes) -> bool | None:
        named = tuple(zip(ACCOUNTS[1:], replicas, strict=False))
        event = run(shelf.bench.carry_out(Judge(KEY, small, opened, segment, named), shelf.model, OTHERS))
        assert isinstance(event, Judged)
        return event.guilty

    assert guilty(reveal(found, update=lie), 2, ZERO_HASH) is True
    assert guilty(reveal(found), 2, ZERO_HASH) is False
    assert guilty(reveal(found, states=(shelf.model, false_state)), 1, found.states[1], found.states[1]) is True


# -- judging -----------------------------------------------------------------------------------------------------
def judged(shelf: Shelf, opened: Reveal, segment: int, *replicas: bytes) -> bool | None:
    named = tuple(zip(ACCOUNTS[1:], replicas, strict=False))
    event = run(shelf.bench.carry_out(Judge(KEY, unit(), opened, segment, named), shelf.model, OTHERS))
    assert isinstance(event, Judged)
    return event.guilty


def test_two_replicas_that_agree_against_the_worker() -> None:
    shelf, found = trained()
    one, two = shelf.blobs[found.states[1]], shelf.blobs[found.states[2]]
    lie = shelf.keep(moved(two, one, 0.01))
    near = shelf.keep(moved(two, one, 3e-5))
    opened = reveal(found, states=(*found.states[:2], lie))
    assert judged(shelf, opened, 2, found.states[2], near) is True
    assert judged(shelf, opened, 2, found.states[2]) is False  # one comparison convicts nobody
    assert judged(shelf, opened, 2, found.states[2], lie) is False  # one of the two agrees with the worker
    far = shelf.keep(moved(two, one, 0.5))
    assert judged(shelf, opened, 2, found.states[2], far) is False  # they do not agree with one another
    assert judged(shelf, reveal(found), 2, found.states[2], near) is False  # the worker is right
    assert judged(shelf, opened, 2, found.states[2], shelf.keep(b"junk")) is False
    assert judged(shelf, opened, 2, found.states[2], bytes(32)) is None


def test_the_update_is_judged_exactly() -> None:
    shelf, found = trained()
    assert judged(shelf, reveal(found), 3, ZERO_HASH) is False
    values = bytearray(shelf.blobs[found.update])
    values[-1] ^= 1  # one step of one value
    assert judged(shelf, reveal(found, update=shelf.keep(bytes(values))), 3, ZERO_HASH) is True
    assert judged(shelf, reveal(found, update=bytes(32)), 3, ZERO_HASH) is None


# -- aggregating -------------------------------------------------------------------------------------------------
def test_the_next_model_is_the_mean_of_three_updates() -> None:
    """With three there is nobody to trim: the mean of the changes, to the nearest step of the grid."""
    shelf, _ = trained()
    updates, changes = [], []
    for index in range(3):
        one = run(shelf.bench.train(unit(index), shelf.model, OTHERS))
        raw = shelf.blobs[one.update]
        blocks = len(raw) - softmax().manifest.vector_length
        exponents = np.frombuffer(raw[:blocks], np.int8).astype(np.int64)
        values = np.frombuffer(raw[blocks:], np.int8).astype(np.int64)
        changes.append(values << np.repeat(exponents, BLOCK)[: len(values)])
        updates.append((ACCOUNTS[index], one.update))
    event = run(shelf.bench.carry_out(Aggregate(KEY, tuple(updates)), shelf.model, OTHERS))
    assert isinstance(event, Aggregated)
    assert event.model is not None
    step = vector(shelf.blobs[event.model]) - vector(softmax().initial)
    assert np.abs(step - np.mean(changes, axis=0)).max() <= 0.5
    turned = run(shelf.bench.carry_out(Aggregate(KEY, tuple(updates[::-1])), shelf.model, OTHERS))
    assert turned == event


def test_no_model_without_all_updates() -> None:
    shelf, found = trained()
    effect = Aggregate(KEY, ((ACCOUNTS[0], found.update), (ACCOUNTS[1], bytes(32))))
    assert run(shelf.bench.carry_out(effect, shelf.model, OTHERS)) == Aggregated(KEY, None)
