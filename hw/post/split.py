"""Chunks of low and of high bytes, one by one, put in order: runs of the former, each followed by a run of the
latter.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.dma.types import Chunk
from convoy.hw.lib.queue import Queue

__all__ = ["ByteSplitter"]


class ByteSplitter(wiring.Component):
    """Lets chunks pass, or with `is_wide` takes them in pairs: low bytes, then high bytes with the same count, start
    and last; or, with `has_both`, one chunk with low bytes in the lower half of its data, high bytes in the upper
    half, and the count of either.

    Low bytes go where the first chunk says; high bytes `high_bytes` further. A run of at most `MAX_RUN` chunks of low
    bytes is followed by the run of their high bytes; a run ends where the next chunk has `start`, or the job ends. Runs
    of high bytes wait for what ends them.

    Throughput: one chunk per cycle that leaves. Latency: 1 cycle, for high bytes a run; without `is_wide` 0.

    Members
    -------
    is_wide, has_both, high_bytes : In
        `has_both` needs `is_wide`. May change only while `is_idle` and no chunk is offered.
    i, o : In and Out(stream of Chunk(num_lanes))
    is_idle : Out(1)
        No chunk is inside.
    """

    MAX_RUN = 16

    def __init__(self, num_lanes: int):
        self._num_lanes = num_lanes
        chunks = stream.Signature(Chunk(num_lanes))
        super().__init__(
            {
                "is_wide": In(1),
                "has_both": In(1),
                "high_bytes": In(32),
                "i": In(chunks),
                "o": Out(chunks),
                "is_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half = data.StructLayout(
            {name: shape.shape for name, shape in Chunk(self._num_lanes) if name in ("data", "count")}
        )
        m.submodules.lows = lows = Queue(Chunk(self._num_lanes), self.MAX_RUN)
        m.submodules.highs = highs = Queue(half, 2 * self.MAX_RUN)

        is_high_in = Signal()  # the next chunk that comes has high bytes
        low, high = lows.o, highs.o
        m.d.comb += [
            lows.i.p.eq(self.i.p),
            highs.i.p.data.eq(Mux(self.has_both, self.i.p.data >> 8 * (self._num_lanes // 2), self.i.p.data)),
            highs.i.p.count.eq(self.i.p.count),
            self.is_idle.eq(~low.valid & ~high.valid & ~is_high_in),
        ]

        is_high_run, is_last = Signal(), Signal()
        has_low_start, has_high_start = Signal(init=1), Signal()  # the next byte is the first of a run
        num_open = Signal(range(self.MAX_RUN + 1))  # low chunks of this run, without their high ones
        addr, high_addr = Signal(32), Signal(32)  # of the next low byte; of the run's first high byte
        low_addr = Signal(32)
        is_end = Signal()
        m.d.comb += [
            low_addr.eq(Mux(low.p.start, low.p.addr, addr)),
            is_end.eq((num_open != 0) & ((low.valid & low.p.start) | (num_open == self.MAX_RUN) | is_last)),
        ]
        with m.If(~self.is_wide):
            m.d.comb += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p), self.i.ready.eq(self.o.ready)]
        with m.Else():
            m.d.comb += [
                lows.i.valid.eq(self.i.valid & ~is_high_in & (highs.i.ready | ~self.has_both)),
                highs.i.valid.eq(self.i.valid & Mux(self.has_both, lows.i.ready, is_high_in)),
                self.i.ready.eq(Mux(is_high_in, highs.i.ready, lows.i.ready & (highs.i.ready | ~self.has_both))),
            ]
            with m.If(self.i.valid & self.i.ready & ~self.has_both):
                m.d.sync += is_high_in.eq(~is_high_in)
            with m.If(is_high_run | is_end):
                m.d.comb += [
                    self.o.valid.eq(high.valid),
                    high.ready.eq(self.o.ready),
                    self.o.p.data.eq(high.p.data),
                    self.o.p.count.eq(high.p.count),
                    self.o.p.addr.eq(high_addr),
                    self.o.p.start.eq(has_high_start & (high.p.count != 0)),
                    self.o.p.last.eq(is_last & (num_open == 1)),
                ]
                with m.If(high.valid & high.ready):
                    m.d.sync += [
                        num_open.eq(num_open - 1),
                        is_high_run.eq(num_open != 1),
                        is_last.eq(is_last & (num_open != 1)),
                        has_low_start.eq(1),
                        has_high_start.eq(has_high_start & (high.p.count == 0)),
                    ]
            with m.Else():
                m.d.comb += [
                    self.o.valid.eq(low.valid),
                    low.ready.eq(self.o.ready),
                    self.o.p.eq(low.p),
                    self.o.p.addr.eq(low_addr),
                    self.o.p.start.eq(has_low_start & (low.p.count != 0)),
                    self.o.p.last.eq(0),
                ]
                with m.If(low.valid & low.ready):
                    m.d.sync += [
                        num_open.eq(num_open + 1),
                        addr.eq(low_addr + low.p.count),
                        is_last.eq(low.p.last),
                        has_low_start.eq(has_low_start & (low.p.count == 0)),
                    ]
                    with m.If(num_open == 0):
                        m.d.sync += [high_addr.eq(low_addr + self.high_bytes), has_high_start.eq(1)]
        return m
