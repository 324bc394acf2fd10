"""The two private keys of a node on disk: `HOME/keys/account.json` and `HOME/keys/endpoint.key`.

Both are JSON files that only their owner may read. Without a passphrase the key lies open in them, as ssh keys do by
default; with one it is encrypted by AES-256-GCM under a scrypt key. Each file names its public part and carries a
checksum, so that damage is told from a wrong passphrase. No function here overwrites or deletes a key: what is
replaced or damaged is renamed. A backup is one file with both.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from atoll.errors import BadInput, Corrupt, MachineError
from atoll.wire.identity import AccountKey, EndpointKey, format_account

_VERSION = 1
_MAX_FILE_BYTES = 16_384
_SCRYPT_N = 1 << 15  # 32 MB and about 0.1 s
_SCRYPT_N_MAX = 1 << 18  # what a file may ask for: 256 MB
_OWNER_ONLY = 0o600
_RESTORE = "Restore it from a backup with `atoll key import FILE`; the damaged file will be kept beside it."


@dataclass(frozen=True)
class Keys:
    """A node's two keys: the account that is paid, and the endpoint that is reached."""

    account: AccountKey
    endpoint: EndpointKey


class _Cipher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Literal["aes-256-gcm/scrypt"]
    n: int
    salt: str
    nonce: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key. name: the account with its checksum capitals, or the endpoint id in hex. private_key: hex."""

    version: int
    kind: Literal["account", "endpoint"]
    name: str
    private_key: str
    checksum: str = ""
    cipher: _Cipher | None = None

    def sealed(self) -> _File:
        return msgspec.structs.replace(self, checksum=self._sum())

    def intact(self) -> bool:
        return self.checksum == self._sum()

    def _sum(self) -> str:
        open_file = msgspec.structs.replace(self, checksum="")
        return blake3(msgspec.json.encode(open_file, order="sorted")).hexdigest()


class _Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    kind: Literal["backup"]
    account: _File
    endpoint: _File


def account_path(home: Path) -> Path:
    """Where the account key lies."""
    return home / "keys" / "account.json"


def endpoint_path(home: Path) -> Path:
    """Where the endpoint key lies."""
    return home / "keys" / "endpoint.key"


def has_keys(home: Path) -> bool:
    """Whether this home has an account key; it may still be damaged or locked."""
    return account_path(home).exists()


def create_keys(home: Path, passphrase: str | None = None) -> Keys:
    """Make and store new keys; raises BadInput if the home already has an account key."""
    if has_keys(home):
        raise BadInput(f"{account_path(home)} exists already: a new key never replaces an old one.")
    # An endpoint key alone is what an interrupted creation leaves behind: it is as good as a new one.
    half_done = endpoint_path(home).exists()
    endpoint = EndpointKey(_load(endpoint_path(home), "endpoint", passphrase) if half_done else os.urandom(32))
    keys = Keys(AccountKey(_fresh_account()), endpoint)
    if not half_done:
        _store(endpoint_path(home), _packed(_lock("endpoint", keys, passphrase)))
    _store(account_path(home), _packed(_lock("account", keys, passphrase)))
    return keys


def load_keys(home: Path, passphrase: str | None = None) -> tuple[Keys, tuple[str, ...]]:
    """The stored keys, and a sentence for each file whose permissions are too wide.

    Raises BadInput if there are none or the passphrase is missing or wrong, Corrupt if a file is damaged.
    """
    if not has_keys(home):
        raise BadInput(
            f"No keys in {home}: `atoll node --home {home}` makes them, `atoll key import FILE` restores them."
        )
    account = AccountKey(_load(account_path(home), "account", passphrase))
    endpoint = EndpointKey(_load(endpoint_path(home), "endpoint", passphrase))
    return Keys(account, endpoint), _warnings(home)


def export_keys(keys: Keys, passphrase: str | None = None) -> bytes:
    """A backup of both keys, as `import_keys` takes it; whoever has it without passphrase has the account's money."""
    backup = _Backup(_VERSION, "backup", _lock("account", keys, passphrase), _lock("endpoint", keys, passphrase))
    return _packed(backup)


def import_keys(
    home: Path, backup: bytes, *, backup_passphrase: str | None = None, passphrase: str | None = None,
    replace: bool = False,
) -> Keys:  # fmt: skip
    """Store the keys of a backup, locked by `passphrase` if one is given.

    Healthy keys that are there are kept as `keys/old-ACCOUNT.json` and moved only if `replace` is set (else
    BadInput); damaged ones are kept as `keys/damaged-N`. Raises BadInput too for a file that is no backup.
    """
    try:
        content = msgspec.json.decode(backup[:_MAX_FILE_BYTES], type=_Backup)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput("The file is not a backup of keys: expected what `atoll key export FILE` writes.") from error
    if not content.account.intact() or not content.endpoint.intact():
        raise BadInput("The backup is damaged (its checksum does not match): use another copy.")
    account = AccountKey(_unlock(content.account, "account", backup_passphrase, "the backup"))
    endpoint = EndpointKey(_unlock(content.endpoint, "endpoint", backup_passphrase, "the backup"))
    keys = Keys(account, endpoint)
    _move_aside(home, replace)
    _store(endpoint_path(home), _packed(_lock("endpoint", keys, passphrase)))
    _store(account_path(home), _packed(_lock("account", keys, passphrase)))
    return keys


def _fresh_account() -> bytes:
    while True:
        private = os.urandom(32)
        with contextlib.suppress(BadInput):  # one in 2^128 lies outside the curve's order
            return AccountKey(private).private


def _lock(kind: Literal["account", "endpoint"], keys: Keys, passphrase: str | None) -> _File:
    if kind == "account":
        name, private = format_account(keys.account.address), keys.account.private
    else:
        name, private = keys.endpoint.public.hex(), keys.endpoint.private
    if not passphrase:
        return _File(_VERSION, kind, name, private.hex()).sealed()
    salt, nonce = os.urandom(16), os.urandom(12)
    cipher = _Cipher("aes-256-gcm/scrypt", _SCRYPT_N, salt.hex(), nonce.hex())
    key = _stretched(passphrase, salt, _SCRYPT_N)
    hidden = AESGCM(key).encrypt(nonce, private, f"{kind} {name}".encode())
    return _File(_VERSION, kind, name, hidden.hex(), cipher=cipher).sealed()


def _unlock(file: _File, kind: str, passphrase: str | None, where: object) -> bytes:
    """The private bytes of an intact file. Raises BadInput for the passphrase, Corrupt if it is another key."""
    try:
        private = bytes.fromhex(file.private_key)
        if file.cipher is not None:
            private = _decrypted(file, file.cipher, private, passphrase, where)
        account = kind == "account"
        name = format_account(AccountKey(private).address) if account else EndpointKey(private).public.hex()
    except ValueError as error:
        raise Corrupt(f"{where} does not hold a key. {_RESTORE}") from error
    if file.kind != kind or name != file.name:
        raise Corrupt(f"{where} does not hold the {kind} key that it names. {_RESTORE}")
    return private


def _decrypted(file: _File, cipher: _Cipher, hidden: bytes, passphrase: str | None, where: object) -> bytes:
    if not passphrase:
        raise BadInput(f"The keys in {where} are locked: give their passphrase (environment ATOLL_PASSPHRASE).")
    if not 1 < cipher.n <= _SCRYPT_N_MAX or cipher.n & (cipher.n - 1):
        raise BadInput(f"{where} asks for scrypt with n = {cipher.n}: expected a power of two up to {_SCRYPT_N_MAX}.")
    key = _stretched(passphrase, bytes.fromhex(cipher.salt), cipher.n)
    try:
        return AESGCM(key).decrypt(bytes.fromhex(cipher.nonce), hidden, f"{file.kind} {file.name}".encode())
    except InvalidTag as error:
        raise BadInput(
            f"The passphrase does not open {where}: try again with the one that it was locked with."
        ) from error


def _stretched(passphrase: str, salt: bytes, n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(passphrase.encode())


def _read(path: Path) -> _File | None:
    """The file at `path`, or None if it is damaged or missing."""
    try:
        file = msgspec.json.decode(path.read_bytes()[:_MAX_FILE_BYTES], type=_File)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror}): check the permissions of its folder.") from error
    return file if file.intact() else None


def _load(path: Path, kind: str, passphrase: str | None) -> bytes:
    file = _read(path)
    if file is None:
        state = "is damaged" if path.exists() else "is missing"
        raise Corrupt(f"{path} {state}. {_RESTORE}")
    if file.version != _VERSION:
        raise BadInput(f"{path} was written by a newer Atoll (format {file.version}): update Atoll to use it.")
    return _unlock(file, kind, passphrase, path)


def _move_aside(home: Path, replace: bool) -> None:
    """Make room for imported keys without losing anything."""
    present = _read(account_path(home))
    if present is not None and not replace:
        raise BadInput(
            f"{home} already has the keys of account {present.name}: say `--replace` to keep them as "
            f"keys/old-{present.name}.json and use the imported ones."
        )
    folder = account_path(home).parent
    if present is not None and re.fullmatch("0x[0-9a-fA-F]{40}", present.name):
        _rename(account_path(home), folder / f"old-{present.name}", ".json")
        _rename(endpoint_path(home), folder / f"old-{present.name}", ".key")
    else:
        _rename(account_path(home), folder / "damaged", ".json")
        _rename(endpoint_path(home), folder / "damaged", ".key")


def _rename(path: Path, stem: Path, suffix: str) -> None:
    """Rename `path` to the first free name of STEM.SUFFIX, STEM-2.SUFFIX, ...; nothing if it does not exist."""
    if not path.exists():
        return
    number, target = 1, stem.with_name(stem.name + suffix)
    while target.exists():
        number += 1
        target = stem.with_name(f"{stem.name}-{number}{suffix}")
    path.rename(target)


def _packed(content: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _store(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read; it appears whole or not at all."""
    aside = path.with_name(path.name + f".{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            raise BadInput(f"{path} exists already: a new key never replaces an old one.")
        aside.rename(path)
    except OSError as error:
        reason = error.strerror or error
        raise MachineError(
            f"{path} cannot be written ({reason}): expected a folder of yours with space left."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _warnings(home: Path) -> tuple[str, ...]:
    if os.name != "posix":
        return ()
    return tuple(
        f"{path} can be read by other users of this device: run `chmod 600 {path}`."
        for path in (account_path(home), endpoint_path(home))
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    )
