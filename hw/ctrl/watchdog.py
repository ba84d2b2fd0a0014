"""Finds out that nothing moves any more, or that a program does not end."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Timeout", "Watchdog"]


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


class Timeout(wiring.Component):
    """Counts the cycles of a program.

    Members
    -------
    limit : In(32)
        Cycles until `expired`, which comes a cycle later; 0: never.
    enable : In
        While it is low, the count is 0.
    expired : Out
        High from the limit until `enable` falls. From a register.
    is_overdue : Out
        The same from twice the limit.
    """

    limit: In(32)
    enable: In(1)
    expired: Out(1)
    is_overdue: Out(1)

    def elaborate(self, platform):
        m = Module()
        count = Signal(33)
        is_set = self.enable & (self.limit != 0)
        m.d.sync += [
            self.expired.eq(is_set & (count >= self.limit)),
            self.is_overdue.eq(is_set & (count >= self.limit << 1)),
        ]
        with m.If(~self.enable):
            m.d.sync += count.eq(0)
        with m.Elif(~count.all()):
            m.d.sync += count.eq(count + 1)
        return m
