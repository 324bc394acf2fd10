"""Small graphs by hand, and what they must give, worked out in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import parser

from atoll.graph.session import Pace

Floats = npt.NDArray[np.float32]
FROZEN = "scale"


PORTS = "(float[batch,4] x) => (float[batch,4] scores)"


def graph(body: str, constants: str, ports: str = PORTS, opset: int = 18) -> bytes:
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> g {ports} {constants} {{ {body} }}'
    return bytes(parser.parse_model(text).SerializeToString())


# w += rate * (sum over the batch of x * scale) - seed + step / 4; loss = sum(w * scale) + sum(y)
FROZEN_STEP = graph(
    """
    r = ReduceSum<keepdims = 0>(x, first)  g = Mul(r, scale)  d = Mul(g, learning_rate)
    sf = Cast<to = 1>(seed)  tf = Cast<to = 1>(step)  t = Mul(tf, quarter)
    a = Add(w, d)  b = Sub(a, sf)  next_w = Add(b, t)
    m = Mul(w, scale)  l = ReduceSum<keepdims = 0>(m)  k = ReduceSum<keepdims = 0>(y)  loss = Add(l, k)
    """,
    "<int64[1] first = {0}, float quarter = {0.25}>",
    "(float[batch,2] x, float[batch] y, int64 step, int64 seed, float learning_rate, float[2] w, float[2] scale)"
    " => (float loss, float[2] next_w)",
).replace(b"next_w", b"next.w")  # the parser knows no names with a dot


def by_hand(w: Floats, scale: Floats, x: Floats, y: Floats, pace: Pace) -> tuple[Floats, Floats]:
    """What `FROZEN_STEP` gives: the last `w` and the loss before each step."""
    losses = []
    for index in range(len(x)):
        losses.append(float((w * scale).sum() + y[index].sum()))
        w = w + pace.learning_rate * x[index].sum(0) * scale - pace.seed + (pace.first_step + index) / 4
    return w.astype(np.float32), np.array(losses, np.float32)
