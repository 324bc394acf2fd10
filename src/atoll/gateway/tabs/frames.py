"""The frames of `/join/socket`: what a tab may send, and how what it is told is written. Pure.

Every frame is one JSON object; bytes are lower-case hex without 0x, amounts decimal strings of base units. The protocol
is docs/protocol/tabs.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from atoll.errors import Refused
from atoll.gateway.tabs.limits import FRAME_BYTES
from atoll.wire.reasons import Reason

VERSION = 1

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Account = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]
Signature = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{130}\Z")]
Envelope = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{2})+\Z", max_length=32 * 1024)]


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """What all frames from a tab share: the `id` that the answer repeats."""

    id: Annotated[str, msgspec.Meta(max_length=64)]


class Hello(Frame, frozen=True, tag="hello"):
    """Who the tab is: the account's signature over tagged(JOIN, domain, endpoint, challenge, account)."""

    account: Account
    signature: Signature


class Register(Frame, frozen=True, tag="register"):
    """Write the account into the registry with the gateway's endpoint: its EIP-712 `Registration`."""

    roles: Literal[1, 33]
    signature: Signature


class Enlist(Frame, frozen=True, tag="enlist"):
    """Offer the account to a job: its EIP-712 `Enlist`."""

    job: Hash
    tip: Hash
    signature: Signature


class Say(Frame, frozen=True, tag="say"):
    """A training envelope of this account for the committee."""

    raw: Envelope


class Claim(Frame, frozen=True, tag="claim"):
    """Pay out now what is final."""


class Pause(Frame, frozen=True, tag="pause"):
    """Send no new rounds until told otherwise; what was begun is still told."""

    paused: bool = True


class Bye(Frame, frozen=True, tag="bye"):
    """The tab leaves; the gateway goes on saying what it has said."""


FromTab = Hello | Register | Enlist | Say | Claim | Pause | Bye


class _AnyFrame(msgspec.Struct, frozen=True):
    id: Any = ""


_DECODER = msgspec.json.Decoder(FromTab)
_ID = msgspec.json.Decoder(_AnyFrame)


def read(text: str) -> FromTab:
    """A frame from a tab; raises Refused(MALFORMED or TOO_LARGE)."""
    if len(text) > FRAME_BYTES:
        raise Refused(Reason.TOO_LARGE, f"a frame of {len(text)} characters; at most {FRAME_BYTES} are taken")
    try:
        frame: FromTab = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(Reason.MALFORMED, str(error)[:200]) from None
    return frame


def id_of(text: str) -> str:
    """The `id` of a frame that is wrong in other ways, to answer it; "" if there is none."""
    try:
        found = _ID.decode(text[:FRAME_BYTES]).id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return found if isinstance(found, str) and len(found) <= 64 else ""


def write(kind: str, /, **fields: object) -> str:
    """A frame for a tab. The fields are what JSON can hold: bytes come as hex already."""
    return msgspec.json.encode({"type": kind, **fields}).decode()
