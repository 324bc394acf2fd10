"""What waits to be sent to one tab. Pure: the socket takes it out. A slow tab never makes the gateway keep much.

States (a round, a job, the account) replace one another: a tab that was slow is told the newest only. Events (answers,
verdicts) are kept in order, and when too many wait, the tab is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MOST_EVENTS = 256


class Outbox:
    """Frames for one tab; `wake` is called when something was put in, `give_up` when the tab is too slow."""

    def __init__(self, wake: Callable[[], None], give_up: Callable[[], None]) -> None:
        self.overflowed = False
        self._wake, self._give_up = wake, give_up
        self._events: deque[str] = deque()
        self._states: dict[object, str] = {}
        self._told: dict[object, int] = {}

    def event(self, text: str) -> None:
        """Something that happened once."""
        if len(self._events) >= MOST_EVENTS:
            self.overflowed = True
            self._give_up()
            return
        self._events.append(text)
        self._wake()

    def state(self, key: object, text: str) -> None:
        """How something stands now; nothing is sent when the tab was told just that before."""
        mark = hash(text)
        if self._told.get(key) == mark:
            return
        self._told[key] = mark
        self._states[key] = text
        self._wake()

    def take(self) -> str | None:
        """The next frame; None when there is none. Events go first: a verdict belongs to the round that is over."""
        if self._events:
            return self._events.popleft()
        if self._states:
            return self._states.pop(next(iter(self._states)))
        return None
