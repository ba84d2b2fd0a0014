"""Reads runs of bytes from memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import Burst, ReadPort
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.stage import Stage
from convoy.spec.config import NpuConfig

from .burst_splitter import BurstSplitter
from .types import Run, SkipBeat

__all__ = ["Run", "RunReader", "SkipBeat"]

BLOCK_DEPTH = 64
"""Of a queue in block memory at least: tools make shallower ones of look-up tables."""


class RunReader(wiring.Component):
    """Reads runs of bytes and delivers their beats, in order, with the bytes that do not belong to the run marked.

    A burst is requested only when the queue has room for the longest one, so the read port needs no back-pressure.

    Throughput: one beat and one burst per cycle, also from run to run; sustained if `depth_beats` covers a burst and
    the round trip. Latency: `RUN_REQUEST_CYCLES` from a run to its first request, `RUN_RETURN_CYCLES` from a beat of
    the port to `beats`.

    Parameters
    ----------
    config
        Port width and burst length.
    depth_beats
        Beats that may be requested or queued, at least `max_burst_beats`.
    low_beats
        Those that `hold` leaves.

    Members
    -------
    runs
        What to read, in this order.
    port
        The memory.
    beats
        `SkipBeat(port_bytes)`: the beats of the runs, each of at least one byte.
    is_requesting : Out(1)
        A run has been taken and is not yet requested to its end.
    hold : In(1)
        Request nothing while there are `low_beats` requested or queued; from the next cycle on.

    Raises
    ------
    ValueError
        When the longest burst does not fit in `depth_beats`.
    """

    def __init__(self, config: NpuConfig, depth_beats: int, low_beats: int = 0):
        if depth_beats < config.max_burst_beats:
            raise ValueError(f"depth_beats = {depth_beats} cannot hold a burst of {config.max_burst_beats} beats")
        self.config = config
        self.depth_beats, self.low_beats = depth_beats, low_beats
        super().__init__(
            {
                "runs": In(stream.Signature(Run)),
                "port": Out(ReadPort(config)),
                "beats": Out(stream.Signature(SkipBeat(config.port_bytes))),
                "is_requesting": Out(1),
                "hold": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes = self.config.port_bytes
        m.submodules.splitter = splitter = BurstSplitter(self.config)
        m.submodules.queue = queue = Queue(SkipBeat(port_bytes), max(self.depth_beats, BLOCK_DEPTH), is_block=True)
        due = data.StructLayout(
            {
                "last_beat": 8,
                "is_first": 1,
                "is_last": 1,
                "first_byte": range(port_bytes),
                "last_byte": range(port_bytes),
            }
        )
        m.submodules.pending = pending = Queue(due, self.config.max_reads + 2)
        m.submodules.head = head_stage = Stage(due)
        wiring.connect(m, pending.o, head_stage.i)
        wiring.connect(m, wiring.flipped(self.runs), splitter.runs)
        m.submodules.beat = beat = Stage(SkipBeat(port_bytes))
        wiring.connect(m, queue.o, beat.i)
        wiring.connect(m, beat.o, wiring.flipped(self.beats))

        # Request: needs room and a place in the list of pending bursts.
        m.submodules.requests = requests = Queue(
            Burst, 2
        )  # so that no client's queue is on the way from another's to the port
        wiring.connect(m, requests.o, wiring.flipped(self.port.bursts))
        bursts, split = requests.i, splitter.bursts
        room, next_room = (
            Signal(range(self.depth_beats + 1), init=self.depth_beats),
            Signal(range(self.depth_beats + 1)),
        )
        can_request = Signal(init=1)  # there is room for the longest burst and a place for it, and none more urgent
        is_requested = bursts.valid & bursts.ready
        is_taken = Signal()  # in the cycle before
        m.d.sync += is_taken.eq(queue.o.valid & queue.o.ready)
        m.d.comb += [
            self.is_requesting.eq(splitter.has_run | self.port.bursts.valid),
            bursts.p.eq(split.p.burst),
            bursts.valid.eq(split.valid & can_request),
            split.ready.eq(bursts.ready & can_request),
            pending.i.valid.eq(is_requested),
            pending.i.p.last_beat.eq(split.p.burst.last_beat),
            pending.i.p.is_first.eq(split.p.is_first),
            pending.i.p.is_last.eq(split.p.is_last),
            pending.i.p.first_byte.eq(split.p.first_byte),
            pending.i.p.last_byte.eq(split.p.last_byte),
        ]
        m.d.comb += next_room.eq(
            truncate(room + is_taken - Mux(is_requested, split.p.burst.last_beat + 1, 0), next_room.shape())
        )
        is_held = self.hold & (next_room <= self.depth_beats - self.low_beats)
        has_room = next_room >= self.config.max_burst_beats
        has_place = pending.level <= pending.depth - 2  # after one more, which this cycle may add
        m.d.sync += [room.eq(next_room), can_request.eq(has_room & has_place & ~is_held)]

        # Arrival: mark the bytes of the run and queue the beat.
        head = head_stage.o
        position = Signal(8)
        is_burst_end = position == head.p.last_beat
        first_byte = Mux(head.p.is_first & (position == 0), head.p.first_byte, 0)
        is_run_end = head.p.is_last & is_burst_end
        last_byte = Mux(is_run_end, head.p.last_byte, port_bytes - 1)
        m.d.comb += [
            queue.i.valid.eq(self.port.beats.valid),
            queue.i.p.data.eq(self.port.beats.p),
            queue.i.p.skip.eq(first_byte),
            queue.i.p.count.eq(last_byte - first_byte + 1),
            queue.i.p.last.eq(is_run_end),
            head.ready.eq(self.port.beats.valid & is_burst_end),
        ]
        with m.If(self.port.beats.valid):
            m.d.sync += position.eq(Mux(is_burst_end, 0, position + 1))
        return m
