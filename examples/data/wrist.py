"""Shoulder exercises by wrist sensors: ten people, seven exercises, six axes at 50 Hz. Licence: BSD (David M. Burns).

The recordings come with the package seglearn (`pip install seglearn pandas`; it stores them as a pickle, which its own
code loads); the study: https://arxiv.org/abs/1802.01489

    python examples/data/wrist.py wrist.npz
    atoll data add wrist wrist.npz --group subject --held-out 0.2 --licence BSD-3-Clause --origin "seglearn, Burns"
"""

from __future__ import annotations

import sys

import numpy as np

LENGTH = 100  # samples of a window: two seconds
STRIDE = 50  # windows overlap by half
AXES = ("ax", "ay", "az", "wx", "wy", "wz")  # acceleration in g, turning in rad/s
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


def arrays() -> dict[str, np.ndarray]:
    """x float32 [N, 6, LENGTH], y int64 [N] (a place in EXERCISES), subject int64 [N]."""
    from seglearn.datasets import load_watch

    watch = load_watch()
    x, y, subject = [], [], []
    for recording, exercise, person in zip(watch["X"], watch["y"], watch["subject"], strict=True):
        for start in range(0, len(recording) - LENGTH + 1, STRIDE):
            x.append(recording[start : start + LENGTH].T.astype(np.float32))
            y.append(int(exercise))
            subject.append(int(person))
    return {"x": np.stack(x), "y": np.array(y), "subject": np.array(subject)}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **arrays())
