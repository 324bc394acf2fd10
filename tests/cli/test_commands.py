"""The commands that ask a node: what they send, and what a person reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Atoll = Callable[..., Any]

ACCOUNT = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
JOB = "0x" + "1f" * 32
STATUS = {
    "account": ACCOUNT, "endpoint": "ee" * 32, "name": "node-1", "roles": ["worker", "holder"], "version": "0.1.0",
    "addresses": ["127.0.0.1:4000"], "uptime": 75.0, "paused": False, "registered": True, "validator": True, "peers": 5,
    "balance": "1250000000000000000", "stake": "20000000000000000000", "earned": "3500000000000000000",
    "claimed": "1000000000000000000", "bytes": {"up": 1234, "down": 5678901}, "stored": {"blobs": 10, "pieces": 20},
    "gas": {}, "epochs": 3,
    "jobs": [{"job": JOB, "name": "digits", "round": 3, "rounds": 12, "phase": "audit", "done": False, "certified": 3,
              "accuracy": {"0": 0.5, "1": 0.75, "2": 0.9125}, "rejected": [{"node": ACCOUNT}], "model": "ab" * 32}],
}  # fmt: skip
STATEMENT: dict[str, Any] = {
    "account": ACCOUNT.lower(), "earned": "1500000000000000000", "refused": 1,
    "epochs": [{"epoch": 0, "earned": "1500000000000000000"}],
    "lines": [
        {"epoch": 0, "job": JOB, "round": 4, "unit": "0x" + "ab" * 32, "kind": 1, "amount": "1500000000000000000",
         "reason": 0, "sentence": "Training unit: accepted and paid."},
        {"epoch": 0, "job": JOB, "round": 5, "unit": "0x" + "cd" * 32, "kind": 1, "amount": "0",
         "reason": 33, "sentence": "Refused (training unit, SEGMENT_MISMATCH): so it was."},
    ],
}  # fmt: skip


def test_status_for_a_person(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    serve(tmp_path, {"status": STATUS})
    ran = atoll("status", "--home", tmp_path)
    assert ran.code == 0
    told = " ".join(ran.out.split())
    assert "earned 3.5 ATL, 2.5 ATL to claim" in told
    assert "balance 1.25 ATL" in told
    assert "traffic 1.2 kB up, 5.7 MB down" in told
    assert "digits 3 of 12 auditing 91.25% 1" in told
    assert f"model of 0x1f1f…1f1f: {'ab' * 32}" in told
    assert "answers" not in told
    sums = {"deposit": "5" + "0" * 18, "free": "4" + "0" * 18, "paid": "1" + "0" * 18, "owed": "0",
            "earned": "2" + "0" * 18, "waiting": "5" + "0" * 17}  # fmt: skip
    serve(tmp_path / "rich", {"status": STATUS | {"answers": sums}})
    told = " ".join(atoll("status", "--home", tmp_path / "rich").out.split())
    assert "answers deposit 5 ATL (4 free), 1 paid for answers, 2 ATL earned (0.5 to redeem)" in told


def test_status_for_a_program_is_the_answer_itself(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    serve(tmp_path, {"status": STATUS})
    assert json.loads(atoll("status", "--home", tmp_path, "--json").out) == STATUS


def test_a_home_of_up_stands_for_its_first_running_node(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "control.json").write_text('{"port": 1, "token": "00", "pid": 999999999}')  # killed
    for number in (10, 2):
        serve(tmp_path / f"node-{number}", {"status": STATUS | {"name": f"node-{number}"}})
    assert json.loads(atoll("status", "--home", tmp_path, "--json").out)["name"] == "node-2"


def test_the_base_folder_of_the_environment_is_used(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    serve(tmp_path / "base" / "node", {"resume": {"paused": False}})
    assert atoll("resume").code == 0


def test_pause_and_resume(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path, {"pause": {"paused": True}, "resume": {"paused": False}})
    assert "atoll resume" in atoll("pause", "--home", tmp_path).out
    assert json.loads(atoll("resume", "--home", tmp_path, "--json").out) == {"paused": False}
    assert [name for name, _ in node.asked] == ["pause", "resume"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"claimed": "2500000000000000000", "note": ""}, "Claimed 2.5 ATL.\n"),
        ({"claimed": "0", "note": "Nothing is waiting."}, "Nothing is waiting.\n"),
    ],
)
def test_claim(atoll: Atoll, serve: Atoll, tmp_path: Path, answer: dict[str, str], told: str) -> None:
    serve(tmp_path, {"claim": answer})
    assert atoll("claim", "--home", tmp_path).out == told


def test_statement(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path, {"statement": STATEMENT})
    ran = atoll("statement", ACCOUNT, "--home", tmp_path)
    assert node.asked == [("statement", {"account": ACCOUNT})]
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[:3] == [ACCOUNT, "1.5 ATL earned in 1 epoch, 1 refused", f"job {JOB}"]
    assert "0 4 0xabababab… training unit 1.5 Training unit: accepted and paid." in lines
    assert any(line.startswith("0 5 0xcdcdcdcd… training unit 0 Refused") for line in lines)
    assert json.loads(atoll("statement", "--home", tmp_path, "--json").out) == STATEMENT
    assert node.asked[-1] == ("statement", {})


def test_statement_over_several_jobs_tells_them_apart(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    lines = [STATEMENT["lines"][0], STATEMENT["lines"][1] | {"job": "0x" + "2e" * 32}]
    serve(tmp_path, {"statement": STATEMENT | {"lines": lines}})
    told = " ".join(atoll("statement", "--home", tmp_path).out.split())
    assert "0 0x1f1f1f1f… 4 0xabababab…" in told
    assert "0 0x2e2e2e2e… 5 0xcdcdcdcd…" in told


def test_explain_ends_with_1_when_the_chain_differs(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    checked = {"epochs": 2, "receipts": 40, "accounts": 6, "jobs": 1, "claims": 5}
    serve(tmp_path / "good", {"explain": {"explain": "match", "first_difference": None, "checked": checked}})
    difference = {"explain": "differs", "first_difference": "epoch 1: the account root differs", "checked": checked}
    serve(tmp_path / "bad", {"explain": difference})
    good, bad = atoll("explain", "--home", tmp_path / "good"), atoll("explain", "--home", tmp_path / "bad")
    assert good.code == 0
    assert good.out.startswith("matches the chain (2 epochs, 40 receipts")
    assert bad.code == 1
    assert "epoch 1: the account root differs" in bad.out


def test_get_asks_for_an_absolute_path_and_replaces_nothing(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path, {"get": lambda params: {"bytes": Path(params["out"]).write_bytes(b"model")}})
    out = tmp_path / "model.bin"
    assert atoll("get", "ab" * 32, out, "--home", tmp_path).out == f"5 bytes in {out}.\n"
    assert node.asked == [("get", {"blob": "ab" * 32, "out": str(out)})]
    again = atoll("get", "ab" * 32, out, "--home", tmp_path)
    assert again.code == 2
    assert "--force" in again.err
    assert atoll("get", "ab" * 32, out, "--home", tmp_path, "--force").code == 0


def test_put_sends_an_absolute_path(
    atoll: Atoll, serve: Atoll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = serve(tmp_path, {"put": {"blob": "cd" * 32, "k": 4, "n": 6}})
    (tmp_path / "notes.txt").write_bytes(b"notes")
    monkeypatch.chdir(tmp_path)
    assert f"atoll get {'cd' * 32}" in atoll("put", "notes.txt", "--home", tmp_path).out
    assert node.asked == [("put", {"file": str(tmp_path / "notes.txt")})]


def test_stop_a_node(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path, {"stop": {"stopping": True}})
    assert atoll("stop", "--home", tmp_path).out == f"Stopping: {tmp_path}.\n"
    assert node.asked == [("stop", {})]


SUPERVISOR = """
import json, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
open(sys.argv[1], "w").write(json.dumps({"pid": os.getpid()}))
print("ready", flush=True)
signal.pause()
"""


def test_stop_of_a_network_ends_its_supervisor_and_asks_no_node(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path / "node-1", {"stop": {"stopping": True}})
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "up.json"), "atoll up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        ran = atoll("stop", "--home", tmp_path, "--json")
        assert ran.code == 0
        assert json.loads(ran.out)["pid"] == running.pid
        assert running.wait(timeout=10) == 0
    assert node.asked == []


def test_stop_leaves_a_stranger_alone_that_has_the_number_of_a_dead_supervisor(
    atoll: Atoll, serve: Atoll, tmp_path: Path
) -> None:
    home = tmp_path.parent / "h"  # "atoll" must not be in the stranger's command line
    node = serve(home / "node-3", {"stop": {"stopping": True}})
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (home / "up.json").write_text(json.dumps({"pid": stranger.pid}))
        assert atoll("stop", "--home", home).code == 0
        assert stranger.poll() is None
        os.kill(stranger.pid, signal.SIGKILL)
    assert node.asked == [("stop", {})]
