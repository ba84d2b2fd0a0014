"""Queues beats until they make a burst."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import Burst, WritePort, write_beat
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig

from .beat_packer import placed_beat

__all__ = ["BurstBuilder"]


class BurstBuilder(wiring.Component):
    """Joins consecutive beats to bursts of at most `max_burst_beats` that do not cross a 4 KiB boundary.

    A burst ends where it must, where the next beat is not the one that follows, and at the end of a job.
    It is offered when all its beats are queued; `QUEUE_BURSTS` of the longest bursts fit.

    Throughput: one beat per cycle. Latency: 2 cycles from the end of a burst to its request.

    Members
    -------
    beats
        `placed_beat`.
    port
        The memory.
    done
        High for one cycle per job, in order, when all bursts of the job have been acknowledged.
    """

    QUEUE_BURSTS = 4
    MAX_REQUESTS = 16
    MAX_JOBS = 6
    COUNT_BITS = 8
    """Bits of the counters of bursts; more than twice the bursts that can be queued or in flight must fit."""

    def __init__(self, config: NpuConfig):
        self.config = config
        super().__init__(
            {"beats": In(stream.Signature(placed_beat(config))), "port": Out(WritePort(config)), "done": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        port_log2 = exact_log2(config.port_bytes)
        item = self.beats
        m.submodules.beat_queue = beat_queue = Queue(
            write_beat(config), self.QUEUE_BURSTS * config.max_burst_beats, is_block=True
        )
        m.submodules.burst_queue = burst_queue = Queue(Burst, self.MAX_REQUESTS)
        m.submodules.job_queue = job_queue = Queue(self.COUNT_BITS, self.MAX_JOBS)
        wiring.connect(m, beat_queue.o, wiring.flipped(self.port.beats))
        wiring.connect(m, burst_queue.o, wiring.flipped(self.port.bursts))

        is_open = Signal()  # a burst is being built
        is_ending = Signal()  # the job ends with it
        beat_addr = Signal(32 - port_log2)
        last_beat, next_last_beat = Signal(8), Signal(8)
        is_joined, is_full = Signal(), Signal()  # full: last_beat is the most
        must_close, is_closed, is_ended = Signal(), Signal(), Signal()
        # Every queue has a place: two in the cycle before, of which that may have taken one. Beats that wait for their
        # burst are a quarter of what there is room for, so that some leave.
        can_go = Signal()
        queues = beat_queue, burst_queue, job_queue
        m.d.sync += can_go.eq(Cat(queue.level < queue.depth - 1 for queue in queues).all())
        m.d.comb += [
            next_last_beat.eq(Mux(is_joined, last_beat + 1, 0)),
            is_joined.eq(is_open & item.p.is_next & ~is_full & ~is_ending),
            must_close.eq(is_open & (is_full | is_ending | (item.valid & item.p.has_beat & ~item.p.is_next))),
            is_closed.eq(must_close & can_go),
            burst_queue.i.valid.eq(is_closed),
            burst_queue.i.p.addr.eq(beat_addr << port_log2),
            burst_queue.i.p.last_beat.eq(last_beat),
            is_ended.eq(is_ending & can_go),
        ]

        is_taken = item.valid & item.ready
        m.d.comb += [
            item.ready.eq(can_go),
            beat_queue.i.valid.eq(is_taken & item.p.has_beat),
            beat_queue.i.p.eq(item.p.beat),
        ]
        with m.If(is_closed):
            m.d.sync += is_open.eq(0)
        with m.If(is_ended):
            m.d.sync += is_ending.eq(0)
        with m.If(is_taken & item.p.has_beat):
            m.d.sync += [
                is_open.eq(1),
                beat_addr.eq(Mux(is_joined, beat_addr, item.p.beat_addr)),
                last_beat.eq(next_last_beat),
                is_full.eq(next_last_beat == config.max_burst_beats - 1),
            ]
        with m.If(is_taken & item.p.is_job_end):
            m.d.sync += is_ending.eq(1)

        # A job is done when as many bursts have been acknowledged as had been requested at its end.
        num_requested = Signal(self.COUNT_BITS)
        num_acknowledged = Signal(self.COUNT_BITS)
        excess = Signal(self.COUNT_BITS)  # acknowledged since then, modulo: negative as long as some are missing
        m.d.sync += [
            num_requested.eq(num_requested + is_closed),
            num_acknowledged.eq(num_acknowledged + self.port.done),
        ]
        m.d.comb += [
            job_queue.i.valid.eq(is_ended),
            job_queue.i.p.eq(num_requested + is_closed),
            excess.eq(num_acknowledged - job_queue.o.p),
            self.done.eq(job_queue.o.valid & ~excess[-1]),
            job_queue.o.ready.eq(self.done),
        ]
        return m
