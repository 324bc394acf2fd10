"""What is remembered of tabs: said once, said again at longer and longer pauses, kept until the round is over."""

from __future__ import annotations

from itertools import pairwise

import pytest

from atoll.errors import Refused
from atoll.gateway.tabs.memory import ACCOUNTS, Memory
from atoll.wire.hashing import Domain, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import Body, Commit, Phase, Present, Signed, seal
from atoll.wire.reasons import Reason

DOMAIN = Domain(7, b"\x07" * 20)
KEY = AccountKey(keccak(b"tab"))
ME = KEY.address
JOB, UNIT, OTHER = keccak(b"job"), keccak(b"unit"), keccak(b"other")


def sealed(body: Body) -> Signed:
    return seal(DOMAIN, body, ME, KEY.sign_digest)


COMMIT, PRESENT = sealed(Commit(JOB, 3, UNIT, keccak(b"digest"))), sealed(Present(JOB, 3))


def test_said_once() -> None:
    memory = Memory()
    assert memory.say(COMMIT, 10.0)
    assert not memory.say(COMMIT, 11.0)
    assert memory.said(3, ME) == [COMMIT.raw]
    assert memory.said(4, ME) == memory.said(3, b"\x01" * 20) == []
    with pytest.raises(Refused) as caught:
        memory.say(sealed(Commit(JOB, 3, UNIT, keccak(b"another"))), 12.0)
    assert caught.value.reason is Reason.EQUIVOCATION
    assert memory.say(sealed(Commit(JOB, 3, OTHER, keccak(b"another"))), 12.0)


def test_said_again_as_long_as_the_phase_lasts() -> None:
    """After 0.5 s, then 0.5 more, then pauses that grow by a quarter up to 2 s."""
    memory = Memory()
    memory.say(COMMIT, 10.0)
    times = [tick / 100 for tick in range(1000, 2600) if list(memory.due(3, Phase.LOCK, tick / 100))]
    assert times[:3] == [10.5, 11.0, 11.63]  # 11.0 + 0.625, at the next hundredth
    pauses = [after - before for before, after in pairwise(times)]
    assert max(pauses) <= 2.02
    assert pauses[-1] >= 1.99
    assert not list(memory.due(3, Phase.BEACON, 100.0))
    assert not list(memory.due(4, Phase.LOCK, 100.0))


def test_presence_counts_in_every_phase() -> None:
    memory = Memory()
    memory.say(PRESENT, 0.0)
    for number, phase in enumerate(Phase):
        assert list(memory.due(3, phase, 10.0 * (number + 1))) == [PRESENT]


def test_blobs_go_with_their_round_unless_another_needs_them() -> None:
    memory = Memory()
    mine, shared = keccak(b"mine"), keccak(b"shared")
    memory.keep(3, ME, mine)
    memory.keep(3, ME, shared)
    memory.keep(3, ME, shared)
    memory.keep(4, b"\x01" * 20, shared)
    assert memory.uploaded(3, ME) == 2
    assert memory.holds(mine) and not memory.holds(UNIT)
    assert memory.forget(3) == set()
    assert memory.forget(4) == {mine}
    assert memory.forget(5) == {shared}


def test_written_down_and_read_again() -> None:
    memory = Memory()
    memory.say(COMMIT, 0.0)
    memory.keep(3, ME, UNIT)
    assert memory.changed
    packed = memory.pack()
    assert not memory.changed
    again = Memory()
    assert again.unpack(packed) == [(3, ME, [COMMIT.raw])]
    assert again.uploaded(3, ME) == 1
    assert again.forget(4) == {UNIT}


def test_the_number_of_accounts_is_bounded() -> None:
    memory = Memory()
    for number in range(ACCOUNTS):
        memory.keep(0, number.to_bytes(20, "big"), UNIT)
    with pytest.raises(Refused) as caught:
        memory.keep(0, b"\xff" * 20, UNIT)
    assert caught.value.reason is Reason.BUSY
