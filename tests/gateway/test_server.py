"""Where a gateway listens, and how it says that it cannot."""

from __future__ import annotations

import pytest

from atoll.errors import BadSetting, PortInUse
from atoll.gateway.server import listen, page_url


def test_a_free_port_is_taken_and_a_used_one_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(PortInUse, match=f"Port {port} on 127.0.0.1 is used by another program"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.77", "no such host", "x" * 70])
def test_an_address_that_is_none_of_this_device(host: str) -> None:
    with pytest.raises(BadSetting, match="listen"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:8470/"),  # noqa: S104 - everywhere: so also here
        ("::", "http://[::1]:8470/"),
        ("192.168.1.5", "http://192.168.1.5:8470/"),
        ("fd00::7", "http://[fd00::7]:8470/"),
    ],
)
def test_where_a_browser_finds_it(host: str, expected: str) -> None:
    assert page_url(host, 8470) == expected
