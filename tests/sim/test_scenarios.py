"""Every scenario of the examples ends as it says: liars convicted, honest nodes never, the money adding up."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.sim.scenario import Scenario, load, material, play

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios.toml"
SCENARIOS = load(EXAMPLES)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_ends_as_expected(scenario: Scenario) -> None:
    outcome = play(scenario, scenario.seeds[0])
    assert outcome.failures == ()


def test_an_unmet_expectation_is_a_failure() -> None:
    liar = next(scenario for scenario in SCENARIOS if scenario.name == "a random worker")
    outcome = play(Scenario(name="unexpected", rounds=1, faults=liar.faults), 1)
    assert any("were convicted" in failure for failure in outcome.failures)


def test_the_same_seed_plays_the_same() -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "a bad network")
    on = material("softmax", scenario.rounds)
    first, second = play(scenario, 7, on), play(scenario, 7, on)
    assert (first.simulated, first.messages, first.paid) == (second.simulated, second.messages, second.paid)
