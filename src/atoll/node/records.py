"""How a round's events are written to the journal and read back. Pure."""

from __future__ import annotations

import msgspec

from atoll.errors import Corrupt, Refused
from atoll.training.events import Aggregated, Event, Examined, Judged, Received, Replayed, Trained
from atoll.wire.hashing import Domain
from atoll.wire.messages import unseal

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Trained, Examined, Replayed, Judged, Aggregated)}


def write(event: Event) -> tuple[str, bytes] | None:
    """(kind, payload) of an event; None for ticks, which leave no trace."""
    if isinstance(event, Received):
        return "Received", event.signed.raw
    kind = type(event).__name__
    return (kind, msgspec.msgpack.encode(event)) if kind in _KINDS else None


def read(domain: Domain, kind: str, payload: bytes) -> Event:
    """The event of a journal entry; raises Corrupt when it is none."""
    try:
        if kind == "Received":
            return Received(unseal(domain, payload))
        event: Event = msgspec.msgpack.decode(payload, type=_KINDS[kind])
        return event
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        raise Corrupt(
            f"The journal holds an entry ({kind}) that cannot be read: {error}. Start once with `--fresh-journal`: the "
            "node takes the certificates from its peers again; keys and balances are not in the journal."
        ) from None
