"""Registers of data."""

from amaranth.hdl import Module, Signal

from convoy.hw.lib.register import data_register
from convoy.verif.pysim import simulate


def test_the_port_follows_the_register():
    m, port, value = Module(), Signal(4, name="port"), Signal(4)
    register = data_register(m, port)
    m.d.sync += register.eq(value)
    assert register.reset_less
    assert register.name == "port_register"
    assert register.shape() == port.shape()

    async def testbench(ctx):
        ctx.set(value, 9)
        assert ctx.get(port) == 0
        await ctx.tick()
        assert ctx.get(port) == 9

    simulate(m, testbench)
