"""The scenario file, its expectations, the money, and the command that plays it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from atoll.errors import BadInput, InternalError, Refused
from atoll.sim.__main__ import main
from atoll.sim.faults import Crash, Faults
from atoll.sim.network import Network, Options
from atoll.sim.scenario import TOKEN, Expect, Scenario, load, material, play, settle
from atoll.training.committee import UNIT, Row
from atoll.wire.reasons import Reason

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "scenarios.toml"
    path.write_text(text)
    return path


def shown(*arguments: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    out = StringIO()
    code = main(arguments, Console(file=out, width=200))
    return code, out.getvalue()


def test_what_a_file_says(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[[scenario]]\nname = "a"\n[[scenario]]\nname = "b"\nnodes = 3\nseeds = [4, 5]\n'
        "faults = { drop = 0.1 }\nexpect = { rejected = [1], honest_refused = 2, finished = false }\n",
    )
    assert load(path) == (
        Scenario(name="a"),
        Scenario(name="b", nodes=3, seeds=(4, 5), faults=Faults(drop=0.1), expect=Expect((1,), 2, False)),
    )


@pytest.mark.parametrize("text", ["", "[[scenario", "[[scenario]]\nnodes = 3", '[[scenario]]\nname = "a"\nfualts = {}'])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"scenarios\.toml holds no scenarios"):
        load(written(tmp_path, text))
    assert shown(str(tmp_path / "scenarios.toml"))[0] == 2
    assert shown(str(tmp_path / "absent.toml"))[0] == 2


def test_prices_add_up_by_hand() -> None:
    """Three honest nodes, two rounds, first all audited: 6 units and 6 audits and 6 duties at most, paid in full."""
    outcome = play(Scenario(name="three", nodes=3, rounds=2), 1)
    assert outcome.failures == ()
    duties = 6
    units, rest = divmod(outcome.paid - duties * TOKEN // 100, TOKEN // 2)
    assert rest == 0
    assert 12 + 3 <= units <= 12 + 6  # halves of a token: two a unit, one an audit; the first round audits everybody


def test_light_workers_are_paid_by_their_segments() -> None:
    """Four nodes, one of them light, one round of two segments a unit: everybody is audited."""
    outcome = play(Scenario(name="light", nodes=4, rounds=1, light=(2,)), 1)
    assert outcome.failures == ()
    units, audits, duties = 3 * TOKEN + TOKEN // 2, 3 * TOKEN // 2 + TOKEN // 4, 3 * TOKEN // 100
    assert outcome.paid == units + audits + duties


def test_payments_that_forget_who_is_light_are_found() -> None:
    network = Network(material("softmax", 1), 4, Faults(), 1, Options(light=(2,)))
    history = network.run()
    assert settle(network, history) > 0
    light = network.by_index[2].account
    network.enlisted[light] = replace(network.enlisted[light], roles=1)
    with pytest.raises(InternalError, match="is owed"):
        settle(network, history)


def test_expectations_that_fail() -> None:
    crash = Faults(crashes=(Crash(at=0.35, node=1),))
    honest = play(Scenario(name="x", nodes=4, rounds=1, faults=crash, expect=Expect(rejected=(2,))), 1)
    assert any("nodes [] were convicted, [2] should be" in failure for failure in honest.failures)
    hopeless = Faults(crashes=(Crash(at=0.1, node=0), Crash(at=0.1, node=1)))
    stuck = play(Scenario(name="x", nodes=4, rounds=1, seconds=20.0, faults=hopeless), 1)
    assert stuck.failures == ("0 of 1 rounds were certified",)
    late = Scenario(name="x", nodes=4, rounds=1, seconds=60.0, faults=crash, expect=Expect(finished=False))
    assert "1 of 1 rounds were certified" in play(late, 1).failures


def test_certificates_that_pay_too_much_are_found() -> None:
    network = Network(material("softmax", 1), 3, Faults(), 1)
    history = network.run()
    assert settle(network, history) > 0
    rows = history[0].certificate.verdicts
    unit = next(row for row in rows if row.kind == UNIT)

    def refused(*more: Row) -> Reason:
        certificate = msgspec.structs.replace(history[0].certificate, verdicts=(*rows, *more))
        with pytest.raises(Refused) as caught:
            settle(network, [replace(history[0], certificate=certificate)])
        return caught.value.reason

    assert refused(unit) is Reason.DUPLICATE
    assert refused(*(Row(UNIT, bytes([i]) * 32, unit.account, 0) for i in range(60))) is Reason.OVER_BUDGET


def test_the_command_shows_a_table() -> None:
    code, text = shown(str(EXAMPLES), "--only", "all is well", "--seed", "3")
    assert code == 0
    assert "all is well" in text
    assert "ok" in text
    assert "refused" in text


def test_the_command_says_how_to_play_a_failure_again(tmp_path: Path) -> None:
    path = written(
        tmp_path, '[[scenario]]\nname = "odd"\nnodes = 3\nrounds = 1\nexpect = { rejected = [1] }\nseeds = [9]\n'
    )
    code, text = shown(str(path))
    assert code == 1
    assert "odd, seed 9: nodes [] were convicted, [1] should be" in text
    assert f"python -m atoll.sim {path} --only 'odd' --seed 9" in text


def test_an_unknown_name() -> None:
    code, text = shown(str(EXAMPLES), "--only", "nothing")
    assert code == 2
    assert "has no scenario named 'nothing'" in text
