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
from typing import Any

import msgspec

from atoll.errors import Refused
from atoll.graph.manifest import Manifest
from atoll.wire.hashing import blob_id
from atoll.wire.nesting import is_shallow
from atoll.wire.reasons import Reason

MAX_ARCHIVE_BYTES = 1 << 30
MAX_CARD_BYTES = 64 * 1024
JOB_PARTS = ("manifest.json", "step.onnx", "evaluate.onnx", "predict.onnx", "model.bin", "card.json")
MODEL_PARTS = ("manifest.json", "predict.onnx", "model.bin", "card.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


@dataclass(frozen=True)
class JobFile:
    """A job with all its parts: graphs as ONNX bytes, first model as MODEL BYTES, data card as JSON bytes."""

    manifest: Manifest
    step: bytes
    evaluate: bytes
    predict: bytes
    model: bytes
    card: bytes


@dataclass(frozen=True)
class ModelFile:
    """A trained model: its card, the graph that answers, MODEL BYTES, and the manifest of the job that made it."""

    card: dict[str, Any]
    predict: bytes
    model: bytes
    manifest: Manifest


def pack(job: JobFile) -> bytes:
    """A job as one archive; raises Refused(BAD_ARCHIVE) when a part is not the one that the manifest names."""
    _check_job(job)
    contents = (job.manifest.to_bytes(), job.step, job.evaluate, job.predict, job.model, job.card)
    return _write(dict(zip(JOB_PARTS, contents, strict=True)))


def unpack(data: bytes, limit: int = MAX_ARCHIVE_BYTES) -> JobFile:
    """Read a job file of at most `limit` bytes; raises Refused (BAD_ARCHIVE or BAD_MANIFEST)."""
    manifest, step, evaluate, predict, model, card = _read(data, JOB_PARTS, limit)
    job = JobFile(Manifest.from_bytes(manifest), step, evaluate, predict, model, card)
    _check_job(job)
    return job


def pack_model(card: Mapping[str, Any], predict: bytes, model: bytes, manifest: Manifest) -> bytes:
    """A trained model as one archive; `card` is any JSON object. Raises Refused(BAD_ARCHIVE) on parts that disagree."""
    file = ModelFile(dict(card), predict, model, manifest)
    _check_model(file)
    contents = (manifest.to_bytes(), predict, model, msgspec.json.encode(file.card, order="sorted"))
    return _write(dict(zip(MODEL_PARTS, contents, strict=True)))


def unpack_model(data: bytes, limit: int = MAX_ARCHIVE_BYTES) -> ModelFile:
    """Read a model file of at most `limit` bytes; raises Refused (BAD_ARCHIVE or BAD_MANIFEST)."""
    manifest, predict, model, card = _read(data, MODEL_PARTS, limit)
    _need(len(card) <= MAX_CARD_BYTES, f"a card of {len(card)} bytes")
    _need(is_shallow(card), "card.json is nested too deeply")
    try:
        fields = msgspec.json.decode(card, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Reason.BAD_ARCHIVE, f"card.json: {error}") from error
    file = ModelFile(fields, predict, model, Manifest.from_bytes(manifest))
    _check_model(file)
    return file


def _check_job(job: JobFile) -> None:
    manifest = job.manifest
    named = {
        "step.onnx": (job.step, manifest.step),
        "evaluate.onnx": (job.evaluate, manifest.evaluate),
        "predict.onnx": (job.predict, manifest.predict),
        "model.bin": (job.model, manifest.initial),
        "card.json": (job.card, manifest.data.card),
    }
    for name, (content, expected) in named.items():
        _need(blob_id(content).hex() == expected, f"{name} is not the part that the manifest names")
    _need(len(job.model) == manifest.model_bytes, f"model.bin of {len(job.model)} bytes")
    _need(len(job.card) <= MAX_CARD_BYTES, f"a card of {len(job.card)} bytes")


def _check_model(file: ModelFile) -> None:
    _need(blob_id(file.predict).hex() == file.manifest.predict, "predict.onnx is not the part that the manifest names")
    _need(len(file.model) == file.manifest.model_bytes, f"model.bin of {len(file.model)} bytes")


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


def _read(data: bytes, names: tuple[str, ...], limit: int) -> list[bytes]:
    """The parts' contents. Nothing is inflated, and no more is copied than the archive is long."""
    _need(len(data) <= limit, f"{len(data)} bytes, at most {limit}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _need(tuple(entry.filename for entry in entries) == names, f"expected exactly {', '.join(names)}")
            _need(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), "compressed entries")
            _need(sum(entry.file_size for entry in entries) <= len(data), "entries longer than the archive")
            contents = [archive.read(entry) for entry in entries]
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Refused(Reason.BAD_ARCHIVE, f"not a readable archive: {str(error)[:200]}") from error
    _need(_write(dict(zip(names, contents, strict=True))) == data, "not in canonical form")
    return contents
