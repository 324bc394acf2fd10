from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.storage.placement import Node, group_of, order, place
from atoll.wire.hashing import Tag, blob_id, tagged

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())


def node(number: int, group: str | None = None) -> Node:
    return Node(number.to_bytes(20, "big"), group if group is not None else f"10.0.{number}.0/24")


def network() -> st.SearchStrategy[list[Node]]:
    """Nodes with distinct accounts in a few groups."""
    return st.dictionaries(st.integers(1, 500), st.integers(0, 4), min_size=1, max_size=30).map(
        lambda found: [node(number, f"group {group}") for number, group in found.items()]
    )


@pytest.mark.parametrize("case", VECTORS["placement"])
def test_golden_order(case: dict[str, Any]) -> None:
    nodes = [Node(bytes.fromhex(account), group) for account, group in case["nodes"]]
    assert [account.hex() for account in order(bytes.fromhex(case["blob"]), nodes)] == case["order"]


def test_without_shared_groups_the_order_is_by_weight() -> None:
    blob = blob_id(b"something")
    nodes = [node(number) for number in range(1, 30)]
    expected = sorted(
        (account for account, _ in nodes), key=lambda account: tagged(Tag.PLACEMENT, blob, account), reverse=True
    )
    assert order(blob, nodes) == expected


@given(nodes=network(), blob=st.binary(min_size=32, max_size=32), data=st.data())
def test_holders_are_distinct_and_the_listing_order_does_not_matter(
    nodes: list[Node], blob: bytes, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(nodes)))
    holders = place(blob, count, nodes)
    assert len(set(holders)) == count
    assert holders == place(blob, count, data.draw(st.permutations(nodes)))
    assert holders == order(blob, nodes + nodes[:1])[:count]


@given(nodes=network(), blob=st.binary(min_size=32, max_size=32), data=st.data())
def test_no_group_takes_two_more_than_another_that_could_take_more(
    nodes: list[Node], blob: bytes, data: st.DataObject
) -> None:
    holders = place(blob, data.draw(st.integers(0, len(nodes))), nodes)
    group = dict(nodes)
    room, used = Counter(group.values()), Counter(group[holder] for holder in holders)
    for one in room:
        for other in room:
            if used[one] < room[one]:
                assert used[other] <= used[one] + 1


@settings(max_examples=200)
@given(nodes=network(), blob=st.binary(min_size=32, max_size=32), data=st.data())
def test_a_node_that_leaves_changes_one_holder_at_most(nodes: list[Node], blob: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(nodes) - 1))
    leaver = data.draw(st.sampled_from(nodes))
    before = set(place(blob, count, nodes))
    after = set(place(blob, count, [other for other in nodes if other != leaver]))
    assert len(before - after) == (1 if leaver.account in before else 0)


def test_balance() -> None:
    nodes = [node(number) for number in range(1, 21)]
    load = Counter(holder for number in range(3000) for holder in place(blob_id(number.to_bytes(4, "big")), 6, nodes))
    # 3000 * 6 / 20 = 900 each; the deviation of one is sqrt(3000 * 0.3 * 0.7) = 25, so 5 of them are 125.
    assert set(load) == {account for account, _ in nodes}
    assert max(abs(count - 900) for count in load.values()) < 125


def test_more_pieces_than_nodes() -> None:
    with pytest.raises(ValueError, match="3 pieces need as many nodes, there are 2"):
        place(bytes(32), 3, [node(1), node(2)])


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::5", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("node.example", "node.example"),
        ("", ""),
    ],
)
def test_groups(host: str, group: str) -> None:
    assert group_of(host) == group
