"""`atoll deposit`, `withdraw`, `redeem`: what they send, and what a person reads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import NoFunds

Atoll = Callable[..., Any]
ATL = 10**18
ACCOUNT = {
    "amount": "0", "deposit": str(5 * ATL), "free": str(3 * ATL), "paid": "0", "owed": str(2 * ATL), "earned": "0",
    "waiting": "0", "leaving": "0", "withdrawable_at": 0, "balance": str(7 * ATL),
}  # fmt: skip


def test_deposit_shows_and_adds(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    node = serve(tmp_path, {"deposit": ACCOUNT | {"amount": str(ATL * 3 // 2)}})
    told = atoll("deposit", "--home", tmp_path).out
    assert told.splitlines() == [
        "The deposit holds 5 ATL, of which 3 ATL are free for questions.",
        "2 ATL are owed to servers, which collect them from it.",
        "The account itself has 7 ATL.",
    ]
    assert atoll("deposit", "1.5", "--home", tmp_path).out == "Deposited 1.5 ATL.\n" + told
    assert node.asked == [("deposit", {}), ("deposit", {"amount": "1500000000000000000"})]
    assert json.loads(atoll("deposit", "--home", tmp_path, "--json").out)["deposit"] == str(5 * ATL)


def test_what_the_node_says_reaches_the_person(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    serve(tmp_path, {"deposit": NoFunds("This node's account has 1 ATL: too little.")})
    ran = atoll("deposit", "9", "--home", tmp_path)
    assert ran.code == NoFunds.exit_code and "too little" in ran.err
    missing = atoll("deposit", "9", "--home", tmp_path / "none")
    assert missing.code == 12 and "No node runs" in missing.err


@pytest.mark.parametrize("wrong", ["0", "x", "1e3", "-1", "0.0000000000000000001"])
@pytest.mark.parametrize("command", ["deposit", "withdraw"])
def test_amounts(atoll: Atoll, tmp_path: Path, command: str, wrong: str) -> None:
    assert atoll(command, "--home", tmp_path, "--", wrong).code == 2


def test_withdraw_tells_where_it_is(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    leaving = ACCOUNT | {"amount": str(2 * ATL), "leaving": str(2 * ATL), "received": False}
    later = leaving | {"withdrawable_at": int(time.time()) + 3600}
    answers: dict[str, Any] = {"withdraw": ACCOUNT | {"received": False}}
    node = serve(tmp_path, answers)
    assert atoll("withdraw", "--home", tmp_path).out.startswith("Nothing is on its way out: `atoll withdraw AMOUNT`")
    answers["withdraw"] = later
    assert atoll("withdraw", "2", "--home", tmp_path).out.startswith("Asked 2 ATL back: `atoll withdraw` brings it in ")
    assert atoll("withdraw", "--home", tmp_path).out.startswith("2 ATL are on their way out: `atoll withdraw` brings")
    answers["withdraw"] = ACCOUNT | {"amount": str(2 * ATL), "received": True}
    assert atoll("withdraw", "--home", tmp_path).out.startswith("Received 2 ATL.\n")
    assert [params for _, params in node.asked] == [{}, {"amount": str(2 * ATL)}, {}, {}]


def test_redeem(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    answers: dict[str, Any] = {"redeem": {"redeemed": "0", "waiting": "0", "payers": 0}}
    serve(tmp_path, answers)
    assert "Nothing is waiting" in atoll("redeem", "--home", tmp_path).out
    answers["redeem"] = {"redeemed": str(3 * ATL), "waiting": "0", "payers": 2}
    assert atoll("redeem", "--home", tmp_path).out == "Collected 3 ATL.\n"
    answers["redeem"] = {"redeemed": str(3 * ATL), "waiting": str(ATL), "payers": 2}
    assert atoll("redeem", "--home", tmp_path).out == "Collected 3 ATL; 1 ATL stay for the next time.\n"
