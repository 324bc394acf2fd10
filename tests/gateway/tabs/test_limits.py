"""Places and loads."""

from __future__ import annotations

from atoll.gateway.tabs.limits import Loads, Places


def test_places() -> None:
    places = Places(10)
    for _ in range(8):
        places.enter("a")
    assert (len(places), places.full, places.crowded("a"), places.crowded("b")) == (8, False, True, False)
    places.enter("b")
    places.enter("b")
    assert places.full
    places.leave("a")
    assert not places.full and not places.crowded("a")
    for address in "a" * 7 + "b" * 2:
        places.leave(address)
    assert len(places) == 0
    assert Places(0).full


def test_loads() -> None:
    loads = Loads(100)
    assert loads.take(60) and not loads.take(41) and loads.take(40)
    loads.give(60)
    loads.give(40)
    assert loads.take(1000)  # a single one may be larger
    assert not loads.take(1)
