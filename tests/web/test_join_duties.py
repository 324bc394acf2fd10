"""static/join/duties.js against real rounds: what a node says to the byte, and what a false gateway does not get."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest

from atoll.sim.faults import Faults
from atoll.sim.network import DOMAIN
from atoll.training.beacon import Draw, combine
from atoll.training.committee import BeaconPayload, Place, decode, statement_digest
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import Phase, Quorum, seal, unseal
from tests.web.rounds import Message, Record, play

DRIFT = 2e-5
LATE = 3
STRANGER = AccountKey(keccak(b"stranger"))


@cache
def honest() -> Record:
    return play()


@cache
def disputed() -> Record:
    """Node 0 sends noise, so that its units are disputed and replayed; every audit is drawn."""
    return play(Faults(liars={"0": "random"}, drift=DRIFT))


@cache
def long() -> Record:
    return play(rounds=4)


def from_round(record: Record, first: int) -> list[Message]:
    """What is told and done from a round on."""
    start = next(at for at, message in enumerate(record.told) if message.get("round") == first)
    return record.told[start:]


def effects(found: Message, kind: str) -> list[Message]:
    return [effect for group in found["effects"] for effect in group if effect["do"] == kind]


def said(found: Message) -> list[tuple[str, str]]:
    return [(effect["key"].split(" ")[0], effect["raw"]) for effect in effects(found, "say")]


def codes(found: Message) -> list[str]:
    return [effect["code"] for effect in effects(found, "notice")]


def first_round(record: Record, phase: str) -> list[Message]:
    """What was told of round 0, up to and with `phase`; deep copies, to be spoilt."""
    end = next(i for i, m in enumerate(record.told) if m.get("phase") == phase and m.get("round") == 0)
    return copy.deepcopy(record.told[: end + 1])


def own_unit(record: Record) -> str:
    return str(record.told[0]["unit"]["id"])


# honest gateways
@pytest.mark.parametrize("play_one", [honest, disputed])
def test_a_tab_says_what_a_node_says(play_one: Any) -> None:
    record = play_one()
    found = record.drive(record.told)
    assert said(found) == [(kind, raw) for kind, _, raw in record.said]
    assert codes(found) == []
    kinds = {kind for kind, _, _ in record.said}
    assert {"Commit", "Reveal", "AuditCommit", "AuditReveal"} <= kinds
    assert ("Replay" in kinds) == (play_one is disputed)


def test_the_verdicts_are_those_of_the_certificates() -> None:
    record = disputed()
    found = record.drive(record.told)
    rows = [(each["round"], each["kind"], each["unit"], each["reason"]) for each in effects(found, "verdict")]
    last = max(number for number, *_ in record.verdicts)
    assert rows == [row for row in record.verdicts if row[0] < last]  # the last one is told by the gateway alone


def test_nothing_but_a_commitment_leaves_before_the_audits_are_locked() -> None:
    record = honest()
    found = record.drive(first_round(record, "audit"))
    assert [kind for kind, _ in said(found)] == ["Commit"]
    assert effects(found, "upload") == []


def test_a_reveal_waits_for_the_upload() -> None:
    record = honest()
    found = record.drive(first_round(record, "open"), uploads=False)
    uploads = effects(found, "upload")
    own = next(effect for effect in uploads if effect["unit"] == own_unit(record))
    body: Any = unseal(DOMAIN, bytes.fromhex(next(raw for kind, _, raw in record.said if kind == "Reveal"))).body
    assert set(own["blobs"]) == {body.update.hex(), *(state.hex() for state in body.states[1:])}
    assert "Reveal" not in [kind for kind, _ in said(found)]


def test_the_work_that_is_asked_for_is_the_unit_that_the_beacon_draws() -> None:
    record = honest()
    told = record.told[0]
    train = effects(record.drive(record.told[:1]), "train")
    assert len(train) == 1
    assert not train[0]["audit"]
    unit = train[0]["unit"]
    assert (unit["id"], unit["shard"], unit["model"]) == (told["unit"]["id"], told["unit"]["shard"], told["model"])
    assert unit["segments"] == record.segments


# coming late, coming back
def test_whoever_comes_late_waits_for_the_next_round() -> None:
    record = honest()
    late = [m for m in record.told if m.get("round") == 0 and m["phase"] == "open"]
    rest = [m for m in record.told[record.told.index(late[0]) + 1 :]]
    after = rest[next(i for i, m in enumerate(rest) if m.get("round") == 1) :]
    found = record.drive([*late, *after])
    assert [(kind, raw) for kind, number, raw in record.said if number > 0] == said(found)
    assert codes(found) == []


def test_a_newcomer_says_that_it_is_present() -> None:
    record = play(Faults(newcomers={"3": 0.1}))
    assert record.said[0][0] == "Present"
    assert not record.told[0]["on_roster"]
    found = record.drive(record.told)
    assert said(found) == [(kind, raw) for kind, _, raw in record.said]
    assert "Commit" in [kind for kind, _ in said(found)]


@pytest.mark.parametrize("at", range(1, 7))
def test_a_reload_goes_on_where_the_tab_was(at: int) -> None:
    record = disputed()
    events = [*record.told[:at], {"type": "reload"}, {"type": "again"}, *record.told[at:]]
    found = record.drive(events)
    assert list(dict.fromkeys(said(found))) == [(kind, raw) for kind, _, raw in record.said]
    assert codes(found) == []


def test_a_reload_in_the_middle_of_a_unit_begins_it_again() -> None:
    record = honest()
    found = record.drive([record.told[0], {"type": "reload"}, record.told[0]])
    assert [effect["unit"]["id"] for effect in effects(found, "train")] == [own_unit(record)] * 2


def test_a_reload_that_lost_everything_does_not_commit_twice() -> None:
    """The gateway remembers what was said; the same work opens the same commit."""
    record = honest()
    commit = next(raw for kind, _, raw in record.said if kind == "Commit")
    told = first_round(record, "open")
    for message in told:
        if message["type"] == "round":
            message["said"] = [commit]
    found = record.drive(told)
    assert "Commit" not in [kind for kind, _ in said(found)]
    assert ("Reveal", next(raw for kind, _, raw in record.said if kind == "Reveal")) in said(found)
    worked = next(message for message in told if message["type"] == "worked")
    worked["update"] = "77" * 32  # another result must not be opened: it would convict its worker
    assert "Reveal" not in [kind for kind, _ in said(record.drive(told))]


def test_bytes_that_are_lost_are_told() -> None:
    record = honest()
    told = first_round(record, "open")
    found = record.drive([*told, {"type": "lost", "unit": own_unit(record)}], uploads=False)
    assert codes(found) == ["bytes-lost"]


# limits
def test_nothing_is_begun_while_work_is_not_allowed() -> None:
    record = honest()
    found = record.drive([{"type": "allow", "work": False}, record.told[0]])
    assert effects(found, "train") == []
    found = record.drive([{"type": "allow", "work": False}, record.told[0], {"type": "allow", "work": True}])
    assert len(effects(found, "train")) == 1


def test_what_was_committed_is_opened_even_when_work_is_not_allowed() -> None:
    record = honest()
    others = [m for m in record.told if m["type"] == "worked" and m["unit"] != own_unit(record)]
    events = [message for message in first_round(record, "open") if message not in others]
    events.insert(2, {"type": "allow", "work": False})
    found = record.drive(events)
    assert [kind for kind, _ in said(found)] == ["Commit", "Reveal"]
    assert [effect["audit"] for effect in effects(found, "train")] == [False]


def test_work_that_failed_is_begun_again_when_it_is_told_again() -> None:
    record = honest()
    failed = {"type": "failed", "unit": own_unit(record)}
    assert len(effects(record.drive([record.told[0], failed]), "train")) == 1
    assert len(effects(record.drive([record.told[0], failed, record.told[0]]), "train")) == 2


def test_a_light_unit_has_one_segment() -> None:
    record = honest()
    told = first_round(record, "open")
    states = next(message["states"] for message in told if message["type"] == "worked")
    for message in told:
        if message["type"] == "worked":
            message["states"] = states[:2]
        elif message["type"] == "round":
            message["unit"]["segments"] = 1
    found = record.drive(told[:2])
    assert effects(found, "train")[0]["unit"]["segments"] == 1
    body: Any = unseal(DOMAIN, bytes.fromhex(said(found)[0][1])).body
    whole: Any = unseal(DOMAIN, bytes.fromhex(record.said[0][2])).body
    assert body.unit == whole.unit
    assert body.digest != whole.digest


# false gateways
def spoilt(raw: str, signers: list[AccountKey], place: Place, payload: bytes | None = None) -> str:
    """A quorum's envelope for another payload, signed by others."""
    body = unseal(DOMAIN, bytes.fromhex(raw)).body
    assert isinstance(body, Quorum)
    payload = body.payload if payload is None else payload
    digest = statement_digest(place, body.phase, body.view, payload)
    signatures = tuple(key.sign_digest(digest) for key in signers)
    forged = Quorum(body.job, body.round, body.view, body.phase, payload, signatures)
    return seal(DOMAIN, forged, signers[0].address, signers[0].sign_digest).raw.hex()


def place_of(record: Record, told: Message) -> Place:
    committee = tuple(bytes.fromhex(member) for member in told["committee"])
    return Place(DOMAIN, bytes.fromhex(record.place["jobs"]), record.job, told["round"], committee)


def test_a_forged_audit_quorum_gets_no_reveal() -> None:
    record = honest()
    told = first_round(record, "open")
    last = told[-1]
    strangers = [AccountKey(keccak(b"stranger %d" % index)) for index in range(4)]
    last["quorums"][Phase.AUDIT] = spoilt(last["quorums"][Phase.AUDIT], strangers, place_of(record, last))
    found = record.drive(told)
    assert codes(found) == ["forged"]
    assert "Reveal" not in [kind for kind, _ in said(found)]
    assert effects(found, "upload") == []
    assert found["phase"] == Phase.AUDIT


def test_a_minority_of_the_committee_is_no_quorum() -> None:
    record = honest()
    told = first_round(record, "open")
    body = unseal(DOMAIN, bytes.fromhex(told[-1]["quorums"][Phase.AUDIT])).body
    assert isinstance(body, Quorum)
    few = Quorum(body.job, body.round, body.view, body.phase, body.payload, body.signatures[:2] + body.signatures[:1])
    told[-1]["quorums"][Phase.AUDIT] = seal(DOMAIN, few, STRANGER.address, STRANGER.sign_digest).raw.hex()
    found = record.drive(told)
    assert codes(found) == ["forged"]
    assert "Reveal" not in [kind for kind, _ in said(found)]


def test_a_quorum_cannot_be_skipped() -> None:
    """A phase that the gateway only calls by its name does not open anything."""
    record = honest()
    told = first_round(record, "open")
    for message in told:
        if message["type"] == "round":
            message["quorums"] = [raw for raw in message["quorums"] if phase_of(raw) is not Phase.BEACON]
    found = record.drive(told)
    assert found["phase"] == Phase.BEACON
    assert [kind for kind, _ in said(found)] == ["Commit"]


def phase_of(raw: str) -> Phase:
    body = unseal(DOMAIN, bytes.fromhex(raw)).body
    assert isinstance(body, Quorum)
    return body.phase


def test_a_quorum_of_another_round_does_not_count() -> None:
    record = honest()
    told = first_round(record, "open")
    other = next(m for m in record.told if m.get("round") == 1 and m.get("phase") == "open")
    told[-1]["quorums"] = [*told[-1]["quorums"][:2], other["quorums"][2]]
    found = record.drive(told)
    assert codes(found) == ["forged"]
    assert "Reveal" not in [kind for kind, _ in said(found)]


@pytest.mark.parametrize("change", [{"index": 0}, {"shard": 99}, {"id": "11" * 32}, {"segments": 7}, {"shards": 1}])
def test_a_unit_that_is_not_the_draws_is_refused(change: dict[str, object]) -> None:
    record = honest()
    told = copy.deepcopy(record.told[0])
    told["unit"].update(change)
    found = record.drive([told])
    assert codes(found) == ["wrong-unit"]
    assert effects(found, "train") == []


def test_an_audit_that_was_not_drawn_is_refused() -> None:
    record = disputed()
    told = first_round(record, "audit")
    last = told[-1]
    assert len(last["audits"]) == 1
    locked = unseal(DOMAIN, bytes.fromhex(last["quorums"][0])).body
    assert isinstance(locked, Quorum)
    last["unit"], given = None, last["unit"]
    last["audits"] = [given | {"account": record.account.hex()}]  # its own unit
    found = record.drive([last])
    assert codes(found) == ["wrong-unit"]
    assert effects(found, "train") == []


def test_a_lost_commit_is_noticed() -> None:
    """The committee locked its list without this account's commit, although the gateway had taken it."""
    record = play(Faults(slow={"3": 400.0}))
    told = first_round(record, "beacon")
    assert [message["type"] for message in told] == ["round", "round"]
    work = next(message for message in honest().told if message["type"] == "worked") | {"unit": own_unit(record)}
    assert codes(record.drive([told[0], work, told[1]])) == ["commit-missing"]
    assert codes(record.drive([told[0], work, told[1]], taken=False)) == ["commit-lost"]
    late = record.drive(told)
    assert codes(late) == ["late"]
    assert effects(late, "cancel") == [{"do": "cancel", "unit": own_unit(record)}]


def test_a_commit_that_was_just_too_late_accuses_nobody() -> None:
    """Members leave nothing out that they held for the grace of four seconds; before that it is chance."""
    record = play(Faults(slow={"3": 400.0}))
    told = first_round(record, "beacon")
    work = next(message for message in honest().told if message["type"] == "worked") | {"unit": own_unit(record)}
    (commit,) = effects(record.drive([told[0], work], taken=False), "say")
    for seconds, code in ((4.9, "commit-late"), (5.1, "commit-missing")):
        taken = {"type": "taken", "key": commit["key"], "at": 1_000_000}
        events = [told[0], work, taken, told[1] | {"at": 1_000_000 + 1000 * seconds}]
        assert codes(record.drive(events, taken=False)) == [code]


def test_a_lost_reveal_is_noticed() -> None:
    record = honest()
    told = first_round(record, "certify")
    found = record.drive([message for message in told if message.get("phase") != "open"])
    assert "reveal-missing" in codes(found)


def test_a_committee_that_no_certificate_names_is_refused() -> None:
    record = honest()
    before = record.told[: next(i for i, m in enumerate(record.told) if m.get("round") == 1)]
    told = copy.deepcopy(next(m for m in record.told if m.get("round") == 1))
    for change in ({"committee": [STRANGER.address.hex()]}, {"beacon": "22" * 32}, {"model": "33" * 32}):
        found = record.drive([*before, told | change])
        assert codes(found) == ["contradiction"]
        assert found["state"]["round"] == 0
    strangers = [AccountKey(keccak(b"stranger %d" % index)) for index in range(4)]
    forged = spoilt(told["certificate"], strangers, place_of(record, record.told[0]))
    assert codes(record.drive([*before, told | {"certificate": forged}])) == ["forged"]


def test_a_story_that_changes_within_a_round_is_refused() -> None:
    record = honest()
    told = copy.deepcopy(record.told[0])
    told["committee"] = told["committee"][:1]
    assert codes(record.drive([record.told[0], told])) == ["contradiction"]


def test_a_tab_that_was_away_follows_the_committees() -> None:
    """From where it was, or from the job's first committee: then it works as if it had been there."""
    record = long()
    late = from_round(record, LATE)
    for before in ([], [record.told[0]], [record.told[0], {"type": "reload"}]):
        found = record.drive([*before, *late])
        asked = [effect["from"] for effect in effects(found, "follow")]
        assert asked == [0, 1]  # duties.mjs answers one at a time; the third comes with the round
        assert codes(found) == []
        assert [(kind, raw) for kind, number, raw in record.said if number >= LATE] == said(found)


def test_a_committee_that_is_not_followed_gets_nothing() -> None:
    record = long()
    late = from_round(record, LATE)
    found = record.drive(late, certificates=[])
    assert set(codes(found)) == {"gap"}
    assert said(found) == [] and effects(found, "train") == []
    # One that another committee has signed leads nowhere, and what was followed before stays.
    strangers = [AccountKey(keccak(b"stranger %d" % index)) for index in range(4)]
    told = next(m for m in record.told if m.get("round") == 1)
    forged = spoilt(record.certificates[1], strangers, place_of(record, told))
    found = record.drive(late[:1], certificates=[record.certificates[0], forged])
    assert codes(found) == ["forged"]
    assert (found["state"]["round"], said(found), effects(found, "train")) == (1, [], [])
    # Nor do those of another order, or from the middle.
    for shown in (record.certificates[1:], [record.certificates[0]] * 3):
        assert codes(record.drive(late[:1], certificates=shown)) == ["forged"]


def test_the_gateway_goes_on_showing_certificates_where_it_stopped() -> None:
    record = long()
    late = from_round(record, LATE)
    some = {"type": "followed", "from": 1, "certificates": record.certificates[1:]}
    events = [record.told[0], late[0], {"type": "followed", "from": 0, "certificates": record.certificates[:1]}, some]
    found = record.drive(events, follow=False)
    assert [effect["from"] for effect in effects(found, "follow")] == [0, 1]
    assert found["state"]["round"] == len(record.certificates)  # it may show more than it told of
    unasked = [record.told[0], some | {"from": 0}]
    assert record.drive(unasked, follow=False)["state"]["round"] == 0


def test_another_first_committee_is_refused() -> None:
    record = honest()
    place = record.place | {"firstCommittee": [STRANGER.address.hex()]}
    assert codes(record.drive([record.told[0]], place=place)) == ["contradiction"]
    late = record.drive(from_round(record, 2), place=place)
    assert set(codes(late)) == {"forged"}
    assert said(late) == []


def test_the_last_round_ends_with_its_certificate() -> None:
    record = disputed()
    last = {"type": "ended", "certificate": record.certificates[-1]}
    found = record.drive([*record.told, last, last])
    rows = [(each["round"], each["kind"], each["unit"], each["reason"]) for each in effects(found, "verdict")]
    assert rows == record.verdicts
    told = [message for message in record.told if message["type"] == "round"]
    forged = spoilt(record.certificates[-1], [STRANGER], place_of(record, told[-1]))
    for other in (record.certificates[0], forged):
        found = record.drive([*record.told, last | {"certificate": other}])
        assert not found["state"]["done"]


@pytest.mark.parametrize(
    "change",
    [
        {"round": -1},
        {"round": 1.5},
        {"beacon": "zz"},
        {"committee": "all"},
        {"quorums": [7]},
        {"audits": [{"id": 1}]},
        {"unit": []},
        {"certificate": {}},
    ],
)
def test_what_cannot_be_read_is_ignored(change: dict[str, object]) -> None:
    record = honest()
    found = record.drive([record.told[0] | change, record.told[0]])
    assert codes(found) == ["malformed"]
    assert len(effects(found, "train")) == 1


def test_an_audit_beacon_is_what_the_locked_links_give() -> None:
    record = honest()
    told = first_round(record, "audit")
    body = unseal(DOMAIN, bytes.fromhex(told[-1]["quorums"][Phase.BEACON])).body
    assert isinstance(body, Quorum)
    payload = decode(Phase.BEACON, body.payload)
    assert isinstance(payload, BeaconPayload)
    found = record.drive(told)
    assert found["state"]["auditBeacon"] == combine(DOMAIN, record.job, 0, Draw.AUDIT, dict(payload.links)).hex()
