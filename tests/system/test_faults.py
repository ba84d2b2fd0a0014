"""Hostile jobs on the compiled RTL: a sample of what `make hostile` runs, and each job that once did harm.

`CONVOY_EXAMPLES` programs are attacked, drawn from `CONVOY_SEED`.
"""

import os

import numpy as np
import pytest

from convoy.driver.runtime.device import MemoryModel
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.csr import Error, WindowControl
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, STREAM, Opcode
from convoy.verif.attacks import BEFORE, KINDS, Attacker, Event, Job, write_window
from convoy.verif.hostile import CONFIGS, Bench, Case, draw_case

EXAMPLES, SEED = (
    int(os.environ.get(name, default)) for name, default in (("CONVOY_EXAMPLES", "12"), ("CONVOY_SEED", "1"))
)
CONFIG = CONFIGS["small"]
READ, WRITE, LOCK = WindowControl.READ, WindowControl.WRITE, WindowControl.LOCK


def test_hostile_jobs():
    """Each kind of attack on each program, alone and with two others; `make hostile` has other configurations, one that
    does not check descriptors among them.
    """
    name, config = "small", CONFIG
    rng, found, ends = np.random.default_rng(SEED), set(), set()
    for number in range(EXAMPLES):
        case = draw_case(config, f"{name} {SEED}/{number}")
        if case is None:
            continue
        target = case.targets[int(rng.integers(len(case.targets)))]
        attacker = Attacker(config, target, rng)
        for kind in KINDS:
            device = case.open()
            for kinds in ((kind, *(str(other) for other in rng.choice(list(KINDS), 2))), (kind,)):
                job = attacker.job_of(*kinds)
                ends.add(Bench(device).run(target, job).error)
                if "locked windows" in kinds and len(kinds) > 1:  # perhaps for good
                    device.close()
                    device = case.open()
                Bench(device).check(target)
                found.update(job.kinds)
            device.close()
    assert found == set(KINDS)
    assert ends | {Error.POOL} == set(Error)


@pytest.fixture(scope="module")
def case():
    """A convolution."""
    graph = make_layer(LayerSpec("conv", (8, 8, 4), 4, (3, 3), (1, 1), (1, 1, 1, 1)), 0).graph
    return Case(CONFIG, graph, MemoryModel(latency_cycles=9), 0)


@pytest.fixture
def attack(case):
    """Runs events on the case's program with both limits set, then a correct job."""
    device, target = case.open(), case.targets[-1]

    def attack(*events):
        limits = (Event(BEFORE, "write", ("TIMEOUT", 5000)), Event(BEFORE, "write", ("WATCHDOG", 1000)))
        bench = Bench(device)
        outcome = bench.run(target, Job((), (*limits, *events)))
        if not any(
            "CONTROL" in str(event.arguments[0]) and event.arguments[1] & LOCK
            for event in events
            if event.action == "write"
        ):
            bench.check(target)
        return outcome

    yield attack
    device.close()


def nn_of(case):
    """The address of the first NN descriptor, and its fields."""
    program = case.targets[-1].program
    index = next(n for n, raw in enumerate(program.descriptors) if raw[0] == Opcode.NN)
    return program.program_addr + index * DESCRIPTOR_BYTES, NN.decode(program.descriptors[index])


def windows(*given):
    """Events that set all windows."""
    given += ((0, 0, 0),) * (4 - len(given))
    return [
        Event(BEFORE, "write", write) for number, window in enumerate(given) for write in write_window(number, *window)
    ]


def test_a_stream_of_no_beats(case, attack):
    """It was fetched as a burst of 256 beats, which crossed its page and got past the guard."""
    _, nn = nn_of(case)
    entry = STREAM.encode(offset_bytes=(0xF00 - nn["wgt_addr"]) % 2**32, num_beats=0)
    attack(Event(BEFORE, "poke", (nn["stream_addr"], entry)))
    attack(*windows((0, 0x1000, READ | WRITE)), Event(BEFORE, "poke", (nn["stream_addr"], entry)))


def test_a_stream_anywhere(case, attack):
    """Its address went to the bus as it was."""
    _, nn = nn_of(case)
    entry = STREAM.decode(case.targets[-1].before[nn["stream_addr"] : nn["stream_addr"] + STREAM.num_bytes])
    for offset in (1, 2, 4, 8, 16, 31):
        attack(
            Event(
                BEFORE,
                "poke",
                (nn["stream_addr"], STREAM.encode(**entry | {"offset_bytes": entry["offset_bytes"] + offset})),
            )
        )


def test_a_directory_that_is_too_short(case, attack):
    """What lies behind it are streams too, then."""
    addr, nn = nn_of(case)
    end = nn["stream_addr"] + STREAM.num_bytes * nn["num_sb"] * CONFIG.num_cores
    for behind in (bytes(32), b"\xff" * 32):
        attack(
            Event(BEFORE, "poke", (end, behind)),
            Event(BEFORE, "poke", (addr, NN.encode(**nn | {"num_sb": nn["num_sb"] + 1}))),
        )


def test_windows_are_those_of_the_doorbell(case, attack):
    """Whatever is written to them during the run, the program ends as always; written before, it ends with an error."""
    last = case.targets[-1].clean_cycles
    for cycle in (BEFORE, 0, 1, 10, last // 2, last - 20):
        events = [Event(cycle, event.action, event.arguments) for event in windows((0, 0, READ | WRITE))]
        assert attack(*events).error == (Error.ACCESS_READ if cycle == BEFORE else Error.NONE)


def test_locked_windows(case, attack):
    """Nothing opens them again."""
    program = case.targets[-1].program
    shut = windows(*((0, 0, READ | WRITE | LOCK),) * 4)
    outcome = attack(*shut, *windows((0, 1 << 31, READ | WRITE)), Event(50, "write", ("CONTROL", 4)))
    assert (outcome.error, outcome.addr) == (Error.ACCESS_READ, program.program_addr)


@pytest.mark.parametrize("only_beats", [False, True])
@pytest.mark.parametrize("resp", [2, 3])
def test_bus_errors(case, attack, resp, only_beats):
    """The address of the error is that of the burst."""
    target = case.targets[-1]
    _, nn = nn_of(case)
    seen = set()
    for addr in (
        target.program.program_addr + 200,
        target.records.start,
        nn["tap_addr"],
        nn["stream_addr"],
        nn["wgt_addr"],
        nn["param_addr"],
        nn["out_addr"],
    ):
        outcome = attack(Event(BEFORE, "fault", (addr, 1, resp, only_beats)))
        seen.add(outcome.error)
        assert addr - CONFIG.max_burst_beats * CONFIG.port_bytes < outcome.addr <= addr
    assert seen == {Error.BUS_READ, Error.BUS_WRITE}


@pytest.mark.parametrize("channel", ["AR", "AW", "W", "R", "B"])
def test_a_channel_that_falls_silent(case, attack, channel):
    """Whenever it does: the watchdog, unless nothing needs the channel any more."""
    last = case.targets[-1].clean_cycles
    seen = [
        attack(Event(cycle, "silence", (channel,))).error for cycle in (BEFORE, last // 3, 2 * last // 3, last - 60)
    ]
    assert set(seen) <= {Error.WATCHDOG, Error.NONE}
    assert seen[0] == Error.WATCHDOG


def test_soft_resets(case, attack):
    """At any cycle, also while the memory is silent."""
    for cycle in range(0, case.targets[-1].clean_cycles + 20, 23):
        attack(Event(cycle, "write", ("CONTROL", 4)))
    for channel in ("AR", "AW", "W", "R", "B"):
        attack(
            Event(BEFORE, "silence", (channel,)),
            Event(200, "write", ("CONTROL", 4)),
            Event(300, "write", ("CONTROL", 1)),
        )
