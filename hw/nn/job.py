"""`JobSlot`: the one job of look-ahead that every unit of an engine has."""

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.register import data_register

__all__ = ["JobSlot"]


class JobSlot(wiring.Component):
    """A register for one job: ready while empty, valid while full. A job passes in one cycle; one every two cycles.

    Parameters
    ----------
    layout
        What the unit behind it needs of the descriptor.
    """

    def __init__(self, layout: data.StructLayout):
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))})

    def elaborate(self, platform):
        m = Module()
        payload = data_register(m, self.o.payload)
        m.d.comb += self.i.ready.eq(~self.o.valid)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [payload.eq(self.i.payload), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
