"""Counters in the text format of Prometheus."""

from __future__ import annotations

import re

from atoll.gateway.openai.metrics import MAX_MODELS, Meter
from atoll.inference.answers import LOCAL, Served

# https://prometheus.io/docs/instrumenting/exposition_formats/
SAMPLE = re.compile(r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')


def samples(meter: Meter) -> dict[str, str]:
    lines = [line for line in meter.text({}).splitlines() if not line.startswith("# ")]
    assert all(SAMPLE.fullmatch(line) for line in lines)
    return dict(line.rsplit(" ", 1) for line in lines)


def test_times_fall_into_cumulative_buckets() -> None:
    meter = Meter()
    for seconds in (0.004, 0.005, 0.3, 1000.0):
        meter.answered("/v1/x", 200, seconds)
    found = samples(meter)
    name = 'atoll_request_seconds_bucket{endpoint="/v1/x",le="%s"}'
    assert [found[name % limit] for limit in ("0.005", "0.25", "0.5", "300.0", "+Inf")] == ["2", "2", "3", "3", "4"]
    assert found['atoll_request_seconds_count{endpoint="/v1/x"}'] == "4"
    assert float(found['atoll_request_seconds_sum{endpoint="/v1/x"}']) == 1000.309


def test_amounts_are_exact() -> None:
    meter = Meter()
    for _ in range(3):
        meter.used("m", 5, 7, Served("0x00", 10**18 + 1, "no"))
    found = samples(meter)
    assert found["atoll_spent_base_units_total"] == str(3 * 10**18 + 3)
    assert found['atoll_model_tokens_total{model="m",kind="prompt"}'] == "15"
    assert found['atoll_answers_checked_total{checked="no"}'] == "3"


def test_names_that_clients_choose_are_escaped_and_bounded() -> None:
    meter = Meter()
    meter.used('a"b\\c\nd', 1, 0, LOCAL)
    for index in range(10 * MAX_MODELS):
        meter.used(f"model {index}", 1, 0, LOCAL)
    meter.used("MODEL 1 ", 1, 0, LOCAL)
    found = samples(meter)
    assert found['atoll_model_tokens_total{model="a\\"b\\\\c\\nd",kind="prompt"}'] == "1"
    assert found['atoll_model_tokens_total{model="model 1",kind="prompt"}'] == "2"
    assert found['atoll_model_tokens_total{model="other",kind="prompt"}'] == str(9 * MAX_MODELS + 1)
