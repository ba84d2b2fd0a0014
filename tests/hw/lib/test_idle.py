"""Units at rest: clocks of their own, which a reset raises too."""

import pytest
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Fragment, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from convoy.hw.lib.idle import ClockGates, Rest, rest_domains, rested
from convoy.hw.lib.reset import add_resettable
from convoy.spec.config import PRESETS

DOMAIN = "unit"


class Counter(wiring.Component):
    """Counts cycles."""

    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        return m


class Resting(wiring.Component):
    """A counter that rests while `active` is 0: it has a clock from outside."""

    clk: In(1)
    rest_clk: In(1)
    active: In(1)
    reset: In(1)
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        counter = Counter()
        gates = ClockGates((DOMAIN,))
        add_resettable(m, "counter", rested(counter, self.active, gates, DOMAIN), self.reset, gates)
        assert gates.is_active[DOMAIN] is self.active
        assert gates.resets == [self.reset]
        for domain, clk in (("sync", self.clk), (DOMAIN, self.rest_clk)):
            m.domains += ClockDomain(domain, reset_less=True)
            m.d.comb += ClockSignal(domain).eq(clk)
        m.d.comb += self.count.eq(counter.count)
        return m


def test_rested():
    """The counter stands still without its clock; the reset reaches it at rest."""
    dut = Resting()

    async def bench(ctx):
        seen = []
        for active, reset in [(1, 0), (1, 0), (0, 0), (0, 0), (1, 0), (0, 1), (0, 0), (1, 0)]:
            ctx.set(Cat(dut.clk, dut.rest_clk), 0)
            ctx.set(dut.active, active)
            ctx.set(dut.reset, reset)
            ctx.set(Cat(dut.clk, dut.rest_clk), 1 | (active | reset) << 1)
            seen.append(ctx.get(dut.count))
        assert seen == [1, 2, 2, 2, 3, 0, 0, 1]

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_hardware_pays_nothing():
    unit = Fragment()
    assert rested(unit, Signal(), None, DOMAIN) is unit


def test_domains():
    assert {"tp", "decoder_0", "lanes_3"} < set(rest_domains(PRESETS["Q"]))
    assert "decoder_1" not in rest_domains(PRESETS["S"])
    with pytest.raises(ValueError, match="'nothing' is not one of unit"):
        rested(Fragment(), Signal(), ClockGates((DOMAIN,)), "nothing")


def test_two_conditions():
    gates = ClockGates((DOMAIN,))
    rested(Fragment(), Signal(), gates, DOMAIN)
    with pytest.raises(ValueError, match="has two conditions"):
        rested(Fragment(), Signal(), gates, DOMAIN)


@pytest.mark.parametrize(
    ("max_open", "strobes", "expected"),
    [
        (0, [(1, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)], [1, 1, 1, 0, 0]),
        (1, [(1, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0), (0, 0, 0)], [1, 1, 1, 1, 1, 1, 0]),
    ],
)
def test_rest(max_open, strobes, expected):
    """Active from the offer until two cycles after the last job."""
    dut = Rest(tail_cycles=2, max_open=max_open)

    async def bench(ctx):
        for _ in range(4):
            await ctx.tick()
        seen = []
        for offered, accepted, done in strobes:
            ctx.set(dut.offered, offered)
            ctx.set(dut.accepted, accepted)
            ctx.set(dut.done, done)
            seen.append(ctx.get(dut.is_active))
            await ctx.tick()
        assert seen == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
