"""Data sets of images: IDX files, samples with Merkle proofs, the cache of fetched samples, the bundled MNIST subset.

One sample's bytes are its x (uint8, C order) followed by its label (u32, little-endian); they are the leaf data of the
data set's Merkle tree. IDX is the format of MNIST and its kin: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput, InternalError, Refused
from atoll.wire.hashing import HASH_BYTES, blob_id
from atoll.wire.merkle import MerkleTree, verify
from atoll.wire.reasons import Reason

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]

LABEL_BYTES = 4
MAX_IDX_BYTES = 1 << 30  # of one file, unpacked
MAX_STORE_BYTES = 1 << 36  # of one cache of samples; the file is sparse, only what was fetched takes room
BUNDLED = Path(__file__).parent / "mnist"

_PARTS = (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples in a fixed order: `images` uint8 [N, ...], `labels` int64 [N]."""

    images: Bytes
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.images.shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes: the highest label plus one."""
        return int(self.labels.max()) + 1

    @cached_property
    def tree(self) -> MerkleTree:
        """The Merkle tree over all samples (about 15 microseconds a sample, once)."""
        return MerkleTree([self.sample(index) for index in range(len(self))])

    @property
    def root(self) -> bytes:
        """Merkle root over all samples, 32 bytes."""
        return self.tree.root

    def sample(self, index: int) -> bytes:
        """Sample bytes of one sample."""
        image: bytes = self.images[index].tobytes()
        return image + int(self.labels[index]).to_bytes(LABEL_BYTES, "little")

    def prove(self, index: int) -> list[bytes]:
        """Merkle proof of one sample: sibling hashes, lowest first."""
        return self.tree.prove(index)


def read_sample(data: bytes, shape: Sequence[int]) -> tuple[Bytes, int]:
    """Image uint8 [shape] and label of sample bytes. Raises Refused(MALFORMED) for a wrong length."""
    size = math.prod(shape)
    if len(data) != size + LABEL_BYTES:
        raise Refused(Reason.MALFORMED, f"sample of {len(data)} bytes, expected {size + LABEL_BYTES}")
    return np.frombuffer(data, np.uint8, count=size).reshape(shape), int.from_bytes(data[size:], "little")


def verify_sample(root: bytes, count: int, index: int, data: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `data` is sample `index` of the data set of `count` samples with this root."""
    return verify(root, count, index, data, proof)


def data_card(name: str, train: DataSet, held_out: DataSet, licence: str, origin: str) -> dict[str, Any]:
    """What a data set publishes about itself: name, schema, counts, licence, origin and Merkle roots (0x hex)."""
    return {
        "name": name,
        "schema": {"x": {"dtype": "uint8", "shape": list(train.shape)}, "y": {"classes": train.classes}},
        "count": len(train),
        "held_out_count": len(held_out),
        "licence": licence,
        "origin": origin,
        "root": "0x" + train.root.hex(),
        "held_out_root": "0x" + held_out.root.hex(),
    }


def card_bytes(card: dict[str, Any]) -> bytes:
    """Canonical bytes of a data card (JSON, keys sorted, no spaces, UTF-8); its blob id names it in a manifest."""
    return json.dumps(card, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def load_directory(folder: Path) -> tuple[DataSet, DataSet]:
    """(train, held out) from a directory of MNIST's or Fashion-MNIST's four IDX files, plain or gzipped.

    Raises BadInput, with what was expected, when a file is missing or is not what its name says.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; expected one with MNIST's or Fashion-MNIST's four IDX files")
    images, labels, test_images, test_labels = (_find(folder, name, rank) for name, rank in _PARTS)
    return _paired(images, labels), _paired(test_images, test_labels)


@cache
def bundled_mnist() -> tuple[DataSet, DataSet]:
    """(train, held out): the 10,000 + 2,000 images of MNIST that come with Atoll (`mnist/LICENSE.md`)."""
    return load_directory(BUNDLED)


def bundled_card() -> dict[str, Any]:
    """The data card of `bundled_mnist`."""
    origin = "MNIST by Yann LeCun, Corinna Cortes and Christopher J.C. Burges; stratified subset"
    return data_card("mnist-12k", *bundled_mnist(), "CC-BY-SA-3.0", origin)


def load_idx(path: Path, rank: int) -> Bytes:
    """One IDX file of unsigned bytes with `rank` dimensions: uint8 [...]; `.gz` is unpacked.

    Raises BadInput when it cannot be read, is larger than 1 GiB, or is not exactly such a file.
    """
    raw = _unpacked(path)
    expected = bytes([0, 0, 8, rank])
    if raw[:4] != expected:
        found = raw[:4].hex() or "nothing"
        raise BadInput(
            f"{path} begins with {found}, expected {expected.hex()} (IDX, unsigned bytes, {rank} dimensions)"
        )
    header = 4 + 4 * rank
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    if len(raw) != header + math.prod(shape) or 0 in shape:
        raise BadInput(f"{path} holds {len(raw)} bytes, but its header announces {header} + {list(shape)}; get it anew")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read ({error}); expected an IDX file, plain or gzipped") from error
    if len(raw) > MAX_IDX_BYTES:
        raise BadInput(f"{path} holds more than {MAX_IDX_BYTES} bytes, which is the most that is read from one file")
    return raw


def _find(folder: Path, name: str, rank: int) -> Bytes:
    names = [f"{name}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    for candidate in names:
        if (folder / candidate).is_file():
            return load_idx(folder / candidate, rank)
    raise BadInput(f"{folder} has no {names[1]} (or {names[0]}); expected MNIST's or Fashion-MNIST's four IDX files")


def _paired(images: Bytes, labels: Bytes) -> DataSet:
    if len(images) != len(labels):
        raise BadInput(f"{len(images)} images but {len(labels)} labels; expected the files of one data set")
    return DataSet(images, labels.astype(np.int64))


class SampleStore:
    """The samples of one data set that this node has fetched so far: a sparse file of fixed records under `folder`.

    A record is the sample and a BLAKE3 check over its index and bytes, written after the Merkle proof was verified. A
    record whose check fails (never written, torn by a crash, damaged on disk) is simply missing and is fetched again,
    so nothing needs to be flushed or repaired. Records are checked once, when first asked for.
    """

    def __init__(self, folder: Path, root: bytes, count: int, shape: Sequence[int]) -> None:
        """Open or create the store; raises Refused(TOO_LARGE) for more than 64 GiB, ValueError for no sample."""
        self.root, self.count, self.shape = root, count, tuple(shape)
        self._size = math.prod(shape) + LABEL_BYTES
        record = self._size + HASH_BYTES
        if count < 1:
            raise ValueError("a data set has at least one sample")
        if count * record > MAX_STORE_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a data set of {count} samples of {self._size} bytes")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{root.hex()}-{self._size}.samples"
        with path.open("ab") as file:
            file.truncate(count * record)
        self._records = np.memmap(path, np.uint8, mode="r+", shape=(count, record))
        self._held = np.zeros(count, dtype=bool)

    def missing(self, indices: Sequence[int] | Labels) -> list[int]:
        """Which of these samples still have to be fetched: ascending, each once. Raises IndexError outside the set."""
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.count:
            raise IndexError(f"samples {wanted[0]} to {wanted[-1]} of {self.count}")
        for index in wanted[~self._held[wanted]].tolist():
            record = self._records[index].tobytes()
            self._held[index] = _check(index, record[: self._size]) == record[self._size :]
        return [int(index) for index in wanted[~self._held[wanted]]]

    def put(self, index: int, data: bytes, proof: Sequence[bytes]) -> None:
        """Keep one sample. Raises Refused(MALFORMED) on a wrong length, Refused(BAD_PROOF) unless it is that sample."""
        read_sample(data, self.shape)
        if not verify_sample(self.root, self.count, index, data, proof):
            raise Refused(Reason.BAD_PROOF, f"sample {index} of {self.root.hex()}")
        self._write(index, data)

    def keep(self, index: int, data: bytes) -> None:
        """Keep one sample whose proof the caller has checked. Raises Refused(MALFORMED) on a wrong length."""
        read_sample(data, self.shape)
        self._write(index, data)

    def fill(self, source: DataSet) -> None:
        """Keep every sample of a data set that is here. Raises Refused(BAD_PROOF) if it has another root."""
        if source.root != self.root:
            raise Refused(Reason.BAD_PROOF, f"data set {source.root.hex()}, expected {self.root.hex()}")
        for index in range(self.count):
            self._write(index, source.sample(index))

    def gather(self, indices: Sequence[int] | Labels) -> tuple[Bytes, Labels]:
        """Images uint8 [n, ...] and labels int64 [n] in the order asked for; raises InternalError if one is missing."""
        absent = self.missing(indices)
        if absent:
            raise InternalError(f"{len(absent)} samples were used before they were fetched, the first is {absent[0]}")
        records = self._records[np.asarray(indices, dtype=np.int64)]
        images = records[:, : self._size - LABEL_BYTES].reshape(-1, *self.shape)
        labels = np.ascontiguousarray(records[:, self._size - LABEL_BYTES : self._size]).view("<u4")
        return np.ascontiguousarray(images), labels[:, 0].astype(np.int64)

    def close(self) -> None:
        """Write what the system still holds back to disk; the store is not used after that."""
        self._records.flush()

    def _write(self, index: int, data: bytes) -> None:
        self._records[index] = np.frombuffer(data + _check(index, data), np.uint8)
        self._held[index] = True


def _check(index: int, data: bytes) -> bytes:
    return blob_id(index.to_bytes(8, "little") + data)
