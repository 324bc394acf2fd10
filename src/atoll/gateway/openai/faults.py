"""What can go wrong with a request, as HTTP status and as the JSON that OpenAI's clients turn into exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from atoll.errors import (
    ChainError,
    EngineFailed,
    InternalError,
    MachineError,
    MissingExtra,
    PeerError,
    Refused,
    UnknownModel,
    UserError,
)
from atoll.wire.reasons import Reason

RETRY_SECONDS = 2


class Problem(msgspec.Struct, frozen=True):
    """What went wrong. `param` names the field at fault, `code` is a stable name for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ProblemBody(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    error: Problem


@dataclass
class ApiError(Exception):
    """An answer that is an error: HTTP `status` and what the body tells."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    @property
    def kind(self) -> str:
        """OpenAI's `type` of such an error."""
        kinds = {
            401: "authentication_error",
            402: "insufficient_quota",
            403: "permission_error",
            429: "rate_limit_error",
        }
        return kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    @property
    def problem(self) -> Problem:
        """What the body tells."""
        return Problem(self.message, self.kind, self.param, self.code)

    @property
    def body(self) -> bytes:
        """The JSON body."""
        return msgspec.json.encode(ProblemBody(self.problem))


def fault_of(error: Exception) -> ApiError:
    """How an error of the models, the network or the machine reaches the client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UnknownModel):
        return ApiError(404, str(error), "model_not_found", "model")
    if isinstance(error, MissingExtra):
        return ApiError(501, str(error), error.code)
    if isinstance(error, Refused):
        return _refusal(error)
    if isinstance(error, UserError):
        return ApiError(400, str(error), error.code)
    if isinstance(error, PeerError | ChainError):
        return ApiError(502, str(error), error.code)
    if isinstance(error, EngineFailed):
        return ApiError(500, str(error), error.code)
    if isinstance(error, MachineError):  # its message names files of the owner
        return ApiError(500, "Something is wrong with the node's device: its log tells more.", MachineError.code)
    return ApiError(500, "A mistake inside Atoll: the node's log tells more. Please report it.", InternalError.code)


def _refusal(error: Refused) -> ApiError:
    if error.reason == Reason.OVER_BUDGET:
        told = error.detail or "nobody answers for the money that is left: put more into the deposit"
        return ApiError(402, f"Over budget: {told}.", "insufficient_quota")
    if error.reason == Reason.TOO_LARGE:
        return ApiError(413, str(error), "too_large")
    if error.reason in (Reason.BUSY, Reason.PAUSED):
        return ApiError(503, str(error), "busy", headers={"Retry-After": str(RETRY_SECONDS)})
    return ApiError(502, f"The node that was asked refused or answered wrongly: {error}", error.code)
