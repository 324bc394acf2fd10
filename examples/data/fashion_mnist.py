"""Fashion-MNIST: 60,000 + 10,000 grey pictures of clothes in ten classes, 28 x 28. Licence: MIT (Zalando SE).

Debian and Ubuntu have its files in the package `dataset-fashion-mnist`; anywhere else, name the folder with the four
IDX files. `atoll data add fashion-mnist FOLDER` reads that folder as well; what this adds are the names of the classes.

    python examples/data/fashion_mnist.py fashion.npz [FOLDER]
    atoll data add fashion-mnist fashion.npz --licence MIT --origin "Zalando Research"
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from atoll.training.data import load_directory

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def arrays(folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """x uint8 [N, 1, 28, 28] and y int64 [N] of both parts; class i is CLASSES[i]."""
    train, test = load_directory(folder)
    return {"x_train": train.x[:, None], "y_train": train.y, "x_test": test.x[:, None], "y_test": test.y}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **arrays(*map(Path, sys.argv[2:])))
