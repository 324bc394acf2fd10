"""What the API counts, in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from atoll.inference.answers import Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
MAX_MODELS = 64  # that are told apart; clients choose what they type

Gauges = Mapping[str, Callable[[], int]]
"""Name of a gauge without its prefix -> its present value."""

_HELP = {
    "atoll_requests_total": ("counter", "Requests that were answered, by endpoint and HTTP status."),
    "atoll_errors_total": ("counter", "Answers that were errors, by endpoint and code."),
    "atoll_request_seconds": ("histogram", "Time from a request's arrival to the end of its answer."),
    "atoll_first_piece_seconds": ("histogram", "Time from a request's arrival to the first piece of a language model."),
    "atoll_model_tokens_total": ("counter", "Tokens that models read (prompt) and wrote (answer)."),
    "atoll_spent_base_units_total": ("counter", "What answers cost, in base units of the token (10^18 to a token)."),
    "atoll_answers_checked_total": ("counter", "Answers, by whether they ran here, were checked, or were not."),
}


class Histogram:
    """How often a time fell into each bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one time."""
        self._counts[next((i for i, limit in enumerate(BUCKETS) if seconds <= limit), len(BUCKETS))] += 1
        self._sum += seconds

    def lines(self, name: str, labels: Mapping[str, str]) -> Iterable[str]:
        """The samples, cumulative."""
        total = 0
        for limit, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            yield _line(f"{name}_bucket", {**labels, "le": limit}, total)
        yield _line(f"{name}_sum", labels, self._sum)
        yield _line(f"{name}_count", labels, total)


class Meter:
    """Counters of one server. Times are handed in."""

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._counts: dict[str, Counter[tuple[tuple[str, str], ...]]] = {name: Counter() for name in _HELP}
        self._times: dict[str, dict[str, Histogram]] = {"atoll_request_seconds": {}, "atoll_first_piece_seconds": {}}

    def answered(self, endpoint: str, status: int, seconds: float, code: str = "") -> None:
        """Count a request and how long it took; `code` of an error."""
        self._add("atoll_requests_total", endpoint=endpoint, status=str(status))
        if code:
            self._add("atoll_errors_total", endpoint=endpoint, code=code)
        self._time("atoll_request_seconds", endpoint, seconds)

    def began(self, endpoint: str, seconds: float) -> None:
        """Count the time to a first piece."""
        self._time("atoll_first_piece_seconds", endpoint, seconds)

    def used(self, model: str, prompt: int, answer: int, served: Served) -> None:
        """Count what a model read and wrote, and what it cost."""
        model = self._label(model)
        self._add("atoll_model_tokens_total", prompt, model=model, kind="prompt")
        self._add("atoll_model_tokens_total", answer, model=model, kind="answer")
        self._add("atoll_answers_checked_total", checked=served.checked)
        self._add("atoll_spent_base_units_total", served.cost)

    def text(self, gauges: Gauges) -> str:
        """The page that Prometheus reads."""
        lines = []
        for name, (kind, told) in _HELP.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            if kind == "histogram":
                for endpoint, times in self._times[name].items():
                    lines += times.lines(name, {"endpoint": endpoint})
            else:
                lines += [_line(name, dict(labels), count) for labels, count in self._counts[name].items()]
        for name, value in gauges.items():
            lines += [f"# TYPE atoll_{name} gauge", _line(f"atoll_{name}", {}, value())]
        return "\n".join(lines) + "\n"

    def _label(self, model: str) -> str:
        """The name of a model as it is counted: however it is typed, there are at most MAX_MODELS."""
        name = model.strip().lower()
        if name not in self._models and len(self._models) >= MAX_MODELS:
            return "other"
        self._models.add(name)
        return name

    def _add(self, counter: str, amount: int = 1, **labels: str) -> None:
        self._counts[counter][tuple(labels.items())] += amount

    def _time(self, histogram: str, endpoint: str, seconds: float) -> None:
        self._times[histogram].setdefault(endpoint, Histogram()).add(seconds)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
