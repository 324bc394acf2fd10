"""Every page: its twin, its size, what may run in it, and that what came from the network stays text."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Mount, Route

from atoll.gateway.pages.actions import Actions
from atoll.gateway.pages.facts import ModelFacts, Snapshot
from atoll.gateway.pages.openapi import document
from atoll.gateway.pages.registry import PAGES
from atoll.gateway.pages.site import Site, make_environment
from atoll.ledger import events
from tests.gateway.pages.looking import Read, ask, pages_of, twin_of
from tests.gateway.pages.town import GATEWAY, OWNER, Town

EVIL = "<script>alert(1)</script>"
QUOTE = '"><img src=x onerror=alert(1)>'


def test_there_is_a_page_of_every_kind(done: Town) -> None:
    found = {ask(done, path).status_code for path in pages_of(done)}
    assert found == {200}
    assert len(pages_of(done)) == len(PAGES)


def test_each_page_has_a_twin_at_the_same_address(done: Town) -> None:
    for path in pages_of(done):
        twin = ask(done, twin_of(path))
        assert twin.headers["content-type"] == "application/json"
        assert ask(done, path, headers={"accept": "application/json"}).json() == twin.json()
        assert ask(done, path, headers={"accept": "text/html,application/json"}).text.startswith("<!doctype html>")


def test_the_twin_is_what_the_page_is_made_from(done: Town) -> None:
    for path in pages_of(done):
        page = next(one for one in PAGES if _fits(one.path, path))
        data = ask(done, twin_of(path)).json()
        topics = Read(ask(done, path).text)
        shown = (
            make_environment()
            .get_template(page.template)
            .render(data=data, topics=_attribute(topics, "body", "data-topics"), twin=twin_of(path), here=page.path)
        )
        assert shown == ask(done, path).text


def _fits(pattern: str, path: str) -> bool:
    ours, theirs = pattern.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True))


def _attribute(page: Read, tag: str, name: str) -> str:
    return next(value for of, key, value in page.attributes if (of, key) == (tag, name))


def test_each_page_is_small_and_loads_only_our_own_files(done: Town, busy: Town) -> None:
    for town in (done, busy):
        for path in pages_of(town):
            answer = ask(town, path)
            page = Read(answer.text)
            assert len(answer.content) < 100_000, path
            inline = [value for _, name, value in page.attributes if name == "style" or name.startswith("on")]
            assert not inline
            assert "style" not in page.tags
            scripts = [value for tag, name, value in page.attributes if (tag, name) == ("script", "src")]
            assert len(scripts) == page.tags.count("script")
            sources = [value for _, name, value in page.attributes if name in ("src", "href", "action", "data-src")]
            outside = [value for value in sources if not value.startswith(("/", "#", "?")) or value.startswith("//")]
            assert set(outside) <= {"http://192.168.1.7:8470/join"}  # the address for a phone
            files = [value for value in sources if value.startswith("/static/")]
            assert all(ask(town, value).status_code == 200 for value in files)


def test_only_pages_that_follow_events_say_whether_they_do(done: Town) -> None:
    for path in (*pages_of(done), "/nowhere", "/settlement/99"):
        page = Read(ask(done, path).text)
        assert (("span", "id", "pulse") in page.attributes) == bool(_attribute(page, "body", "data-topics")), path
    assert ("span", "id", "pulse") not in Read(ask(done, "/join").text).attributes


def test_links_lead_somewhere(done: Town) -> None:
    links = set()
    for path in set(pages_of(done)) - {"/join"}:  # its script says where its links lead
        page = Read(ask(done, path).text)
        links |= {value for _, name, value in page.attributes if name == "href" and value.startswith("/")}
    broken = sorted(link for link in links if ask(done, link).status_code not in (200, 308))
    assert not broken


def test_pages_have_one_title_landmarks_and_named_tables(done: Town) -> None:
    for path in pages_of(done):
        page = Read(ask(done, path).text)
        assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("title") == 1, path
        assert page.tags.count("caption") == page.tags.count("table")
        assert ("html", "lang", "en") in page.attributes
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids)), path


class Hostile:
    """A town in which everything that comes from outside tries to be more than text."""

    def __init__(self, town: Town, text: str) -> None:
        self._town, self._text = town, text
        self.model_blob = town.model_blob

    def snapshot(self) -> Snapshot:
        found, text = self._town.snapshot(), self._text
        job = found.jobs[self._town.job]
        assert job.card is not None
        names = tuple(f"{text}{number}" for number in range(10))
        schema = msgspec.structs.replace(job.card.schema, y=msgspec.structs.replace(job.card.schema.y, names=names))
        card = msgspec.structs.replace(job.card, name=text, licence=text, origin=text, schema=schema)
        about = {a: msgspec.structs.replace(one, name=text, version=text) for a, one in found.about.items()}
        manifest = msgspec.structs.replace(self._town.manifest, name=text)
        place = replace(found.place, name=text)
        return replace(found, jobs={job.id: replace(job, card=card, manifest=manifest)}, about=about, place=place)

    async def model(self, blob: bytes) -> ModelFacts:
        found = await self._town.model(blob)
        card = {self._text: self._text, "name": [self._text, {self._text: self._text}]}
        return replace(found, card=card, manifest=msgspec.structs.replace(found.manifest, name=self._text))

    async def model_file(self, blob: bytes) -> Path:
        return await self._town.model_file(blob)

    def published(self, blob: bytes) -> bytes:
        return self._town.published(blob)


@pytest.mark.parametrize("text", [EVIL, QUOTE, "{{ 7 * 7 }}", "'};alert(1);//"])
def test_what_comes_from_the_network_is_only_text(done: Town, text: str) -> None:
    hostile = Hostile(done, text)
    for path in pages_of(done):
        shown = ask(hostile, path).text
        honest, page = Read(ask(done, path).text), Read(shown)
        assert page.tags.count("script") == honest.tags.count("script"), path
        assert "img" not in page.tags or page.tags.count("img") == honest.tags.count("img")
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "alert(1)>" not in shown.replace("&gt;", "")
        assert "49" not in text or "{{ 7" in shown
    assert text in Read(ask(hostile, "/").text).words  # the node's name, whole, as text


def test_marks_that_turn_text_around_are_shown_as_marks(done: Town) -> None:
    shown = ask(Hostile(done, "evil\u202egnp.exe\x1b[2J"), "/").text
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert "evil\ufffdgnp.exe" in shown


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/jobs/0x12", f"/jobs/0x{'ab' * 32}", "/jobs/%3Cscript%3E", f"/nodes/0x{'ab' * 20}", "/settlement/99",
     f"/models/{'ab' * 32}", f"/models/{'ab' * 32}/file", "/settlement/x", "/accounts/0xzz", "/settlement?page=x",
     "/settlement/99/blob"],
)  # fmt: skip
def test_what_is_not_there_is_told(done: Town, path: str) -> None:
    answer = ask(done, path)
    assert answer.status_code == 404
    assert "Not found" in Read(answer.text).text
    assert Read(answer.text).tags.count("script") == 1  # the page's own
    told = ask(done, path, headers={"accept": "application/json"})
    assert (told.status_code, list(told.json())) == (404, ["error"])


def test_long_lists_come_in_parts(done: Town) -> None:
    account = "0x" + done.network.by_index[0].account.hex()
    first = ask(done, f"/accounts/{account}.json").json()
    assert first["pages"] == -(-first["receipts"] // 40)
    lines = []
    for number in range(1, first["pages"] + 1):
        lines += ask(done, f"/accounts/{account}.json?page={number}").json()["lines"]
    assert len(lines) == first["receipts"]
    assert sum(int(line["amount"]) for line in lines) == int(first["earned"])
    assert ask(done, f"/accounts/{account}?page=999").status_code == 200  # the last one


def routes_of(town: Any) -> dict[str, set[str]]:
    found = Site(town, Actions(None, OWNER)).routes()  # type: ignore[arg-type]  # no action is taken
    assert [route.path for route in found if isinstance(route, Mount)] == ["/static"]
    return {route.path: set(route.methods or ()) - {"HEAD"} for route in found if isinstance(route, Route)}


def test_the_description_lists_every_route_and_nothing_else(done: Town) -> None:
    described = document("1.2.3")["paths"]
    methods = {path: {method.upper() for method in item} for path, item in described.items()}
    routes = routes_of(done)
    del routes["/favicon.ico"]  # a browser's own habit
    assert methods == routes
    for path, item in described.items():
        for operation in item.values():
            named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.replace(".json", "").split("/") if part.startswith("{")}
            assert operation["summary"]
    assert ask(done, "/openapi.json").json()["openapi"] == "3.1.0"


def test_pages_can_only_be_read(done: Town) -> None:
    for path in pages_of(done):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert ask(done, path, method).status_code == 405


def test_the_files_of_models_and_epochs(done: Town) -> None:
    model = ask(done, f"/models/{done.model_blob.hex()}/file")
    assert model.content == done.blobs[done.model_blob]
    assert model.headers["content-disposition"] == "attachment"
    # A download that broke is taken up where it was.
    rest = ask(done, f"/models/{done.model_blob.hex()}/file", headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, model.content[100:])
    facts = ask(done, "/settlement/0.json").json()
    assert ask(done, "/settlement/0/blob").content == done.blobs[bytes.fromhex(facts["blob"])]


def test_the_code_for_a_phone(done: Town) -> None:
    picture = ask(done, "/join.svg")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert ask(Alone(done), "/join.svg").status_code == 404
    assert "--host 0.0.0.0" in Read(ask(Alone(done), "/").text).text


class Alone(Hostile):
    """A gateway that answers on this device only."""

    def __init__(self, town: Town) -> None:
        super().__init__(town, "")

    def snapshot(self) -> Snapshot:
        found = self._town.snapshot()
        return replace(found, place=replace(found.place, lan=False))


def test_a_network_that_has_just_begun_has_all_its_pages() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    for path in ("/", "/join", "/jobs", f"/jobs/0x{town.job.hex()}", "/models", "/blobs", "/settlement"):
        assert ask(town, path).status_code == 200, path
    town.view.fold([events.Transfer(bytes(20), GATEWAY, 10**18)])
    assert ask(town, f"/accounts/0x{GATEWAY.hex()}.json").json()["balance"] == str(10**18)


class Told:
    """A town's facts, changed by a function."""

    def __init__(self, town: Town, change: Callable[[Snapshot], Snapshot]) -> None:
        self._town, self._change = town, change

    def snapshot(self) -> Snapshot:
        return self._change(self._town.snapshot())


TABS = [bytes([number]) * 20 for number in (0xA1, 0xA2, 0xA3)]


def with_tabs(facts: Snapshot) -> Snapshot:
    """Three tabs share the gateway's endpoint key; one of them is on the roster of the job."""
    view, (job,) = deepcopy(facts.view), facts.jobs.values()
    view.fold(events.Registered(account, b"\x09" * 32, 33, "", b"") for account in TABS)
    assert job.followed is not None
    standing = replace(job.followed.standing, roster=(*job.followed.standing.roster, TABS[0]))
    return replace(facts, view=view, jobs={job.id: replace(job, followed=replace(job.followed, standing=standing))})


def test_browser_tabs_are_no_nodes(busy: Town) -> None:
    told, before = ask(Told(busy, with_tabs), "/index.json").json(), ask(busy, "/index.json").json()
    assert [told["totals"][name] for name in ("nodes", "online", "tabs", "tabs_before")] == [6, 6, 1, 2]
    assert [row["account"] for row in told["nodes"]] == [row["account"] for row in before["nodes"]]
    assert [(row["account"], row["light"]) for row in told["tabs"]] == [("0x" + TABS[0].hex(), True)]
    text = Read(ask(Told(busy, with_tabs), "/").text).text
    assert "6 of 6 nodes answer, and 1 browser tab trains." in text
    assert "2 tabs were here before." in text
    assert "away" not in text
    assert "browser tab train" not in Read(ask(busy, "/").text).text
    assert "A browser tab" in Read(ask(Told(busy, with_tabs), f"/nodes/0x{TABS[1].hex()}").text).text


def test_counts_and_their_words_agree(busy: Town) -> None:
    text = Read(ask(busy, "/").text).text
    assert "1 job" in text.replace("job 1", "1 job")
    assert "1 gateway shows this page" in text
    assert "5 workers train" in text


def only_known(rounds: int, facts: Snapshot) -> Snapshot:
    """A gateway that has just started knows fewer rounds than the chain has certified."""
    (job,) = facts.jobs.values()
    assert job.followed is not None
    scores = {number: found for number, found in job.followed.scores.items() if number < rounds}
    followed = replace(job.followed, finished=job.followed.finished[:rounds], scores=scores)
    return replace(facts, jobs={job.id: replace(job, followed=followed)})


def test_a_gateway_that_has_just_started_tells_no_old_accuracy(done: Town) -> None:
    path, late = f"/jobs/0x{done.job.hex()}", Told(done, lambda facts: only_known(4, facts))
    told = ask(late, f"{path}.json").json()
    assert (told["behind"], told["known"], told["certified"]) == (True, 4, 6)
    assert told["accuracy"] is told["loss"] is None
    assert "catching up: 4 of 6 rounds known" in Read(ask(late, path).text).text
    assert "catching up" in Read(ask(late, "/jobs").text).text
    (model,) = ask(late, "/models.json").json()["models"]
    assert (model["scores"], model["rounds"]) == ({}, 6)
    assert ask(done, "/models.json").json()["models"][0]["scores"] == done.scores[5]
    told = ask(done, f"{path}.json").json()
    assert (told["behind"], told["graded"], told["accuracy"]) == (False, 5, done.scores[5]["accuracy"])
    assert "catching up" not in Read(ask(done, path).text).text


def test_jobs_of_one_name_are_told_apart(done: Town) -> None:
    def twice(facts: Snapshot) -> Snapshot:
        (job,) = facts.jobs.values()
        other = replace(job, on_chain=replace(job.on_chain, job=b"\xcd" * 32), followed=None)
        return replace(facts, jobs={job.id: job, other.id: other})

    rows = ask(Told(done, twice), "/jobs.json").json()["jobs"]
    name, ours = done.manifest.name, done.job.hex()[:6]
    assert sorted(row["label"] for row in rows) == sorted([f"{name} (0x{ours}…)", f"{name} (0xcdcdcd…)"])
    text = Read(ask(Told(done, twice), "/jobs").text).text
    assert f"{name} (0xcdcdcd…)" in text
    assert f"{name} (0x{ours}…)" in text
    assert ask(done, "/jobs.json").json()["jobs"][0]["label"] == name
    price = str(done.manifest.policy.unit_price)
    assert [(row["unit_price"], row["segments"]) for row in rows] == [(price, done.manifest.segments)] * 2


def test_an_epoch_says_when_its_job_was_settled(done: Town, busy: Town) -> None:
    assert "later, with epoch 2" in Read(ask(done, "/settlement/0").text).text
    assert "yes, with this epoch" in Read(ask(done, "/settlement/2").text).text
    view = deepcopy(done.view)
    del view.epochs[1:]
    first = Told(done, lambda facts: replace(facts, view=view))
    assert "not yet: more epochs follow" in Read(ask(first, "/settlement/0").text).text


def test_a_round_says_only_what_is_known_of_its_committee(done: Town) -> None:
    text = Read(ask(done, f"/jobs/0x{done.job.hex()}/rounds/0").text).text
    assert "duty paid" in text
    assert "in time" not in text
    assert "signatures in the certificate" in text


def test_a_model_card_repeats_nothing(done: Town) -> None:
    card = {"name": done.manifest.name, "job": "0x" + done.job.hex(), "rounds": 6, "data": "ab" * 32,
            "scores": {"accuracy": 0.9, "loss": 0.25}}  # fmt: skip

    class Carded(Told):
        async def model(self, blob: bytes) -> ModelFacts:
            return replace(await done.model(blob), card=card)

    page = Read(ask(Carded(done, lambda facts: facts), f"/models/{done.model_blob.hex()}").text)
    names = [words for words in page.words if words in card]
    assert names == ["rounds"]
    assert "accuracy 90.00 % loss 0.2500" in page.text
    assert page.tags.count("table") == 1
