"""The catalogue: names and hashes lead to the same model, and a wrong name says which there are."""

from __future__ import annotations

import pytest

from atoll.errors import UnknownModel
from atoll.inference import catalog


def test_name_and_hash_lead_to_the_same_model() -> None:
    for entry in catalog.CATALOGUE:
        info = entry.info
        assert catalog.is_blob_id(info.blob) and info.licence and info.bytes > 0
        for word in (info.id, info.id.upper(), info.blob, "0x" + info.blob):
            assert catalog.known(word) is entry
    assert catalog.known("nobody") is None


def test_unknown_names_are_told_what_there_is() -> None:
    error = catalog.unknown("smolm2-135m", ["cc" * 32])
    assert isinstance(error, UnknownModel)
    assert "did you mean smollm2-135m?" in str(error) and "minilm-l6" in str(error)
    assert "did you mean" not in str(catalog.unknown("zzzz"))


@pytest.mark.parametrize("text", ["", "ab" * 31, "zz" * 32, "ab" * 33, "0x", "0x" + "ab" * 31])
def test_what_is_no_blob_id(text: str) -> None:
    assert not catalog.is_blob_id(text)


def test_blob_ids_with_and_without_prefix() -> None:
    assert catalog.is_blob_id("AB" * 32) and catalog.is_blob_id("0x" + "ab" * 32)
