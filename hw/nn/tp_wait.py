"""Jobs of the tensor processor that a job of the NN engine waits for."""

from amaranth.hdl import Module, Mux, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["TpDue", "TpWait"]

TpDue = unsigned(4)
"""A number of them, at most as many as can be under way."""


class TpWait(wiring.Component):
    """Counts them down.

    Members
    -------
    load : In(1)
        Strobe: a job begins to wait; it takes the place of the one before.
    due : In(TpDue)
        How many of the oldest jobs of the tensor processor it waits for, with `load`.
    done : In(1)
        Strobe: the tensor processor has completed a job. In the cycle of `load` it is one of those `due`.
    left : Out(TpDue)
        How many are still to come, from the cycle after `load` on.
    is_over : Out(1)
        None.
    """

    load: In(1)
    due: In(TpDue)
    done: In(1)
    left: Out(TpDue)
    is_over: Out(1)

    def elaborate(self, platform):
        m = Module()
        num_left = Mux(self.load, self.due, self.left)
        m.d.comb += self.is_over.eq(self.left == 0)
        m.d.sync += self.left.eq(num_left - (self.done & (num_left != 0)))
        return m
