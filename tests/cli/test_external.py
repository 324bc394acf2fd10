"""Networks on chains that run elsewhere: the key that pays, and the network that a home remembers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli import external
from atoll.cli.keys import read_account_key
from atoll.errors import BadInput, BadSetting, Corrupt, MachineError, WrongChain
from atoll.ledger.records import Addresses

Atoll = Callable[..., Any]

# The first account of the well-known words "test test ... junk", as every tool for Ethereum derives it.
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ACCOUNT = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
PLACE = external.Place(77, bytes([1]) * 20, 5)
ADDRESSES = Addresses(77, bytes([1]) * 20, bytes([2]) * 20, bytes([3]) * 20, bytes([4]) * 20, bytes([5]) * 20)


def written(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key.hex"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", [KEY, f"0x{KEY}\n", f"  {KEY.upper()}\r\n"])
def test_a_key_file(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_account_key(written(tmp_path, text.encode())).address.hex() == ACCOUNT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [b"", b"0x", KEY[:-2].encode(), KEY.encode() * 2, b"zz" * 32, b"00" * 32, b"\xff" * 40, b"ff" * 32]
)
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadInput, match="holds no key: expected a text file with one private key") as told:
        read_account_key(path)
    assert str(path) in str(told.value)
    assert KEY[:16] not in str(told.value)
    assert told.value.__cause__ is None and told.value.__suppress_context__


def test_a_key_that_others_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, KEY.encode(), 0o640)
    assert read_account_key(path).address.hex() == ACCOUNT
    assert (
        capsys.readouterr().err == f"atoll: {path} can be read by other users of this device: run `chmod 600 {path}`.\n"
    )


def test_a_key_is_never_taken_from_the_command_line(atoll: Atoll) -> None:
    ran = atoll("deploy", "--rpc", "http://127.0.0.1:1", "--key", KEY)
    assert ran.code == 2
    assert "cannot be read" in ran.err


def test_a_home_remembers_its_network(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    assert external.remembered(home) is None
    external.remember(home, PLACE, ADDRESSES)
    assert external.remembered(home) == PLACE
    kept = json.loads((home / "network.json").read_text())
    assert (kept["schema"], kept["chain_id"], kept["first_block"]) == (1, 77, 5)
    assert [int(kept[name], 16).to_bytes(20, "big")[0] for name in external.CONTRACTS] == [1, 2, 3, 4, 5]
    assert [path.name for path in home.iterdir()] == ["network.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "{}", '{"chain_id": 77, "registry": "0x12", "first_block": 0}',
             '{"chain_id": "x", "registry": "0x0101010101010101010101010101010101010101", "first_block": 0}',
             '{"chain_id": 77, "registry": 5, "first_block": 0}']
)  # fmt: skip
def test_a_damaged_memory_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "network.json").write_text(text)
    with pytest.raises(Corrupt, match="is damaged: put a backup of it back"):
        external.remembered(tmp_path)
    assert (tmp_path / "network.json").read_text() == text


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(MachineError, match="cannot be"):
        external.remember(tmp_path / "home", PLACE, ADDRESSES)


def test_a_home_with_a_chain_of_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chain").mkdir()
    wanted = external.Wanted("http://127.0.0.1:1", PLACE.registry, None, None)
    with pytest.raises(WrongChain, match="a chain of its own"):
        external.open_network(tmp_path, wanted, lambda _: None)


def test_without_a_key_nothing_is_deployed(tmp_path: Path) -> None:
    wanted = external.Wanted("http://127.0.0.1:1", None, None, None)
    with pytest.raises(BadSetting, match=r"--registry ADDRESS .* or --key FILE"):
        external.open_network(tmp_path, wanted, lambda _: None)


def test_the_command_that_joins() -> None:
    registry = "0x" + "01" * 20
    assert (
        external.join_command("http://h:1", PLACE)
        == f"atoll node --rpc http://h:1 --registry {registry} --set first_block=5"
    )
    early = external.Place(77, PLACE.registry)
    assert external.join_command("http://h:1", early) == f"atoll node --rpc http://h:1 --registry {registry}"
