"""Hostile job files, model files, documents and files of first values, each with the reason for its refusal."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from atoll.graph.archive import JOB_PARTS, MODEL_PARTS, JobFile, pack, unpack, unpack_model
from atoll.graph.check import check_graph, check_job
from atoll.graph.manifest import Manifest
from atoll.graph.params import read_params, write_params
from atoll.graph.signatures import signature_of
from atoll.graph.spec import JobSpec
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

from .test_archive import job, parts, trained, zipped
from .test_manifest import example

LIMIT = 1 << 24  # bytes of an archive, as a node that lends little sets it


@dataclass(frozen=True)
class Case:
    """Bytes from outside, what reads them, and why it refuses them."""

    make: Callable[[], bytes]
    read: Callable[[bytes], object]
    reason: Reason


def admit(data: bytes) -> object:
    """A job file all the way through the gate."""
    file = unpack(data, LIMIT)
    return check_job(file.spec, file.step, file.evaluate, file.predict)


def admit_model(data: bytes) -> object:
    file = unpack_model(data, LIMIT)
    return check_graph(file.predict, signature_of(file.manifest, "predict"))


def first_values(data: bytes) -> object:
    return read_params(data, job().spec.tensors)


FILES: dict[str, Case] = {}
Maker = Callable[[], bytes]


def case(read: Callable[[bytes], object], reason: Reason) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        FILES[make.__name__] = Case(make, read, reason)
        return make

    return add


def add(name: str, read: Callable[[bytes], object], reason: Reason, make: Maker) -> None:
    FILES[name] = Case(make, read, reason)


def entries(**changes: bytes) -> list[tuple[str, bytes]]:
    """The parts of a good job file; keys are a part's name without what follows its dot."""
    return [(name, changes.get(name.split(".")[0], content)) for name, content in parts().items()]


def renamed(name: str) -> bytes:
    first, *rest = entries()
    return zipped([(name, first[1]), *rest])


# Archives: names
for _what, _name in {
    "path_out_of_the_folder": "../manifest.json",
    "path_deep_out_of_the_folder": "../../../../root/.ssh/authorized_keys",
    "absolute_path": "/etc/passwd",
    "path_of_another_system": "C:\\Windows\\manifest.json",
    "path_with_backslashes": "..\\..\\manifest.json",
    "folder": "manifest.json/",
    "name_in_capitals": "MANIFEST.JSON",
    "name_that_looks_the_same": "m\u0430nifest.json",
    "name_with_terminal_codes": "\x1b[2Jmanifest.json",
    "name_without_end": "a" * 65_000,
    "empty_name": "",
}.items():
    add(_what, admit, Reason.BAD_ARCHIVE, lambda name=_name: renamed(name))  # type: ignore[misc]


@case(admit, Reason.BAD_ARCHIVE)
def name_with_a_null() -> bytes:
    return pack(job()).replace(b"step.onnx", b"step\0onnx")


@case(admit, Reason.BAD_ARCHIVE)
def symbolic_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            link = name == "step.onnx"
            entry.create_system, entry.external_attr = 3, (0o120777 if link else 0o644) << 16
            archive.writestr(entry, b"/etc/passwd" if link else content)
    return buffer.getvalue()


# Archives: sizes and structure
@case(admit, Reason.BAD_ARCHIVE)
def zip_bomb() -> bytes:
    return zipped([(name, bytes(50_000_000)) for name in JOB_PARTS], zipfile.ZIP_DEFLATED)


@case(admit, Reason.BAD_ARCHIVE)
def bomb_by_another_method() -> bytes:
    return zipped([(name, bytes(5_000_000)) for name in JOB_PARTS], zipfile.ZIP_LZMA)


@case(admit, Reason.BAD_ARCHIVE)
def archive_beyond_the_limit() -> bytes:
    return bytes(LIMIT + 1)


@case(admit, Reason.BAD_ARCHIVE)
def entries_that_overlap() -> bytes:
    """All entries of the directory point at one and the same 3 MB of content, as in the bombs of D. Fifield."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json"), bytes(3_000_000))
        for name in JOB_PARTS[1:]:
            archive.filelist.append(_same_place(archive.filelist[0], name))
    return buffer.getvalue()


def _same_place(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = zipfile.ZipInfo(name)
    for key in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
        setattr(other, key, getattr(entry, key))
    return other


@case(admit, Reason.BAD_ARCHIVE)
def names_twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the zip library warns of what we do here on purpose
        return zipped([*entries(), entries()[1]])


def edited_directory(offset: int, form: str, *values: int) -> bytes:
    """A good job file whose directory's last entry has other numbers at `offset`."""
    data = bytearray(pack(job()))
    struct.pack_into(form, data, data.rindex(b"PK\x01\x02") + offset, *values)
    return bytes(data)


for _what, (_offset, _form, _values) in {
    "entry_that_claims_four_gigabytes": (20, "<II", (0xFFFFFFF0, 0xFFFFFFF0)),
    "entry_that_claims_zip64": (20, "<II", (0xFFFFFFFF, 0xFFFFFFFF)),
    "entry_that_lies_elsewhere": (42, "<I", (0,)),
    "entry_beyond_the_end": (42, "<I", (0xFFFFFFF0,)),
    "entry_that_is_encrypted": (8, "<H", (1,)),
    "entry_on_another_disk": (34, "<H", (7,)),
    "entry_by_an_unknown_method": (10, "<H", (99,)),
    "entry_of_a_later_version": (6, "<H", (0xFFFF,)),
    "entry_with_a_comment": (32, "<H", (40,)),
    "entry_with_another_checksum": (16, "<I", (0,)),
}.items():
    add(
        _what,
        admit,
        Reason.BAD_ARCHIVE,
        lambda o=_offset, f=_form, v=_values: edited_directory(o, f, *v),  # type: ignore[misc]
    )


@case(admit, Reason.BAD_ARCHIVE)
def a_directory_of_65535_entries() -> bytes:
    data = bytearray(pack(job()))
    struct.pack_into("<HH", data, len(data) - 14, 0xFFFF, 0xFFFF)
    return bytes(data)


@case(admit, Reason.BAD_ARCHIVE)
def a_directory_that_claims_zip64() -> bytes:
    data = pack(job())
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 5, 5, 1 << 62, 1 << 62)
    locator = struct.pack("<IIQI", 0x07064B50, 0, len(data) - 22, 1)
    return data[:-22] + end + locator + data[-22:-10] + b"\xff" * 8 + b"\0\0"


@case(admit, Reason.BAD_ARCHIVE)
def an_archive_within_the_comment_of_another() -> bytes:
    data = pack(job())
    return data[:-2] + struct.pack("<H", min(len(data), 65_000)) + data[:65_000]


@case(admit, Reason.BAD_ARCHIVE)
def half_an_archive() -> bytes:
    data = pack(job())
    return data[: len(data) // 2]


add("bytes_before_the_archive", admit, Reason.BAD_ARCHIVE, lambda: b"#!/bin/sh\n" + pack(job()))
add("bytes_after_the_archive", admit, Reason.BAD_ARCHIVE, lambda: pack(job()) + b"\0")
add("parts_in_another_order", admit, Reason.BAD_ARCHIVE, lambda: zipped(entries()[::-1]))
add("compressed_parts", admit, Reason.BAD_ARCHIVE, lambda: zipped(entries(), zipfile.ZIP_DEFLATED))
add("a_program_among_the_parts", admit, Reason.BAD_ARCHIVE, lambda: zipped([*entries(), ("setup.py", b"import os")]))
add("a_pickle", admit, Reason.BAD_ARCHIVE, lambda: b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")
add("nothing", admit, Reason.BAD_ARCHIVE, bytes)


# Documents that lie about the other parts
def forged(**changes: Any) -> bytes:
    """A job file whose document was changed, and is valid."""
    good = job()
    return zipped(entries(manifest=replace(good.spec, **changes).to_bytes()))


@case(admit, Reason.BAD_ARCHIVE)
def document_with_a_wrong_hash() -> bytes:
    return forged(step="0" * 64)


@case(admit, Reason.BAD_ARCHIVE)
def graphs_that_changed_places() -> bytes:
    good = job()
    return zipped(entries(step=good.evaluate, eval=good.step))


@case(admit, Reason.BAD_ARCHIVE)
def document_with_another_first_model() -> bytes:
    return forged(initial="0" * 64)


@case(admit, Reason.BAD_ARCHIVE)
def document_with_other_bits() -> bytes:
    tensors = tuple(replace(tensor, bits=10) for tensor in job().spec.tensors)
    return forged(tensors=tensors)


@case(admit, Reason.BAD_SIGNATURE_OF_GRAPH)
def document_with_another_input() -> bytes:
    return forged(input=replace(job().spec.input, shape=(3, 28, 28)))


@case(admit, Reason.BAD_SIGNATURE_OF_GRAPH)
def document_with_another_output() -> bytes:
    return forged(output=replace(job().spec.output, shape=(1_000,)))


@case(admit, Reason.BAD_SIGNATURE_OF_GRAPH)
def document_with_another_metric() -> bytes:
    return forged(metrics=("honesty",))


@case(admit, Reason.BAD_SIGNATURE_OF_GRAPH)
def document_with_tensors_that_no_graph_takes() -> bytes:
    tensors = job().spec.tensors
    return forged(tensors=(*tensors, replace(tensors[-1], name="momentum.more")))


@case(admit, Reason.BAD_SIGNATURE_OF_GRAPH)
def document_with_tensors_in_another_order() -> bytes:
    *first, left, right = job().spec.tensors
    return forged(tensors=(*first, right, left))


@case(admit, Reason.TOO_MUCH_MEMORY)
def a_unit_of_more_samples_than_fit() -> bytes:
    return forged(batch=65_536, steps=100_000, segment=1_000)


@case(admit, Reason.BAD_PARAMS)
def document_with_another_shape() -> bytes:
    tensors = job().spec.tensors
    return forged(tensors=(replace(tensors[0], shape=(784, 10)), *tensors[1:]))


@case(admit, Reason.BAD_PARAMS)
def document_with_another_role() -> bytes:
    first, *rest = job().spec.tensors
    return forged(tensors=(first, replace(rest[0], role="reset"), *rest[1:]))


@case(admit_model, Reason.BAD_ARCHIVE)
def model_that_is_too_short() -> bytes:
    file = trained()
    contents = (file.manifest.to_bytes(), file.predict, file.model[:-4], b"{}")
    return zipped(list(zip(MODEL_PARTS, contents, strict=True)))


@case(admit_model, Reason.BAD_ARCHIVE)
def model_whose_card_is_a_bomb() -> bytes:
    file = trained()
    card = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    return zipped(list(zip(MODEL_PARTS, (file.manifest.to_bytes(), file.predict, file.model, card), strict=True)))


@case(admit_model, Reason.BAD_ARCHIVE)
def model_that_is_a_job() -> bytes:
    return pack(job())


# Documents as such
def document(edit: Callable[[dict[str, Any]], object]) -> bytes:
    plain = json.loads(example().to_bytes())
    edit(plain)
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


for _what, _edit in {
    "a_million_tensors": lambda plain: plain.update(tensors=[plain["tensors"][0]] * 4_000),
    "a_tensor_beyond_all_memory": lambda plain: plain["tensors"][0].update(shape=[1 << 28, 1 << 28]),
    "a_dimension_of_a_googol": lambda plain: plain["tensors"][0].update(shape=[10**100]),
    "a_negative_dimension": lambda plain: plain["tensors"][0].update(shape=[-1]),
    "a_tensor_name_with_terminal_codes": lambda plain: plain["tensors"][0].update(name="\x1b]0;owned\x07"),
    "a_field_with_terminal_codes": lambda plain: plain.update({"\x1b[2J": 1}),
    "a_tensor_named_like_an_output": lambda plain: plain["tensors"][0].update(name="next.w"),
    "a_tensor_named_like_an_input": lambda plain: plain["tensors"][0].update(name="learning_rate"),
    "a_name_that_is_a_path": lambda plain: plain.update(name="../../home"),
    "a_learning_rate_without_end": lambda plain: plain["hyper"].update(learning_rate=1e308),
    "a_batch_of_a_googol": lambda plain: plain.update(batch=10**100),
    "no_steps": lambda plain: plain.update(steps=0),
    "a_price_of_a_googol": lambda plain: plain["policy"].update(unit_price="9" * 100),
    "a_price_below_zero": lambda plain: plain["policy"].update(unit_price="-1"),
    "a_tolerance_over_zero": lambda plain: plain["policy"].update(unit_tolerance={"part": 0, "whole": 0}),
    "no_samples": lambda plain: plain["data"].update(count=0),
}.items():
    add(_what, Manifest.from_bytes, Reason.BAD_MANIFEST, lambda edit=_edit: document(edit))  # type: ignore[misc]

for _what, _bytes in {
    "a_document_that_nests": b'{"a":' * 40_000,
    "a_document_of_brackets": b"[" * 200_000,
    "a_document_beyond_the_limit": b" " * 300_000,
    "a_document_that_is_not_utf8": b'{"name":"\xff\xfe"}',
    "a_document_of_half_characters": b'{"name":"\\ud800"}',
    "a_number_of_a_hundred_thousand_digits": b'{"schema":' + b"9" * 100_000 + b"}",
    "a_number_that_is_none": b'{"schema":NaN}',
}.items():
    add(_what, JobSpec.from_bytes, Reason.BAD_MANIFEST, lambda data=_bytes: data)  # type: ignore[misc]


@case(JobSpec.from_bytes, Reason.BAD_MANIFEST)
def a_key_twice() -> bytes:
    return job().spec.to_bytes().replace(b'{"batch":32,', b'{"batch":1,"batch":32,')


# First values
def header(plain: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


WHOLE = 4 * 7_840
_WEIGHT = {"dtype": "F32", "shape": [10, 784], "data_offsets": [0, WHOLE]}
_BIAS = {"dtype": "F32", "shape": [10], "data_offsets": [WHOLE, WHOLE + 40]}
for _what, _bytes in {
    "values_with_a_header_of_an_exabyte": header(b"{}", length=1 << 60),
    "values_with_a_header_longer_than_the_file": header(b"{}", length=1_000),
    "values_that_overlap": header(
        {"linear.weight": _WEIGHT, "linear.bias": _BIAS | {"data_offsets": [0, 40]}}, bytes(WHOLE)
    ),
    "values_beyond_the_end": header({"linear.weight": _WEIGHT, "linear.bias": _BIAS}, bytes(WHOLE)),
    "values_that_run_backwards": header({"linear.weight": _WEIGHT | {"data_offsets": [WHOLE, 0]}}, bytes(WHOLE)),
    "values_with_bytes_to_spare": header({"linear.weight": _WEIGHT, "linear.bias": _BIAS}, bytes(WHOLE + 41)),
    "values_of_a_huge_shape": header({"linear.weight": _WEIGHT | {"shape": [1 << 62, 1 << 62]}}, bytes(WHOLE)),
    "values_of_an_unknown_type": header({"linear.weight": _WEIGHT | {"dtype": "OBJECT"}}, bytes(WHOLE)),
    "values_of_another_float": header({"linear.weight": _WEIGHT | {"dtype": "BF16", "shape": [20, 784]}}, bytes(WHOLE)),
    "values_of_eight_bits": header({"linear.weight": _WEIGHT | {"dtype": "F8_E4M3", "shape": [40, 784]}}, bytes(WHOLE)),
    "values_under_nested_names": header(b'{"a":' * 50_000),
    "values_with_a_name_twice": header(
        b'{"linear.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"linear.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "values_that_are_a_pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "values_of_nothing": b"",
}.items():  # fmt: skip
    add(_what, first_values, Reason.BAD_PARAMS, lambda data=_bytes: data)  # type: ignore[misc]


@case(first_values, Reason.BAD_PARAMS)
def a_hundred_thousand_values_of_no_size() -> bytes:
    return header({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)})


@case(first_values, Reason.BAD_PARAMS)
def values_that_are_not_numbers() -> bytes:
    return write_params({**job().values, "linear.bias": np.full(10, np.nan, np.float32)})


@case(first_values, Reason.BAD_PARAMS)
def values_with_terminal_codes_in_a_name() -> bytes:
    return write_params({**job().values, "\x1b[2J": np.zeros(1, np.float32)})


@case(admit, Reason.BAD_PARAMS)
def infinite_values_in_a_job() -> bytes:
    good = job()
    params = write_params({**good.values, "linear.bias": np.full(10, np.inf, np.float32)})
    spec = replace(good.spec, params=blob_id(params).hex())
    return zipped(entries(manifest=spec.to_bytes(), params=params))


@case(admit, Reason.NESTED_GRAPH)
def a_job_whose_step_is_a_loop() -> bytes:
    from .hostile import endless_loop

    step = endless_loop().SerializeToString()
    good = job()
    spec = replace(good.spec, step=blob_id(step).hex())
    return pack(JobFile(spec, step, good.evaluate, good.predict, good.params))
