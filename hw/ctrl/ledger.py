"""What an engine has been given and not yet finished, and the completion records of what it has."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from convoy.spec.isa import COMPLETION

__all__ = ["Completed", "Ledger"]

Completed = data.StructLayout({"index": 16, "totals": COMPLETION.layout})
"""A completed descriptor: its number in the program and the totals at that moment."""


class Ledger(wiring.Component):
    """Follows the descriptors of one engine, which completes them in order.

    Parameters
    ----------
    depth
        Descriptors between being given to the engine and leaving through `completed`.

    Members
    -------
    push, index : In
        A descriptor with this number is given to the engine. Legal when `has_room`.
    done, totals : In
        The engine has completed its oldest descriptor, at these totals.
    has_room : Out
        Fewer than `depth` descriptors are in the ledger.
    is_done : Out
        The engine has completed all it was given.
    is_empty : Out
        And all of that has left through `completed`.
    completed : Out, stream of `Completed`
        In order; valid one cycle after `done` at the earliest.
    """

    def __init__(self, depth: int = 8):
        self._depth = depth
        super().__init__({
            "push": In(1),
            "index": In(16),
            "done": In(1),
            "totals": In(COMPLETION.layout),
            "has_room": Out(1, init=1),
            "is_done": Out(1, init=1),
            "is_empty": Out(1, init=1),
            "completed": Out(stream.Signature(Completed)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.indices = indices = SyncFIFO(width=16, depth=self._depth)
        m.submodules.samples = samples = SyncFIFO(width=COMPLETION.num_bits, depth=self._depth)
        popped = Signal()
        m.d.comb += [
            indices.w_data.eq(self.index),
            indices.w_en.eq(self.push),
            samples.w_data.eq(self.totals),
            samples.w_en.eq(self.done),
            self.completed.valid.eq(samples.r_rdy),
            self.completed.p.index.eq(indices.r_data),
            self.completed.p.totals.eq(samples.r_data),
            popped.eq(self.completed.valid & self.completed.ready),
            indices.r_en.eq(popped),
            samples.r_en.eq(popped),
        ]
        num_running = Signal(range(self._depth + 1))
        m.d.sync += num_running.eq(num_running + self.push - self.done)
        m.d.comb += [self.has_room.eq(indices.w_rdy), self.is_done.eq(num_running == 0), self.is_empty.eq(~indices.r_rdy)]
        return m
