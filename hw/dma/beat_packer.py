"""Assembles chunks of bytes into beats with strobes."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import write_beat
from convoy.hw.lib.choose import rotated
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec.config import PAGE_BYTES, NpuConfig

from .types import Chunk

__all__ = ["BeatPacker", "placed_beat"]


def placed_beat(config: NpuConfig) -> data.StructLayout:
    """A beat to write at `beat_addr` (a byte address without its `log2(port_bytes)` low bits), if `has_beat`;
    `is_job_end` ends a job.

    `is_next`: the beat lies behind the one before, in the same page of 4 KiB.
    """
    return data.StructLayout(
        {
            "beat": write_beat(config),
            "beat_addr": 32 - exact_log2(config.port_bytes),
            "has_beat": 1,
            "is_next": 1,
            "is_job_end": 1,
        }
    )


class BeatPacker(wiring.Component):
    """Assembles chunks into beats.

    A chunk with `start` at another address than the next one flushes the partial beat before it; so does the end of a
    job.

    Throughput: one beat per cycle, and one chunk per cycle if `num_lanes` is at most `port_bytes`. A flush before
    another address costs a cycle only if the chunk before filled a beat and began the next one; the end of a job costs
    one or two. Latency: 3 cycles.

    Members
    -------
    chunks
        `Chunk(num_lanes)`.
    beats
        `placed_beat`; the last item of each job, and no other, has `is_job_end`. From a register.
    """

    def __init__(self, config: NpuConfig, num_lanes: int):
        self.config = config
        self.num_lanes = num_lanes
        super().__init__(
            {"chunks": In(stream.Signature(Chunk(num_lanes))), "beats": Out(stream.Signature(placed_beat(config)))}
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes, port_log2 = self.config.port_bytes, exact_log2(self.config.port_bytes)
        num_bytes = port_bytes - 1 + self.num_lanes  # longest content: a partial beat and a chunk
        chunk, out = self.chunks.p, data_register(m, self.beats.p)

        # Stage 1: see whether the address jumps.
        arrived = Signal(
            data.StructLayout(
                {"data": 8 * self.num_lanes, "count": range(self.num_lanes + 1), "addr": 32, "is_jump": 1, "is_last": 1}
            ),
            reset_less=True,
        )
        has_arrived = Signal()
        is_accepted = Signal()
        next_addr = Signal(32)
        m.d.comb += self.chunks.ready.eq(~has_arrived | is_accepted)
        with m.If(self.chunks.ready):
            m.d.sync += has_arrived.eq(self.chunks.valid)
            with m.If(self.chunks.valid):
                m.d.sync += [
                    arrived.data.eq(chunk.data),
                    arrived.count.eq(chunk.count),
                    arrived.addr.eq(chunk.addr),
                    arrived.is_jump.eq(chunk.start & (chunk.addr != next_addr)),
                    arrived.is_last.eq(chunk.last),
                    next_addr.eq(Mux(chunk.start, chunk.addr, next_addr) + chunk.count),
                ]

        # Stage 2: the content in rows of a beat, from the start of the beat `beat_addr`. Its bytes are those from
        # `begin`, in the first row, to `end`.
        rows = [
            [Signal(8, reset_less=True, name=f"row_{row}_{column}") for column in range(port_bytes)]
            for row in range(-(-num_bytes // port_bytes))
        ]
        begin, end = Signal(port_log2), Signal(range(num_bytes + 1))
        beat_addr, next_beat_addr = (
            Signal(32 - port_log2),
            Signal(32 - port_log2),
        )  # of the content; behind the beat given last
        is_flushing = Signal()
        is_full = end >= port_bytes

        rest_end = Signal.like(end)  # what this cycle's beat leaves
        m.d.comb += rest_end.eq(Mux(is_full, end - port_bytes, end))
        is_free = ~self.beats.valid | self.beats.ready
        is_jump = has_arrived & arrived.is_jump & ~is_flushing
        is_job_end = is_flushing & (~is_full | (rest_end == 0))
        can_accept = (
            has_arrived & ~is_flushing & Mux(arrived.is_jump, ~is_full | (rest_end == 0), rest_end < port_bytes)
        )
        has_beat = is_full | ((is_jump | is_flushing) & (end != begin))
        m.d.comb += is_accepted.eq(can_accept & is_free)

        position = Signal(port_log2)
        following = Signal.like(beat_addr)
        m.d.comb += [
            position.eq(Mux(arrived.is_jump, arrived.addr[:port_log2], end[:port_log2])),
            following.eq(beat_addr + 1),
        ]
        with m.If(is_free):
            m.d.sync += [
                self.beats.valid.eq(has_beat | is_job_end),
                out.beat.data.eq(Cat(rows[0])),
                out.beat.strobe.eq(Cat((begin <= column) & (column < end) for column in range(port_bytes))),
                out.beat_addr.eq(beat_addr),
                out.has_beat.eq(has_beat),
                out.is_next.eq((beat_addr == next_beat_addr) & beat_addr[: exact_log2(PAGE_BYTES) - port_log2].any()),
                out.is_job_end.eq(is_job_end),
                end.eq(rest_end),
            ]
            with m.If(is_full):
                m.d.sync += [beat_addr.eq(following), begin.eq(0)]
            with m.If(has_beat):
                m.d.sync += next_beat_addr.eq(following)
            with m.If(is_job_end):
                m.d.sync += [is_flushing.eq(0), begin.eq(truncate(rest_end, begin.shape()))]
            with m.If(can_accept):
                m.d.sync += [end.eq(truncate(position + arrived.count, end.shape())), is_flushing.eq(arrived.is_last)]
                with m.If(arrived.is_jump):
                    m.d.sync += [beat_addr.eq(arrived.addr[port_log2:]), begin.eq(position)]

        # Each beat of the chunk is turned until its bytes are in the columns of their places: those left of the first
        # byte's are in the row behind.
        turned = []
        for first in range(0, self.num_lanes, port_bytes):
            part = arrived.data[8 * first :][: 8 * port_bytes]
            part = Cat(part, Const(0, 8 * port_bytes - len(part)))
            turned.append(rotated(m, part, position, 8, name=f"turned_{first}", is_left=True))
        for row, row_bytes in enumerate(rows):
            for column, byte in enumerate(row_bytes):
                if row + 1 < len(rows):
                    with m.If(is_free & is_full):
                        m.d.sync += byte.eq(rows[row + 1][column])
                is_behind = position > column
                for part, is_here in ((row, ~is_behind), (row - 1, is_behind)):
                    if 0 <= part < len(turned):
                        with m.If(is_accepted & is_here):
                            m.d.sync += byte.eq(turned[part].word_select(column, 8))
        return m
