"""Job and model files: what is packed comes back, and nothing else is accepted."""

from __future__ import annotations

import io
import struct
import zipfile

import msgspec
import pytest

from atoll.errors import Refused
from atoll.graph.archive import JOB_PARTS, JobFile, pack, pack_model, unpack, unpack_model
from atoll.graph.manifest import Data, Policy
from atoll.graph.zoo import load_zoo
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

CARD = b'{"name":"mnist"}'
ROOT = "0x" + "12" * 32


def job() -> JobFile:
    model = load_zoo("softmax")
    data = Data(root=ROOT, count=5, held_out_root=ROOT, held_out_count=3, card=blob_id(CARD).hex())
    manifest = model.manifest(data, 3, Policy(unit_price=1, audit_price=1, validator_price=1))
    return JobFile(manifest, model.step, model.evaluate, model.predict, model.initial_model, CARD)


def parts() -> dict[str, bytes]:
    one = job()
    contents = (one.manifest.to_bytes(), one.step, one.evaluate, one.predict, one.model, one.card)
    return dict(zip(JOB_PARTS, contents, strict=True))


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED, date: int = 1980) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo(name, (date, 1, 1, 0, 0, 0))
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
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # any zip tool can read it
        assert archive.namelist() == list(JOB_PARTS)
        assert archive.testzip() is None


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
        "a path out of the folder": (
            zipped([("../manifest.json", good[0][1]), *good[1:]]),
            1 << 20,
            "expected exactly",
        ),
        "an absolute path": (zipped([("/etc/passwd", good[0][1]), *good[1:]]), 1 << 20, "expected exactly"),
        "another order": (zipped(good[::-1]), 1 << 20, "expected exactly"),
        "compressed": (zipped(good, zipfile.ZIP_DEFLATED), 1 << 20, "compressed"),
        "another date": (zipped(good, date=1999), 1 << 20, "canonical"),
        "bytes before": (b"#!/bin/sh\n" + pack(job()), 1 << 20, "canonical"),
        "bytes after": (pack(job()) + b"\0", 1 << 20, "canonical"),
        "a wrong checksum": (pack(job()).replace(step, step[:-1] + b"!"), 1 << 20, "archive"),
    }
    for what, (data, limit, word) in cases.items():
        assert word in refusal(data, limit), what


def test_a_bomb_is_refused_without_inflating_it() -> None:
    bomb = zipped([(name, bytes(50_000_000)) for name in JOB_PARTS], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    assert "compressed" in refusal(bomb)


def test_an_entry_that_claims_a_huge_size_is_refused() -> None:
    data = bytearray(pack(job()))
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, central + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    assert "longer than the archive" in refusal(bytes(data))


def test_parts_that_the_manifest_does_not_name_are_refused() -> None:
    for name in JOB_PARTS[1:]:
        changed = parts()
        changed[name] = changed[name][:-1] + bytes([changed[name][-1] ^ 1])
        rebuilt = io.BytesIO()
        with zipfile.ZipFile(rebuilt, "w") as archive:
            for part, content in changed.items():
                entry = zipfile.ZipInfo(part)
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                archive.writestr(entry, content)
        assert refusal(rebuilt.getvalue()) == f"{name} is not the part that the manifest names"


def test_packing_checks_the_parts_too() -> None:
    good = job()
    with pytest.raises(Refused):
        pack(JobFile(good.manifest, good.evaluate, good.step, good.predict, good.model, good.card))
    other = msgspec.structs.replace(good.manifest, initial=blob_id(b"1234").hex())
    with pytest.raises(Refused, match=r"model\.bin of 4 bytes"):
        pack(JobFile(other, good.step, good.evaluate, good.predict, b"1234", good.card))


def test_a_model_comes_back() -> None:
    one = job()
    card = {"accuracy": 0.93, "rounds": 12, "workers": ["a", "b"]}
    data = pack_model(card, one.predict, one.model, one.manifest)
    back = unpack_model(data)
    assert (back.card, back.predict, back.model, back.manifest) == (card, one.predict, one.model, one.manifest)


def test_a_model_with_the_wrong_graph_or_length_is_refused() -> None:
    one = job()
    for predict, model in ((one.step, one.model), (one.predict, one.model[4:])):
        with pytest.raises(Refused) as caught:
            pack_model({}, predict, model, one.manifest)
        assert caught.value.reason == Reason.BAD_ARCHIVE


def test_a_model_card_that_is_not_an_object_is_refused() -> None:
    one = job()
    good = pack_model({}, one.predict, one.model, one.manifest)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    rebuilt = io.BytesIO()
    with zipfile.ZipFile(rebuilt, "w") as archive:
        for entry, content in entries:
            clean = zipfile.ZipInfo(entry.filename)
            clean.create_system, clean.external_attr = 3, 0o644 << 16
            archive.writestr(clean, b"[]" if entry.filename == "card.json" else content)
    with pytest.raises(Refused, match=r"card\.json"):
        unpack_model(rebuilt.getvalue())
