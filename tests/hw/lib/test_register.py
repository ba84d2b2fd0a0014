"""`data_register`: of its port's shape, and no reset reaches it."""

from amaranth.hdl import Module, ResetInserter, Signal, signed
from amaranth.sim import Simulator

from convoy.hw.lib.register import data_register


def test_a_reset_leaves_data():
    """A counter beside it begins again."""
    m, port, count, reset, seen = Module(), Signal(signed(5), name="sum"), Signal(8), Signal(), []
    register = data_register(m, port)
    m.d.sync += [count.eq(count + 1), register.eq(-7)]

    async def bench(ctx):
        for is_reset in (0, 1, 1):
            ctx.set(reset, is_reset)
            await ctx.tick()
            seen.append((ctx.get(count), ctx.get(port)))

    sim = Simulator(ResetInserter(reset)(m))
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    assert seen == [(1, -7), (0, -7), (0, -7)]
    assert register.shape() == port.shape()
    assert register.reset_less
    assert register.name == "sum_register"
