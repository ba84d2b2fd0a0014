"""Brings the operands of TP descriptors into the buffer."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.run_reader import RunReader
from convoy.hw.dma.run_walk import RunWalk
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.stage import Stage
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import OPERAND_DEPTH_BYTES
from convoy.spec.isa import TP

__all__ = ["Load"]

_JOB = TP.subset(
    "buffer_half",
    "a_addr",
    "a_run_bytes",
    "num_a_runs",
    "a_pitch_bytes",
    "b_addr",
    "b_run_bytes",
    "num_b_runs",
    "b_pitch_bytes",
)


class Load(wiring.Component):
    """Reads operand A, then operand B, and packs their bytes into a half of the buffer.

    A descriptor is read as soon as its half is free, that is, when at most one other descriptor, in the other half, is
    loaded or being loaded.

    Throughput: a beat per cycle, also from run to run and from descriptor to descriptor.

    Members
    -------
    job : In(stream)
        Fields of the descriptor.
    is_released : In(1)
        With a job: it may be read.
    port : Out(ReadPort)
    write_en, write_addr, write_data, write_skip, write_count : Out
        For `TpBuffer`.
    loaded : Out(stream of log2(tp_buffer_bytes) bits)
        For each descriptor, when its last beat has gone to the buffer at least a cycle before: the bytes of operand A.
    num_there : Out(log2(tp_buffer_bytes))
        Bytes of the descriptor that is being loaded that have gone to the buffer at least a cycle before; 0 before the
        first and from when it is in `loaded`.
    freed : In(1)
        Strobe for each descriptor whose half is no longer read.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        addr_bits = exact_log2(config.tp_buffer_bytes)
        super().__init__(
            {
                "job": In(stream.Signature(_JOB)),
                "is_released": In(1, init=1),
                "port": Out(ReadPort(config)),
                "write_en": Out(1),
                "write_addr": Out(addr_bits),
                "write_data": Out(config.port_bits),
                "write_skip": Out(range(config.port_bytes)),
                "write_count": Out(range(config.port_bytes + 1)),
                "loaded": Out(stream.Signature(addr_bits)),
                "num_there": Out(addr_bits),
                "freed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        depth_beats = max(2 * config.max_burst_beats, OPERAND_DEPTH_BYTES // config.port_bytes)
        m.submodules.walk = walk = RunWalk()
        m.submodules.reader = reader = RunReader(config, depth_beats)
        expected_layout = data.StructLayout({"half": 1, "num_a_runs": 16, "num_b_runs": 16, "has_b": 1})
        m.submodules.expected = expected = Queue(expected_layout, 2)
        m.submodules.expected_next = expected_next = Stage(expected_layout)
        m.submodules.loaded_queue = loaded = Queue(len(self.loaded.p), 2)
        wiring.connect(m, walk.runs, reader.runs)
        wiring.connect(m, reader.port, wiring.flipped(self.port))
        wiring.connect(m, loaded.o, wiring.flipped(self.loaded))
        self._issue(m, walk.jobs, expected.i)
        wiring.connect(m, expected.o, expected_next.i)
        self._receive(m, reader.beats, expected_next.o, loaded.i)
        return m

    def _issue(self, m, walks, expected):
        """Ask for the runs of A and B when the half is free."""
        job = self.job.p
        num_held, last_half = Signal(range(3)), Signal()
        can_start, is_start = Signal(), Signal()
        has_b = job.b_run_bytes != 0
        m.d.comb += can_start.eq((num_held == 0) | ((num_held == 1) & (job.buffer_half != last_half)))
        m.d.sync += num_held.eq(num_held + is_start - self.freed)
        m.d.comb += [
            walks.p.num_outer.eq(1),
            expected.p.half.eq(job.buffer_half),
            expected.p.has_b.eq(has_b),
            expected.p.num_a_runs.eq(job.num_a_runs),
            expected.p.num_b_runs.eq(job.num_b_runs),
        ]
        with m.FSM():
            with m.State("A"):
                m.d.comb += [
                    walks.p.addr.eq(job.a_addr),
                    walks.p.run_bytes.eq(job.a_run_bytes),
                    walks.p.num_inner.eq(job.num_a_runs),
                    walks.p.pitch_inner_bytes.eq(job.a_pitch_bytes),
                    walks.valid.eq(self.job.valid & self.is_released & can_start & expected.ready),
                    is_start.eq(walks.valid & walks.ready),
                    expected.valid.eq(is_start),
                    self.job.ready.eq(is_start & ~has_b),
                ]
                with m.If(is_start):
                    m.d.sync += last_half.eq(job.buffer_half)
                    with m.If(has_b):
                        m.next = "B"
            with m.State("B"):
                m.d.comb += [
                    walks.p.addr.eq(job.b_addr),
                    walks.p.run_bytes.eq(job.b_run_bytes),
                    walks.p.num_inner.eq(job.num_b_runs),
                    walks.p.pitch_inner_bytes.eq(job.b_pitch_bytes),
                    walks.valid.eq(1),
                    self.job.ready.eq(walks.ready),
                ]
                with m.If(walks.ready):
                    m.next = "A"

    def _receive(self, m, beats, expected, loaded):
        """Pack the beats, count the runs."""
        position, end = Signal.like(self.loaded.p), Signal.like(self.loaded.p)
        num_a_bytes = Signal.like(self.loaded.p)
        run, is_b = Signal(16, init=1), Signal()  # the first run is 1
        is_operand_end, is_end = Signal(), Signal()
        m.d.comb += [
            self.num_there.eq(position),
            beats.ready.eq(expected.valid),
            end.eq(position + beats.p.count),
            is_operand_end.eq(beats.p.last & (run == Mux(is_b, expected.p.num_b_runs, expected.p.num_a_runs))),
            is_end.eq(beats.valid & beats.ready & is_operand_end & (is_b | ~expected.p.has_b)),
            loaded.valid.eq(is_end),
            loaded.p.eq(Mux(is_b, num_a_bytes, end)),
            expected.ready.eq(is_end),
            self.write_en.eq(beats.valid & beats.ready),
            self.write_addr.eq(Cat(position[:-1], expected.p.half)),
            self.write_data.eq(beats.p.data),
            self.write_skip.eq(beats.p.skip),
            self.write_count.eq(beats.p.count),
        ]
        with m.If(beats.valid & beats.ready):
            m.d.sync += position.eq(end)
            with m.If(beats.p.last):
                m.d.sync += run.eq(run + 1)
            with m.If(is_operand_end):
                m.d.sync += [run.eq(1), is_b.eq(1), num_a_bytes.eq(end)]
            with m.If(is_end):
                m.d.sync += [position.eq(0), is_b.eq(0)]
