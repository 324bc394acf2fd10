"""`python -m atoll.sim SCENARIOS.toml [--seed N] [--only NAME]`: play scenarios and show how they ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from atoll.errors import AtollError, BadInput
from atoll.sim.scenario import TOKEN, Outcome, Scenario, load, material, play

COLUMNS = ("scenario", "seed", "rounds", "sim s", "messages", "refused", "paid", "result")


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Play all scenarios of a file; 0 when all ended as expected, 1 when one did not, 2 for a bad file."""
    parser = argparse.ArgumentParser(prog="python -m atoll.sim", description="Play scenarios on a simulated network.")
    parser.add_argument("file", type=Path, help="scenarios, as in examples/scenarios.toml")
    parser.add_argument("--seed", type=int, help="play with this seed instead of those of the file")
    parser.add_argument("--only", help="play only the scenario of this name")
    options = parser.parse_args(arguments)
    console = console or Console()
    try:
        chosen = [one for one in load(options.file) if options.only in (None, one.name)]
        if not chosen:
            raise BadInput(f"{options.file} has no scenario named {options.only!r}.")
        outcomes = [play_shown(one, seed, console) for one in chosen for seed in _seeds(one, options.seed)]
    except AtollError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    console.print(_table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in failed:
        for failure in outcome.failures:
            console.print(f"{outcome.scenario.name}, seed {outcome.seed}: {failure}", style="red", markup=False)
        again = f"python -m atoll.sim {options.file} --only '{outcome.scenario.name}' --seed {outcome.seed}"
        console.print(f"  again: {again}", markup=False, soft_wrap=True)
    return 1 if failed else 0


def _seeds(scenario: Scenario, seed: int | None) -> tuple[int, ...]:
    return scenario.seeds if seed is None else (seed,)


def play_shown(scenario: Scenario, seed: int, console: Console) -> Outcome:
    """Play once, with a line that says so where there is a terminal."""
    with console.status(f"{scenario.name}, seed {seed}"):
        return play(scenario, seed, material(scenario.model, scenario.rounds))


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Simulated networks")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("scenario", "result") else "right", no_wrap=True)
    for outcome in outcomes:
        table.add_row(
            outcome.scenario.name,
            str(outcome.seed),
            str(outcome.rounds),
            f"{outcome.simulated:.1f}",
            str(outcome.messages),
            str(outcome.refused),
            f"{outcome.paid / TOKEN:.2f}",
            "failed" if outcome.failures else "ok",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
