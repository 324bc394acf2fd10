"""Job files and model files: small deterministic archives whose parts are checked against the manifest's hashes.

Both are zip files with stored (uncompressed) entries, fixed names in a fixed order and no dates, so the same parts
always give the same bytes. Reading accepts exactly what packing gives, byte for byte: no other names or paths, no
compression, no duplicates, no bytes between or after the entries.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from atoll.errors import Refused
from atoll.graph.fixed import decode_model
from atoll.graph.manifest import Manifest
from atoll.graph.params import Floats, first_model, frozen_of, read_params
from atoll.graph.session import Frozen
from atoll.graph.spec import JobSpec
from atoll.wire.hashing import blob_id
from atoll.wire.nesting import is_shallow
from atoll.wire.reasons import Reason

MAX_ARCHIVE_BYTES = 1 << 30
MAX_CARD_BYTES = 64 * 1024
JOB_PARTS = ("manifest.json", "step.onnx", "eval.onnx", "predict.onnx", "params.safetensors")
MODEL_PARTS = ("manifest.json", "predict.onnx", "model.bin", "card.json")
FROZEN_MODEL_PARTS = (*MODEL_PARTS, "params.safetensors")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


@dataclass(frozen=True)
class JobFile:
    """A job with all its parts: its document, graphs as ONNX bytes, first values as a safetensors file."""

    spec: JobSpec
    step: bytes
    evaluate: bytes
    predict: bytes
    params: bytes

    @property
    def id(self) -> bytes:
        """The job file's id: the hash of its document."""
        return self.spec.id

    @cached_property
    def values(self) -> dict[str, Floats]:
        """First values of parameter and aggregate tensors, and the frozen tensors; raises Refused(BAD_PARAMS)."""
        return read_params(self.params, self.spec.tensors)

    @property
    def model(self) -> bytes:
        """The first model as MODEL BYTES; raises Refused(BAD_PARAMS)."""
        return first_model(self.values, self.spec.tensors)


@dataclass(frozen=True)
class ModelFile:
    """A trained model: its card, the graph that answers, MODEL BYTES, the manifest of the job that made it.

    `params` is the job's file of first values where the model has frozen tensors, else empty.
    """

    card: dict[str, Any]
    predict: bytes
    model: bytes
    manifest: Manifest
    params: bytes = b""

    @cached_property
    def tensors(self) -> dict[str, Floats]:
        """The certified tensors, float32; raises Refused(MALFORMED)."""
        return decode_model(self.manifest, self.model)

    @cached_property
    def frozen(self) -> Frozen | None:
        """The frozen tensors, if the model has any; raises Refused(BAD_PARAMS)."""
        return frozen_of(self.params, self.manifest.tensors)


def pack(job: JobFile) -> bytes:
    """A job as one archive; raises Refused when a part is not the one that its document names."""
    _check_job(job)
    contents = (job.spec.to_bytes(), job.step, job.evaluate, job.predict, job.params)
    return _write(dict(zip(JOB_PARTS, contents, strict=True)))


def unpack(data: bytes, limit: int = MAX_ARCHIVE_BYTES) -> JobFile:
    """Read a job file of at most `limit` bytes; raises Refused (BAD_ARCHIVE, BAD_MANIFEST or BAD_PARAMS)."""
    manifest, *parts = _read(data, JOB_PARTS, limit)
    job = JobFile(JobSpec.from_bytes(manifest), *parts)
    _check_job(job)
    return job


def pack_model(file: ModelFile) -> bytes:
    """A trained model as one archive; its card is any JSON object. Raises Refused on parts that disagree."""
    _check_model(file)
    card = msgspec.json.encode(file.card, order="sorted")
    contents = [file.manifest.to_bytes(), file.predict, file.model, card, file.params]
    return _write(dict(zip(FROZEN_MODEL_PARTS if file.params else MODEL_PARTS, contents, strict=False)))


def unpack_model(data: bytes, limit: int = MAX_ARCHIVE_BYTES) -> ModelFile:
    """Read a model file of at most `limit` bytes; raises Refused (BAD_ARCHIVE or BAD_MANIFEST)."""
    manifest, predict, model, card, *params = _read(data, MODEL_PARTS, limit, FROZEN_MODEL_PARTS)
    _need(len(card) <= MAX_CARD_BYTES, f"a card of {len(card)} bytes")
    _need(is_shallow(card), "card.json is nested too deeply")
    try:
        fields = msgspec.json.decode(card, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Reason.BAD_ARCHIVE, f"card.json: {error}") from error
    file = ModelFile(fields, predict, model, Manifest.from_bytes(manifest), *params)
    _check_model(file)
    return file


def _check_job(job: JobFile) -> None:
    spec = job.spec
    named = {
        "step.onnx": (job.step, spec.step),
        "eval.onnx": (job.evaluate, spec.evaluate),
        "predict.onnx": (job.predict, spec.predict),
        "params.safetensors": (job.params, spec.params),
    }
    for name, (content, expected) in named.items():
        _need(blob_id(content).hex() == expected, f"{name} is not the part that the manifest names")
    _need(blob_id(job.model).hex() == spec.initial, "params.safetensors does not give the manifest's first model")


def _check_model(file: ModelFile) -> None:
    manifest = file.manifest
    _need(blob_id(file.predict).hex() == manifest.predict, "predict.onnx is not the part that the manifest names")
    _need(len(file.model) == manifest.model_bytes, f"model.bin of {len(file.model)} bytes")
    _need(bool(file.params) == bool(manifest.frozen_tensors), "params.safetensors is there for frozen tensors only")
    named = not file.params or blob_id(file.params).hex() == manifest.params
    _need(named, "params.safetensors is not the part that the manifest names")
    file.frozen  # noqa: B018 - read here, so that what is wrong with it is told here


def _need(condition: bool, detail: str) -> None:
    if not condition:
        raise Refused(Reason.BAD_ARCHIVE, detail)


def _write(parts: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, on every machine, so that the bytes are the same
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _read(data: bytes, names: tuple[str, ...], limit: int, others: tuple[str, ...] = ()) -> list[bytes]:
    """The contents of the parts `names` (or `others`). Nothing is inflated, no more copied than the archive is long."""
    _need(len(data) <= limit, f"{len(data)} bytes, at most {limit}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            found = tuple(entry.filename for entry in entries)
            _need(found in (names, others), f"expected exactly {', '.join(names)}")
            _need(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), "compressed entries")
            _need(sum(entry.file_size for entry in entries) <= len(data), "entries longer than the archive")
            contents = [archive.read(entry) for entry in entries]
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Refused(Reason.BAD_ARCHIVE, f"not a readable archive: {str(error)[:200]}") from error
    _need(_write(dict(zip(found, contents, strict=True))) == data, "not in canonical form")
    return contents
