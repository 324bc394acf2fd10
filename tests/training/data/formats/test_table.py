"""Columns to samples; the readers' own tests show the same from files."""

from __future__ import annotations

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.training.data.formats.found import Options, coded
from atoll.training.data.formats.table import Cells, check_header, make_table


def test_columns_keep_their_order() -> None:
    columns = {
        "b": Cells(np.array([1.5, 2.5]), ()),
        "y": Cells(np.array([1, 0]), ()),
        "a": Cells(None, ["p", "q"]),
    }
    found = make_table(columns, Options(), "here")
    assert [column.name for column in found.columns] == ["b", "a"]
    assert found.data.x.tolist() == [[1.5, 0], [2.5, 1]]
    assert found.data.y.tolist() == [1, 0]


def test_codes_are_places_among_the_sorted_texts() -> None:
    codes, names = coded(["b", "a", "b", "é"], "here")
    assert (codes.tolist(), names) == ([1, 0, 1, 2], ("a", "b", "é"))


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""], ["x" * 129], [str(i) for i in range(4_097)]])
def test_headers_that_are_refused(names: list[str]) -> None:
    with pytest.raises(BadInput, match="here"):
        check_header(names, "here")
