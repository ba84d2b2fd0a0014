"""Sends result bytes to the runs of memory where they belong."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import WritePort
from convoy.hw.dma.chunk_writer import ChunkWriter
from convoy.hw.lib.narrow import is_at_most, truncate
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import NUM_TP_LANES
from convoy.spec.isa import TP

from .process import result_layout

__all__ = ["Output"]

_JOB = TP.subset("out_addr", "out_run_bytes", "out_pitch_bytes")


class Output(wiring.Component):
    """Writes the bytes of a descriptor's results to its runs, one run after another.

    Throughput: a result per cycle, one more cycle when a run ends within a result, one more per descriptor.

    Members
    -------
    job : In(stream)
        Fields of the descriptor.
    results : In(stream of `result_layout`)
    port : Out(WritePort)
    done : Out(1)
        Strobe for each descriptor, in order, when all its writes have been acknowledged.
    """

    def __init__(self, config: NpuConfig, num_lanes: int = NUM_TP_LANES):
        self._config, self._num_lanes = config, num_lanes
        super().__init__(
            {
                "job": In(stream.Signature(_JOB)),
                "results": In(stream.Signature(result_layout(num_lanes))),
                "port": Out(WritePort(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.writer = writer = ChunkWriter(self._config, self._num_lanes)
        wiring.connect(m, writer.port, wiring.flipped(self.port))
        # The end of a run does not hold the source of results in the same cycle.
        m.submodules.queue = queue = Queue(result_layout(self._num_lanes), 2)
        wiring.connect(m, wiring.flipped(self.results), queue.i)
        results, chunks = queue.o, writer.chunks
        m.d.comb += self.done.eq(writer.done)

        job, is_active = Signal(_JOB, reset_less=True), Signal()
        run_addr, run_left, is_run_start = Signal(32), Signal.like(job.out_run_bytes), Signal()
        used = Signal(range(self._num_lanes))
        available = Signal.like(results.p.count)
        run_low = run_left[: len(available)]
        is_result_end, is_run_end = Signal(), Signal()
        m.d.comb += [
            available.eq(results.p.count - used),
            is_result_end.eq(run_left[len(available) :].any() | (run_low >= available)),
            is_run_end.eq(is_at_most(run_left, available)),
            chunks.valid.eq(is_active & results.valid),
            chunks.p.data.eq(results.p.data >> (used << 3)),
            chunks.p.count.eq(Mux(is_result_end, available, run_low)),
            chunks.p.addr.eq(run_addr),
            chunks.p.start.eq(is_run_start),
            chunks.p.last.eq(results.p.last & is_result_end),
            results.ready.eq(is_active & chunks.ready & is_result_end),
            self.job.ready.eq(~is_active),
        ]
        with m.If(chunks.valid & chunks.ready):
            with m.If(is_result_end):
                m.d.sync += used.eq(0)
            with m.Else():
                m.d.sync += used.eq(truncate(used + run_low, used.shape()))
            m.d.sync += [run_left.eq(truncate(run_left - available, run_left.shape())), is_run_start.eq(0)]
            with m.If(is_run_end):
                m.d.sync += [
                    run_left.eq(job.out_run_bytes),
                    run_addr.eq(run_addr + job.out_pitch_bytes),
                    is_run_start.eq(1),
                ]
            with m.If(chunks.p.last):
                m.d.sync += is_active.eq(0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [
                job.eq(self.job.p),
                is_active.eq(1),
                used.eq(0),
                run_addr.eq(self.job.p.out_addr),
                run_left.eq(self.job.p.out_run_bytes),
                is_run_start.eq(1),
            ]
        return m
