"""How the command line answers: exit codes, one sentence for every error, no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.main import app
from atoll.errors import ChainDown, Refused, Unreachable
from atoll.wire.reasons import Reason

Atoll = Callable[..., Any]
COMMANDS = ("up", "deploy", "node", "gateway", "status", "stop", "pause", "resume", "claim", "statement", "explain",
            "deposit", "withdraw", "redeem",
            "get", "put", "run", "train", "job make", "job show", "job check", "data add", "data list",
            "data show", "data check", "settings", "key export", "key import")  # fmt: skip


def one_sentence(text: str) -> bool:
    return text.startswith("atoll: ") and text.endswith("\n") and text.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_with_an_example(atoll: Atoll, command: str) -> None:
    ran = atoll(*command.split(), "--help")
    assert ran.code == 0
    assert f"Example: atoll {command}" in ran.out


def test_no_command_is_missing_here() -> None:
    from typer.main import get_command

    names = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert names == {command.split()[0] for command in COMMANDS}


def test_without_arguments_it_helps(atoll: Atoll) -> None:
    ran = atoll()
    assert ran.code == 0
    assert "Start here: atoll up" in ran.out


def test_version(atoll: Atoll) -> None:
    assert re.fullmatch(r"atoll \d+\.\d+\.\d+\n", atoll("--version").out)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("up --nodez 3", "--nodes"),
        ("up --nodes 0", "--nodes"),
        ("up --attack shout", "random"),
        ("up --model gpt-cnn", "cnn"),
        ("up --dishonest 6", "fewer than --nodes"),
        ("up --registry 0x5FbDB2315678afecb367f032d93F642f64180aa3", "--rpc URL"),
        ("up --data /nowhere/at/all", "IDX files"),
        ("up --json /nowhere/at/all/out.json", "--json"),
        ("stats", "status"),
        ("key", "atoll key --help"),
        ("run", "atoll run --help"),
        ("node --set cpu_threads", "NAME=VALUE"),
        ("node --set cpu_thread=2", "cpu_threads"),
        ("node --set cpu_threads=0", "from 1 to 1024"),
        ("node --rpc nonsense", "http://"),
        ("deposit 1,5", "like 12.5"),
        ("withdraw 0.0", "positive"),
        ("put /nowhere/notes.txt", "/nowhere/notes.txt"),
        ("get 00 /nowhere/model.bin", "/nowhere/model.bin"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_that_helps(atoll: Atoll, line: str, told: str) -> None:
    ran = atoll(*line.split())
    assert ran.code == 2
    assert one_sentence(ran.err)
    assert told in ran.err
    assert ran.out == ""


def test_a_node_without_a_chain_says_what_to_give_and_leaves_an_explained_file(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("node", "--home", tmp_path / "n")
    assert ran.code == 2
    assert "--rpc URL and --registry ADDRESS" in ran.err
    text = (tmp_path / "n" / "config.toml").read_text()
    assert "# cpu_threads = 1" in text


def test_the_first_start_of_a_node_remembers_its_network(atoll: Atoll, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]  # closed before it is used: nothing answers there
    rpc, registry = f"http://127.0.0.1:{free}", "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    ran = atoll("node", "--home", tmp_path / "n", "--rpc", rpc, "--registry", registry)
    assert ran.code == ChainDown.exit_code
    text = (tmp_path / "n" / "config.toml").read_text()
    assert f'\nrpc = "{rpc}"\n' in text
    assert f'\nregistry = "{registry}"\n' in text
    again = atoll("node", "--home", tmp_path / "n")  # it asks the same chain without being told
    assert again.code == ChainDown.exit_code
    assert str(free) in again.err


@pytest.mark.parametrize("command", ["status", "pause", "resume", "claim", "statement", "explain", "stop"])
def test_nothing_runs_here(atoll: Atoll, tmp_path: Path, command: str) -> None:
    ran = atoll(command, "--home", tmp_path)
    assert ran.code == 12
    assert one_sentence(ran.err)
    assert str(tmp_path) in ran.err
    assert "atoll up" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("Nobody answered."), 20),
        (Refused(Reason.NOT_FOUND, "ab"), 21),
        (ChainDown("The chain does not answer."), 30),
    ],
)
def test_the_error_of_the_node_ends_the_command(
    atoll: Atoll, serve: Atoll, tmp_path: Path, error: Exception, code: int
) -> None:
    serve(tmp_path, {"claim": error})
    ran = atoll("claim", "--home", tmp_path)
    assert ran.code == code
    assert ran.err == f"atoll: {error}\n"


def test_a_mistake_of_ours_is_one_sentence_and_a_file(
    atoll: Atoll, serve: Atoll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path / "n", {"claim": {"claimed": "no number"}})
    ran = atoll("claim", "--home", tmp_path / "n")
    report = tmp_path / "base" / "crash.txt"
    assert ran.code == 70
    assert one_sentence(ran.err)
    assert str(report) in ran.err
    assert "Traceback" not in ran.err
    assert "no number" in report.read_text()
    monkeypatch.setenv("ATOLL_DEBUG", "1")
    shown = atoll("claim", "--home", tmp_path / "n")
    assert shown.code == 70
    assert "Traceback" in shown.err


def test_a_port_in_use_is_told_before_anything_starts(atoll: Atoll, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = atoll("up", "--port", port, "--home", tmp_path / "up", "--plain")
    assert ran.code == 10
    assert one_sentence(ran.err)
    assert str(port) in ran.err
    assert not (tmp_path / "up" / "chain").exists()


def process(home: Path, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ATOLL_HOME": str(home / "base")}
    return subprocess.Popen(
        [sys.executable, "-m", "atoll.cli.main", *args],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_process_ends_with_the_code(tmp_path: Path) -> None:
    with process(tmp_path, "status") as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (12, "")
    assert one_sentence(err)


def test_ctrl_c_ends_with_130_and_no_traceback(serve: Atoll, tmp_path: Path) -> None:
    running: list[subprocess.Popen[str]] = []

    def interrupt(_: object) -> None:
        running[0].send_signal(signal.SIGINT)  # while the command waits for this answer
        running[0].wait(timeout=60)

    serve(tmp_path / "n", {"explain": interrupt})
    running.append(process(tmp_path, "explain", "--home", str(tmp_path / "n")))
    out, err = running[0].communicate(timeout=60)
    assert running[0].returncode == 130
    assert (out, err.strip()) == ("", "")


def test_settings_are_those_of_the_table(atoll: Atoll) -> None:
    from atoll import config

    found = json.loads(atoll("settings", "--json").out)
    assert [row["name"] for row in found] == [row.name for row in config.TABLE]
    shown = atoll("settings").out
    assert all(row.name in shown for row in config.TABLE)
