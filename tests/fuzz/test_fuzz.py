"""A few seconds of the fuzzer, the same inputs every time: what is read is accepted or refused, no more."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, given, seed, settings

from .running import Runner, found_shapes
from .structured import STRATEGIES, graphs
from .targets import TARGETS, run, seeds

QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_inputs_are_accepted_or_refused(target: str) -> None:
    def once(data: bytes) -> None:
        run(target, data)

    seed(0)(settings(QUIET, max_examples=60)(given(STRATEGIES[target])(once)))()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_mutation_starts_from_what_is_accepted(target: str) -> None:
    assert not seeds()[target] or run(target, seeds()[target][0])


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_graphs_that_pass_the_gate_run_and_have_the_shapes_that_it_foretold() -> None:
    runner = Runner()
    ran = []

    def once(data: bytes) -> None:
        if run("built-graph", data):
            runner.check(data)
            ran.append(bool(found_shapes(data, 1)))

    try:
        seed(0)(settings(QUIET, max_examples=30)(given(graphs())(once)))()
    finally:
        runner.close()
    assert sum(ran) > 10  # or else the strategy makes nothing that runs
