"""Finds out that nothing moves any more."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Watchdog"]


class Watchdog(wiring.Component):
    """Counts the cycles since something moved.

    Members
    -------
    limit : In(32)
        Cycles without a movement until `expired`, which comes 2 cycles later; 0: never.
    enable : In
        While it is low, the count is 0.
    moved : In
        Something moved in this cycle.
    expired : Out
        High from the limit until something moves. From a register.
    """

    limit: In(32)
    enable: In(1)
    moved: In(1)
    expired: Out(1)

    def elaborate(self, platform):
        m = Module()
        count = Signal(32)
        has_moved = Signal()
        m.d.sync += [
            has_moved.eq(self.moved | ~self.enable),
            self.expired.eq((self.limit != 0) & (count >= self.limit) & ~has_moved & self.enable),
        ]
        with m.If(has_moved):
            m.d.sync += count.eq(0)
        with m.Elif(count != 2**32 - 1):
            m.d.sync += count.eq(count + 1)
        return m
