"""Narrowing, over all values and all pairs of small shapes; and that the hardware shows where it narrows."""

from pathlib import Path

import pytest
from amaranth.hdl import Module, Shape, Signal, signed, unsigned
from amaranth.sim import Simulator

from convoy.hw.lib.narrow import is_at_most, saturate, truncate
from convoy.hw.npu import Npu
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.narrowing import silent_cuts

ROOT = Path(__file__).resolve().parents[3]
HW = ROOT / "hw"
LARGEST = NpuConfig(
    num_lanes=8, post_lanes=4, num_acc_entries=256, window_words=256, stripe_bytes=1 << 20, port_bits=256
)
SHAPES = [kind(width) for width in (1, 2, 3, 4) for kind in (unsigned, signed)]


def limits(shape: Shape) -> tuple[int, int]:
    """The lowest and the highest value of a shape."""
    half = 1 << (shape.width - 1)
    return (-half, half - 1) if shape.signed else (0, 2 * half - 1)


def results(narrow, source: Shape, target: Shape) -> dict[int, int]:
    """What a signal of `target` holds for each value of `source`."""
    m, found = Module(), {}
    value, result = Signal(source), Signal(target)
    m.d.comb += result.eq(narrow(value, target))

    async def testbench(ctx):
        lowest, highest = limits(source)
        for number in range(lowest, highest + 1):
            ctx.set(value, number)
            found[number] = ctx.get(result)

    sim = Simulator(m)
    sim.add_testbench(testbench)
    sim.run()
    return found


@pytest.mark.parametrize("target", SHAPES, ids=repr)
@pytest.mark.parametrize("source", SHAPES, ids=repr)
def test_every_value_of_small_shapes(source, target):
    lowest, highest = limits(target)
    modulus = 1 << target.width
    for number, found in results(truncate, source, target).items():
        assert found == (number - lowest) % modulus + lowest
    for number, found in results(saturate, source, target).items():
        assert found == min(max(number, lowest), highest)


def test_results_are_not_wider_than_their_shape():
    for narrow in (truncate, saturate):
        assert narrow(Signal(9), 4).shape() == unsigned(4)
        assert narrow(Signal(signed(9)), signed(4)).shape() == signed(4)


def test_what_fits_comes_back_as_it_is():
    value = Signal(3)
    for narrow in (truncate, saturate):
        assert narrow(value, 8) is value


@pytest.mark.parametrize("config", [PRESETS["S"], PRESETS["Q"], LARGEST], ids=["S", "Q", "largest memories"])
def test_every_narrowing_is_shown(config):
    assert sorted(silent_cuts(Npu(config), HW)) == []


def test_silent_cuts_are_found():
    m, wide, narrow, counter = Module(), Signal(6), Signal(4), Signal(4)
    m.d.comb += narrow.eq(truncate(wide, 4))
    with m.If(wide[0]):
        m.d.sync += counter.eq(wide)
    with m.Else():
        m.d.sync += counter.eq(counter + 1)
    assert len(silent_cuts(m, ROOT / "tests")) == 1


@pytest.mark.parametrize("limit_bits", [1, 2, 3])
def test_is_at_most(limit_bits):
    m = Module()
    value, limit, result = Signal(4), Signal(limit_bits), Signal()
    m.d.comb += result.eq(is_at_most(value, limit))

    async def testbench(ctx):
        for number in range(16):
            for most in range(1 << limit_bits):
                ctx.set(value, number)
                ctx.set(limit, most)
                assert ctx.get(result) == (number <= most)

    sim = Simulator(m)
    sim.add_testbench(testbench)
    sim.run()
