"""The command `atoll`: its commands, and how every error reaches a person (one sentence, one exit code)."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from atoll import __version__, config
from atoll.cli import apikeys, commands, data, deposits, external, homes, jobfiles, keys, run, train
from atoll.errors import AtollError, BadInput, BadSetting, InternalError
from atoll.graph.zoo import NAMES
from atoll.logs import say_error
from atoll.node.__main__ import Start
from atoll.wire.identity import parse_account

INTERRUPTED = 130
DEBUG = "ATOLL_DEBUG"
GATEWAY_PORT = 8470
# The parent of all that a wrong command line raises: click's or, in newer versions, typer's own.
_UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    name="atoll",
    help="An open network in which people's own devices train, store and serve small AI models, and are paid for work "
    "that anyone can check.",
    epilog="Start here: atoll up",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
key_app = typer.Typer(help="Back up and restore the keys of a node; keys of its API.", rich_markup_mode="rich")
api_app = typer.Typer(help="Keys for programs that use the API of a node.", rich_markup_mode="rich")
data_app = typer.Typer(help="Data sets of this device: add files, list, show and check them.", rich_markup_mode="rich")
job_app = typer.Typer(help="Make job files from PyTorch models, and look at them.", rich_markup_mode="rich")

NETWORK, NODE, MONEY, MODELS = "A network on this device", "A node", "Money", "Models and files"


class Attack(StrEnum):
    """How a dishonest node lies."""

    random = "random"
    lazy = "lazy"


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    if version:
        sys.stdout.write(f"atoll {__version__}\n")
    elif context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


@app.command(rich_help_panel=NETWORK, epilog="Example: atoll up --nodes 6 --rounds 12 --dishonest 1")
def up(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many node processes to start.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of training.")] = 12,
    dishonest: Annotated[int, typer.Option(min=0, help="How many of the nodes lie, to see them caught.")] = 0,
    attack: Annotated[Attack, typer.Option(help="How they lie: random updates, or half the work.")] = Attack.random,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help=f"What to train: {', '.join(NAMES)}, or a job file.")
    ] = "cnn",
    data: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="Data set: the bundled one, one of `atoll data list`, or a folder.")
    ] = "mnist",
    aggregation: Annotated[
        jobfiles.Rule, typer.Option(help="How updates become one: robust against liars, or their plain mean.")
    ] = jobfiles.Rule.robust,
    budget: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="What the job may cost in all. Default: what it needs.")
    ] = None,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: $ATOLL_HOME, or ~/.atoll.")] = None,
    host: Annotated[str, typer.Option(help="Address for chain and dashboard; 0.0.0.0 lets others join.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the dashboard; 0: a free one.")] = 8470,
    seats: Annotated[
        int, typer.Option(min=0, max=64, help="Browser tabs that the budget leaves room for; the rest is paid back.")
    ] = 4,
    rpc: Annotated[str, typer.Option(metavar="URL", help="Use this chain instead of one on this device.")] = "",
    registry: Annotated[str, typer.Option(metavar="ADDRESS", help="Registry of the network on that chain.")] = "",
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --rpc: private key, in hex, of the account that deploys and pays."),
    ] = None,
    window: external.Window = None,
    exit_: Annotated[bool, typer.Option("--exit", help="End when the job is done.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the summary there.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live view.")] = False,
) -> int:
    """Start a whole network on this device: a chain, nodes, and a job that trains a model and pays for it.

    Run again in the same home, it resumes the same network with its balances. Ctrl-C ends it.
    """
    if dishonest >= nodes:
        raise BadInput(f"--dishonest {dishonest} leaves no honest node among {nodes}: expected fewer than --nodes.")
    for name, given in (("--registry", registry), ("--key", key), ("--window", window)):
        if given and not rpc:
            raise BadSetting(f"{name} is about a network on another chain: give the chain's endpoint with --rpc URL.")
    from atoll.cli.up import UpOptions, run_up

    options = UpOptions(
        nodes=nodes,
        rounds=rounds,
        dishonest=dishonest,
        attack=attack.value,
        job=jobfiles.find_job(model),
        data=train.resolve(data, homes.base(home)),
        aggregation=aggregation.value,
        budget=budget,
        home=homes.base(home),
        host=host,
        port=port,
        seats=seats,
        chain=_chain(rpc, registry, key, window) if rpc else None,
        exit=exit_,
        json=_writable(json_),
        plain=plain,
    )
    return run_up(options)


def _chain(rpc: str, registry: str, key: Path | None, window: int | None) -> external.Wanted:
    if registry and window is not None:
        raise BadSetting("--window is for a new network; that of --registry was set up with its own for good.")
    place = parse_account(registry) if registry else None
    return external.Wanted(rpc, place, None if key is None else keys.read_account_key(key), window)


def _writable(path: Path | None) -> Path | None:
    """The absolute path of a summary that can be written at the end; told now, not after minutes of work."""
    if path is None:
        return None
    full = path.expanduser().absolute()
    if full.is_dir() or not full.parent.is_dir() or not os.access(full.parent, os.W_OK):
        raise BadInput(f"--json {path}: expected the name of a file in a folder that exists and can be written.")
    return full


@app.command(rich_help_panel=NODE, epilog="Example: atoll node --rpc http://192.168.1.5:8545 --registry 0x5FbD…")
def node(
    home: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: node in $ATOLL_HOME, or in ~/.atoll.")
    ] = None,
    rpc: Annotated[str | None, typer.Option(metavar="URL", help="JSON-RPC endpoint of the chain.")] = None,
    registry: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Registry of the network to join.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, for this run.")
    ] = None,
    fresh_journal: Annotated[
        bool, typer.Option("--fresh-journal", help="Keep a damaged journal aside and start another.")
    ] = False,
    opponent: Annotated[str, typer.Option(hidden=True)] = "",
) -> int:
    """Run a node of this device in a network, until Ctrl-C or `atoll stop`.

    The first start writes HOME/config.toml, so that the next one needs no options; `atoll settings` explains it.
    """
    place = homes.base(home) if home is not None else homes.base() / homes.NODE
    given = {name: value for name, value in (("rpc", rpc), ("registry", registry)) if value is not None}
    return _serve(place, given, _pairs(set_ or []), Start(fresh_journal, opponent, echo=True))


@app.command(rich_help_panel=NODE, epilog="Example: atoll gateway --rpc http://192.168.1.5:8545 --registry 0x5FbD…")
def gateway(
    home: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: gateway in $ATOLL_HOME, or in ~/.atoll.")
    ] = None,
    rpc: Annotated[str | None, typer.Option(metavar="URL", help="JSON-RPC endpoint of the chain.")] = None,
    registry: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Registry of the network to show.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets phones of your network in.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port. Default: 8470.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, for this run.")
    ] = None,
) -> int:
    """Show a network in the browser, let tabs work for it, and answer programs, until Ctrl-C or `atoll stop`.

    A gateway is a node that takes no work of its own. It pays the gas with which its browser tabs register.
    """
    place = homes.base(home) if home is not None else homes.base() / homes.GATEWAY
    if home is None and (homes.base() / homes.UP_FILE).exists():
        raise BadInput(
            f"The network of `atoll up` in {homes.base()} has a gateway already, told as `dashboard` when it starts. "
            f"For a second one, give it a home and a port: atoll gateway --home DIR --port 8471 --rpc URL --registry …"
        )
    given: dict[str, object] = {name: value for name, value in (("rpc", rpc), ("registry", registry)) if value}
    if host or port is not None or not (place / config.FILE_NAME).exists():
        shown = f"[{host}]" if ":" in host else host or "127.0.0.1"
        given |= {"roles": ("gateway",), "http": f"{shown}:{GATEWAY_PORT if port is None else port}"}
    return _serve(place, given, _pairs(set_ or []), Start(echo=True))


def _serve(place: Path, given: Mapping[str, object], run: Mapping[str, str], start: Start) -> int:
    """Run a node. Its first start writes HOME/config.toml with what was `given`; `run` is for this run only."""
    overrides = {**run, **given}
    config.load(place, os.environ, overrides)  # a wrong setting is told before anything is written
    if config.write(place, given):
        sys.stderr.write(f"atoll: wrote {place / config.FILE_NAME}, with every setting of this node explained.\n")
    from atoll.gateway.__main__ import serve

    return serve(place, overrides, start)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadSetting(f"--set {text}: expected NAME=VALUE, as in --set cpu_threads=2.")
        pairs[name.strip()] = value
    return pairs


def _add(panel: str, example: str, *commands_: Callable[..., int]) -> None:
    for command in commands_:
        app.command(rich_help_panel=panel, epilog=f"Example: {example.format(name=command.__name__)}")(command)


_ID = "3f2a…e1"
app.command(
    "deploy", rich_help_panel=NETWORK, epilog="Example: atoll deploy --rpc https://chain.example --key key.hex"
)(external.deploy_network)
_add(NODE, "atoll {name} --home ~/.atoll/node-2", commands.status, commands.stop)
_add(NODE, "atoll {name}", commands.pause, commands.resume, commands.settings)
_add(MONEY, "atoll {name}", commands.claim, commands.explain)
_add(MONEY, "atoll {name} 12.5", deposits.deposit, deposits.withdraw)
_add(MONEY, "atoll {name}", deposits.redeem)
_add(MONEY, "atoll {name} 0x70997970C51812dc3A010C7d01b50e0d17dc79C8", commands.statement)
_add(MODELS, "atoll {name} smollm2-135m 'Why is the sky blue?'", run.run)
_add(MODELS, f"atoll {{name}} {_ID} model.bin", commands.get)
_add(MODELS, "atoll {name} notes.txt", commands.put)
_JOB = "digits.atoll"
_add(MODELS, f"atoll {{name}} {_JOB} --data mnist --rounds 12", train.train)
job_app.command("make", epilog=f"Example: atoll job make digits.py:job -o {_JOB}")(jobfiles.make)
job_app.command("show", epilog=f"Example: atoll job show {_JOB}")(jobfiles.show)
job_app.command("check", epilog=f"Example: atoll job check {_JOB}")(jobfiles.check)
app.add_typer(job_app, name="job", rich_help_panel=MODELS)
data_app.command("add", epilog="Example: atoll data add iris iris.csv --target species --licence CC-BY-4.0")(data.add)
data_app.command("list", epilog="Example: atoll data list")(data.list_data)
data_app.command("show", epilog="Example: atoll data show iris")(data.show)
data_app.command("check", epilog="Example: atoll data check iris flowers.atoll")(data.check)
app.add_typer(data_app, name="data", rich_help_panel=MODELS)
key_app.command("export", epilog="Example: atoll key export atoll-keys.json")(keys.export_keys)
key_app.command("import", epilog="Example: atoll key import atoll-keys.json")(keys.import_keys)
api_app.command("add", epilog="Example: atoll key api add laptop --limit 25")(apikeys.add_api_key)
api_app.command("list", epilog="Example: atoll key api list")(apikeys.list_api_keys)
api_app.command("remove", epilog="Example: atoll key api remove laptop")(apikeys.remove_api_key)
key_app.add_typer(api_app, name="api")
app.add_typer(key_app, name="key", rich_help_panel=NODE)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default); returns the exit code and never raises."""
    try:
        command = typer.main.get_command(app)
        code = command.main(args=None if args is None else list(args), prog_name="atoll", standalone_mode=False)
    except AtollError as error:
        if isinstance(error, InternalError):
            _show_trace()
        return say_error(error)
    except _UsageError as error:
        return _say_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\n")
        return INTERRUPTED
    except SystemExit as error:  # a pipe that nobody reads any more
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # whatever it is, a person gets a sentence and the file to report
        return _say_mistake(error)
    return code if isinstance(code, int) else 0


def _say_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "atoll"
    told = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    sys.stderr.write(f"atoll: {told}. Try `{where} --help`.\n")
    return 2


def _show_trace() -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()


def _say_mistake(error: Exception) -> int:
    """One sentence for a mistake of ours, with the file that holds what is needed to find it."""
    _show_trace()
    file, where = homes.base() / "crash.txt", ""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"atoll {__version__}\n{traceback.format_exc()}", encoding="utf-8")
        where = f" with the file {file}"
    sys.stderr.write(
        f"atoll: a mistake inside Atoll ({type(error).__name__}: {str(error)[:200]}): please report it{where}; "
        f"{DEBUG}=1 shows the traceback here.\n"
    )
    return InternalError.exit_code


if __name__ == "__main__":
    sys.exit(main())
