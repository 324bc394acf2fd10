"""Dishonest workers, to show and test that they are caught: each turns an honest result into a claimed one.

They run where a node's owner asks for them (`atoll up --dishonest`), and in the simulator. An opponent commits to,
opens and serves its false states consistently: only recomputation can tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atoll.errors import BadSetting
from atoll.graph.fixed import first_state
from atoll.training.events import Trained
from atoll.training.fixed import saturate, vector_of
from atoll.training.quantize import update_of
from atoll.training.unit import UnitSpec
from atoll.training.workbench import Workbench
from atoll.wire.generator import Generator

ATTACKS = ("random", "lazy")
NOISE = 1 << 14
"""Largest change of a random update, in steps of the model's grid: about the size of an honest one."""


async def attack(name: str, bench: Workbench, unit: UnitSpec, model: bytes, others: Sequence[bytes]) -> Trained:
    """The claimed result of a dishonest worker; raises BadSetting for an unknown attack."""
    if name == "random":
        return await random_update(bench, unit, model, others)
    if name == "lazy":
        return await lazy(bench, unit, model, others)
    raise BadSetting(f"'{name}' is not an attack that is known here; use one of: {', '.join(ATTACKS)}.")


async def random_update(bench: Workbench, unit: UnitSpec, model: bytes, others: Sequence[bytes]) -> Trained:
    """No training at all: noise of plausible size in place of every state."""
    manifest, length = bench.bench.manifest, bench.bench.manifest.vector_length
    start = await bench.bench.fetch(model, others)
    generator = Generator(unit.id, b"noise")
    states, state = [model], start
    for _ in range(unit.segments):
        noise = np.frombuffer(generator.take(2 * length), "<u2").astype(np.int64) % (2 * NOISE) - NOISE
        moved = saturate(vector_of(start, length) + noise)
        state = first_state(manifest, moved)
        states.append(bench.bench.keep(state))
    return Trained(unit.id, tuple(states), bench.bench.keep(update_of(state, start, length, manifest.update)))


async def lazy(bench: Workbench, unit: UnitSpec, model: bytes, others: Sequence[bytes]) -> Trained:
    """At most half the work: trains the first half of the segments and claims that nothing changed in the others."""
    manifest, length = bench.bench.manifest, bench.bench.manifest.vector_length
    start = await bench.bench.fetch(model, others)
    state, states = first_state(manifest, start), [model]
    for segment in range(unit.segments):
        if segment < unit.segments // 2:
            state = await bench.run_segment(unit, segment, state)
        states.append(bench.bench.keep(state))
    return Trained(unit.id, tuple(states), bench.bench.keep(update_of(state, start, length, manifest.update)))
