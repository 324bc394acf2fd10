"""Places, loads, and what counts as one address."""

from __future__ import annotations

import pytest

from atoll.gateway.tabs.limits import Loads, Places, address_of


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


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        (None, "?"),
    ],
)
def test_what_counts_as_one_address(host: str | None, address: str) -> None:
    assert address_of(host) == address
