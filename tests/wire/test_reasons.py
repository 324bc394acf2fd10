"""Reason codes: numbers are published and never change their meaning."""

from __future__ import annotations

from atoll.errors import Refused
from atoll.wire.reasons import Reason

# Published numbers. A line may be added; none may be edited or removed.
PUBLISHED = """
0 OK|1 MALFORMED|2 TOO_LARGE|3 BAD_VERSION|4 BAD_SIGNATURE|5 WRONG_DOMAIN|6 UNKNOWN_ACCOUNT|7 BAD_BINDING|8 NOT_LEADER
9 STALE|10 NOT_FOUND|11 BUSY|12 UNKNOWN_MESSAGE|13 PAUSED|14 EQUIVOCATION|15 BAD_PROOF|16 WRONG_HASH
30 COMMIT_MISMATCH|31 STATE_ORIGIN|32 UPDATE_MISMATCH|33 SEGMENT_MISMATCH|34 STATE_WITHHELD|35 NOT_REVEALED
36 AUDIT_MISMATCH|37 UNSETTLED|38 DIVERGED
60 BAD_ARCHIVE|61 BAD_MANIFEST|62 BAD_GRAPH|63 FORBIDDEN_OP|64 CUSTOM_DOMAIN|65 EXTERNAL_DATA|66 NESTED_GRAPH
67 TENSOR_TOO_LARGE|68 GRAPH_TOO_LARGE|69 TOO_MUCH_MEMORY|70 TOO_MUCH_COMPUTE|71 BAD_OPSET|72 BAD_SHAPE
73 BAD_ATTRIBUTE|74 BAD_SIGNATURE_OF_GRAPH
100 OVER_BUDGET|101 BAD_TOTAL|102 DUPLICATE
"""


def test_published_numbers_keep_their_names() -> None:
    for entry in PUBLISHED.replace("\n", "|").split("|"):
        if entry:
            number, name = entry.split()
            assert Reason(int(number)).name == name


def test_every_reason_is_a_sentence_and_fits_two_bytes() -> None:
    for reason in Reason:
        assert reason.sentence[0].isupper()
        assert reason.sentence.endswith(".")
        assert 0 <= reason < 1000  # two bytes in a receipt; the transport uses stream codes from 1,000 on
    assert len({reason.sentence for reason in Reason}) == len(Reason)


def test_a_refusal_names_its_reason() -> None:
    refused = Refused(Reason.BAD_OPSET, "opset 7")
    assert (refused.reason, refused.detail, str(refused)) == (71, "opset 7", "BAD_OPSET: opset 7")
    assert str(Refused(Reason.PAUSED)) == "PAUSED"
    assert refused.exit_code == 21
