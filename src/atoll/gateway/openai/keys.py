"""Who may use the API, and how much each may spend: `HOME/keys.json` and `HOME/spending.sqlite`.

The file of keys holds a hash of each key, never the key. What a key has spent is kept beside it, exactly, in base
units of the token, and outlives the process; it belongs to the key, not to its name: a new key of the same name starts
at nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Annotated

import msgspec
from blake3 import blake3

from atoll.errors import BadInput, Corrupt, MachineError

FILE_NAME = "keys.json"
SPENDING_NAME = "spending.sqlite"
PREFIX = "atoll-"
MAX_KEYS = 1000
_MAX_FILE_BYTES = 1 << 20
_SCHEMA = "CREATE TABLE IF NOT EXISTS spent (digest TEXT PRIMARY KEY, amount TEXT NOT NULL) STRICT, WITHOUT ROWID"

Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Amount = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,78}\Z")]
Named = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")]


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key: what it is called, the BLAKE3 of its text, and what it may spend in all (base units; None: no limit)."""

    name: Named
    digest: Hex
    limit: Amount | None = None

    @property
    def most(self) -> int | None:
        """The limit as a number."""
        return None if self.limit is None else int(self.limit)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    keys: Annotated[list[ApiKey], msgspec.Meta(max_length=MAX_KEYS)]


def read_keys(home: Path) -> list[ApiKey]:
    """The keys of a home; none if there is no file. Raises Corrupt for a file that is not one of keys."""
    path = home / FILE_NAME
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_FILE_BYTES + 1), type=_File).keys
    except FileNotFoundError:
        return []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"{path} is not a file of API keys ({error}): move it aside and make keys again with `atoll key api add`."
        ) from None
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror}): expected a file of yours.") from error


def add_key(home: Path, name: str, limit: int | None) -> str:
    """Make a key and return its text, which is kept nowhere. Raises BadInput for a name that is taken or not one."""
    keys = read_keys(home)
    if any(key.name == name for key in keys):
        raise BadInput(f"A key named {name!r} exists already: give another name, or remove that one first.")
    if len(keys) >= MAX_KEYS:
        raise BadInput(f"There are {MAX_KEYS} keys already, and no more are kept: remove one first.")
    text = PREFIX + secrets.token_urlsafe(32)
    made = {"name": name, "digest": digest_of(text), "limit": None if limit is None else str(limit)}
    try:
        key = msgspec.convert(made, ApiKey)
    except msgspec.ValidationError:
        raise BadInput(
            f"{name!r} cannot name a key: expected up to 40 letters, digits, dots, dashes or underscores."
        ) from None
    _write(home, [*keys, key])
    return text


def remove_key(home: Path, name: str) -> None:
    """Forget a key; whoever has it is refused from the next request on. Raises BadInput for an unknown name."""
    keys = read_keys(home)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise BadInput(f"There is no key named {name!r}; the keys are: {known}.")
    _write(home, left)


def digest_of(text: str) -> str:
    """What is kept of a key. A key has 256 bits of chance in it, so that no slow hash is needed."""
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()


def _write(home: Path, keys: list[ApiKey]) -> None:
    path, aside = home / FILE_NAME, home / f"{FILE_NAME}.partial"
    data = msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=2)
    try:
        home.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}): expected a folder of yours.") from error


class Spending:
    """What each key has spent. Use it from the thread that opened it."""

    def __init__(self, home: Path) -> None:
        """Raises MachineError when the file cannot be used."""
        path = home / SPENDING_NAME
        try:
            home.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise MachineError(
                f"{path} cannot be used ({error}): expected a folder of yours, or move the file aside; what keys have "
                "spent then counts from nothing."
            ) from error

    def of(self, key: ApiKey) -> int:
        """What a key has spent, in base units."""
        row = self._file.execute("SELECT amount FROM spent WHERE digest = ?", (key.digest,)).fetchone()
        return int(row[0]) if row else 0

    def add(self, key: ApiKey, amount: int) -> None:
        """Add to what a key has spent; on disk when this returns."""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            self._file.execute("INSERT OR REPLACE INTO spent VALUES (?, ?)", (key.digest, str(self.of(key) + amount)))
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()


class Keys:
    """The keys of one home, as a running server sees them: changes of the file count from the next request on."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._spending: Spending | None = None
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    def find(self, text: str) -> ApiKey | None:
        """The key with this text. Raises as `read_keys`."""
        self._refresh()
        return self._keys.get(digest_of(text))

    def __bool__(self) -> bool:
        """Whether there are any keys. A file that cannot be read raises, so that nobody gets in without one."""
        self._refresh()
        return bool(self._keys)

    def spent(self, key: ApiKey) -> int:
        """What a key has spent, in base units."""
        return self._open().of(key)

    def spend(self, key: ApiKey, amount: int) -> None:
        """Count what an answer cost; on disk when this returns."""
        if amount:
            self._open().add(key, amount)

    def close(self) -> None:
        """Close what is open. Safe to call twice."""
        if self._spending is not None:
            self._spending.close()
            self._spending = None

    def _open(self) -> Spending:
        if self._spending is None:
            self._spending = Spending(self._home)
        return self._spending

    def _refresh(self) -> None:
        seen = None
        with contextlib.suppress(FileNotFoundError):
            facts = (self._home / FILE_NAME).stat()
            seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if seen != self._seen or seen is None:
            self._keys = {key.digest: key for key in read_keys(self._home)}
            self._seen = seen
