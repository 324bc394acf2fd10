"""Whether a data set suits a job, told in words that say what to change."""

from __future__ import annotations

import math

from atoll.errors import BadInput
from atoll.graph.spec import JobSpec
from atoll.training.data.card import Source
from atoll.training.data.samples import Form

_CASTS = {
    ("uint8", "float32"): "Build the job with uint8 examples and convert in the model (x.float() / 255)",
    ("float32", "uint8"): "Build the job with float32 examples",
    ("int64", "float32"): "Build the job with int64 examples",
    ("float32", "int64"): "Build the job with float32 examples, or add data of whole numbers (tokens)",
    ("uint8", "int64"): "Build the job with uint8 examples and convert in the model (x.long())",
    ("int64", "uint8"): "Build the job with int64 examples",
}


def fit(spec: JobSpec, data: Source) -> None:
    """Raise BadInput, with what to change, unless the job can be trained on the data.

    Shapes may differ as long as a sample has as many values: samples are reshaped to what the job takes.
    """
    found, wanted = data.card.form, Form.of(spec)
    name, job = f"data set {data.card.name!r}", f"job {spec.name!r}"
    _check_x(found, wanted, name, job)
    _check_y(found, wanted, name, job)
    classes = max(data.train.classes, data.held_out.classes)
    if found.y_dtype == "int64" and spec.output.meaning == "probabilities":
        told = spec.output.shape[-1]
        if classes > told:
            change = f"Give its last layer {classes} outputs."
            raise BadInput(f"The {name} has {classes} classes; the {job} tells {told} apart. {change}")
    for what, count in (("train", len(data.train)), ("held-out", len(data.held_out))):
        if not count:
            raise BadInput(f"The {name} has no {what} samples: add it again with another --held-out.")
    if len(data.train) < spec.batch:
        raise BadInput(
            f"The {name} has {len(data.train)} train samples, fewer than one batch of the {job} ({spec.batch}). Build "
            f"the job with a batch of {len(data.train)} or less, or add more data."
        )


def _check_x(found: Form, wanted: Form, name: str, job: str) -> None:
    if found.x_dtype != wanted.x_dtype:
        raise BadInput(
            f"The samples of the {name} are {found.x_dtype}; the {job} takes {wanted.x_dtype}. "
            f"{_CASTS[found.x_dtype, wanted.x_dtype]}."
        )
    size, expected = math.prod(found.x_shape), math.prod(wanted.x_shape)
    if size == expected:
        return
    if found.x_dtype == "int64" and len(found.x_shape) == len(wanted.x_shape) == 1:
        raise BadInput(
            f"The {name} has sequences of {size}; the {job} takes sequences of {expected}. Add the data again with "
            f"--window {expected}, or build the job with an example of length {size}."
        )
    raise BadInput(
        f"A sample of the {name} has shape {list(found.x_shape)} ({size} values); the {job} takes "
        f"{list(wanted.x_shape)} ({expected} values). Build the job with an example of the data's shape, or add the "
        "data in the job's."
    )


def _check_y(found: Form, wanted: Form, name: str, job: str) -> None:
    if found.y_dtype != wanted.y_dtype:
        labels = found.y_dtype == "int64"
        kind = "labels (int64)" if labels else "numbers (float32)"
        change = "add the data with --values" if labels else "build the job with a loss on numbers, such as MSE"
        other = "use a loss on labels, such as cross-entropy" if labels else "add data with whole-numbered labels"
        raise BadInput(
            f"The targets of the {name} are {kind}; the {job} takes {wanted.y_dtype}. Either {change}, or {other}."
        )
    size, expected = math.prod(found.y_shape), math.prod(wanted.y_shape)
    if size != expected:
        raise BadInput(
            f"A target of the {name} has shape {list(found.y_shape)} ({size} values); the {job} takes "
            f"{list(wanted.y_shape)} ({expected} values). Build the job with an example of the data's shape."
        )
