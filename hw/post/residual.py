"""The residual sum: a second operand read from memory and added to the outputs of a convolution."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.byte_queue import ByteQueue
from convoy.hw.dma.run_reader import RunReader
from convoy.hw.dma.run_walk import RunWalk
from convoy.hw.dma.types import Chunk
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import OPERAND_DEPTH_BYTES
from convoy.spec.isa import NN

from .add import ADD_FIELDS, AddLane

__all__ = ["RESIDUAL_FIELDS", "Residual", "ResidualUnit"]

RESIDUAL_FIELDS = (
    "has_residual",
    "res_addr",
    "res_run_bytes",
    "res_run_bytes_last",
    "num_res_runs",
    "num_res_runs_last",
    *(f"res_{name}" for name in ADD_FIELDS),
)
"""What `Residual` needs of an NN descriptor, beyond where its outputs go."""


class ResidualUnit(data.Struct):
    """One channel of a group: the address of its outputs."""

    addr: 32
    is_last_group: 1


class Residual(wiring.Component):
    """Adds to the bytes of each chunk the bytes that lie at `res_addr` as the chunk's lie at `out_addr`; without
    residual a wire.

    Throughput: `config.residual_lanes` bytes per cycle. Latency: about 16 cycles, and for the first chunk of a group a
    round trip to memory.

    Members
    -------
    job : In
        Fields of the descriptor; they may change only while `is_idle` and no chunk is offered.
    units : In(stream of ResidualUnit)
        The channels in the order of their chunks, at the latest with these; only while `job.has_residual`.
    port : Out(ReadPort)
    i, o : In and Out(stream of Chunk(post_lanes))
    is_idle : Out(1)
        No chunk is inside.
    """

    QUEUE_DEPTH = 32

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(NN.subset("out_addr", "out_pitch_row_bytes", *RESIDUAL_FIELDS)),
                "units": In(stream.Signature(ResidualUnit)),
                "port": Out(ReadPort(config)),
                "i": In(stream.Signature(Chunk(config.post_lanes))),
                "o": Out(stream.Signature(Chunk(config.post_lanes))),
                "is_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job, lanes = self._config, self.job, self._config.residual_lanes
        m.submodules.operand = operand = ByteQueue(config.port_bytes, lanes)
        m.submodules.tags = tags = Queue(Chunk(config.post_lanes), self.QUEUE_DEPTH)
        m.submodules.sums = sums = Queue(8 * lanes, self.QUEUE_DEPTH)
        self._fetch(m, operand.beats)

        # A piece of the chunk goes into the adders, a cycle later, when its operand is there and its result has room.
        chunk, piece = self.i.p, tags.i.p
        used = Signal.like(chunk.count)
        left = Signal.like(chunk.count)
        num_free = Signal(range(self.QUEUE_DEPTH + 1), init=self.QUEUE_DEPTH)
        is_going, is_leaving, is_piece_last = Signal(), Signal(), Signal()
        num_there = Signal.like(operand.level)
        # As many bytes of the operand
        is_there = Cat(Const(1, 1), (num_there >= count for count in range(1, lanes + 1)))
        m.d.comb += [
            left.eq(chunk.count - used),
            is_piece_last.eq(left <= lanes),
            piece.count.eq(Mux(is_piece_last, left, lanes)),
            piece.addr.eq(chunk.addr),
            piece.start.eq(chunk.start & (used == 0)),
            piece.last.eq(chunk.last & is_piece_last),
            num_there.eq(operand.level - operand.take),
            is_going.eq(self.i.valid & job.has_residual & (num_free != 0) & is_there.bit_select(piece.count, 1)),
            tags.i.valid.eq(is_going),
            is_leaving.eq(sums.o.valid & self.o.ready),
            self.is_idle.eq(num_free == self.QUEUE_DEPTH),
        ]
        m.d.sync += [
            num_free.eq(truncate(num_free - is_going + is_leaving, num_free.shape())),
            operand.take.eq(truncate(Mux(is_going, piece.count, 0), operand.take.shape())),
        ]
        with m.If(is_going):
            m.d.sync += used.eq(Mux(is_piece_last, 0, used + lanes))

        acts = Signal(8 * lanes)
        m.d.sync += acts.eq(truncate(chunk.data >> (used << 3), acts.shape()))
        results = []
        for lane in range(lanes):
            m.submodules[f"add_{lane}"] = add = AddLane()
            m.d.comb += [add.job[name].eq(job[f"res_{name}"]) for name in ADD_FIELDS]
            m.d.comb += [
                add.a.eq(acts.word_select(lane, 8).as_signed()),
                add.b.eq(operand.data.word_select(lane, 8).as_signed()),
            ]
            results.append(add.y)
        is_done = delay(m, is_going, 1 + AddLane.PIPELINE_CYCLES, name="is_done")
        m.d.comb += [sums.i.p.eq(Cat(results)), sums.i.valid.eq(is_done)]

        with m.If(job.has_residual):
            m.d.comb += [
                self.o.valid.eq(sums.o.valid),
                self.o.p.eq(tags.o.p),
                self.o.p.data.eq(sums.o.p),
                sums.o.ready.eq(self.o.ready),
                tags.o.ready.eq(is_leaving),
                self.i.ready.eq(is_going & is_piece_last),
            ]
        with m.Else():
            m.d.comb += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p), self.i.ready.eq(self.o.ready)]
        return m

    def _fetch(self, m, beats):
        """The operand's runs of each channel, asked for as soon as the channel is known."""
        config, job = self._config, self.job
        m.submodules.queue = queue = Queue(ResidualUnit, 4)
        m.submodules.walk = walk = RunWalk()
        m.submodules.reader = reader = RunReader(
            config, max(2 * config.max_burst_beats, OPERAND_DEPTH_BYTES // config.port_bytes)
        )
        wiring.connect(m, wiring.flipped(self.units), queue.i)
        wiring.connect(m, walk.runs, reader.runs)
        wiring.connect(m, reader.port, wiring.flipped(self.port))
        wiring.connect(m, reader.beats, beats)
        offset = Signal(32)
        m.d.sync += offset.eq(job.res_addr - job.out_addr)
        unit, runs = queue.o, walk.jobs
        m.d.comb += [
            runs.valid.eq(unit.valid),
            unit.ready.eq(runs.ready),
            runs.p.addr.eq(unit.p.addr + offset),
            runs.p.run_bytes.eq(Mux(unit.p.is_last_group, job.res_run_bytes_last, job.res_run_bytes)),
            runs.p.num_inner.eq(Mux(unit.p.is_last_group, job.num_res_runs_last, job.num_res_runs)),
            runs.p.pitch_inner_bytes.eq(job.out_pitch_row_bytes),
            runs.p.num_outer.eq(1),
        ]
