"""Cut the extracts that come with Atoll out of the four data sets: `python examples/data/extracts.py [FASHION-MNIST]`.

Tests and short runs of the examples use them, so that nothing has to be installed; `extracts/LICENSES.md` says whose
they are. Same input, same bytes.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import breast_cancer
import fashion_mnist
import numpy as np
import shakespeare
import wrist

TARGET = Path(__file__).parent / "extracts"
CLOTHES = (100, 20)  # pictures of each class, train and test
WINDOWS = 8  # of each person and exercise, evenly spread
SPEAKERS = 8  # of whole plays, those who say most
CHARACTERS = 20_000  # of each of them


def clothes(folder: Path) -> dict[str, np.ndarray]:
    """The first pictures of each class, in the order of the files."""
    full, cut = fashion_mnist.arrays(folder), {}
    for part, each in zip(("train", "test"), CLOTHES, strict=True):
        labels = full[f"y_{part}"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(10)]))
        cut |= {f"x_{part}": full[f"x_{part}"][chosen], f"y_{part}": labels[chosen].astype(np.uint8)}
    return cut


def movements() -> dict[str, np.ndarray]:
    """Some windows of each person and exercise, as float16."""
    full = wrist.arrays()
    chosen = []
    for person in np.unique(full["subject"]):
        for exercise in range(len(wrist.EXERCISES)):
            places = np.flatnonzero((full["subject"] == person) & (full["y"] == exercise))
            chosen += places[np.linspace(0, len(places) - 1, WINDOWS).astype(int)].tolist()
    places = np.array(chosen)
    x = full["x"][places].astype(np.float16)
    return {"x": x, "y": full["y"][places].astype(np.uint8), "subject": full["subject"][places].astype(np.uint8)}


def main(folder: Path = fashion_mnist.FOLDER) -> None:
    """Write all extracts; `folder` holds Fashion-MNIST's four IDX files."""
    TARGET.mkdir(exist_ok=True)
    np.savez_compressed(TARGET / "clothes.npz", **clothes(folder))
    np.savez_compressed(TARGET / "movements.npz", **movements())
    with (TARGET / "tumours.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(breast_cancer.rows())
    (TARGET / "speakers").mkdir(exist_ok=True)
    texts = shakespeare.speeches(shakespeare.plays())
    for name in sorted(texts, key=lambda name: -len(texts[name]))[:SPEAKERS]:
        (TARGET / "speakers" / f"{name}.txt").write_text(texts[name][:CHARACTERS], encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
