"""The live view and the plain lines: what is drawn, at any size, and nothing twice."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from atoll.cli.live import LiveView, News, PlainView, picture
from atoll.gateway import figures
from atoll.gateway.facts import Facts, NodeFacts

LIAR = "0x" + "6" * 40


def status(account: str, **changes: Any) -> dict[str, Any]:
    job = {"round": 3, "rounds": 12, "phase": "audit", "done": False, "certified": 3}
    return {
        "account": account, "roles": ["worker", "validator"], "registered": True, "paused": False, "epochs": 2,
        "balance": "1000500000000000000000", "earned": "1999999999999999999", "bytes": {"up": 1500, "down": 2_500_000},
        "jobs": [job],
    } | changes  # fmt: skip


def facts(**changes: Any) -> Facts:
    start = Facts(
        phase="training",
        started=1000.0,
        network={"rpc": "http://127.0.0.1:8545", "chain_id": 31337, "join": "atoll node --rpc x --registry y"},
        nodes=[
            NodeFacts(1, "node-1", 11, True, False, status("0x" + "1" * 40)),
            NodeFacts(2, "node-2", None, False, False, None),
            NodeFacts(3, "node-3", 13, True, True, status(LIAR)),
        ],
        job={"round": 3, "rounds": 12, "phase": "audit", "done": False, "certified": 3},
        accuracy={0: 0.25, 1: 0.5, 2: 0.9125},
        rejected=[{"node": LIAR, "round": 2, "reason": "SEGMENT_MISMATCH"}],
        lines=["  1.0 s  the chain answers"],
        page="http://127.0.0.1:8470/",
    )
    return dataclasses.replace(start, **changes)


def drawn(found: Facts, width: int = 140, height: int = 40, left: float | None = None) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(picture(found, 1075.0, left, width, height))
    return console.export_text()


def test_the_picture_tells_everything() -> None:
    lines = [" ".join(line.split()) for line in drawn(facts(), left=95.0).splitlines()]
    assert lines[0] == "Atoll round 3: auditing chain 31337 · epoch 2 · 1 min 15 s · 3.0 kB up, 5.0 MB down"
    assert "node-1 0x1111…1111 worker validator working 3: auditing 1.5 kB 2.5 MB 1.99 1000.5 -" in lines
    assert "node-2 - - down - 0 B 0 B 0 0 -" in lines
    assert any(line.startswith("node-3 0x6666…6666") and line.endswith(" 1") for line in lines)
    assert any("3 of 12 rounds, 1 min 35 s left" in line for line in lines)
    assert "accuracy ▃▅█ 91.2% after round 2; best 91.2%" in lines
    assert any(line.startswith("refused node-3 in round 2: Re-running a segment") for line in lines)
    assert "1.0 s the chain answers" in lines


@pytest.mark.parametrize("width", [20, 40, 80, 109, 110, 200])
@pytest.mark.parametrize("height", [5, 24, 60])
def test_the_picture_keeps_to_its_size(width: int, height: int) -> None:
    many = [NodeFacts(i, f"node-{i}", i, True, False, status(f"0x{i:040x}")) for i in range(1, 40)]
    text = drawn(facts(nodes=many, lines=[f"line {i} " + "x" * 300 for i in range(50)]), width, height)
    assert all(len(line) <= width for line in text.splitlines())
    assert height < 24 or len(text.splitlines()) <= height
    assert (f"and {39 - max(3, height - 16)} more" in text) == (height < 60)


def test_at_80_columns_every_number_can_be_read() -> None:
    line = next(line for line in drawn(facts(), 80, 24).splitlines() if line.startswith("node-1"))
    assert line.split() == [
        "node-1",
        "WV",
        "working",
        "3:",
        "auditing",
        "1.5",
        "kB",
        "2.5",
        "MB",
        "1.99",
        "1000.5",
        "-",
    ]


@pytest.mark.parametrize("width", [80, 99, 100, 123, 124])
def test_no_cell_is_cut_where_the_layout_changes(width: int) -> None:
    roles = ["worker", "validator", "holder", "server"]
    jobs = [{"round": 11, "rounds": 12, "phase": "certify", "done": False}]
    wide = status("0x" + "1" * 40, roles=roles, jobs=jobs, balance="99506039999999999999999", earned="1" + "0" * 20)
    text = drawn(facts(nodes=[NodeFacts(1, "node-64", 1, True, False, wide)], rejected=[]), width, 24)
    heading, row = text.splitlines()[1:3]
    assert heading.split()[-5:] == ["up", "down", "earned", "balance", "refused"]
    assert ("account" in heading) == (width >= 100)
    shown = "worker validator holder server" if width >= 124 else "WVHS"
    told = " ".join(row.replace("0x1111…1111", "").split())
    assert told == f"node-64 {shown} working 11: aggregating 1.5 kB 2.5 MB 100 99506.03 -"


def test_a_network_that_has_just_begun_can_be_drawn() -> None:
    assert "starting the chain and the nodes" in drawn(Facts("starting", 1000.0))


def test_markup_in_what_comes_from_the_network_is_only_text() -> None:
    nodes = [NodeFacts(1, "[red]x[/]", 1, True, False, status("0x" + "1" * 40))]
    text = drawn(facts(nodes=nodes, lines=["[bold]loud[/bold]"]))
    assert "[red]x[/]" in text
    assert "[bold]loud[/bold]" in text


def test_the_live_view_draws_and_leaves_the_last_picture() -> None:
    out = io.StringIO()
    with LiveView(facts, Console(file=out, force_terminal=True, width=120, height=40)):
        pass
    assert "node-3" in out.getvalue()


# Plain lines
def test_news_are_told_once() -> None:
    news = News()
    first = news.of(facts(), 1075.0)
    assert "  75.0 s  round 2: accuracy 91.25%" in first
    assert "  75.0 s  node-1 is up (0x1111…1111)" in first
    assert "  75.0 s  node-2 is down" in first
    assert sum("REFUSED node-3 in round 2: SEGMENT_MISMATCH" in line for line in first) == 1
    assert "  1.0 s  the chain answers" in first
    assert news.of(facts(), 1080.0) == []


def test_news_tell_only_what_changed() -> None:
    news = News()
    news.of(facts(), 1075.0)
    later = facts(
        accuracy={0: 0.25, 1: 0.5, 2: 0.9125, 3: 0.93},
        nodes=[dataclasses.replace(facts().nodes[0], alive=False), *facts().nodes[1:]],
        lines=["  1.0 s  the chain answers", "  9.0 s  node-1 died, it is started again"],
    )
    assert news.of(later, 1080.0) == [
        "  80.0 s  node-1 is down",
        "  80.0 s  round 3: accuracy 93.00%",
        "  9.0 s  node-1 died, it is started again",
    ]


def test_a_node_that_returns_is_told_again() -> None:
    news = News()
    down = facts(nodes=[dataclasses.replace(facts().nodes[0], alive=False)])
    up = facts(nodes=facts().nodes[:1])
    told = [line for found in (up, down, up) for line in news.of(found, 1001.0) if "node-1" in line]
    assert told == ["   1.0 s  node-1 is up (0x1111…1111)", "   1.0 s  node-1 is down",
                    "   1.0 s  node-1 is up (0x1111…1111)"]  # fmt: skip


def test_log_lines_that_moved_out_of_the_window_are_not_told_again() -> None:
    news = News()
    told: list[str] = []
    for window in (["a", "b", "c"], ["b", "c", "d"], ["b", "c", "d"], ["d", "d", "e"], ["x", "y"]):
        told += news.of(Facts("starting", 0.0, lines=window), 1.0)
    assert [line for line in told if len(line) == 1] == ["a", "b", "c", "d", "d", "e", "x", "y"]


def test_the_plain_view_tells_the_last_news_before_it_ends() -> None:
    out = io.StringIO()
    now = [facts()]
    with PlainView(lambda: now[0], out):
        now[0] = facts(phase="done", job={"round": 12, "rounds": 12, "done": True})
    assert "all 12 rounds are certified" in out.getvalue()
    assert len(set(out.getvalue().splitlines())) == len(out.getvalue().splitlines())


# Figures
@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12.3 kB"), (123_456, "123 kB"), (5_678_901, "5.7 MB"),
     (10**9, "1.0 GB"), (3 * 10**15, "3000 TB")],
)  # fmt: skip
def test_size(count: int, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), ("1", "0"), ("1999999999999999999", "1.99"), ("1500000000000000000", "1.5"), (None, "0"),
     ("100000000000000000000", "100"), ("nonsense", "0")],
)  # fmt: skip
def test_tokens_never_show_more_than_there_is(amount: str | None, text: str) -> None:
    assert figures.tokens(amount) == text


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0 s"), (59.4, "59 s"), (125, "2 min 05 s"), (7800, "2 h 10 min")])
def test_duration(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_short_and_sparkline() -> None:
    assert figures.short("0x1234567890abcdef") == "0x1234…cdef"
    assert figures.short("0x1234567890abcdef", 10, 0) == "0x12345678…"
    assert figures.short("short") == "short"
    assert figures.sparkline([-1, 0, 0.124, 0.126, 0.5, 0.99, 1, 2]) == "▁▁▁▂▅███"


def test_pace_is_that_of_the_rounds_it_saw() -> None:
    pace = figures.Pace()
    assert pace.remaining(2, 12, 100.0) is None  # it came in the middle, and does not know how long round 2 took
    assert pace.remaining(2, 12, 103.0) is None
    assert pace.remaining(4, 12, 110.0) == 40.0  # two rounds in 10 s: eight rounds in 40 s
    assert pace.remaining(4, 12, 113.0) == 37.0
    assert pace.remaining(4, 12, 999.0) == 0.0
    assert figures.Pace().remaining(0, 0, 1.0) is None


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (NodeFacts(1, "n", None, False, False, None), "down"),
        (NodeFacts(1, "n", 5, True, False, None), "silent"),
        (NodeFacts(1, "n", 5, True, False, status("0x", paused=True)), "paused"),
        (NodeFacts(1, "n", 5, True, False, status("0x", registered=False)), "joining"),
        (NodeFacts(1, "n", 5, True, False, status("0x", jobs=[])), "ready"),
        (NodeFacts(1, "n", 5, True, False, status("0x")), "working"),
        (NodeFacts(1, "n", 5, True, False, status("0x", jobs=[{"round": 12, "done": True}])), "finished"),
        (NodeFacts(1, "n", 5, True, False, {"bytes": 7, "jobs": "x", "roles": None, "earned": []}), "ready"),
    ],
)
def test_states(node: NodeFacts, state: str) -> None:
    assert figures.node_rows(facts(nodes=[node]))[0].state == state


def test_a_reason_of_a_newer_version_is_told_as_such() -> None:
    found = figures.verdicts(facts(rejected=[{"node": LIAR, "round": 1, "reason": "UNHEARD_OF"}]))
    assert "newer Atoll" in found[0].sentence
