"""Backups of keys: what goes out comes back, nothing is overwritten."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.wire import keystore
from atoll.wire.identity import format_account

Atoll = Callable[..., Any]


def test_a_locked_backup_comes_back_in_another_home(
    atoll: Atoll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keystore.create_keys(tmp_path / "a")
    account = format_account(keys.account.address)
    backup = tmp_path / "backup.json"
    monkeypatch.setenv("ATOLL_PASSPHRASE", "open sesame")
    ran = atoll("key", "export", backup, "--home", tmp_path / "a")
    assert ran.code == 0
    assert account in ran.out
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert keys.account.private.hex() not in backup.read_text()
    found = json.loads(atoll("key", "import", backup, "--home", tmp_path / "b", "--json").out)
    assert found == {"account": account, "home": str(tmp_path / "b"), "locked": True}
    restored, _ = keystore.load_keys(tmp_path / "b", "open sesame")
    assert restored.account.private == keys.account.private
    assert restored.endpoint.private == keys.endpoint.private
    monkeypatch.setenv("ATOLL_PASSPHRASE", "another")
    wrong = atoll("key", "import", backup, "--home", tmp_path / "c")
    assert wrong.code == 2
    assert "passphrase" in wrong.err


def test_without_a_terminal_a_backup_needs_a_passphrase_or_a_word(atoll: Atoll, tmp_path: Path) -> None:
    keys = keystore.create_keys(tmp_path / "base" / "node")  # the home that is meant when none is named
    refused = atoll("key", "export", tmp_path / "backup.json")
    assert refused.code == 2
    assert "ATOLL_PASSPHRASE" in refused.err
    assert not (tmp_path / "backup.json").exists()
    assert atoll("key", "export", tmp_path / "backup.json", "--open").code == 0
    assert keys.account.private.hex() in (tmp_path / "backup.json").read_text()


def test_nothing_is_overwritten(atoll: Atoll, tmp_path: Path) -> None:
    keystore.create_keys(tmp_path / "a")
    (tmp_path / "backup.json").write_text("mine")
    refused = atoll("key", "export", tmp_path / "backup.json", "--open", "--home", tmp_path / "a")
    assert refused.code == 2
    assert (tmp_path / "backup.json").read_text() == "mine"
    atoll("key", "export", tmp_path / "b.json", "--open", "--home", tmp_path / "a")
    first = keystore.create_keys(tmp_path / "other")
    kept = atoll("key", "import", tmp_path / "b.json", "--home", tmp_path / "other")
    assert kept.code == 2
    assert "--replace" in kept.err
    assert keystore.load_keys(tmp_path / "other")[0].account.address == first.account.address
    assert atoll("key", "import", tmp_path / "b.json", "--home", tmp_path / "other", "--replace").code == 0
    assert len(list((tmp_path / "other" / "keys").glob("old-*.json"))) == 1


def test_the_home_of_a_network_does_not_say_which_node(atoll: Atoll, tmp_path: Path) -> None:
    for number in (1, 2):
        keystore.create_keys(tmp_path / "up" / f"node-{number}")
    ran = atoll("key", "export", tmp_path / "backup.json", "--open", "--home", tmp_path / "up")
    assert ran.code == 2
    assert f"--home {tmp_path / 'up' / 'node-1'}" in ran.err


def test_a_running_node_keeps_its_keys(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    keystore.create_keys(tmp_path / "a")
    atoll("key", "export", tmp_path / "backup.json", "--open", "--home", tmp_path / "a")
    serve(tmp_path / "a", {"status": {}})
    ran = atoll("key", "import", tmp_path / "backup.json", "--replace", "--home", tmp_path / "a")
    assert ran.code == 2
    assert "atoll stop" in ran.err


def test_what_is_no_backup_is_told(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "backup.json").write_text("[]")
    assert atoll("key", "import", tmp_path / "backup.json").code == 2
    assert atoll("key", "import", tmp_path / "missing.json").code == 2
    assert atoll("key", "export", tmp_path / "new.json", "--open").code == 2  # there are no keys
