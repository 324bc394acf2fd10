"""`atoll key export` and `atoll key import`: the backup of a node's keys."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli import homes
from atoll.cli.commands import AsJson, Home, tell
from atoll.errors import BadInput, MachineError, NotRunning
from atoll.wire import keystore
from atoll.wire.identity import AccountKey, format_account

PASSPHRASE = "ATOLL_PASSPHRASE"  # noqa: S105 - the name of the variable
_OWNER_ONLY = 0o600
_MAX_BACKUP_BYTES = 65_536
_MAX_KEY_BYTES = 256


def export_keys(
    file: Annotated[Path, typer.Argument(help="Backup to write; it must not exist yet.")],
    open_: Annotated[
        bool, typer.Option("--open", help="Without a passphrase: whoever reads it has the money.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Write a backup of the node's keys, locked by a passphrase (asked for, or $ATOLL_PASSPHRASE)."""
    place = homes.keys_in(homes.base(home))
    given = os.environ.get(PASSPHRASE)
    path = file.expanduser().absolute()
    if path.exists():
        raise BadInput(f"{path} exists already: give another name, a backup never replaces a file.")
    keys, warnings = keystore.load_keys(place, given or _ask_if_locked(keystore.account_path(place), "the keys"))
    passphrase = None if open_ else given or _ask_new()
    _write(path, keystore.export_keys(keys, passphrase))
    account = format_account(keys.account.address)
    for warning in warnings:
        sys.stderr.write(f"atoll: {warning}\n")
    locked = "locked by the passphrase" if passphrase else "open: keep it where nobody else can read it"
    found = {"account": account, "file": str(path), "locked": passphrase is not None}
    tell(as_json, found, f"The keys of {account} are in {path}, {locked}.")
    return 0


def import_keys(
    file: Annotated[Path, typer.Argument(help="Backup that `atoll key export` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Keep the present keys aside and use these.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Restore a node's keys from a backup; present keys are never deleted.

    With $ATOLL_PASSPHRASE set, the keys are stored locked by it, and the node needs it at each start.
    """
    base = homes.base(home)
    place = homes.keys_in(base) if homes.nodes_in(base) or home is not None else base / homes.NODE
    _refuse_if_running(place)
    path = file.expanduser().absolute()
    given = os.environ.get(PASSPHRASE)
    backup = _read(path)
    secret = given or _ask_if_locked(path, "the backup")
    keys = keystore.import_keys(place, backup, backup_passphrase=secret, passphrase=given, replace=replace)
    account = format_account(keys.account.address)
    found = {"account": account, "home": str(place), "locked": bool(given)}
    tell(as_json, found, f"The keys of {account} are in {place}{', locked by the passphrase' if given else ''}.")
    return 0


def read_account_key(file: Path) -> AccountKey:
    """The account key in a text file of 64 hexadecimal digits, with or without 0x; raises BadInput.

    Tells on stderr if others can read the file.
    """
    path = file.expanduser().absolute()
    expected = "expected a text file with one private key, 64 hexadecimal digits"
    try:
        with path.open("rb") as opened:
            data, mode = opened.read(_MAX_KEY_BYTES), stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
        key = AccountKey(bytes.fromhex(data.decode("ascii").strip().removeprefix("0x")))
    except OSError as error:
        raise BadInput(f"The key file {path} cannot be read ({error.strerror}): {expected}.") from error
    except (ValueError, BadInput):  # the cause would quote what may be most of a key
        raise BadInput(f"The file {path} holds no key: {expected}.") from None
    if os.name == "posix" and mode & 0o077:
        sys.stderr.write(f"atoll: {path} can be read by other users of this device: run `chmod 600 {path}`.\n")
    return key


def _refuse_if_running(place: Path) -> None:
    with contextlib.suppress(NotRunning):
        homes.ask_node(place, "status")
        raise BadInput(f"A node runs in {place}: end it with `atoll stop --home {place}` before its keys change.")


def _ask_if_locked(path: Path, what: str) -> str | None:
    """The passphrase of a key file or a backup, if it is a locked one and somebody is there to ask."""
    try:
        content = json.loads(path.read_bytes()[:_MAX_BACKUP_BYTES])
        content = content.get("account", content)
        locked = content.get("cipher") is not None
    except (OSError, ValueError, AttributeError):
        return None  # whatever is wrong with the file, the key store says it better
    if not locked or not sys.stdin.isatty():
        return None
    return str(typer.prompt(f"Passphrase of {what}", hide_input=True, err=True))


def _ask_new() -> str:
    if not sys.stdin.isatty():
        raise BadInput(
            f"A backup is locked by a passphrase, and nobody is there to ask: set {PASSPHRASE}, or say --open to "
            "write it without one."
        )
    text = "Passphrase for the backup (nobody can recover it)"
    return str(typer.prompt(text, hide_input=True, confirmation_prompt=True, err=True))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BACKUP_BYTES)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): expected a backup of keys.") from error


def _write(path: Path, data: bytes) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}): expected a folder of yours.") from error
