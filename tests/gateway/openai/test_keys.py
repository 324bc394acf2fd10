"""Keys and what they spend: exact, kept, and never let in by a damaged file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from atoll.errors import BadInput, Corrupt
from atoll.gateway.openai.keys import Keys, Spending, add_key, read_keys, remove_key


def test_spending_is_exact_and_outlives_the_process(tmp_path: Path) -> None:
    text = add_key(tmp_path, "laptop", None)
    large = 2**200 + 1  # far more than SQLite's own integers hold
    for _ in range(3):
        keys = Keys(tmp_path)
        key = keys.find(text)
        assert key is not None
        keys.spend(key, large)
        keys.close()
    assert Keys(tmp_path).spent(key) == 3 * large


def test_two_servers_of_a_home_lose_nothing(tmp_path: Path) -> None:
    text = add_key(tmp_path, "laptop", None)
    key = Keys(tmp_path).find(text)
    assert key is not None

    def spend() -> None:
        mine = Spending(tmp_path)
        for _ in range(20):
            mine.add(key, 1)
        mine.close()

    threads = [threading.Thread(target=spend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Keys(tmp_path).spent(key) == 40


def test_a_running_server_sees_changes_at_once(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    assert not keys
    first = add_key(tmp_path, "one", None)
    assert keys
    assert keys.find(first) is not None
    second = add_key(tmp_path, "two", 5)
    found = keys.find(second)
    assert found is not None
    assert (found.name, found.most) == ("two", 5)
    remove_key(tmp_path, "one")
    assert keys.find(first) is None
    assert keys.find(second) is not None


def test_a_new_key_of_the_same_name_starts_at_nothing(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    old = keys.find(add_key(tmp_path, "laptop", None))
    assert old is not None
    keys.spend(old, 7)
    remove_key(tmp_path, "laptop")
    new = keys.find(add_key(tmp_path, "laptop", None))
    assert new is not None
    assert (keys.spent(old), keys.spent(new)) == (7, 0)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"version": 2, "keys": []}', b'{"version": 1, "keys": [{"name": "x", "digest": "00"}]}']
)
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(Corrupt, match="atoll key api add"):
        read_keys(tmp_path)
    with pytest.raises(Corrupt):
        bool(Keys(tmp_path))
    with pytest.raises(Corrupt):
        add_key(tmp_path, "laptop", None)


def test_names_have_a_form(tmp_path: Path) -> None:
    for name in ("", "-x", "a/b", "é", "x" * 41, "a\n"):
        with pytest.raises(BadInput):
            add_key(tmp_path, name, None)
    assert read_keys(tmp_path) == []
