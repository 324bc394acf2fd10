"""What is fuzzed: functions that take bytes from outside and may do nothing but return or raise Refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from onnx import TensorProto

from atoll.errors import Refused
from atoll.graph.archive import JOB_PARTS, MODEL_PARTS, pack, pack_model, unpack, unpack_model
from atoll.graph.check import check_graph, check_job
from atoll.graph.manifest import Manifest
from atoll.graph.params import read_params, write_params
from atoll.graph.signatures import Signature, signature_of
from atoll.graph.spec import JobSpec
from atoll.training.data.card import Card, Schema, X, Y
from tests.graph.hostile import CORPUS, EXPECTED
from tests.graph.hostile import model as good_graph
from tests.graph.hostile_files import FILES, admit, admit_model, first_values
from tests.graph.test_archive import job, parts, trained, zipped
from tests.graph.test_manifest import example

BATCH = 3
INPUTS: tuple[tuple[str, int, tuple[int | str, ...]], ...] = (
    ("x", TensorProto.FLOAT, ("batch", 4)),
    ("image", TensorProto.FLOAT, ("batch", 4, 5, 5)),
    ("pixels", TensorProto.UINT8, ("batch", 3)),
    ("token", TensorProto.INT64, ("batch", 2)),
    ("w", TensorProto.FLOAT, (4, 3)),
    ("kernel", TensorProto.FLOAT, (4, 2, 3, 3)),
    ("row", TensorProto.FLOAT, (4,)),
    ("one", TensorProto.FLOAT, ()),
)
BUILT = Signature(INPUTS, (("scores", TensorProto.FLOAT, ("batch", 4)),), BATCH, 12)

CARD = Card(
    name="digits",
    schema=Schema(x=X(dtype="uint8", shape=(28, 28)), y=Y(dtype="int64", shape=(), classes=10)),
    count=5,
    held_out_count=3,
    root="0x" + "12" * 32,
    held_out_root="0x" + "34" * 32,
    licence="CC0-1.0",
    origin="drawn by hand",
)

Target = Callable[[bytes], object]
LIMIT = 1 << 22


def archive(data: bytes) -> object:
    file = unpack(data, LIMIT)
    return check_job(file.spec, file.step, file.evaluate, file.predict)


def job_parts(data: bytes) -> object:
    """Bytes as the parts of an archive that is well-formed: what lies behind the zip reader."""
    return archive(zipped(list(zip(JOB_PARTS, _cut(data, len(JOB_PARTS)), strict=True))))


def model(data: bytes) -> object:
    file = unpack_model(data, LIMIT)
    return check_graph(file.predict, signature_of(file.manifest, "predict"))


def model_parts(data: bytes) -> object:
    return model(zipped(list(zip(MODEL_PARTS, _cut(data, len(MODEL_PARTS)), strict=True))))


def _cut(data: bytes, count: int) -> list[bytes]:
    """Bytes in `count` pieces: each starts with its length (3 bytes), the last takes the rest."""
    found = []
    for _ in range(count - 1):
        length = int.from_bytes(data[:3], "big")
        found.append(data[3 : 3 + length])
        data = data[3 + length :]
    return [*found, data]


def joined(contents: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(3, "big") + part for part in contents[:-1]) + contents[-1]


def graph(data: bytes) -> object:
    return check_graph(data, EXPECTED)


def built_graph(data: bytes) -> object:
    return check_graph(data, BUILT)


def params(data: bytes) -> object:
    return read_params(data, job().spec.tensors)


TARGETS: dict[str, Target] = {
    "archive": archive,
    "job-parts": job_parts,
    "model": model,
    "model-parts": model_parts,
    "graph": graph,
    "built-graph": built_graph,
    "params": params,
    "spec": JobSpec.from_bytes,
    "manifest": Manifest.from_bytes,
    "card": Card.from_bytes,
}


@cache
def seeds() -> dict[str, list[bytes]]:
    """Good and hostile inputs of each target, from which mutation starts."""
    file = trained()
    hostile = {
        read: [case.make() for case in FILES.values() if case.read == read]
        for read in (admit, admit_model, first_values, JobSpec.from_bytes, Manifest.from_bytes)
    }
    made = [make() for make, _ in CORPUS.values()]
    graphs = [good_graph().SerializeToString()]
    graphs += [found if isinstance(found, bytes) else found.SerializeToString() for found in made]
    model_contents = [file.manifest.to_bytes(), file.predict, file.model, b"{}"]
    found = {
        "archive": [pack(job()), *hostile[admit]],
        "job-parts": [joined(list(parts().values()))],
        "model": [pack_model(file), *hostile[admit_model]],
        "model-parts": [joined(model_contents)],
        "graph": graphs,
        "built-graph": [],
        "params": [write_params(dict(job().values)), *hostile[first_values]],
        "spec": [job().spec.to_bytes(), *hostile[JobSpec.from_bytes]],
        "manifest": [example().to_bytes(), *hostile[Manifest.from_bytes]],
        "card": [CARD.to_bytes()],
    }
    return {name: [data for data in inputs if len(data) < LIMIT] for name, inputs in found.items()}


def run(target: str, data: bytes) -> bool:
    """Whether the target accepts the bytes; whatever it raises but Refused is a finding."""
    try:
        TARGETS[target](data)
    except Refused as refused:
        if not refused.detail.isprintable() or len(refused.detail) > 1_000:
            raise AssertionError(f"a detail that cannot be shown: {refused.detail[:200]!a}") from refused
        return False
    return True
