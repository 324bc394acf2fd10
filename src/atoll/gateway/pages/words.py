"""How the pages write numbers, amounts, ids, times and roles: the filters of the templates. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from atoll.gateway import figures
from atoll.ledger.receipts import amount_text
from atoll.training.context import GATEWAY, HOLDER, LIGHT, SERVER, VALIDATOR, WORKER
from atoll.wire.reasons import Reason

ROLE_NAMES: Mapping[int, str] = {
    WORKER: "worker", VALIDATOR: "validator", HOLDER: "holder", SERVER: "server", GATEWAY: "gateway", LIGHT: "light",
}  # fmt: skip
ROLE_WORDS: Mapping[str, tuple[str, str]] = {
    "worker": ("trains", "train"),
    "validator": ("checks and signs", "check and sign"),
    "holder": ("stores pieces", "store pieces"),
    "server": ("answers", "answer"),
    "gateway": ("shows this page", "show this page"),
    "light": ("takes small units", "take small units"),
}
"""What a role does: of one node, and of more."""
MAX_TEXT = 300


def roles_of(flags: int) -> list[str]:
    """The names of role flags."""
    return [name for flag, name in ROLE_NAMES.items() if flags & flag]


def plain(text: object, limit: int = MAX_TEXT) -> str:
    """Text from the network as one line: what turns or hides text, or controls a terminal, is �; cut at `limit`."""
    shown = "".join(one if one.isprintable() else "\ufffd" for one in str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def short(text: object) -> str:
    """The two ends of a long id."""
    return figures.short(str(text), 8, 4)


def tokens(amount: object, decimals: int = 4) -> str:
    """Base units as tokens, cut (never rounded up) after four decimals, thousands apart."""
    whole, _, rest = amount_text(figures.number(amount)).partition(".")
    sign, digits = ("−", whole[1:]) if whole.startswith("-") else ("", whole)
    rest = rest[:decimals].rstrip("0")
    return f"{sign}{int(digits):,}".replace(",", "\u202f") + (f".{rest}" if rest else "")


def whole(value: object) -> str:
    """A whole number with its thousands apart."""
    return f"{figures.number(value):,}".replace(",", "\u202f")


def form(count: object, one: str, many: str = "") -> str:
    """The form of a word that goes with a count: "job" with 1, else `many`, or "jobs"."""
    return one if figures.number(count) == 1 else many or f"{one}s"


def counted(count: object, one: str, many: str = "") -> str:
    """A count and its word: "1 job", "2 jobs"."""
    return f"{whole(count)} {form(count, one, many)}"


def percent(value: object) -> str:
    """A share from 0 to 1 as per cent, or a dash."""
    return "–" if not isinstance(value, int | float) else f"{value:.2%}".replace("%", "\u202f%")


def decimal(value: object) -> str:
    """A measured number with four digits after the point, or a dash."""
    return "–" if not isinstance(value, int | float) else f"{value:.4f}"


def moment(seconds: object) -> str:
    """A time as a person reads it, UTC; empty for none."""
    if not isinstance(seconds, int | float) or seconds <= 0:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def reason_name(code: object) -> str:
    """A reason's name; its number when this version does not know it."""
    known = figures.number(code)
    return Reason(known).name if known in Reason.__members__.values() else f"reason {known}"


def reason_sentence(code: object) -> str:
    """A reason's sentence."""
    return figures.reason_sentence(reason_name(code))


FILTERS: Mapping[str, Callable[..., str]] = {
    "plain": plain,
    "short": short,
    "tokens": tokens,
    "whole": whole,
    "form": form,
    "counted": counted,
    "percent": percent,
    "decimal": decimal,
    "moment": moment,
    "bytes": lambda count: figures.size(figures.number(count)),
    "megabytes": lambda count: figures.size(figures.number(count) * (1 << 20)),
    "duration": lambda seconds: figures.duration(float(seconds or 0)),
    "reason": reason_name,
    "sentence": reason_sentence,
}
"""Filters of the templates by name."""
