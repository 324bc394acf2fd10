"""The tables at the end of `atoll up`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from atoll.cli.summary import print_summary

PAID, LIAR, MODEL = "0x" + "1" * 40, "0x" + "6" * 40, "ab" * 32
SUMMARY: dict[str, Any] = {
    "nodes": 6, "rounds": 3, "accounts": {"node-1": PAID, "node-6": LIAR}, "accuracy": [0.5, None, 0.9125],
    "baseline_accuracy": 0.8, "rejected": [{"node": "node-6", "account": LIAR, "round": 1, "reason": "STATE_WITHHELD"}],
    "paid": {LIAR: "0", PAID: "1500000000000000000"}, "escrow_in": "2000000000000000001",
    "escrow_out": "1500000000000000000", "refunded": "500000000000000001", "claims": 5, "explain": "match",
    "bytes_up": 1_000_000, "bytes_down": 2_000_000, "seconds": {"training": 12.34, "lock": 1.0, "total": 20},
    "model": MODEL,
    "answer": {"picture": "/home/ann/a b.png", "label": 7, "class": 7},
    "chain": {"kind": "embedded", "rpc": "http://127.0.0.1:8545", "contracts": {"registry": "0x5F"}},
    "join": "atoll node --rpc x --registry y", "page": "http://127.0.0.1:8470/", "home": "/home/ann/my net",
}  # fmt: skip


def shown(summary: dict[str, Any], running: bool = True) -> list[str]:
    console = Console(width=120, file=io.StringIO(), record=True)
    print_summary(summary, running=running, console=console)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_what_happened() -> None:
    lines = shown(SUMMARY)
    assert "accuracy 91.25% (one worker alone, on its own share of the data: 80.00%)" in lines
    assert "by round ▅█ 50.0% 91.2%" in lines
    assert "escrow 2.000000000000000001 ATL in = 1.5 paid + 0.500000000000000001 refunded" in lines
    assert "check every payment recomputed from the receipts: matches the chain" in lines
    assert "time training 12.3 s, total 20.0 s" in lines
    assert lines.index(f"node-1 {PAID} 1.5") < lines.index(f"node-6 {LIAR} 0")
    assert any(line.startswith("1 node-6 STATE_WITHHELD A committed state was not opened") for line in lines)


def test_sums_that_do_not_match_cannot_be_overlooked() -> None:
    text = "\n".join(shown(SUMMARY | {"refunded": "500000000000000000", "explain": "epoch 1: the root differs"}))
    assert "does not add up: 0.000000000000000001 ATL apart" in text
    assert "epoch 1: the root differs" in text
    assert "matches the chain" not in text


def test_the_next_steps_can_be_pasted() -> None:
    text = "\n".join(shown(SUMMARY))
    assert "atoll statement --home '/home/ann/my net' #" in text
    assert f"atoll statement {LIAR} --home '/home/ann/my net' #" in text
    assert f"atoll run {MODEL} '/home/ann/a b.png' --home '/home/ann/my net' #" in text
    assert f"atoll get {MODEL} model.bin --home '/home/ann/my net' #" in text
    assert "atoll node --rpc x --registry y #" in text


def test_after_the_end_only_what_works_is_named() -> None:
    text = "\n".join(shown(SUMMARY, running=False))
    assert "atoll up --home '/home/ann/my net' #" in text
    assert "atoll run" not in text


def test_the_usual_home_needs_no_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path))
    assert "--home" not in "\n".join(shown(SUMMARY | {"home": str(tmp_path)}))


def test_half_a_summary_can_be_shown() -> None:
    assert any(line.startswith("network") for line in shown({}))
