"""`atoll deposit`, `withdraw` and `redeem`: the money for answers, through the running node of this device."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from atoll.cli.commands import AsJson, Home, ask, tell
from atoll.errors import BadInput
from atoll.gateway import figures
from atoll.ledger.receipts import TOKEN, amount_from_text, amount_text

Json = Any
CHAIN_SECONDS = 180.0

Amount = Annotated[str | None, typer.Argument(metavar="[AMOUNT]", help=f"In {TOKEN}, as 12.5.")]


def deposit(amount: Amount = None, home: Home = None, as_json: AsJson = False) -> int:
    """Put tokens into the deposit that pays answers of other nodes; without an amount, show it."""
    params = {} if amount is None else {"amount": str(_parsed(amount))}
    found = ask(home, "deposit", "Asking the chain", params, CHAIN_SECONDS)
    head = f"Deposited {_atl(found, 'amount')}.\n" if params else ""
    tell(as_json, found, head + _account(found))
    return 0


def withdraw(amount: Amount = None, home: Home = None, as_json: AsJson = False) -> int:
    """Ask for a part of the deposit back; once its time is over, `atoll withdraw` alone brings it."""
    params = {} if amount is None else {"amount": str(_parsed(amount))}
    found = ask(home, "withdraw", "Asking the chain", params, CHAIN_SECONDS)
    if params:
        head = f"Asked {_atl(found, 'amount')} back: `atoll withdraw` brings it {_when(found)}."
    elif found["received"]:
        head = f"Received {_atl(found, 'amount')}."
    elif int(found["leaving"]):
        head = f"{_atl(found, 'leaving')} are on their way out: `atoll withdraw` brings them {_when(found)}."
    else:
        head = "Nothing is on its way out: `atoll withdraw AMOUNT` asks for a part of the deposit back."
    tell(as_json, found, f"{head}\n{_account(found)}")
    return 0


def redeem(home: Home = None, as_json: AsJson = False) -> int:
    """Collect what others owe this node for its answers; a server also does so by itself when it is worth it."""
    found = ask(home, "redeem", "Bringing vouchers to the chain", None, CHAIN_SECONDS)
    if not found["payers"]:
        text = "Nothing is waiting: no answer of this node is paid and not collected."
    else:
        rest = f"; {_atl(found, 'waiting')} stay for the next time" if int(found["waiting"]) else ""
        text = f"Collected {_atl(found, 'redeemed')}{rest}."
    tell(as_json, found, text)
    return 0


def _parsed(text: str) -> int:
    """Base units; raises BadInput for anything but a positive amount."""
    amount = amount_from_text(text)
    if amount == 0:
        raise BadInput(f"{text} {TOKEN} is nothing: expected a positive amount, like 12.5.")
    return amount


def _account(found: Json) -> str:
    lines = [f"The deposit holds {_atl(found, 'deposit')}, of which {_atl(found, 'free')} are free for questions."]
    if int(found["owed"]):
        lines.append(f"{_atl(found, 'owed')} are owed to servers, which collect them from it.")
    if int(found["leaving"]) and not found.get("received"):
        lines.append(f"{_atl(found, 'leaving')} are on their way out and pay what is owed until they are received.")
    lines.append(f"The account itself has {_atl(found, 'balance')}.")
    return "\n".join(lines)


def _atl(found: Json, name: str) -> str:
    return f"{amount_text(int(found[name]))} {TOKEN}"


def _when(found: Json) -> str:
    left = int(found["withdrawable_at"]) - time.time()
    return f"in {figures.duration(left)}" if left > 0 else "now"
