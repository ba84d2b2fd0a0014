# amaranth: UnusedElaboratable=no
"""The delay line."""

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data

from convoy.hw.lib.delay import delay
from convoy.verif.pysim import simulate


@pytest.mark.parametrize("cycles", [0, 1, 3])
def test_a_value_comes_cycles_later(cycles):
    m = Module()
    value = Signal(signed(8))
    late = delay(m, value, cycles, name="late")
    assert late.shape() == value.shape()
    m.d.sync += Signal().eq(0)
    sent, seen = [1, -2, 3, -128, 127, 0, 5], []

    async def testbench(ctx):
        for number in sent:
            ctx.set(value, number)
            seen.append(ctx.get(late))
            await ctx.tick()

    simulate(m, testbench)
    assert seen == [0] * cycles + sent[: len(sent) - cycles]


def test_a_layout_keeps_its_fields():
    m = Module()
    value = Signal(data.StructLayout({"a": 3, "b": signed(2)}))
    late = delay(m, value, 1, name="late", reset_less=True)

    async def testbench(ctx):
        ctx.set(value, {"a": 5, "b": -1})
        await ctx.tick()
        assert ctx.get(late.a) == 5
        assert ctx.get(late.b) == -1

    simulate(m, testbench)
    assert late.as_value().reset_less
    assert late.as_value().name == "late_0"


def test_refusal():
    with pytest.raises(ValueError, match="cycles = -1: a value cannot come early, use at least 0"):
        delay(Module(), Signal(), -1, name="late")
