"""Keys, limits, the socket's patience and the words of the page /join, in Node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.wire.hashing import keccak
from atoll.wire.identity import CURVE_ORDER, AccountKey, format_account
from tests.web.rounds import Lines

KEY = AccountKey(keccak(b"a browser"))
NETWORK = {"chainId": 31337, "registry": "11" * 20}
HOUR = 3_600_000


def ask(*question: Any) -> Any:
    """What a function of the modules returns."""
    answer = Lines.of("keys.mjs").ask(question)
    assert "found" in answer, answer
    return answer["found"]


def refusal(*question: Any) -> str:
    """The sentence with which a text is refused as a key."""
    answer = Lines.of("keys.mjs").ask(question)
    assert answer["thrown"] == "BadKey"
    return str(answer["message"])


# Keys
def test_a_key_comes_from_the_dice_and_stays() -> None:
    made = ask("create", [KEY.private.hex()])
    assert made["account"] == KEY.address.hex()
    assert made["network"] is None
    assert ask("load") == made


def test_bytes_that_are_no_key_are_drawn_again() -> None:
    bad = ["00" * 32, "ff" * 32, CURVE_ORDER.to_bytes(32, "big").hex()]
    assert ask("create", [*bad, KEY.private.hex()])["account"] == KEY.address.hex()


def test_a_key_goes_out_and_comes_in_with_its_network() -> None:
    ask("create", [KEY.private.hex()])
    text = ask("remember", NETWORK)["text"]
    shown = json.loads(text)
    assert shown["account"] == format_account(KEY.address)
    assert shown["private"] == "0x" + KEY.private.hex()
    assert shown["network"] == {"chain_id": 31337, "registry": "0x" + "11" * 20}
    ask("create", ["22" * 32])
    again = ask("import", text)
    assert (again["account"], again["network"]) == (KEY.address.hex(), NETWORK)
    assert ask("load") == again


@pytest.mark.parametrize("text", [KEY.private.hex(), "0x" + KEY.private.hex(), f"  {KEY.private.hex().upper()}\n"])
def test_plain_digits_are_a_key(text: str) -> None:
    assert ask("read", text)["account"] == KEY.address.hex()


def test_what_is_no_key_is_refused_in_words() -> None:
    good = json.loads(ask("read", KEY.private.hex())["text"])
    assert "This is no key" in refusal("read", "hello")
    assert "This is no key" in refusal("read", KEY.private.hex()[:-1])
    assert "no key of a form" in refusal("read", json.dumps(good | {"atoll_key": 2}))
    assert "no key of a form" in refusal("read", json.dumps(good | {"private": 7}))
    assert "no key of a form" in refusal("read", "null")
    assert "do not belong together" in refusal("read", json.dumps(good | {"account": "0x" + "11" * 20}))
    assert "no key of this kind" in refusal("read", "00" * 32)
    for network in ({"chain_id": "x", "registry": "0x"}, {"chain_id": 1}):
        assert "network" in refusal("read", json.dumps(good | {"network": network}))


# Limits
def test_limits_stay_within_their_ranges() -> None:
    default = ask("limits", None)
    assert ask("limits", "not json") == ask("limits", "null") == default
    found = ask(
        "limits", json.dumps({"dataPerHour": -5, "cpuShare": 1e9, "batteryFloor": "x", "light": True, "other": 1})
    )
    assert found == default | {"dataPerHour": 1, "cpuShare": 100, "light": True}


@pytest.mark.parametrize(
    ("limits", "facts", "words"),
    [
        ({}, {}, ""),
        ({}, {"paused": True}, "Paused by you"),
        ({}, {"hidden": True}, ""),
        ({"pauseHidden": True}, {"hidden": True}, "hidden"),
        ({"onlyCharging": True}, {}, ""),
        ({"onlyCharging": True}, {"battery": {"level": 1, "charging": False}}, "charger"),
        ({"onlyCharging": True}, {"battery": {"level": 0.1, "charging": True}}, ""),
        ({"batteryFloor": 30}, {"battery": {"level": 0.29, "charging": False}}, "below 30 %"),
        ({"batteryFloor": 30}, {"battery": {"level": 0.30, "charging": False}}, ""),
        ({"dataPerHour": 5}, {"bytesThisHour": 4_999_999}, ""),
        ({"dataPerHour": 5}, {"bytesThisHour": 5_000_000}, "5 MB"),
    ],
)
def test_when_work_may_begin(limits: dict[str, Any], facts: dict[str, Any], words: str) -> None:
    said = ask("whyNot", limits, {"paused": False, "hidden": False, "bytesThisHour": 0, "battery": None} | facts)
    assert words in said
    assert bool(said) == bool(words)


def test_slow_devices_take_small_units_unless_their_owner_says_otherwise() -> None:
    assert [ask("wantsLight", {}, speed) for speed in (100, 399, 400, 3000)] == [True, True, False, False]
    assert [ask("wantsLight", {}, 3000, late) for late in (0, 1, 2)] == [False, False, True]  # they came too late
    assert ask("wantsLight", {"light": False}, 1, 5) is False
    assert ask("wantsLight", {"light": True}, 9999) is True


def test_data_counts_for_an_hour() -> None:
    rows = [[10, 0], [20, 30_000], [5, HOUR // 2]]
    assert ask("meter", rows, HOUR // 2) == [35, 35]
    assert ask("meter", rows, HOUR + 60_000) == [5, 35]
    assert ask("meter", rows, 2 * HOUR) == [0, 35]


def test_an_estimate_waits_for_three_pieces_and_is_rough() -> None:
    assert ask("perHour", 3, 59_999, 3) is None
    assert ask("perHour", 3, HOUR // 2, 2) is None
    assert ask("perHour", 3, HOUR // 2, 3) == 6
    assert ask("perHour", 1.23456e18, HOUR // 3, 4) == 3.7e18
    assert ask("perHour", 1.23456e18, HOUR, 4) == 1.23e18


# Words
def test_the_socket_waits_longer_each_time() -> None:
    assert [ask("backoff", attempt, 1) for attempt in (0, 1, 5, 6, 50)] == [1000, 2000, 32000, 60000, 60000]
    assert ask("backoff", 3, 0) == 4000
    assert ask("address", "http://192.168.0.7:8470/join") == "ws://192.168.0.7:8470/join/socket"
    assert ask("address", "https://example.org/join?x#y") == "wss://example.org/join/socket"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), ("1", "0"), ("1500000000000000000", "1.5"), ("123456789000000000000000", "123456.789"),
     ("333333333333333333", "0.3333"), ("-500000000000000000", "-0.5"), (str(10**30), "1000000000000")],
)  # fmt: skip
def test_amounts_are_cut_to_what_people_read(amount: str, text: str) -> None:
    assert ask("tokens", amount) == text


def test_the_state_is_one_sentence() -> None:
    base: dict[str, Any] = {
        "running": True, "connection": "open", "wait": 0, "full": "", "why": "", "account": {}, "joining": "",
        "task": None, "jobs": [],
    }  # fmt: skip
    unit = {"round": 4}
    assert ask("sentence", base) == "No job is open now. Waiting for one."
    assert ask("sentence", base | {"account": None}) == "Connecting to the gateway."
    assert ask("sentence", base | {"connection": "closed", "wait": 4200}).endswith("trying again in 5 s.")
    task = {"what": "audit", "unit": unit, "name": "mnist"}
    assert ask("sentence", base | {"task": task}) == "Checking the unit of another device of mnist, round 5."
    assert ask("sentence", base | {"why": "Paused by you.", "task": task}).endswith("The unit under way waits.")
    assert ask("sentence", base | {"jobs": [{"done": True}]}) == "The job is done. Waiting for a new one."
    assert "taken" in ask("sentence", base | {"jobs": [{"places": 0}]})
    late = {"units": {"u": {"locked": False, "states": None}}, "round": 1}
    words = [ask("sentence", base | {"jobs": [{"state": late, "phase": phase, "rounds": 9, "onRoster": True}]})
             for phase in (1, 3)]  # fmt: skip
    assert words == ["Round 2 of 9: the unit is not in the committee's list. Waiting for the next round."] * 2
    behind = {"following": True, "state": {"round": 41}, "rounds": 60}
    assert ask("sentence", base | {"jobs": [behind]}) == "Checking who may decide now: round 42 of 60."


def test_what_a_visit_will_and_did_bring_is_said() -> None:
    job = {"state": "running", "label": "mnist", "unit_price": str(10**18), "segments": 4, "places": 2}
    one = "mnist pays 1 ATL for an accepted unit, a small one 0.25"
    assert ask("offers", [job], "ATL") == f"Open now: {one}."
    assert ask("offers", [job] * 5, "ATL") == f"Open now: {one}; {one}; {one}; and 2 more."
    assert ask("offers", [job | {"state": "done"}], "ATL").startswith("No job is open now.")
    assert ask("offers", [job | {"places": 0}], "ATL").startswith("All places in the open jobs are taken now.")
    assert ask("offers", [job | {"places": None, "unit_price": None}], "ATL") == "Open now: mnist."
    assert ask("summary", "1500000000000000000", 1, "ATL").startswith(
        "In this visit: 1.5 ATL earned, 1 piece of work accepted."
    )


# What a visit did
JOB, OTHER = "ab" * 32, "cd" * 32


def line(number: int, kind: int = 1, reason: int = 0, job: str = JOB) -> dict[str, Any]:
    """A line of a statement: kind 1 is a training unit, 4 a round in the committee."""
    amount = str(10**18 if reason == 0 else 0)
    return {"job": f"0x{job}", "round": number, "unit": "0x" + f"{number:064x}", "kind": kind, "reason": reason,
            "amount": amount, "sentence": "said"}  # fmt: skip


def verdict(number: int, **more: Any) -> dict[str, Any]:
    told = {"job": JOB, "round": number, "unit": f"{number:064x}", "kind": "unit", "reason": "OK", "signed": True}
    return told | more


def test_a_verdict_counts_once_however_often_it_is_told() -> None:
    told = verdict(3, signed=False, amount=str(10**18), sentence="paid")
    found = ask("record", [["begins", JOB, 3], ["take", verdict(3)], ["take", told], ["take", told],
                           ["reconcile", [line(3)]]])  # fmt: skip
    assert found == {"rows": [[3, "unit", str(10**18), True]], "accepted": 1, "earned": str(10**18), "differ": 0}


def test_what_was_missed_is_found_in_the_statement() -> None:
    lines = [line(6), line(5, reason=33), line(4, kind=2), line(4, kind=4), line(2), line(5, job=OTHER)]
    found = ask("record", [["begins", JOB, 3], ["begins", JOB, 9], ["take", verdict(3)], ["take", verdict(7)],
                           ["reconcile", lines], ["reconcile", lines]])  # fmt: skip
    assert [row[:2] for row in found["rows"]] == [[7, "unit"], [6, "unit"], [5, "unit"], [4, "audit"], [3, "unit"]]
    assert (found["accepted"], found["earned"], found["differ"]) == (4, str(2 * 10**18), 0)


def test_a_statement_that_contradicts_a_signed_verdict_is_noticed() -> None:
    found = ask("record", [["begins", JOB, 3], ["take", verdict(3)], ["reconcile", [line(3, reason=33)]]])
    assert found["differ"] == 1
