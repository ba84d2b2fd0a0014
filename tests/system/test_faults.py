"""Hostile jobs on the compiled RTL: a sample of what `make hostile` runs, and every job that once did harm.

`CONVOY_EXAMPLES` programs are attacked, drawn from `CONVOY_SEED`.
"""

import os

import numpy as np
import pytest

from convoy.driver.device import MemoryModel
from convoy.driver.synthetic import LayerSpec, make_layer
from convoy.spec.csr import Error, WindowControl
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, STREAM
from convoy.verif.attacks import BEFORE, KINDS, Attacker, Event, Job, write_window
from convoy.verif.hostile import CONFIGS, Bench, Case, breach_of, draw_case

EXAMPLES, SEED = (int(os.environ.get(name, default)) for name, default in (("CONVOY_EXAMPLES", "5"), ("CONVOY_SEED", "1")))
CONFIG = CONFIGS["small"]
READ, WRITE = WindowControl.READ, WindowControl.WRITE


def test_hostile_jobs():
    """Each kind of attack on each program, alone and with two others."""
    rng, found, ends = np.random.default_rng(SEED), set(), set()
    for number in range(EXAMPLES):
        case = draw_case(CONFIG, f"small {SEED}/{number}")
        if case is None:
            continue
        for kind in KINDS:
            target = case.targets[int(rng.integers(len(case.targets)))]
            attacker = Attacker(CONFIG, target, rng)
            device = case.open()
            bench = Bench(device)
            for kinds in ((kind,), (kind, *(str(other) for other in rng.choice(list(KINDS), 2)))):
                job = attacker.job_of(*kinds)
                ends.add(bench.run(target, job).error)
                bench.check(target)
                found.update(job.kinds)
            device.close()
    assert found == set(KINDS)
    assert ends >= {Error.NONE, Error.OPCODE, Error.MALFORMED, Error.BUS_READ, Error.BUS_WRITE, Error.ACCESS_READ, Error.ACCESS_WRITE, Error.WATCHDOG, Error.TIMEOUT}
