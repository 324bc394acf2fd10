"""What a job is made of, brought here and checked before anything of it is used: manifest, graphs, model, samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Corrupt, Refused
from atoll.graph.check import Limits, check_job
from atoll.graph.manifest import Manifest
from atoll.graph.params import first_model, frozen_of, read_params
from atoll.graph.session import Frozen
from atoll.training.data import DataSet, Form, SampleStore
from atoll.transfer.blobs import BlobStore
from atoll.transfer.client import fetch_blob, fetch_samples
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask

MAX_BLOB_BYTES = 1 << 28


class Library:
    """Blobs and data sets of this node: from disk if they are here, from peers if not."""

    def __init__(self, blobs: BlobStore, samples_folder: Path, ask: Ask, account: bytes) -> None:
        self.blobs = blobs
        self._folder, self._ask, self._account = samples_folder, ask, account
        self._shared: dict[bytes, DataSet] = {}
        self._stores: dict[tuple[bytes, int, Form], SampleStore] = {}

    async def fetch(self, blob: bytes, sources: Sequence[bytes], limit: int = MAX_BLOB_BYTES) -> bytes:
        """A blob of at most `limit` bytes by its id; a damaged copy is fetched again. Raises Unreachable or Refused."""
        try:
            return self.blobs.get(blob)
        except (Refused, Corrupt):
            others = [account for account in dict.fromkeys(sources) if account != self._account]
            data = await fetch_blob(blob, others, self._ask, limit)
            self.blobs.put(data)
            return data

    def keep(self, data: bytes) -> bytes:
        """Store a blob; returns its id."""
        return self.blobs.put(data)

    def share(self, data: DataSet) -> None:
        """Serve a data set to others, and use it here."""
        self._shared[data.root] = data

    @property
    def shared(self) -> list[DataSet]:
        """Data sets that this node serves."""
        return list(self._shared.values())

    def proven(self, root: bytes, indices: Sequence[int]) -> list[tuple[bytes, Sequence[bytes]]]:
        """Samples with their proofs for a peer; raises Refused(NOT_FOUND)."""
        data = self._shared.get(root)
        if data is None or not all(0 <= index < len(data) for index in indices):
            raise Refused(Reason.NOT_FOUND, f"samples of data set 0x{root.hex()[:8]}")
        return [(data.sample(index), data.prove(index)) for index in indices]

    async def gather(
        self, manifest: Manifest, rows: NDArray[np.int64], sources: Sequence[bytes]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Samples of a job's data, fetched and proven where they are missing; x and y begin with the rows' shape.

        Raises Refused(BAD_MANIFEST) when the job says something else about a data set than is known of it here.
        """
        root = bytes.fromhex(manifest.data.root[2:])
        flat = rows.reshape(-1)
        shared, form = self._shared.get(root), Form.of(manifest)
        if shared is not None:
            if (manifest.data.count, form.layout) != (len(shared), shared.form.layout):
                detail = f"{manifest.data.count} samples {form.layout}, but data set 0x{root.hex()[:8]} is another"
                raise Refused(Reason.BAD_MANIFEST, detail)
            x, y = shared.x[flat], shared.y[flat]
        else:
            store = self._store(root, manifest.data.count, form)
            missing = store.missing(flat)
            if missing:
                others = [account for account in sources if account != self._account]
                fetched = await fetch_samples(root, manifest.data.count, missing, others, self._ask)
                for index, sample in zip(missing, fetched, strict=True):
                    store.keep(index, sample)
            x, y = store.gather(flat)
        return x.reshape(*rows.shape, *form.x_shape), y.reshape(*rows.shape, *form.y_shape)

    def _store(self, root: bytes, count: int, form: Form) -> SampleStore:
        # What a manifest says of a root may be wrong: each claim has a file of its own, so none can spoil another's.
        key = (root, count, form)
        if key not in self._stores:
            self._stores[key] = SampleStore(self._folder / str(count), root, count, form)
        return self._stores[key]

    def close(self) -> None:
        """Write back what is in memory."""
        for store in self._stores.values():
            store.close()


@dataclass(frozen=True)
class Material:
    """A checked job: its manifest and graphs, and who serves its data."""

    manifest: Manifest
    step: bytes
    evaluate: bytes
    predict: bytes
    params: bytes
    frozen: Frozen | None
    sources: tuple[bytes, ...] = field(default=())


async def bring(
    library: Library, manifest_id: bytes, sources: Sequence[bytes], limits: Callable[[], Limits]
) -> Material:
    """Fetch a job's manifest and parts and check them; raises Refused with the reason why the job is not taken."""
    manifest = Manifest.from_bytes(await library.fetch(manifest_id, sources))
    parts = [
        await library.fetch(bytes.fromhex(name), sources)
        for name in (manifest.step, manifest.evaluate, manifest.predict, manifest.params, manifest.data.card)
    ]
    step, evaluate, predict, params, _ = parts
    check_job(manifest, step, evaluate, predict, limits())
    values = read_params(params, manifest.tensors)
    initial = first_model(values, manifest.tensors)
    if library.keep(initial).hex() != manifest.initial:
        raise Refused(Reason.BAD_MANIFEST, "the file of first values does not give the manifest's first model")
    for name in (manifest.step, manifest.evaluate, manifest.predict, manifest.params, manifest.initial):
        library.blobs.pin(bytes.fromhex(name))
    return Material(manifest, step, evaluate, predict, params, frozen_of(params, manifest.tensors), tuple(sources))
