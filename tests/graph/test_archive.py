"""Job and model files: what is packed comes back, and nothing else is accepted."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import msgspec
import numpy as np
import pytest

from atoll.errors import Refused
from atoll.graph.archive import (
    FROZEN_MODEL_PARTS,
    JOB_PARTS,
    MODEL_PARTS,
    JobFile,
    ModelFile,
    pack,
    pack_model,
    unpack,
    unpack_model,
)
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.params import first_model, read_params, write_params
from atoll.graph.spec import JobSpec, Tensor
from atoll.graph.zoo import load_zoo
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

ROOT = "0x" + "12" * 32
DATA = Data(root=ROOT, count=5, held_out_root=ROOT, held_out_count=3, card="e" * 64)


def job() -> JobFile:
    return load_zoo("softmax")


def posted(spec: JobSpec) -> Manifest:
    return Manifest.post(spec, DATA, 3, Policy(unit_price=1, audit_price=1, validator_price=1))


def trained(one: JobFile | None = None, **changes: Any) -> ModelFile:
    one = one or job()
    params = one.params if one.spec.frozen_tensors else b""
    file = ModelFile({"job": one.spec.name}, one.predict, one.model, posted(one.spec), params)
    return ModelFile(**{**{key: getattr(file, key) for key in file.__dataclass_fields__}, **changes})


def with_frozen(dtype: type[np.floating[Any]] = np.float16) -> JobFile:
    """The same job with a tensor that never changes (which its graphs do not take: packing does not look inside)."""
    good = job()
    frozen = Tensor(name="encoder", shape=(2, 3), role="frozen")
    values = {**good.values, "encoder": np.arange(6, dtype=dtype).reshape(2, 3)}
    params = write_params(values)
    tensors = (*good.spec.tensors, frozen)
    spec = msgspec.structs.replace(good.spec, tensors=tensors, params=blob_id(params).hex())
    return JobFile(spec, good.step, good.evaluate, good.predict, params)


def parts() -> dict[str, bytes]:
    one = job()
    contents = (one.spec.to_bytes(), one.step, one.evaluate, one.predict, one.params)
    return dict(zip(JOB_PARTS, contents, strict=True))


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED, date: int = 1980) -> bytes:
    """A zip file in canonical form but for what is asked to be different."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo(name, (date, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = compression
            archive.writestr(entry, content)
    return buffer.getvalue()


def refusal(data: bytes, limit: int = 1 << 20) -> str:
    with pytest.raises(Refused) as caught:
        unpack(data, limit)
    assert caught.value.reason == Reason.BAD_ARCHIVE
    return caught.value.detail


def test_a_job_comes_back_and_packs_to_the_same_bytes() -> None:
    data = pack(job())
    assert unpack(data) == job()
    assert pack(unpack(data)) == data
    assert unpack(data).id == blob_id(job().spec.to_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # any zip tool can read it
        assert archive.namelist() == list(JOB_PARTS)
        assert archive.testzip() is None


def test_the_way_that_tests_zip_is_the_canonical_one() -> None:
    assert zipped(list(parts().items())) == pack(job())


def test_frozen_tensors_come_back_as_float32() -> None:
    for dtype in (np.float16, np.float32):
        back = unpack(pack(with_frozen(dtype)))
        assert back.values["encoder"].dtype == np.float32
        assert back.values["encoder"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert back.model == job().model  # what is certified does not know of them


def test_archives_other_than_ours_are_refused() -> None:
    good = list(parts().items())
    step = dict(good)["step.onnx"]
    cases = {
        "longer than the limit": (pack(job()), 100, "at most"),
        "empty": (b"", 1 << 20, "not a readable archive"),
        "truncated": (pack(job())[:-30], 1 << 20, "archive"),
        "not a zip": (b"PK\x03\x04" + bytes(100), 1 << 20, "not a readable archive"),
        "a part missing": (zipped(good[:-1]), 1 << 20, "expected exactly"),
        "a part too many": (zipped([*good, ("run.py", b"")]), 1 << 20, "expected exactly"),
        "another order": (zipped(good[::-1]), 1 << 20, "expected exactly"),
        "compressed": (zipped(good, zipfile.ZIP_DEFLATED), 1 << 20, "compressed"),
        "another date": (zipped(good, date=1999), 1 << 20, "canonical"),
        "bytes before": (b"#!/bin/sh\n" + pack(job()), 1 << 20, "canonical"),
        "bytes after": (pack(job()) + b"\0", 1 << 20, "canonical"),
        "a wrong checksum": (pack(job()).replace(step, step[:-1] + b"!"), 1 << 20, "archive"),
    }
    for what, (data, limit, word) in cases.items():
        assert word in refusal(data, limit), what


def test_an_entry_that_claims_a_huge_size_is_refused() -> None:
    data = bytearray(pack(job()))
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, central + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    assert "longer than the archive" in refusal(bytes(data))


def test_parts_that_the_manifest_does_not_name_are_refused() -> None:
    for name in JOB_PARTS[1:]:
        changed = parts()
        changed[name] = changed[name][:-1] + bytes([changed[name][-1] ^ 1])
        assert refusal(zipped(list(changed.items()))) == f"{name} is not the part that the manifest names"


def test_first_values_that_give_another_first_model_are_refused() -> None:
    good = job()
    spec = msgspec.structs.replace(good.spec, initial=blob_id(b"another").hex())
    with pytest.raises(Refused, match="first model"):
        pack(JobFile(spec, good.step, good.evaluate, good.predict, good.params))


def test_packing_checks_the_parts_too() -> None:
    good = job()
    with pytest.raises(Refused, match=r"step\.onnx"):
        pack(JobFile(good.spec, good.evaluate, good.step, good.predict, good.params))


def test_first_values_are_those_of_the_manifests_tensors() -> None:
    tensors = job().spec.tensors
    values = job().values
    weight = values["linear.weight"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({key: value for key, value in values.items() if key != "linear.bias"}, "expected 2"),
        ({**values, "another": weight}, "another"),
        ({**values, "linear.weight": weight.T}, "linear.weight"),
        ({**values, "linear.weight": weight.astype(np.float64)}, "float64"),
        ({**values, "linear.weight": weight.astype(np.float16)}, "float16"),
        ({**values, "linear.weight": np.full_like(weight, np.inf)}, "finite"),
    ]
    for given, word in cases:
        with pytest.raises(Refused, match=word) as caught:
            read_params(write_params(given), tensors)
        assert caught.value.reason == Reason.BAD_PARAMS
    assert first_model(read_params(write_params(values), tensors), tensors) == job().model


def test_a_model_comes_back() -> None:
    for file in (trained(card={"accuracy": 0.93, "rounds": 12, "workers": ["a", "b"]}), trained(with_frozen())):
        data = pack_model(file)
        assert unpack_model(data) == file
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.namelist() == list(FROZEN_MODEL_PARTS if file.params else MODEL_PARTS)


def test_a_models_tensors_are_the_trained_ones_beside_the_frozen_ones() -> None:
    one = with_frozen()
    file = trained(one, model=np.full(7850, 1 << 24, "<i4").tobytes())
    assert set(file.tensors) == {"linear.weight", "linear.bias"}
    assert (file.tensors["linear.weight"] == 1).all()  # not the first values
    assert file.frozen is not None
    assert file.frozen.tensors["encoder"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert trained().frozen is None


def test_model_files_whose_parts_disagree_are_refused() -> None:
    one, frozen = job(), with_frozen()
    cases = {
        "predict.onnx is not": trained(predict=one.step),
        "model.bin of": trained(model=one.model[4:]),
        "frozen tensors only": trained(params=one.params),
        "for frozen tensors": trained(frozen, params=b""),
        "params.safetensors is not": trained(frozen, params=one.params),
    }
    for word, file in cases.items():
        with pytest.raises(Refused, match=word) as caught:
            pack_model(file)
        assert caught.value.reason == Reason.BAD_ARCHIVE


@pytest.mark.parametrize(
    "card", [b"[]", b"null", b"", b"{", b"[" * 50_000, b'{"a":' * 50_000, b'"\xff"', b" " * 70_000]
)
def test_a_model_card_that_is_not_a_small_object_is_refused(card: bytes) -> None:
    file = trained()
    contents = (file.manifest.to_bytes(), file.predict, file.model, card)
    with pytest.raises(Refused, match="card"):
        unpack_model(zipped(list(zip(MODEL_PARTS, contents, strict=True))))
