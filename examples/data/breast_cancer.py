"""Breast cancer Wisconsin (diagnostic): 569 tumours, 30 measures of cell nuclei, benign or malignant.

Licence: CC BY 4.0 (W. Wolberg, O. Mangasarian, N. Street, W. Street; UCI Machine Learning Repository). The table comes
with scikit-learn (`pip install scikit-learn`).

    python examples/data/breast_cancer.py tumours.csv
    atoll data add tumours tumours.csv --target diagnosis --held-out 0.2 --licence CC-BY-4.0 --origin "UCI, WDBC"
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def rows() -> list[list[str]]:
    """The header, then one row a tumour; the column `diagnosis` says what it was."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    pairs = zip(data.data, data.target, strict=True)
    table = [[*map(repr, map(float, row)), str(data.target_names[told])] for row, told in pairs]
    return [[*names, "diagnosis"], *table]


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows())
