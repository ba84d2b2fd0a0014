"""What an engine has been given and not yet finished, and what of it has not been recorded."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

__all__ = ["Ledger"]


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
    done : In
        The engine has completed its oldest descriptor.
    has_room : Out
        Fewer than `depth` descriptors are in the ledger.
    is_done : Out
        The engine has completed all it was given.
    num_running : Out
        What it has not completed.
    is_empty : Out
        And all of that has left through `completed`.
    completed : Out, stream of unsigned(16)
        The numbers of completed descriptors, in order; valid one cycle after `done`.
    """

    def __init__(self, depth: int = 8):
        self._depth = depth
        super().__init__(
            {
                "push": In(1),
                "index": In(16),
                "done": In(1),
                "has_room": Out(1, init=1),
                "is_done": Out(1, init=1),
                "num_running": Out(range(depth + 1)),
                "is_empty": Out(1, init=1),
                "completed": Out(stream.Signature(16)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.indices = indices = SyncFIFO(width=16, depth=self._depth)
        num_running, num_done = self.num_running, Signal(range(self._depth + 1))
        popped = Signal()
        m.d.comb += [
            indices.w_data.eq(self.index),
            indices.w_en.eq(self.push),
            self.completed.valid.eq(num_done != 0),
            self.completed.payload.eq(indices.r_data),
            popped.eq(self.completed.valid & self.completed.ready),
            indices.r_en.eq(popped),
            self.has_room.eq(indices.w_rdy),
            self.is_done.eq(num_running == 0),
            self.is_empty.eq(~indices.r_rdy),
        ]
        m.d.sync += [num_running.eq(num_running + self.push - self.done), num_done.eq(num_done + self.done - popped)]
        return m
