"""Keys on disk: made once, never overwritten, damage told from a wrong passphrase."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from eth_account import Account

from atoll.errors import BadInput, Corrupt, MachineError
from atoll.wire.keystore import (
    Keys,
    account_path,
    create_keys,
    endpoint_path,
    export_keys,
    has_keys,
    import_keys,
    load_keys,
)

posix = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")


def same(one: Keys, other: Keys) -> bool:
    return (one.account.private, one.endpoint.private) == (other.account.private, other.endpoint.private)


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((home / "keys").iterdir())}


def test_keys_are_made_and_found_again(tmp_path: Path) -> None:
    assert not has_keys(tmp_path)
    keys = create_keys(tmp_path)
    loaded, warnings = load_keys(tmp_path)
    assert same(keys, loaded)
    assert warnings == ()
    stored = json.loads(account_path(tmp_path).read_bytes())
    assert stored["name"] == Account.from_key(stored["private_key"]).address
    assert sorted(files(tmp_path)) == ["account.json", "endpoint.key"]
    assert not same(create_keys(tmp_path / "other"), keys)


def test_the_format_of_an_open_file_is_pinned(tmp_path: Path) -> None:
    """A file that an earlier version wrote must stay readable. Names and checksums were worked out elsewhere."""
    account = {
        "version": 1,
        "kind": "account",
        "name": "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1",
        "private_key": "01" * 32,
        "checksum": "c6fb843cee7c6f35e7b232314c635f9029a7d672345a58a90ffc323495e6491d",
    }
    endpoint = {
        "version": 1,
        "kind": "endpoint",
        "name": "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
        "private_key": "02" * 32,
        "checksum": "794d3c1217b22fe6d1d08c2c9618e3f75e5fdd4acb7b8a752a81df4fb904e5f6",
    }
    (tmp_path / "keys").mkdir()
    account_path(tmp_path).write_text(json.dumps(account))
    endpoint_path(tmp_path).write_text(json.dumps(endpoint))
    keys, _ = load_keys(tmp_path)
    assert keys.account.private == b"\1" * 32
    assert keys.endpoint.private == b"\2" * 32


@posix
def test_only_the_owner_can_read_them_and_wider_permissions_are_told(tmp_path: Path) -> None:
    create_keys(tmp_path)
    for path in (account_path(tmp_path), endpoint_path(tmp_path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(account_path(tmp_path).parent.stat().st_mode) == 0o700
    account_path(tmp_path).chmod(0o644)
    _, warnings = load_keys(tmp_path)
    assert len(warnings) == 1
    assert f"chmod 600 {account_path(tmp_path)}" in warnings[0]


def test_a_passphrase_locks_both(tmp_path: Path) -> None:
    keys = create_keys(tmp_path, "correct horse")
    for content in files(tmp_path).values():
        assert keys.account.private.hex().encode() not in content
        assert keys.endpoint.private.hex().encode() not in content
    assert same(load_keys(tmp_path, "correct horse")[0], keys)
    for wrong in (None, "", "battery staple"):
        with pytest.raises(BadInput, match="passphrase"):
            load_keys(tmp_path, wrong)
    # By hand, with the parameters that the file names:
    stored = json.loads(account_path(tmp_path).read_bytes())
    cipher = stored["cipher"]
    key = Scrypt(salt=bytes.fromhex(cipher["salt"]), length=32, n=cipher["n"], r=8, p=1).derive(b"correct horse")
    hidden, nonce = bytes.fromhex(stored["private_key"]), bytes.fromhex(cipher["nonce"])
    assert AESGCM(key).decrypt(nonce, hidden, b"account " + stored["name"].encode()) == keys.account.private


def test_new_keys_never_replace_old_ones(tmp_path: Path) -> None:
    create_keys(tmp_path)
    before = files(tmp_path)
    with pytest.raises(BadInput, match="exists already"):
        create_keys(tmp_path)
    assert files(tmp_path) == before


def test_an_interrupted_creation_is_completed(tmp_path: Path) -> None:
    first = create_keys(tmp_path)
    account_path(tmp_path).unlink()
    second = create_keys(tmp_path)
    assert second.endpoint.private == first.endpoint.private
    assert second.account.private != first.account.private


def test_no_keys(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="atoll key import"):
        load_keys(tmp_path)


@pytest.mark.parametrize("locked", [None, "secret"])
def test_damage_is_found_preserved_and_repaired_by_an_import(tmp_path: Path, locked: str | None) -> None:
    keys = create_keys(tmp_path, locked)
    backup = export_keys(keys)
    good = account_path(tmp_path).read_bytes()
    stored = json.loads(good)
    flipped = stored["private_key"][:-1] + ("0" if stored["private_key"][-1] != "0" else "1")
    damages = [
        good[: len(good) // 2],
        b"",
        b"\xff" * 40,
        json.dumps(stored | {"private_key": flipped}).encode(),
        json.dumps(stored | {"name": "0x" + "0" * 40}).encode(),
        json.dumps(stored | {"extra": 1}).encode(),
        endpoint_path(tmp_path).read_bytes(),
    ]
    for number, damage in enumerate(damages, 1):
        account_path(tmp_path).write_bytes(damage)
        with pytest.raises(Corrupt, match=r"atoll key import FILE") as corrupt:
            load_keys(tmp_path, locked)
        assert str(account_path(tmp_path)) in str(corrupt.value)
        assert account_path(tmp_path).read_bytes() == damage
        intact_but_wrong = number == len(damages)
        assert same(import_keys(tmp_path, backup, passphrase=locked, replace=intact_but_wrong), keys)
        assert same(load_keys(tmp_path, locked)[0], keys)
        assert damage in files(tmp_path).values()


def test_a_missing_endpoint_key(tmp_path: Path) -> None:
    create_keys(tmp_path)
    endpoint_path(tmp_path).unlink()
    with pytest.raises(Corrupt, match="is missing"):
        load_keys(tmp_path)


def test_import_keeps_the_old_keys_and_needs_leave(tmp_path: Path) -> None:
    first, second = create_keys(tmp_path / "a"), create_keys(tmp_path / "b")
    before = files(tmp_path / "a")
    with pytest.raises(BadInput, match="--replace"):
        import_keys(tmp_path / "a", export_keys(second))
    assert files(tmp_path / "a") == before
    for _ in range(2):  # there and back, twice: no name is taken twice
        import_keys(tmp_path / "a", export_keys(second), replace=True)
        assert same(load_keys(tmp_path / "a")[0], second)
        import_keys(tmp_path / "a", export_keys(first), replace=True)
        assert same(load_keys(tmp_path / "a")[0], first)
    after = files(tmp_path / "a")
    assert len(after) == 2 + 4 * 2
    name = json.loads(before["account.json"])["name"]
    assert after[f"old-{name}.json"] == before["account.json"]
    assert after[f"old-{name}.key"] == before["endpoint.key"]


def test_backups_with_passphrases_and_broken_ones(tmp_path: Path) -> None:
    keys = create_keys(tmp_path / "a")
    locked = export_keys(keys, "travel")
    assert keys.account.private.hex().encode() not in locked
    with pytest.raises(BadInput, match="passphrase"):
        import_keys(tmp_path / "b", locked)
    with pytest.raises(BadInput, match="passphrase"):
        import_keys(tmp_path / "b", locked, backup_passphrase="home")
    assert not has_keys(tmp_path / "b")
    import_keys(tmp_path / "b", locked, backup_passphrase="travel", passphrase="home")
    assert same(load_keys(tmp_path / "b", "home")[0], keys)
    broken = json.loads(export_keys(keys))
    broken["account"]["private_key"] = "03" * 32
    for wrong in (b"", b"{}", b"\xff", account_path(tmp_path / "a").read_bytes(), json.dumps(broken).encode()):
        with pytest.raises(BadInput, match="backup"):
            import_keys(tmp_path / "c", wrong)
    assert not has_keys(tmp_path / "c")


def test_a_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    keys = create_keys(tmp_path, "p")
    greedy = json.loads(export_keys(keys, "p"))
    greedy["account"]["cipher"]["n"] = 1 << 24
    with pytest.raises(BadInput):
        import_keys(tmp_path / "b", json.dumps(greedy).encode(), backup_passphrase="p")


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MachineError, match="cannot be written"):
        create_keys(tmp_path / "node")


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(MachineError, match="cannot be written"):
        create_keys(tmp_path / "home")
