"""Keys of the API: made, shown once, listed with what they spent, taken back."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.gateway.openai.keys import Keys, read_keys
from atoll.wire import keystore

Atoll = Callable[..., Any]


def test_a_key_is_made_listed_and_taken_back(atoll: Atoll, tmp_path: Path) -> None:
    home = tmp_path / "base" / "node"
    keystore.create_keys(home)
    made = atoll("key", "api", "add", "laptop", "--limit", "2.5")
    assert made.code == 0
    text = made.out.strip()
    assert text.startswith("atoll-")
    assert "2.5 ATL" in made.err
    assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600
    assert text not in (home / "keys.json").read_text()

    keys = Keys(home)
    key = keys.find(text)
    assert key is not None
    keys.spend(key, 10**18 + 1)
    keys.close()
    listed = json.loads(atoll("key", "api", "list", "--json").out)
    assert listed == [{"name": "laptop", "limit": str(25 * 10**17), "spent": str(10**18 + 1)}]
    shown = atoll("key", "api", "list").out
    assert "1.000000000000000001" in shown
    assert "2.5" in shown

    removed = atoll("key", "api", "remove", "laptop")
    assert removed.code == 0
    assert "none is left" in removed.out
    assert read_keys(home) == []
    assert "no keys" in atoll("key", "api", "list").out


def test_the_gateway_of_a_whole_network_is_meant(atoll: Atoll, tmp_path: Path) -> None:
    for name in ("node-1", "node-2", "gateway"):
        keystore.create_keys(tmp_path / "net" / name)
    found = json.loads(atoll("key", "api", "add", "phone", "--home", tmp_path / "net", "--json").out)
    assert found["home"] == str(tmp_path / "net" / "gateway")
    assert found["limit"] is None
    one = json.loads(atoll("key", "api", "add", "phone", "--home", tmp_path / "net" / "node-1", "--json").out)
    assert one["home"] == str(tmp_path / "net" / "node-1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "a b"), "cannot name a key"),
        (("add", "laptop", "--limit", "0"), "--limit 0"),
        (("add", "laptop", "--limit", "much"), "not an amount"),
        (("remove", "nobody"), "no key named 'nobody'"),
    ],
)
def test_what_is_wrong_is_told(atoll: Atoll, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    keystore.create_keys(tmp_path / "base" / "node")
    ran = atoll("key", "api", *words)
    assert ran.code == 2
    assert told in ran.err


def test_a_name_is_taken_once(atoll: Atoll, tmp_path: Path) -> None:
    keystore.create_keys(tmp_path / "base" / "node")
    assert atoll("key", "api", "add", "laptop").code == 0
    assert "exists already" in atoll("key", "api", "add", "laptop").err
