"""The page of answers: servers with their records and prices, deposits and vouchers; text from servers stays text."""

from __future__ import annotations

from dataclasses import replace

from atoll.gateway.pages.answers import answers_page
from atoll.gateway.pages.facts import Answered, Snapshot
from atoll.inference.messages import ModelOffer, Offering, amount_bytes
from atoll.wire.identity import format_account
from tests.gateway.pages.looking import Read, ask
from tests.gateway.pages.town import Town

ATL = 10**18
STRANGER = b"\x5a" * 20
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'


class Asked:
    """A town whose gateway has asked servers, as a source of pages."""

    def __init__(self, town: Town, answered: Answered) -> None:
        self._town, self._answered = town, answered

    def snapshot(self) -> Snapshot:
        return replace(self._town.snapshot(), answered=lambda: self._answered)


def row(server: bytes, **more: object) -> dict[str, object]:
    plain = {
        "good": 1.0, "bad": 0.0, "at": 0.0, "first": 0.25, "per_token": 0.0125, "answers": 7, "refusals": 1,
        "timeouts": 2, "doubts": 0, "checked": 5, "lied": "", "paid": str(ATL), "doubts_now": 0, "refused": False,
        "evidence": 0,
    }  # fmt: skip
    return {"server": format_account(server), **plain, **more}


def answered(town: Town, name: str = "parrot", why: str = "another text") -> Answered:
    honest, liar = (node.account for node in town.network.by_index[:2])
    record = {
        "servers": [row(honest), row(liar, answers=1, lied=why, refused=True, evidence=1, paid="0")],
        "payers": [
            {"payer": format_account(STRANGER), "charged": str(2 * ATL), "vouchers": str(ATL), "redeemed": "0",
             "owed": str(ATL)},
        ],
        "sums": {"deposit": str(5 * ATL), "free": str(4 * ATL), "paid": str(ATL), "earned": str(ATL)},
    }  # fmt: skip
    dear = ModelOffer(name, "language", b"\x05" * 32, 2048, amount_bytes(ATL), amount_bytes(3 * ATL))
    cheap = ModelOffer(name, "language", b"\x05" * 32, 2048, b"", b"")
    own = ModelOffer(town.model_blob.hex(), "classifier", town.model_blob, 0, b"", b"")
    return Answered(record, {honest: Offering((dear, own), 250), STRANGER: Offering((cheap,), 0)})


def test_what_is_known_of_servers(done: Town) -> None:
    page = answers_page(Asked(done, answered(done)).snapshot(), {})
    honest, liar = (node.account for node in done.network.by_index[:2])
    assert [one["account"] for one in page["servers"]] == ["0x" + one.hex() for one in (honest, liar, STRANGER)]
    first, second, third = page["servers"]
    assert (first["answers"], first["checked"], first["load"], first["offers"]) == (7, 5, 250, 2)
    assert (second["refused"], second["why"], second["evidence"]) == (True, "another text", 1)
    assert (third["answers"], third["paid"], third["offers"]) == (0, "0", 1)
    assert page["count"] == {"servers": 3, "models": 2, "payers": 1}
    model, parrot = page["models"]
    assert model["link"] == f"/models/{done.model_blob.hex()}" and parrot["link"] == ""
    assert [(one["account"], one["per_1000"]) for one in parrot["prices"]] == [
        ("0x" + STRANGER.hex(), "0"), ("0x" + honest.hex(), str(3 * ATL))
    ]  # fmt: skip
    assert page["payers"][0]["owed"] == str(ATL)
    assert page["sums"] == {"deposit": str(5 * ATL), "free": str(4 * ATL), "paid": str(ATL), "owed": "0",
                            "earned": str(ATL), "waiting": "0"}  # fmt: skip


def test_the_page_tells_it(done: Town) -> None:
    found = ask(Asked(done, answered(done)), "/answers")
    told = Read(found.text).text
    assert found.status_code == 200 and len(found.content) < 100_000
    for words in ("lied, not asked again", "1 kept as evidence", "0.25 s", "3 servers are known here", "1 + 3", "free"):
        assert words in told


def test_what_servers_say_is_only_text(done: Town) -> None:
    found = ask(Asked(done, answered(done, EVIL, EVIL)), "/answers").text
    read = Read(found)
    assert "<script>alert" not in found and "img" not in read.tags
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert ask(Asked(done, answered(done, "a\u202eb")), "/answers").text.count("\u202e") == 0


def test_nothing_is_known_at_first(busy: Town) -> None:
    assert "No server has been heard of yet" in Read(ask(busy, "/answers").text).text
    assert answers_page(busy.snapshot(), {})["sums"]["deposit"] == "0"
