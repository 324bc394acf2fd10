"""Networks on a chain that runs elsewhere: which one a home belongs to, deploying one, and `atoll deploy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from atoll.cli import keys
from atoll.cli.commands import AsJson, tell, waiting
from atoll.errors import BadInput, BadSetting, Corrupt, MachineError, WrongChain
from atoll.ledger.chain import Chain
from atoll.ledger.deploy import TERMS, Deployed, deploy
from atoll.ledger.link import Link, over_http
from atoll.ledger.records import Addresses, GasUse
from atoll.wire.identity import AccountKey, format_account, parse_account

FILE_NAME = "network.json"
EMBEDDED = "chain"  # the folder of a home's own chain
CONTRACTS = ("registry", "token", "jobs", "settlement", "deposits")
PATIENCE = 20.0  # seconds for which a chain may be away while contracts are deployed
_MAX_FILE_BYTES = 65_536

KeyFile = Annotated[
    Path, typer.Option(metavar="FILE", help="File with the private key, in hex, of the account that pays.")
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="SECONDS", help=f"New network: how long a posted epoch waits. Default: {TERMS.window}."
    ),
]


@dataclass(frozen=True)
class Place:
    """A network as a home remembers it; events are read from `first_block` on."""

    chain_id: int
    registry: bytes
    first_block: int = 0


@dataclass(frozen=True)
class Wanted:
    """What `atoll up` was told about the chain: registry and window None, key None if they were not given."""

    rpc: str
    registry: bytes | None
    key: AccountKey | None
    window: int | None


@dataclass(frozen=True)
class Found:
    """A network that answers, and the gas of its deployment if this was it."""

    place: Place
    window: int
    gas: dict[str, GasUse]


def open_network(home: Path, wanted: Wanted, say: Callable[[str], None]) -> Found:
    """The network that a home belongs to: the one it remembers, the one asked for, or a new one, then remembered.

    Blocking. Raises WrongChain if the home belongs to another network than was asked for, BadSetting if there is
    nothing to go by, NoFunds, ChainDown.
    """
    kept = remembered(home)
    if kept is None and (home / EMBEDDED).exists():
        raise WrongChain(f"{home} holds a network with a chain of its own; give another --home for one on --rpc")
    if kept is not None and wanted.registry not in (None, kept.registry):
        raise WrongChain(
            f"{home} belongs to the network of registry {format_account(kept.registry)}, not to that of "
            f"{format_account(wanted.registry or b'')}; give another --home"
        )
    gas: dict[str, GasUse] = {}
    if kept is None and wanted.registry is None:
        deployed = _deploy(wanted, say)
        kept, gas = place_of(deployed), deployed.gas_by_call
    registry, chain_id = (kept.registry, kept.chain_id) if kept else (wanted.registry or b"", None)
    chain = Chain.connect(wanted.rpc, registry, chain_id)
    place = kept or Place(chain.addresses.chain_id, registry)
    remember(home, place, chain.addresses)
    window = chain.terms().window
    if wanted.window not in (None, window):
        raise BadSetting(
            f"--window {wanted.window}: the network was set up with a window of {window} seconds for good."
        )
    return Found(place, window, gas)


def _deploy(wanted: Wanted, say: Callable[[str], None]) -> Deployed:
    if wanted.key is None:
        raise BadSetting(
            "--rpc needs --registry ADDRESS of a network on that chain, or --key FILE of an account that deploys one."
        )
    link = Link(over_http(wanted.rpc), patience=0.0)  # an endpoint that is down is told at once
    say(f"deploying the contracts of a new network on chain {link.chain_id()}")
    link.patience = PATIENCE
    terms = TERMS if wanted.window is None else replace(TERMS, window=wanted.window)
    return deploy(link, wanted.key, terms)


def place_of(deployed: Deployed) -> Place:
    """Where a new network is."""
    return Place(deployed.addresses.chain_id, deployed.addresses.registry, deployed.first_block)


def remembered(home: Path) -> Place | None:
    """The network on a chain elsewhere that a home belongs to; None if it belongs to none. Raises Corrupt."""
    path = home / FILE_NAME
    try:
        found = json.loads(path.read_bytes()[:_MAX_FILE_BYTES])
        return Place(int(found["chain_id"]), parse_account(found["registry"]), int(found["first_block"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror}): expected a file of yours.") from error
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        raise Corrupt(
            f"{path}, which names the network of this home, is damaged: put a backup of it back, or delete it and give "
            f"--registry ADDRESS"
        ) from error


def remember(home: Path, place: Place, addresses: Addresses) -> None:
    """Write down the network that a home belongs to."""
    path = home / FILE_NAME
    partial = path.with_suffix(".partial")
    body = {"schema": 1, "chain_id": place.chain_id, "first_block": place.first_block, **_contracts(addresses)}
    try:
        home.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(body, indent=2) + "\n", "utf-8")
        partial.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}): expected a folder of yours.") from error


def _contracts(addresses: Addresses) -> dict[str, str]:
    return {name: format_account(getattr(addresses, name)) for name in CONTRACTS}


def join_command(rpc: str, place: Place) -> str:
    """The command with which a node elsewhere joins."""
    late = f" --set first_block={place.first_block}" if place.first_block else ""
    return f"atoll node --rpc {rpc} --registry {format_account(place.registry)}{late}"


def deploy_network(
    rpc: Annotated[str, typer.Option(metavar="URL", help="JSON-RPC endpoint of the chain.")],
    key: KeyFile,
    window: Window = None,
    as_json: AsJson = False,
) -> int:
    """Deploy the contracts of a new network on any EVM chain, and print where they are.

    The account of --key pays and receives all tokens of the network.
    """
    wanted = Wanted(rpc, None, keys.read_account_key(key), window)
    with waiting("Deploying"):
        found = _deploy(wanted, lambda _: None)
    place = place_of(found)
    gas = sum(use.total for use in found.gas_by_call.values())
    body: dict[str, Any] = {
        "chain_id": place.chain_id,
        "first_block": place.first_block,
        **_contracts(found.addresses),
        "gas": {name: use.total for name, use in found.gas_by_call.items()},
    }
    lines = [f"{name:<12}{address}" for name, address in _contracts(found.addresses).items()]
    lines += [f"{'chain':<12}{place.chain_id}, from block {place.first_block}", f"{'gas':<12}{gas}"]
    tell(as_json, body, "\n".join([*lines, f"join with:  {join_command(rpc, place)}"]))
    return 0
