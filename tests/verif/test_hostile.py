"""The judge of hostile jobs: a device that lies is found out, and what is drawn covers what it is meant to."""

import numpy as np
import pytest

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.csr import REGISTERS, Error, Status, WindowControl
from convoy.verif import hostile
from convoy.verif.attacks import BEFORE, KINDS, Attacker, Event, Job
from convoy.verif.hostile import CONFIGS, Bench, Breach, Case, Coverage, breach_of, smallest

CONFIG = CONFIGS["small"]


@pytest.fixture(scope="module")
def case():
    """A convolution with a table."""
    return Case(
        CONFIG,
        make_layer(LayerSpec("conv", (6, 6, 3), 4, (3, 3), lut="logistic"), 0).graph,
        MemoryModel(latency_cycles=5),
        0,
    )


class Liar:
    """A device of which a test overrides something."""

    def __init__(self, device, **overrides):
        self._device = device
        for name, make in overrides.items():
            setattr(self, name, make(getattr(device, name)))

    def __getattr__(self, name):
        return getattr(self._device, name)


def register(name, change):
    """A register whose value is not what is there."""

    def make(read32):
        return lambda addr: change(read32(addr)) if addr == REGISTERS[name].addr else read32(addr)

    return make


def rubbish_at(where):
    """A byte of memory that changes without reason."""

    def make(read_memory):
        def read(addr, num_bytes):
            raw = bytearray(read_memory(addr, num_bytes))
            raw[where] ^= 1
            return bytes(raw)

        return read

    return make


def violating(_):
    def wait(max_cycles):
        raise DeviceError("device native: cycle 7: read of 0x00000000, 1 beats, is outside the memory windows: none")

    return wait


MOVE = Event(20, "write", ("WINDOW0_LIMIT", 64))
LOCKED = Event(BEFORE, "write", ("WINDOW0_CONTROL", WindowControl.READ | WindowControl.WRITE | WindowControl.LOCK))


@pytest.mark.parametrize(
    ("overrides", "events", "message"),
    [
        ({}, (), None),
        ({"wait": violating}, (), "outside the memory windows"),
        ({"read32": register("STATUS", lambda value: value | Status.BUSY)}, (), "busy .* although TIMEOUT is 3000"),
        ({"read32": register("STATUS", lambda value: value | Status.STOPPING)}, (), "not idle"),
        ({"read32": register("IRQ_STATUS", lambda value: 0)}, (), "without an interrupt"),
        ({"read32": register("ERROR", lambda value: 3)}, (), "do not agree"),
        ({"read_memory": rubbish_at(-1)}, (), "1 bytes differ where no window"),
    ],
)
def test_lies_about_a_hostile_job(case, overrides, events, message):
    device = case.open()
    job = Job((), (Event(BEFORE, "write", ("TIMEOUT", 3000)), *events))
    bench = Bench(Liar(device, **overrides))
    if message is None:
        assert bench.run(case.targets[-1], job).error == Error.NONE
    else:
        with pytest.raises(Breach, match=message):
            bench.run(case.targets[-1], job)
    device.close()


@pytest.mark.parametrize(
    ("events", "message"),
    [((MOVE,), "WINDOW0_LIMIT has become 0x40 while the NPU was busy"), ((LOCKED, MOVE), "WINDOW0_LIMIT is locked")],
)
def test_windows_that_obey_during_the_run(case, events, message):
    device = case.open()

    def obeys(read32):
        return lambda addr: 64 if addr == REGISTERS["WINDOW0_LIMIT"].addr and bench._is_started else read32(addr)

    bench = Bench(Liar(device, read32=obeys))
    with pytest.raises(Breach, match=message):
        bench.run(case.targets[-1], Job((), events))
    device.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"read_memory": rubbish_at(0)}, "1 bytes differ after the next correct job"),
        ({"read32": register("ERROR", lambda value: 6)}, "the next correct job ended with error 6"),
        ({"wait": violating}, "the next correct job: .* outside the memory windows"),
    ],
)
def test_lies_about_the_next_job(case, overrides, message):
    device = case.open()
    Bench(device).check(case.targets[-1])
    with pytest.raises(Breach, match=message):
        Bench(Liar(device, **overrides)).check(case.targets[-1])
    device.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_attacks(case, kind):
    """Each finds something in a convolution with a table, in most draws, and no job is the same as the one before."""
    attacker = Attacker(CONFIG, case.targets[-1], np.random.default_rng(1))
    jobs = [attacker.job_of(kind) for _ in range(10)]
    assert sum(job.kinds == (kind,) for job in jobs) > 5
    assert len({job.events for job in jobs}) > 5


def test_the_smallest_job(case, monkeypatch):
    guilty = Event(5, "write", ("CONTROL", 4))
    monkeypatch.setattr(
        hostile, "breach_of", lambda case, target, job: Breach("found") if guilty in job.events else None
    )
    job = Job((), (Event(BEFORE, "silence", ("AR",)), guilty, Event(9, "fault", (0, 0))))
    assert smallest(case, case.targets[0], job) == "  cycle 5: write CONTROL 0x4\n  found"
    assert "hardware reset" in smallest(case, case.targets[0], Job((), ()))


def test_no_breach_of_a_correct_job(case):
    assert breach_of(case, case.targets[0], Job((), (Event(BEFORE, "write", ("TIMEOUT", 3000)),))) is None


def test_what_never_occurred():
    coverage = Coverage()
    coverage.kinds.update(list(KINDS))
    coverage.ends.update(list(Error.__members__))
    assert coverage.missing(CONFIG) == ["soft reset"]
    del coverage.kinds["noise"]
    assert coverage.missing(CONFIG) == ["noise", "soft reset"]
