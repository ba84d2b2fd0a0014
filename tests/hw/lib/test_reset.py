"""Resets of units: in hardware each is the only one of its registers."""

import re

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.reset import OwnResets, add_resettable
from convoy.verif.pysim import simulate


class Pair(wiring.Component):
    """A unit with two counters of cycles, one of them with a reset of its own."""

    outer: In(1)
    inner: In(1)
    counts: Out(8).array(2)

    def elaborate(self, platform):
        m, unit, counters = Module(), Module(), (Module(), Module())
        for counter, count in zip(counters, self.counts, strict=True):
            counter.d.sync += count.eq(count + 1)
        unit.submodules.near = counters[0]
        add_resettable(unit, "counter", counters[1], self.inner, platform)
        add_resettable(m, "unit", unit, self.outer, platform)
        return m


def test_reset():
    dut = Pair()

    async def testbench(ctx):
        seen = []
        for outer, inner in ((0, 0), (0, 0), (0, 1), (0, 0), (1, 0), (0, 0)):
            ctx.set(dut.outer, outer)
            ctx.set(dut.inner, inner)
            await ctx.tick()
            seen.append(tuple(ctx.get(count) for count in dut.counts))
        assert seen == [(1, 1), (2, 2), (3, 0), (4, 1), (0, 0), (1, 1)]

    simulate(dut, testbench)


def test_in_hardware_a_register_has_the_reset_of_its_unit_alone():
    text = rtlil.convert(Pair(), name="top", platform=OwnResets(), emit_src=False)
    modules = {body.split(maxsplit=1)[0]: body for body in re.split(r"^module \\", text, flags=re.MULTILINE)[1:]}
    for name, reset in {"top.unit.near": "unit_rst", "top.unit.counter": "counter_rst"}.items():
        assert set(re.findall(r"\\(\w*rst)\b", modules[name])) == {reset}
    assert re.findall(r"connect \\(\w+rst) (\S+)", modules["top"])[:2] == [
        ("unit_rst", r"\outer"),
        ("counter_rst", r"\inner"),
    ]
