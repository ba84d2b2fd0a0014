"""The forms for compiled simulators against those of the hardware, in every cycle of the same inputs."""

import random

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import In

from convoy.hw.lib.idle import ClockGates
from convoy.hw.nn.accumulate import Accumulators
from convoy.hw.nn.fast_forms import SummedInPlace, WideLanes, WindowOfWords, form_for
from convoy.hw.nn.lanes import Lanes
from convoy.hw.nn.window import WindowMemory
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import simulate


def compare(hardware, fast, stimuli, outputs=lambda cycle: True):
    """Both forms get the same inputs, a mapping per cycle in which `reset` is their reset; their outputs must be the
    same in the cycles before whose edge `outputs` holds.
    """
    m, reset = Module(), Signal()
    m.submodules.hardware = ResetInserter(reset)(hardware)
    m.submodules.fast = ResetInserter(reset)(fast)
    members = hardware.signature.members
    inputs = [name for name, member in members.items() if member.flow == In]
    for name in inputs:
        m.d.comb += getattr(fast, name).eq(getattr(hardware, name))
    found = []

    async def testbench(ctx):
        for cycle, values in enumerate(stimuli):
            ctx.set(reset, values.get("reset", 0))
            for name in inputs:
                ctx.set(getattr(hardware, name), values.get(name, 0))
            await ctx.tick()
            if outputs(cycle):
                found.append(
                    [
                        [ctx.get(getattr(form, name)) for name in members if name not in inputs]
                        for form in (hardware, fast)
                    ]
                )

    simulate(m, testbench)
    assert len(found) > len(stimuli) // 2
    assert all(first == second for first, second in found)
    assert len({str(first) for first, _ in found}) > len(found) // 8


@pytest.mark.parametrize("num_lanes", [8, 16, 32])
def test_window(num_lanes):
    """Also of words written while they are read, and of shapes that no vector has."""
    config = NpuConfig(num_lanes=num_lanes, post_lanes=4, window_words=16)
    rng = random.Random(num_lanes)
    stimuli = [
        {
            "write": {
                "en": cycle < 16 or rng.randrange(2),
                "word": cycle if cycle < 16 else rng.randrange(16),
                "data": list(rng.randbytes(num_lanes)),
            },
            "pixel": rng.randrange(16 * num_lanes),
            "split_log2": rng.randrange(4),
            "split_words": rng.randrange(256),
        }
        for cycle in range(300)
    ]
    compare(WindowMemory(config), WindowOfWords(config), stimuli, lambda cycle: cycle >= 20)


def test_lanes():
    rng = random.Random(0)
    stimuli = [
        {"pixels": list(rng.randbytes(8)), "weight": rng.randrange(-256, 256), "is_low": rng.randrange(2)}
        for _ in range(300)
    ]
    compare(Lanes(8), WideLanes(8), stimuli)


@pytest.mark.parametrize("seed", range(3))
def test_accumulators(seed):
    """Additions as close as they may be to each other and to the drain of the other buffer, and resets amid them."""
    config = NpuConfig(num_lanes=8, post_lanes=4, num_acc_entries=16)
    rng = random.Random(seed)
    stimuli, since_reset, phase, recent, buffer = [], 0, 0, 0, 0
    for _ in range(800):
        values = {"products": [rng.randrange(-(1 << 31), 1 << 31) for _ in range(8)], "add_buffer": buffer}
        values |= {"drain_buffer": 1 - buffer, "drain_entry": rng.randrange(16), "drain_chunk": rng.randrange(2)}
        if rng.randrange(200) == 0:
            values["reset"], since_reset = 1, 0
        elif since_reset > 16:
            entry = rng.randrange(16) if rng.randrange(2) else recent
            adds = phase < 20 and rng.randrange(4) > 0
            values |= {"add_en": adds, "add_entry": entry}
            values |= {"drain_en": rng.randrange(4) > 0, "drain_clear": rng.randrange(8) == 0}
            recent = rng.choice([recent, entry])
            if phase == 20 + Accumulators.ADD_CYCLES:
                buffer, phase = 1 - buffer, 0
            phase += 1
        since_reset += 1
        stimuli.append(values)
    compare(Accumulators(config), SummedInPlace(config), stimuli)


def test_only_clock_gates_have_them():
    for form in (WindowMemory, Lanes, Accumulators):
        assert form_for(form, None) is form
        assert issubclass(form_for(form, ClockGates(())), form)
        assert form_for(form, ClockGates(())) is not form
