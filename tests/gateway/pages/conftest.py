"""One finished town and one in the middle of a round, for all tests that only look."""

from __future__ import annotations

from functools import cache

import pytest

from tests.gateway.pages.town import Town


@cache
def _done() -> Town:
    return Town().finish()


@cache
def _busy() -> Town:
    town = Town(nodes=5, rounds=4, liar="")
    while len(town.network.history) < 1:
        town.step(0.2)
    town.step(0.2)
    return town


@pytest.fixture
def done() -> Town:
    """All rounds are certified and posted, the model is stored; node-6 lied. Nobody changes it."""
    return _done()


@pytest.fixture
def busy() -> Town:
    """A round is certified, the next one is under way. Nobody changes it."""
    return _busy()
