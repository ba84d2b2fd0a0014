"""`Rest`: tells when a unit that has nothing to do may stand still."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Rest"]


class Rest(wiring.Component):
    """`is_active` enables a unit's registers (by `EnableInserter`) from the offer of a job until `tail_cycles` after the last one is done.

    A unit at rest saves power in hardware and time in simulation. It must keep still when it is idle anyway.

    Members
    -------
    offered : In(1)
        A job is offered; keeps the unit active in the same cycle.
    accepted, done : In(1)
        Strobes: the unit has taken a job, has finished the oldest one. At most `max_open` jobs are open at a time.
    is_active : Out(1)
    """

    def __init__(self, max_open: int, tail_cycles: int):
        self._max_open, self._tail_cycles = max_open, tail_cycles
        super().__init__({"offered": In(1), "accepted": In(1), "done": In(1), "is_active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        num_open = Signal(range(self._max_open + 1))
        tail = Signal(range(self._tail_cycles + 1), init=self._tail_cycles)
        is_awake = Signal(init=1)  # tail != 0, registered
        is_busy = Signal()
        m.d.comb += [is_busy.eq(self.offered | (num_open != 0)), self.is_active.eq(self.offered | is_awake)]
        m.d.sync += [
            num_open.eq(num_open + self.accepted - self.done),
            tail.eq(Mux(is_busy, self._tail_cycles, Mux(tail == 0, 0, tail - 1))),
            is_awake.eq(is_busy | (tail > 1)),
        ]
        return m
