"""The directory of peers: who gets in, and whose word about addresses counts."""

from __future__ import annotations

import pytest

from atoll.errors import Refused
from atoll.node.peers import MAX_HINTS, Directory, Peer
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey, EndpointKey, PeerRecord, make_binding, sign_record
from atoll.wire.reasons import Reason

DOMAIN = Domain(7, b"\x07" * 20)
ELSEWHERE = Domain(8, b"\x07" * 20)
ALICE, BOB = AccountKey(b"\x01" * 32), AccountKey(b"\x02" * 32)
DOOR, NEW_DOOR, BACK_DOOR = (EndpointKey(bytes([number]) * 32) for number in (3, 4, 5))


def binding(key: AccountKey, door: EndpointKey, domain: Domain = DOMAIN) -> bytes:
    return make_binding(domain, key, door).endpoint_signature


def enter(
    directory: Directory, key: AccountKey = ALICE, door: EndpointKey = DOOR, roles: int = 1, hints: str = ""
) -> bool:
    return directory.registered(key.address, door.public, roles, hints, binding(key, door))


def record(
    sequence: int,
    *addresses: str,
    key: AccountKey = ALICE,
    door: EndpointKey = DOOR,
    domain: Domain = DOMAIN,
    roles: int = 1,
) -> bytes:
    plain = PeerRecord(key.address, door.public, addresses, roles, "0.1", sequence)
    return sign_record(domain, key, plain).encode()


def refusal(directory: Directory, data: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        directory.learn(data)
    return Reason(caught.value.reason)


@pytest.fixture
def directory() -> Directory:
    one = Directory(DOMAIN)
    assert enter(one, hints="10.0.0.1:80")
    return one


def test_a_registration_is_listed(directory: Directory) -> None:
    assert directory.get(ALICE.address) == Peer(ALICE.address, DOOR.public, ("10.0.0.1:80",), 1)
    assert directory.account_of(DOOR.public) == ALICE.address
    assert directory.accounts() == [ALICE.address]
    assert directory.records() == []


def test_a_bad_binding_is_ignored(directory: Directory) -> None:
    stolen = [
        binding(ALICE, DOOR),  # signed for another account
        binding(BOB, DOOR, ELSEWHERE),  # signed for another network
        binding(BOB, NEW_DOOR),  # signed by another endpoint
        bytes(64),
        b"",
    ]
    for signature in stolen:
        assert not directory.registered(BOB.address, DOOR.public, 1, "10.0.0.2:80", signature)
    assert directory.accounts() == [ALICE.address]
    assert directory.account_of(DOOR.public) == ALICE.address


def test_a_bad_binding_does_not_overwrite_a_good_one(directory: Directory) -> None:
    before = directory.get(ALICE.address)
    assert not directory.registered(ALICE.address, NEW_DOOR.public, 2, "", binding(ALICE, DOOR))
    assert directory.get(ALICE.address) == before
    assert directory.account_of(NEW_DOOR.public) is None


def test_only_usable_hints_are_kept_and_only_so_many() -> None:
    directory = Directory(DOMAIN)
    enter(directory, hints="10.0.0.1:80,,nonsense,0.0.0.0:80,10.0.0.1:0,[fe80::1]:5,224.0.0.1:80")
    assert directory.get(ALICE.address).addresses == ("10.0.0.1:80", "[fe80::1]:5")
    many = [f"10.0.1.{number}:80" for number in range(1, MAX_HINTS + 4)]
    enter(directory, hints=",".join(many))
    assert directory.get(ALICE.address).addresses == tuple(many[:8])


def test_the_highest_sequence_counts(directory: Directory) -> None:
    second, third = record(2, "10.0.0.2:80"), record(3, "10.0.0.3:80", "10.0.0.4:80")
    assert directory.learn(second).addresses == ("10.0.0.2:80",)
    assert directory.learn(third).addresses == ("10.0.0.3:80", "10.0.0.4:80")
    assert directory.learn(second).sequence == 3  # an older one changes nothing
    assert directory.learn(record(3, "10.6.6.6:80")).addresses == ("10.0.0.3:80", "10.0.0.4:80")  # nor does a tie
    peer = directory.get(ALICE.address)
    assert (peer.sequence, peer.version, peer.record) == (3, "0.1", third)
    assert directory.records() == [third]


def test_the_first_record_has_sequence_zero(directory: Directory) -> None:
    assert directory.learn(record(0, "10.0.0.2:80")).addresses == ("10.0.0.2:80",)


def test_roles_are_what_the_registry_says(directory: Directory) -> None:
    assert directory.learn(record(1, roles=255)).roles == 1


def test_records_of_others_are_refused(directory: Directory) -> None:
    assert refusal(directory, record(1, key=BOB, door=BACK_DOOR)) == Reason.UNKNOWN_ACCOUNT
    assert refusal(directory, record(1, door=NEW_DOOR)) == Reason.BAD_BINDING
    # A signature made for another network recovers to somebody else.
    assert refusal(directory, record(1, domain=ELSEWHERE)) == Reason.BAD_SIGNATURE
    forged = PeerRecord(ALICE.address, DOOR.public, (), 1, "0.1", 9, b"\x01" * 65).encode()
    assert refusal(directory, forged) == Reason.BAD_SIGNATURE
    assert refusal(directory, b"\xc1") == Reason.MALFORMED
    assert directory.get(ALICE.address).sequence == -1


def test_the_same_endpoint_registered_again_keeps_its_record(directory: Directory) -> None:
    directory.learn(record(5, "10.0.0.5:80"))
    enter(directory, roles=3, hints="10.0.0.9:80")
    peer = directory.get(ALICE.address)
    assert (peer.roles, peer.addresses, peer.sequence) == (3, ("10.0.0.5:80",), 5)


def test_without_a_record_new_hints_replace_the_old(directory: Directory) -> None:
    enter(directory, roles=3, hints="10.0.0.9:80")
    assert directory.get(ALICE.address) == Peer(ALICE.address, DOOR.public, ("10.0.0.9:80",), 3)


def test_a_new_endpoint_starts_anew_and_the_old_one_speaks_for_nobody(directory: Directory) -> None:
    old = record(5, "10.0.0.5:80")
    directory.learn(old)
    enter(directory, door=NEW_DOOR, hints="10.0.0.9:80")
    assert directory.get(ALICE.address) == Peer(ALICE.address, NEW_DOOR.public, ("10.0.0.9:80",), 1)
    assert refusal(directory, old) == Reason.BAD_BINDING
    assert directory.learn(record(0, "10.0.0.6:80", door=NEW_DOOR)).sequence == 0
    assert directory.account_of(NEW_DOOR.public) == ALICE.address
    assert directory.account_of(DOOR.public) is None


def test_accounts_that_share_an_endpoint_are_where_its_first_account_is(directory: Directory) -> None:
    """A gateway and a browser tab: connections belong to the gateway, the tab's blobs are asked for there."""
    enter(directory, BOB, DOOR, roles=33, hints="10.0.0.1:80")
    assert directory.account_of(DOOR.public) == ALICE.address
    assert directory.accounts() == sorted([ALICE.address, BOB.address])
    assert directory.reached() == [ALICE.address]
    directory.learn(record(1, "10.0.0.7:80"))  # the gateway has moved
    assert directory.get(BOB.address).addresses == ("10.0.0.7:80",)
    assert directory.get(BOB.address).endpoint_id == DOOR.public
    enter(directory, hints="10.0.0.1:80")  # registering again changes no owner
    assert directory.account_of(DOOR.public) == ALICE.address
    enter(directory, ALICE, NEW_DOOR)  # with another key it leaves this one to whoever is left
    assert directory.account_of(DOOR.public) is None
    enter(directory, BOB, DOOR, roles=33)
    assert directory.account_of(DOOR.public) == BOB.address


def test_peers_by_role(directory: Directory) -> None:
    enter(directory, BOB, BACK_DOOR, roles=6)
    assert directory.with_role(1) == [ALICE.address]
    assert directory.with_role(2) == directory.with_role(4) == [BOB.address]
    assert directory.with_role(8) == []
    assert directory.with_role(3) == directory.accounts() == sorted([ALICE.address, BOB.address])


def test_an_unknown_account() -> None:
    with pytest.raises(Refused) as caught:
        Directory(DOMAIN).get(ALICE.address)
    assert caught.value.reason == Reason.UNKNOWN_ACCOUNT
    assert Directory(DOMAIN).account_of(DOOR.public) is None
