"""What a committee signs: the digests worked out apart, and every reason to refuse a quorum or a handover."""

from __future__ import annotations

import struct

import msgspec
import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak as eth_keccak

from atoll.errors import Refused
from atoll.training.committee import (
    AuditPayload,
    BeaconPayload,
    CertifyPayload,
    LockPayload,
    OpenPayload,
    Payload,
    Row,
    carried_payload,
    decode,
    encode,
    lock_root,
    next_beacon,
    ordered,
    prepared_view,
    quorum,
    read_evidence,
    statement_digest,
    verdict_root,
    verify_quorum,
)
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.messages import Body, Commit, Handover, Phase, Prepare, Present, Quorum, Signed, unseal
from atoll.wire.reasons import Reason

from .lab import ACCOUNTS, CONTRACT, DOMAIN, JOB, KEYS, context, sealed

PLACE = context(7, 7).place
LOCK = encode(LockPayload((b"a commit",)))


def open_(raw: bytes) -> Signed:
    return unseal(DOMAIN, raw)


def certificate(**changes: object) -> CertifyPayload:
    base = CertifyPayload(
        replays=(),
        present=(),
        links=((ACCOUNTS[0], bytes(32)),),
        verdicts=(Row(1, keccak(b"unit"), ACCOUNTS[2], 33), Row(4, ZERO_HASH, ACCOUNTS[0], 0)),
        model=keccak(b"next model"),
        roster=tuple(ACCOUNTS[:3]),
        committee=(ACCOUNTS[1], ACCOUNTS[0]),
        lock_root=keccak(b"lock"),
        last=False,
    )
    return msgspec.structs.replace(base, **changes)


def signed_quorum(phase: Phase, payload: bytes, signers: range, view: int = 0) -> Quorum:
    digest = statement_digest(PLACE, phase, view, payload)
    return Quorum(JOB, 1, view, phase, payload, tuple(KEYS[i].sign_digest(digest) for i in signers))


def reason_of(call: object, *arguments: object) -> Reason:
    with pytest.raises(Refused) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.reason


def test_quorums() -> None:
    # by hand: floor(2m / 3) + 1
    table = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 5, 7: 5, 8: 6, 9: 7, 10: 7, 16: 11}
    assert {members: quorum(members) for members in table} == table
    for members in range(1, 17):  # two quorums share more than a third
        liars = (members - 1) // 3
        assert 2 * quorum(members) - members > liars
        assert members - liars >= quorum(members)


def test_digest_of_an_inner_phase() -> None:
    def part(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    domain = (31337).to_bytes(32, "big") + b"\x11" * 20
    parts = (b"atoll/statement/1", domain, JOB, b"\0\0\0\1", b"\3", b"\0\0\0\7", eth_keccak(b"payload"))
    assert statement_digest(PLACE, Phase.OPEN, 7, b"payload") == eth_keccak(b"".join(map(part, parts)))


def test_digest_of_a_certificate_is_eip_712() -> None:
    """Against eth_account's own encoder, with the Merkle root and the committee's hash written out."""
    payload = certificate()
    leaves = [eth_keccak(b"\0" + encode(row)) for row in payload.verdicts]
    root = eth_keccak(b"\2" + (2).to_bytes(8, "big") + eth_keccak(b"\1" + leaves[0] + leaves[1]))

    def addresses(accounts: tuple[bytes, ...]) -> bytes:  # keccak256(abi.encode(address[]))
        words = [(32).to_bytes(32, "big"), len(accounts).to_bytes(32, "big"), *(bytes(12) + a for a in accounts)]
        return eth_keccak(b"".join(words))

    kinds = "bytes32 job,uint32 round,uint32 attempt,bytes32 lockRoot,bytes32 verdictRoot,bytes32 modelRoot"
    kinds += ",bytes32 committee,bytes32 nextCommittee,bool last"
    message = encode_typed_data(
        {"name": "Atoll", "version": "1", "chainId": 31337, "verifyingContract": "0x" + CONTRACT.hex()},
        {"Certificate": [{"type": k, "name": n} for k, n in (field.split() for field in kinds.split(","))]},
        {
            "job": JOB,
            "round": 1,
            "attempt": 5,
            "lockRoot": payload.lock_root,
            "verdictRoot": root,
            "modelRoot": payload.model,
            "committee": addresses(PLACE.committee),
            "nextCommittee": addresses(payload.committee),
            "last": False,
        },
    )
    expected = eth_keccak(b"\x19" + message.version + message.header + message.body)
    assert statement_digest(PLACE, Phase.CERTIFY, 5, encode(payload)) == expected
    assert verdict_root(payload.verdicts) == root


def test_digests_bind_everything() -> None:
    def digest(phase: Phase = Phase.LOCK, view: int = 0, payload: bytes = LOCK, **changes: object) -> bytes:
        place = context(7, 7).place
        for name, value in changes.items():
            object.__setattr__(place, name, value)
        return statement_digest(place, phase, view, payload)

    other = [
        digest(phase=Phase.BEACON),
        digest(view=1),
        digest(payload=encode(LockPayload(()))),
        digest(job=bytes(32)),
        digest(round=2),
        digest(domain=type(DOMAIN)(1, DOMAIN.registry)),
        digest(domain=type(DOMAIN)(DOMAIN.chain_id, bytes(20))),
    ]
    assert len({digest(), *other}) == 8


def test_payloads_have_one_encoding() -> None:
    payloads: dict[Phase, Payload] = {
        Phase.LOCK: LockPayload((b"x", b"y")),
        Phase.BEACON: BeaconPayload(((ACCOUNTS[0], bytes(32)),)),
        Phase.AUDIT: AuditPayload(()),
        Phase.OPEN: OpenPayload((b"r",), (), ((bytes(32), 255),)),
        Phase.CERTIFY: certificate(),
    }
    for phase, payload in payloads.items():
        assert decode(phase, encode(payload)) == payload
    assert encode(LockPayload((b"x",))) == b"\x91\x91\xc4\x01x"  # msgpack, by hand


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x91\xc5\x00\x01x",  # a longer form of the same bytes
        b"\x91\xdc\x00\x01\xc4\x01x",
        b"\x91\x91\xc4\x01x\x00",  # something after it
        b"\x92\x91\xc4\x01x\x00",  # one field too many
        b"\x91\x91\xa1x",  # text instead of bytes
        b"\x91\x91\xc5\x20\x01" + bytes(8193),  # an envelope over 8 KiB
        b"\x91\xdc\x01\x01" + b"\xc4\x01x" * 257,  # more than 256
    ],
)
def test_payloads_that_are_not_canonical(data: bytes) -> None:
    assert reason_of(decode, Phase.LOCK, data) is Reason.MALFORMED


def test_quorums_that_count() -> None:
    assert verify_quorum(PLACE, signed_quorum(Phase.LOCK, LOCK, range(5))) == LockPayload((b"a commit",))
    assert verify_quorum(PLACE, signed_quorum(Phase.CERTIFY, encode(certificate()), range(2, 7), 3)) == certificate()


def test_quorums_that_do_not_count() -> None:
    def why(message: Quorum) -> Reason:
        return reason_of(verify_quorum, PLACE, message)

    good = signed_quorum(Phase.LOCK, LOCK, range(5))
    assert why(signed_quorum(Phase.LOCK, LOCK, range(4))) is Reason.BAD_SIGNATURE  # one too few
    twice = msgspec.structs.replace(good, signatures=(*good.signatures[:4], good.signatures[0]))
    assert why(twice) is Reason.BAD_SIGNATURE  # the same member twice
    assert why(signed_quorum(Phase.LOCK, LOCK, range(3, 8))) is Reason.UNKNOWN_ACCOUNT  # number 7 is no member
    for change in ({"view": 1}, {"phase": Phase.AUDIT}, {"payload": encode(LockPayload(()))}):
        assert why(msgspec.structs.replace(good, **change)) is Reason.UNKNOWN_ACCOUNT  # signed something else
    assert why(msgspec.structs.replace(good, signatures=(bytes(65),) * 5)) is Reason.BAD_SIGNATURE
    assert why(signed_quorum(Phase.LOCK, b"\xc1", range(5))) is Reason.MALFORMED
    mixed = (
        signed_quorum(Phase.LOCK, LOCK, range(3)).signatures
        + signed_quorum(Phase.LOCK, LOCK, range(3, 5), 1).signatures
    )
    assert why(msgspec.structs.replace(good, signatures=mixed)) is Reason.UNKNOWN_ACCOUNT  # two views are no quorum


# -- handovers ---------------------------------------------------------------------------------------------------
def prepares(payload: bytes, view: int, members: range, phase: Phase = Phase.OPEN) -> tuple[bytes, ...]:
    digest = statement_digest(PLACE, phase, view, payload)
    return tuple(sealed(i, Prepare(JOB, 1, view, phase, digest)).raw for i in members)


def handover(index: int, view: int, payload: bytes = b"", shown: tuple[bytes, ...] = (), **changes: object) -> bytes:
    body = Handover(JOB, 1, view, Phase.OPEN, payload, shown)
    return sealed(index, msgspec.structs.replace(body, **changes)).raw


def carried(view: int, handovers: list[bytes]) -> bytes:
    return carried_payload(PLACE, Phase.OPEN, view, handovers, open_)


def test_a_new_leader_is_free_when_nothing_was_prepared() -> None:
    assert carried(1, [handover(i, 1) for i in range(5)]) == b""


def test_a_new_leader_carries_what_was_prepared_last() -> None:
    early, late = prepares(b"early", 0, range(5)), prepares(b"late", 2, range(2, 7))
    rows = [handover(0, 3, b"early", early), handover(1, 3, b"late", late), *(handover(i, 3) for i in range(2, 5))]
    for turn in range(5):
        assert carried(3, rows[turn:] + rows[:turn]) == b"late"
    assert carried(3, [rows[0], *rows[2:], handover(6, 3)]) == b"early"


def test_handovers_that_do_not_count() -> None:
    rows = [handover(i, 1) for i in range(5)]
    assert reason_of(carried, 1, rows[:4]) is Reason.NOT_LEADER
    assert reason_of(carried, 1, [*rows[:4], rows[0]]) is Reason.NOT_LEADER
    assert reason_of(carried, 1, [*rows[:4], handover(7, 1)]) is Reason.NOT_LEADER  # no member
    assert reason_of(carried, 2, rows) is Reason.NOT_LEADER  # of another view
    assert reason_of(carried, 1, [*rows[:4], handover(4, 1, phase=Phase.LOCK)]) is Reason.NOT_LEADER
    assert reason_of(carried, 1, [*rows[:4], handover(4, 1, round=2)]) is Reason.MALFORMED
    assert reason_of(carried, 1, [*rows[:4], sealed(4, Present(JOB, 1)).raw]) is Reason.MALFORMED
    assert reason_of(carried, 1, [*rows[:4], b"\xc1"]) is Reason.MALFORMED


def test_what_shows_that_a_payload_was_prepared() -> None:
    def view_of(payload: bytes, shown: tuple[bytes, ...], view: int = 3) -> int:
        return prepared_view(PLACE, Handover(JOB, 1, view, Phase.OPEN, payload, shown), open_)

    good = prepares(b"p", 2, range(5))
    assert view_of(b"p", good) == 2
    assert view_of(b"", ()) == -1
    assert reason_of(view_of, b"p", ()) is Reason.BAD_PROOF
    assert reason_of(view_of, b"p", good[:4]) is Reason.BAD_PROOF
    assert reason_of(view_of, b"p", (*good[:4], good[0])) is Reason.BAD_PROOF
    assert reason_of(view_of, b"q", good) is Reason.BAD_PROOF  # of another payload
    assert reason_of(view_of, b"p", good, 2) is Reason.BAD_PROOF  # not before this view
    assert reason_of(view_of, b"p", (*good[:4], *prepares(b"p", 1, range(4, 5)))) is Reason.BAD_PROOF  # of two views
    assert reason_of(view_of, b"p", prepares(b"p", 2, range(3, 8))) is Reason.MALFORMED  # number 7 is no member
    assert reason_of(view_of, b"p", prepares(b"p", 2, range(5), Phase.AUDIT)) is Reason.MALFORMED
    assert reason_of(view_of, b"", good) is Reason.BAD_PROOF


# -- evidence ----------------------------------------------------------------------------------------------------
def test_evidence() -> None:
    def commit(index: int, job: bytes = JOB, number: int = 1) -> Signed:
        return sealed(index, Commit(job, number, keccak(bytes([index])), bytes(32)))

    rows = {bytes([9 - i]): commit(i) for i in range(3)}
    assert ordered(rows) == (commit(2).raw, commit(1).raw, commit(0).raw)
    assert [s.account for s in read_evidence(open_, ordered(rows), Commit, PLACE)] == ACCOUNTS[2::-1]
    other: list[Body] = [Present(JOB, 1)]
    for bad in (commit(0, bytes(32)), commit(0, JOB, 2), *(sealed(0, body) for body in other)):
        assert reason_of(read_evidence, open_, [bad.raw], Commit, PLACE) is Reason.MALFORMED


def test_the_next_beacon_depends_on_the_links_alone() -> None:
    links = ((ACCOUNTS[0], keccak(b"0")), (ACCOUNTS[1], keccak(b"1")))
    first = next_beacon(PLACE, certificate(links=links))
    assert first == next_beacon(PLACE, certificate(links=links[::-1], model=bytes(32)))
    assert first != next_beacon(PLACE, certificate(links=links[:1]))


def test_the_root_of_a_lock() -> None:
    left, right = eth_keccak(b"\0one"), eth_keccak(b"\0two")
    root = eth_keccak(b"\2" + (2).to_bytes(8, "big") + eth_keccak(b"\1" + left + right))
    assert lock_root(LockPayload((b"one", b"two"))) == root
