"""The samples of a data set that a node has fetched so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atoll.errors import InternalError, Refused
from atoll.training.data.samples import Array, DataSet, Form, read_records, read_sample, verify_sample
from atoll.wire.hashing import HASH_BYTES, blob_id
from atoll.wire.reasons import Reason

MAX_STORE_BYTES = 1 << 36  # of one cache of samples; the file is sparse, only what was fetched takes room

Indices = NDArray[np.int64]


class SampleStore:
    """The samples of one data set that this node has fetched so far: a sparse file of fixed records under `folder`.

    A record is the sample and a BLAKE3 check over its index and bytes, written after the Merkle proof was verified. A
    record whose check fails (never written, torn by a crash, damaged on disk) is simply missing and is fetched again,
    so nothing needs to be flushed or repaired. Records are checked once, when first asked for.
    """

    def __init__(self, folder: Path, root: bytes, count: int, form: Form) -> None:
        """Open or create the store; raises Refused(TOO_LARGE) for more than 64 GiB, ValueError for no sample."""
        self.root, self.count, self.form = root, count, form
        self._size = form.sample_bytes
        record = self._size + HASH_BYTES
        if count < 1:
            raise ValueError("a data set has at least one sample")
        if count * record > MAX_STORE_BYTES:
            raise Refused(Reason.TOO_LARGE, f"a data set of {count} samples of {self._size} bytes")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{root.hex()}-{form.layout}.samples"
        with path.open("ab") as file:
            file.truncate(count * record)
        self._records = np.memmap(path, np.uint8, mode="r+", shape=(count, record))
        self._held = np.zeros(count, dtype=bool)

    def missing(self, indices: Sequence[int] | Indices) -> list[int]:
        """Which of these samples still have to be fetched: ascending, each once. Raises IndexError outside the set."""
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.count:
            raise IndexError(f"samples {wanted[0]} to {wanted[-1]} of {self.count}")
        for index in wanted[~self._held[wanted]].tolist():
            record = self._records[index].tobytes()
            self._held[index] = _check(index, record[: self._size]) == record[self._size :]
        return [int(index) for index in wanted[~self._held[wanted]]]

    def put(self, index: int, data: bytes, proof: Sequence[bytes]) -> None:
        """Keep one sample. Raises Refused(MALFORMED) as `read_sample`, Refused(BAD_PROOF) unless it is that sample."""
        read_sample(data, self.form)
        if not verify_sample(self.root, self.count, index, data, proof):
            raise Refused(Reason.BAD_PROOF, f"sample {index} of {self.root.hex()}")
        self._write(index, data)

    def keep(self, index: int, data: bytes) -> None:
        """Keep one sample whose proof the caller has checked. Raises Refused(MALFORMED) as `read_sample`."""
        read_sample(data, self.form)
        self._write(index, data)

    def fill(self, source: DataSet) -> None:
        """Keep every sample of a data set that is here. Raises Refused(BAD_PROOF) if it has another root."""
        if source.root != self.root:
            raise Refused(Reason.BAD_PROOF, f"data set {source.root.hex()}, expected {self.root.hex()}")
        for index in range(self.count):
            self._write(index, source.sample(index))

    def gather(self, indices: Sequence[int] | Indices) -> tuple[Array, Array]:
        """x and y [n, ...] of samples in the order asked for; raises InternalError if one is missing."""
        absent = self.missing(indices)
        if absent:
            raise InternalError(f"{len(absent)} samples were used before they were fetched, the first is {absent[0]}")
        records = self._records[np.asarray(indices, dtype=np.int64)]
        return read_records(records[:, : self._size], self.form)

    def close(self) -> None:
        """Write what the system still holds back to disk; the store is not used after that."""
        self._records.flush()

    def _write(self, index: int, data: bytes) -> None:
        self._records[index] = np.frombuffer(data + _check(index, data), np.uint8)
        self._held[index] = True


def _check(index: int, data: bytes) -> bytes:
    return blob_id(index.to_bytes(8, "little") + data)
