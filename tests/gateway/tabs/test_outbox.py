"""What waits for a slow tab: the newest state, a few events, and then no more."""

from __future__ import annotations

from atoll.gateway.tabs.outbox import MOST_EVENTS, Outbox


def drained(outbox: Outbox) -> list[str]:
    found = []
    while (text := outbox.take()) is not None:
        found.append(text)
    return found


def test_states_replace_one_another_and_events_go_first() -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1), lambda: None)
    outbox.state("round", "round 1")
    outbox.event("taken")
    outbox.state("round", "round 2")
    outbox.state("account", "rich")
    assert drained(outbox) == ["taken", "round 2", "rich"]
    assert len(woken) == 4


def test_nothing_is_told_twice() -> None:
    outbox = Outbox(lambda: None, lambda: None)
    outbox.state("account", "poor")
    assert drained(outbox) == ["poor"]
    outbox.state("account", "poor")
    assert drained(outbox) == []
    outbox.state("account", "rich")
    outbox.state("account", "poor")
    assert drained(outbox) == ["poor"]


def test_too_many_events_are_the_end() -> None:
    given_up: list[int] = []
    outbox = Outbox(lambda: None, lambda: given_up.append(1))
    for number in range(MOST_EVENTS):
        outbox.event(str(number))
    assert not outbox.overflowed and not given_up
    outbox.event("one more")
    assert outbox.overflowed and given_up
    assert len(drained(outbox)) == MOST_EVENTS
