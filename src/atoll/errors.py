"""Every error that Atoll raises on purpose, on one screen, split by who is at fault.

The message of an error says what happened, what was expected, and what to do next. `exit_code` is what the
command line ends with and never changes its meaning; `code` is the stable name for machines.
"""

from __future__ import annotations

from typing import ClassVar


class AtollError(Exception):
    """Anything that Atoll refuses or gives up on, with a sentence for a person and a code for a machine."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


# You: the command, the file or the setting given cannot be used as it is.
class UserError(AtollError):
    """What was asked for cannot be done as it was asked."""

    code, exit_code = "user", 2


class BadSetting(UserError):
    """A setting is unknown, has the wrong type, or lies outside its range."""

    code = "bad_setting"


class BadInput(UserError):
    """A file or an argument does not have the form that the command needs."""

    code = "bad_input"


class PortInUse(UserError):
    """Another program listens on the port that was asked for."""

    code, exit_code = "port_in_use", 10


class EmptyBudget(UserError):
    """A job was posted with a budget that cannot pay for one round."""

    code, exit_code = "empty_budget", 11


class NotRunning(UserError):
    """No node runs in this home directory."""

    code, exit_code = "not_running", 12


class NoFunds(UserError):
    """An account has too little to pay with; the message names the account, what it has and what it needs."""

    code, exit_code = "no_funds", 13


class UnknownModel(UserError):
    """No model of this name or id is known here."""

    code, exit_code = "unknown_model", 14


class MissingExtra(UserError):
    """An optional part of Atoll is not installed; the message names the command that installs it."""

    code, exit_code = "missing_extra", 15


# Your peer: what came from the network, or from the author of a job, was refused.
class PeerError(AtollError):
    """A peer could not be reached, or sent something that was refused."""

    code, exit_code = "peer", 3


class Unreachable(PeerError):
    """The peer did not answer in time, or the connection broke."""

    code, exit_code = "unreachable", 20


class Refused(PeerError):
    """Something from outside was refused; `reason` is the code that the wire carries (`atoll.wire.reasons`), `name` its
    name, or its number if it has none here.

    `detail` may quote what was refused: what a terminal would obey instead of showing it is escaped.
    """

    code, exit_code = "refused", 21

    def __init__(self, reason: int, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail if detail.isprintable() else "".join(map(_shown, detail))
        self.name: str = getattr(reason, "name", str(reason))
        super().__init__(f"{self.name}: {self.detail}" if detail else self.name)


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


# The chain: the ledger cannot be reached, is another one, or said no.
class ChainError(AtollError):
    """The chain could not be used."""

    code, exit_code = "chain", 4


class ChainDown(ChainError):
    """The JSON-RPC endpoint does not answer."""

    code, exit_code = "chain_down", 30


class WrongChain(ChainError):
    """The endpoint serves another chain, or the contracts are not where they should be."""

    code, exit_code = "wrong_chain", 31


class RpcRefused(ChainError):
    """The JSON-RPC endpoint refused a request; `rpc_code` is its number, `data` what a contract returned, if any."""

    code, exit_code = "rpc_refused", 33

    def __init__(self, message: str, rpc_code: int = 0, data: bytes = b"") -> None:
        self.rpc_code = rpc_code
        self.data = data
        super().__init__(message)


class TransactionFailed(ChainError):
    """A contract reverted; the message carries the contract's own reason, `reason` the name of its error if any."""

    code, exit_code = "transaction_failed", 32

    def __init__(self, message: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


# The machine: a disk, a file or a process of this device failed.
class MachineError(AtollError):
    """This device could not do its part."""

    code, exit_code = "machine", 5


class Corrupt(MachineError):
    """A stored file does not hold what was written: it is kept aside, and the message names the way to restore it."""

    code, exit_code = "corrupt", 40


class EngineFailed(MachineError):
    """The process that runs graphs died, ran out of memory, or ran out of time."""

    code, exit_code = "engine_failed", 41


# Us: a broken promise inside Atoll. Please report it.
class InternalError(AtollError):
    """Atoll broke one of its own rules; the message holds what is needed to report it."""

    code, exit_code = "internal", 70
