"""`Stage`: a register in a stream."""

from amaranth.hdl import Module, ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .register import data_register

__all__ = ["Stage"]


class Stage(wiring.Component):
    """A payload on its way, in a register: behind a memory, whose outputs are late.

    Throughput: one payload per cycle. Latency: 1 cycle. `i.ready` follows `o.ready` in the same cycle; a `Queue` of two
    cuts that path too.

    Parameters
    ----------
    shape
        Payload of both streams.

    Members
    -------
    i, o
        The streams in and out.
    """

    def __init__(self, shape: ShapeLike):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        payload = data_register(m, self.o.payload)
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), payload.eq(self.i.payload)]
        return m
