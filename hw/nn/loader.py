"""The loader: activations from memory to the stripe memory, padded and split into phase planes on the way.

A job passes through a line of small units:

    RunWalk -> RunReader -> ByteRing -------------------------------+
    _Segments -> _Sources -> _Phases -> pieces, each one write ---> _Placer -> StripeMemory

`_Segments` cuts rows at the borders of stripe words, `_Sources` finds how much of a segment is pad and how much comes
from memory, `_Phases` makes a piece of it for each stored phase, and `_Placer` waits for the bytes, moves them into
place and writes.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.byte_ring import ByteRing
from convoy.hw.dma.run_reader import RunReader
from convoy.hw.dma.run_walk import RunWalk
from convoy.hw.lib.choose import any_of, below, gated, rotated, rotated_late
from convoy.hw.lib.narrow import is_at_most, truncate
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import ACT_DEPTH_BEATS
from convoy.spec.isa import NN

from .job import JobSlot
from .stripe import StripeWrite

__all__ = ["LOADER_FIELDS", "Loader"]

_WALK_FIELDS = (
    "act_addr",
    "act_run_bytes",
    "act_pitch_inner_bytes",
    "act_pitch_outer_bytes",
    "num_act_inner",
    "num_act_outer",
)
_PLACE_FIELDS = (
    "num_ic",
    "tile_ih",
    "tile_iw",
    "pad_top",
    "pad_left",
    "stride_h_log2",
    "stride_w_log2",
    "phase_mask",
    "zero_point_in",
    "tile_rows",
    "tile_cols",
    "pitch_row",
    "phase_words",
    "channel_words",
    "stripe_word",
    "ring_channels",
)
LOADER_FIELDS = _WALK_FIELDS + _PLACE_FIELDS
"""What the loader needs of an NN descriptor."""

_PAD_BITS = NN.fields["pad_left"].bits
_FINE_BITS = 2
"""Of a rotation, that are left to the cycle after the one of the others."""


def _segment_layout(config: NpuConfig) -> data.StructLayout:
    """`num_cols` columns of a row of phase row `py`, within a stripe word; `pixel` is the place of the first one in
    phase plane 0.

    `is_channel_end`, `is_job_end`: nothing follows in the channel, in the job.
    """
    return data.StructLayout(
        {
            "num_cols": range(config.num_lanes + 1),
            "pixel": exact_log2(config.stripe_bytes),
            "py": 1,
            "is_row_start": 1,
            "is_data_row": 1,
            "is_channel_end": 1,
            "is_job_end": 1,
        }
    )


def _source_layout(config: NpuConfig) -> data.StructLayout:
    """A segment's `num_pad` pad pixels on the left (with stride 2 of both phases), then `num_bytes` bytes from memory,
    then pad again.
    """
    return data.StructLayout(
        {
            "num_cols": range(config.num_lanes + 1),
            "pixel": exact_log2(config.stripe_bytes),
            "py": 1,
            "num_pad": range(2 * config.num_lanes + 1),
            "num_bytes": range(2 * config.num_lanes + 1),
            "is_channel_end": 1,
            "is_job_end": 1,
        }
    )


def _piece_layout(config: NpuConfig) -> data.StructLayout:
    """A write of bytes `first` to `end` - 1 of a word; those from `data_first` to `data_end` - 1 come from the ring,
    the others are pad.

    The ring must hold `num_bytes`; `num_taken` of them are dropped then. With `is_split` only every second byte of the
    ring is used, the odd ones if `is_odd`; without, it never `is_odd`. The first one used goes to byte `data_first`
    modulo the word. Without `is_stored` nothing is written.
    """
    position = range(3 * config.num_lanes + 1)
    return data.StructLayout(
        {
            "num_bytes": range(2 * config.num_lanes + 1),
            "num_taken": range(2 * config.num_lanes + 1),
            "is_split": 1,
            "is_odd": 1,
            "is_stored": 1,
            "word": exact_log2(config.stripe_words),
            "first": position,
            "end": position,
            "data_first": position,
            "data_end": position,
            "is_channel_end": 1,
            "is_job_end": 1,
        }
    )


class _Segments(wiring.Component):
    """Walks channels, rows and phase rows of a job and cuts every row at word borders.

    | cycle | work |
    | -- | -- |
    | 0 | `start` |
    | 1 | place and size of the first segment |
    | 2 | `segments` |

    With `ring_channels` a channel begins only when fewer channels than that have begun and not been read.

    Latency: 2 cycles from `start` to the first segment. Throughput: one segment per cycle.

    Members
    -------
    fields : In(fields of the job)
        Constant from the cycle before `start` to the job's end.
    start : In(1)
        Strobe: begin.
    channel_read : In(1)
        Strobe: the oldest channel has been read; those of other jobs do not matter before `start`.
    segments : Out(stream of segments)
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "fields": In(NN.subset(*_PLACE_FIELDS)),
                "start": In(1),
                "channel_read": In(1),
                "segments": Out(stream.Signature(_segment_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, num_lanes = self.fields, self._config.num_lanes
        lanes_log2 = exact_log2(num_lanes)
        segment = self.segments.payload
        is_active = Signal()
        channels_left, rows_left = Signal(16), Signal(16)  # channels to come; rows with the one in work
        reach = Signal(17)  # columns from the beginning of the word to the end of the row
        pad_rows_left, data_rows_left = Signal(_PAD_BITS), Signal(16)
        py, is_row_start = Signal(), Signal()
        pixel, next_row, next_channel = (  # the latter are the first ones of the row and the channel to come
            Signal.like(segment.pixel, name=name) for name in ("pixel", "next_row", "next_channel")
        )

        column = pixel[:lanes_log2]
        is_row_end, is_last_row, is_last_channel = (Signal() for _ in range(3))
        is_last_py, is_channel_end, is_job_end, is_moving = (Signal() for _ in range(4))
        # Rows that fit in a word, and up to which column they may begin then
        is_narrow, slack = Signal(), Signal(range(num_lanes + 1))
        # Channels of a ring after the one in work that have a place; below none if that one waits for its own
        num_free, is_ring = Signal(signed(17)), Signal()
        m.d.sync += [
            is_ring.eq(job.ring_channels != 0),
            is_narrow.eq(is_at_most(job.tile_cols, Const(num_lanes))),
            slack.eq(truncate(num_lanes - job.tile_cols, slack.shape())),
        ]
        m.d.comb += [
            is_last_py.eq(py == job.stride_h_log2),
            is_channel_end.eq(is_row_end & is_last_py & is_last_row),
            is_job_end.eq(is_channel_end & is_last_channel),
            is_moving.eq(is_active & ~(is_ring & num_free[-1]) & (~self.segments.valid | self.segments.ready)),
        ]

        with m.If(self.segments.ready):
            m.d.sync += self.segments.valid.eq(0)
        with m.If(is_moving):
            m.d.sync += [
                self.segments.valid.eq(1),
                segment.num_cols.eq(Mux(is_row_end, reach[: lanes_log2 + 1], num_lanes) - column),
                segment.pixel.eq(pixel),
                segment.py.eq(py),
                segment.is_row_start.eq(is_row_start),
                segment.is_data_row.eq((pad_rows_left == 0) & (data_rows_left != 0)),
                segment.is_channel_end.eq(is_channel_end),
                segment.is_job_end.eq(is_job_end),
                is_row_start.eq(is_row_end),
                reach.eq(reach - num_lanes),
                is_row_end.eq(is_at_most(reach, Const(2 * num_lanes))),
                pixel.eq((pixel[lanes_log2:] + 1) << lanes_log2),
            ]
            with m.If(is_row_end):
                m.d.sync += [
                    reach.eq(job.tile_cols + next_row[:lanes_log2]),
                    is_row_end.eq(is_narrow & (next_row[:lanes_log2] <= slack)),
                    pixel.eq(next_row),
                    next_row.eq(next_row + Mux(is_last_py & job.stride_h_log2, 0, job.pitch_row)),
                    py.eq(~is_last_py),
                ]
                with m.If(is_last_py):
                    m.d.sync += [rows_left.eq(rows_left - 1), is_last_row.eq(rows_left == 2)]
                with m.If(pad_rows_left != 0):
                    m.d.sync += pad_rows_left.eq(pad_rows_left - 1)
                with m.Elif(data_rows_left != 0):
                    m.d.sync += data_rows_left.eq(data_rows_left - 1)
            with m.If(is_job_end):
                m.d.sync += is_active.eq(0)

        m.d.sync += num_free.eq(num_free - (is_moving & is_channel_end) + self.channel_read)
        with m.If(self.start):
            m.d.sync += num_free.eq(job.ring_channels - 1)

        with m.If(~is_active):
            m.d.sync += [
                next_channel.eq(truncate(job.stripe_word << lanes_log2, pixel.shape())),
                channels_left.eq(job.num_ic),
            ]
        is_channel_start = self.start | (is_moving & is_channel_end)
        with m.If(is_channel_start):
            m.d.sync += [
                reach.eq(job.tile_cols),  # channels begin with a word
                is_row_end.eq(is_narrow),
                pixel.eq(next_channel),
                next_row.eq(next_channel + Mux(job.stride_h_log2, 0, job.pitch_row)),
                next_channel.eq(next_channel + truncate(job.channel_words << lanes_log2, pixel.shape())),
                rows_left.eq(job.tile_rows),
                is_last_row.eq(job.tile_rows == 1),
                pad_rows_left.eq(job.pad_top),
                data_rows_left.eq(job.tile_ih),
                channels_left.eq(channels_left - 1),
                is_last_channel.eq(channels_left == 1),
            ]
        with m.If(self.start):
            m.d.sync += [is_active.eq(1), is_row_start.eq(1), py.eq(0)]
        return m


class _Sources(wiring.Component):
    """Finds what a segment consists of.

    | cycle | work |
    | -- | -- |
    | 0 | pad pixels and bytes of the segment; those of the row that are left |
    | 1 | `sources` |

    Latency: 1 cycle. Throughput: one segment per cycle.

    Members
    -------
    fields : In(fields of the job)
        Constant from a job's first segment to its last.
    segments : In(stream of segments)
    sources : Out(stream of segments with their sources)
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "fields": In(NN.subset(*_PLACE_FIELDS)),
                "segments": In(stream.Signature(_segment_layout(config))),
                "sources": Out(stream.Signature(_source_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, segment, source = self.fields, self.segments.payload, self.sources.payload
        pad_left, data_left = (
            Signal(_PAD_BITS),
            Signal(16),
        )  # of the row, from this segment on unless it is the row's first
        num_pad, num_data = Signal(_PAD_BITS), Signal(16)
        width, num_bytes = Signal(range(2 * self._config.num_lanes + 1)), Signal(range(2 * self._config.num_lanes + 1))
        room = Signal(signed(max(len(width), _PAD_BITS) + 1))  # for bytes from memory
        most = room[: len(width)]  # if there is room
        surplus = Signal(signed(17))  # of the row's bytes, over those
        m.d.comb += [
            num_pad.eq(Mux(segment.is_row_start, job.pad_left, pad_left)),
            num_data.eq(Mux(segment.is_row_start, Mux(segment.is_data_row, job.tile_iw, 0), data_left)),
            width.eq(Mux(job.stride_w_log2, segment.num_cols << 1, segment.num_cols)),
            room.eq(width - num_pad),
            surplus.eq(num_data - most),
            num_bytes.eq(Mux(room < 0, 0, Mux(surplus < 0, truncate(num_data, num_bytes.shape()), most))),
            self.segments.ready.eq(~self.sources.valid | self.sources.ready),
        ]
        with m.If(self.segments.ready):
            m.d.sync += self.sources.valid.eq(self.segments.valid)
        with m.If(self.segments.valid & self.segments.ready):
            m.d.sync += [
                *(
                    source[name].eq(segment[name])
                    for name in ("num_cols", "pixel", "py", "is_channel_end", "is_job_end")
                ),
                source.num_pad.eq(truncate(Mux(room < 0, width, num_pad), source.num_pad.shape())),
                source.num_bytes.eq(num_bytes),
                pad_left.eq(Mux(room < 0, (num_pad - width)[:_PAD_BITS], 0)),
                data_left.eq(Mux(room < 0, num_data, Mux(surplus < 0, 0, truncate(surplus, data_left.shape())))),
            ]
        return m


class _Phases(wiring.Component):
    """Makes the pieces of a segment: one for each stored phase of its row, in this order, or one that only takes bytes.

    | cycle | work |
    | -- | -- |
    | -4 .. -1 | `prepare`: the first word of each phase plane |
    | 0 | place of the piece of the next phase |
    | 1 | `pieces` |

    Latency: 1 cycle. Throughput: one piece per cycle.

    Members
    -------
    fields : In(fields of the job)
        Constant from `prepare` to the job's last segment.
    prepare : In(1)
        High for the four cycles before the first segment of a job.
    sources : In(stream of segments with their sources)
    pieces : Out(stream of pieces)
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "fields": In(NN.subset(*_PLACE_FIELDS)),
                "prepare": In(1),
                "sources": In(stream.Signature(_source_layout(config))),
                "pieces": Out(stream.Signature(_piece_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, source, piece = self.fields, self.sources.payload, self.pieces.payload
        lanes_log2 = exact_log2(self._config.num_lanes)

        planes = Signal(
            data.ArrayLayout(piece.word.shape(), 4)
        )  # first word of each phase plane, relative to the first one stored
        index, plane = Signal(2), Signal.like(piece.word)
        with m.If(self.prepare):
            m.d.sync += [index.eq(index + 1), planes[index].eq(plane)]
            phase_words = truncate(job.phase_words, plane.shape())
            m.d.sync += plane.eq(Mux(index == 3, 0, plane + Mux(job.phase_mask.bit_select(index, 1), phase_words, 0)))

        stored = Signal(2)
        is_second, px, is_final, is_moving = (Signal() for _ in range(4))
        m.d.comb += [
            stored.eq(job.phase_mask.word_select(source.py, 2) & Cat(Const(1, 1), job.stride_w_log2)),
            px.eq(is_second | (stored == 0b10)),
            is_final.eq(is_second | (stored != 0b11)),
            is_moving.eq(self.sources.valid & (~self.pieces.valid | self.pieces.ready)),
            self.sources.ready.eq(is_moving & is_final),
        ]

        # The bytes of phase px are pixels px, px + 2, ... of the segment
        offset = Signal(lanes_log2)
        pad_end, data_end = Signal.like(piece.data_first), Signal.like(piece.data_first)
        m.d.comb += [
            offset.eq(truncate(source.pixel, lanes_log2)),
            pad_end.eq(source.num_pad),
            data_end.eq(source.num_pad + source.num_bytes),
        ]
        with m.If(job.stride_w_log2):
            m.d.comb += [
                pad_end.eq((source.num_pad + ~px) >> 1),
                data_end.eq(truncate((source.num_pad + source.num_bytes + ~px) >> 1, data_end.shape())),
            ]

        with m.If(self.pieces.ready):
            m.d.sync += self.pieces.valid.eq(0)
        with m.If(is_moving):
            m.d.sync += [
                self.pieces.valid.eq(1),
                is_second.eq(~is_final),
                piece.num_bytes.eq(source.num_bytes),
                piece.num_taken.eq(Mux(is_final, source.num_bytes, 0)),
                piece.is_split.eq(job.stride_w_log2),
                piece.is_odd.eq(job.stride_w_log2 & (px ^ source.num_pad[0])),
                piece.is_stored.eq(stored != 0),
                piece.word.eq(source.pixel[lanes_log2:] + planes[Cat(px, source.py)]),
                piece.first.eq(offset),
                piece.end.eq(offset + source.num_cols),
                piece.data_first.eq(offset + pad_end),
                piece.data_end.eq(offset + data_end),
                piece.is_channel_end.eq(source.is_channel_end & is_final),
                piece.is_job_end.eq(source.is_job_end & is_final),
            ]
        return m


def _ring_bytes(config: NpuConfig) -> int:
    """Bytes that wait for the placer: what the largest piece needs, and two beats more, so that beats still arrive
    while a piece waits for its turn.
    """
    return 1 << ceil_log2(2 * config.num_lanes + 2 * config.port_bytes)


class _Placer(wiring.Component):
    """Takes bytes from the ring, rotates them into place and writes.

    | cycle | work |
    | -- | -- |
    | 0 | are there enough bytes? |
    | 1 | choose them |
    | 2 | rotate by fours; which bytes of the word are written, which are pad |
    | 3 | rotate, pads |
    | 4 | `write` |

    Latency: 4 cycles from bytes to write. Throughput: one piece per cycle.

    Members
    -------
    pieces : In(stream of pieces)
    zero_point : In(8)
        Value of a pad pixel.
    bytes : In
        What the ByteRing holds.
    first : In
        Place of its oldest byte.
    level : In(16)
        How many it holds.
    take : Out
        How many leave it.
    write : Out(StripeWrite)
    channel_done : Out(1)
        Strobe in the cycle of a channel's last write, or after it.
    done : Out(1)
        The same for the job.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "pieces": In(stream.Signature(_piece_layout(config))),
                "zero_point": In(8),
                "bytes": In(8 * _ring_bytes(config)),
                "first": In(range(_ring_bytes(config))),
                "level": In(16),
                "take": Out(range(2 * config.num_lanes + 1)),
                "write": Out(StripeWrite(config)),
                "channel_done": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        num_lanes = self._config.num_lanes
        lanes_log2 = exact_log2(num_lanes)
        piece = self.pieces.payload
        # Stage 1: enough bytes, not counting those that the piece in stage 2 takes now
        armed, is_armed = Signal.like(piece), Signal()
        m.d.comb += self.pieces.ready.eq(self.pieces.valid & (self.level >= piece.num_bytes + self.take))
        with m.If(self.pieces.ready):
            m.d.sync += armed.eq(piece)
        m.d.sync += [is_armed.eq(self.pieces.ready), self.take.eq(Mux(self.pieces.ready, piece.num_taken, 0))]

        # Stage 2: the ring's columns, twice as many as lanes, give the bytes from that of `start` on: those before its
        # column are of the next row. Of these, byte n of those used belongs into lane (turn + n) % num_lanes: without
        # `is_split` a byte from a column or from the one `num_lanes` further on, else every second one.
        start, is_before = Signal.like(self.first), Signal(2 * num_lanes)
        turn, placed = Signal(lanes_log2, reset_less=True), Signal.like(piece, reset_less=True)
        is_placed = Signal()
        row, column = start[lanes_log2 + 1 :], start[: lanes_log2 + 1]
        m.d.comb += [start.eq(self.first + armed.is_odd), is_before.eq(below(column, 2 * num_lanes))]
        ring = [self.bytes.word_select(n, 8) for n in range(len(self.bytes) // 8)]
        whole, split = [], []
        for n in range(2 * num_lanes):
            byte, lane = Signal(8, name=f"column_{n}"), n % num_lanes
            m.d.comb += byte.eq(Array(ring[n :: 2 * num_lanes])[truncate(row + is_before[n], row.shape())])
            is_behind = is_before[lane] & ~is_before[lane + num_lanes]
            is_lane = is_behind if n >= num_lanes else ~is_behind
            whole.append(gated(m, byte, ~armed.is_split & is_lane, name=f"whole_{n}"))
            split.append(gated(m, byte, armed.is_split & (column[0] == n % 2), name=f"split_{n}"))
        m.d.sync += [
            turn.eq(truncate(Mux(armed.is_split, start >> 1, start) - armed.data_first, lanes_log2)),
            placed.eq(armed),
            is_placed.eq(is_armed),
        ]

        # Stage 3: where; the bytes by fours of lanes
        selected = Cat(
            any_of([whole[lane], whole[lane + num_lanes], split[2 * lane], split[2 * lane + 1]])
            for lane in range(num_lanes)
        )
        is_written, is_data = Signal(num_lanes), Signal(num_lanes, reset_less=True)
        fine_turn = Signal(_FINE_BITS, reset_less=True)
        word, is_channel_end, is_job_end = Signal.like(piece.word), Signal(), Signal()
        coarse = rotated_late(m, selected, turn[_FINE_BITS:], 8 << _FINE_BITS, name="coarse")
        spans = ((placed.first, placed.end), (placed.data_first, placed.data_end))
        is_piece, is_of_ring = (below(end, num_lanes) & ~below(begin, num_lanes) for begin, end in spans)
        m.d.sync += [
            fine_turn.eq(turn[:_FINE_BITS]),
            word.eq(placed.word),
            is_channel_end.eq(is_placed & placed.is_channel_end),
            is_job_end.eq(is_placed & placed.is_job_end),
            is_written.eq(Mux(is_placed & placed.is_stored, is_piece, 0)),
            is_data.eq(is_of_ring),
        ]

        # Stage 4: the lanes, pads, and write
        lanes = rotated(m, coarse, fine_turn, 8, name="fine")
        write_data = data_register(m, self.write.data)
        m.d.sync += [
            self.write.en.eq(is_written),
            self.write.word.eq(word),
            write_data.eq(Cat(Mux(is_data[i], lanes.word_select(i, 8), self.zero_point) for i in range(num_lanes))),
            self.channel_done.eq(is_channel_end),
            self.done.eq(is_job_end),
        ]
        return m


class Loader(wiring.Component):
    """Loads a stripe as "Load" in docs/architecture.md defines it.

    Throughput: one stripe word written per cycle, filled as far as a row, the word's border and the memory port permit:
    with stride 1 every row costs as many cycles as words it touches; with stride 2 twice that; bytes of rows of which
    no phase is stored are dropped as fast. Pads cost no cycles of their own beyond the words they add. Latency: 9
    cycles from a beat to its last write. The bytes of the next job are requested while a job is being written; between
    jobs the writes pause for about 14 cycles.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    job : In(stream of NN.subset(*LOADER_FIELDS))
        `wait_nn` and `load_after_fill` are the business of whoever offers the job: its bytes are read at once when it
        is taken.
    channel_read : In(1)
        Strobe: the oldest channel of a job with `ring_channels` has been read from the stripe memory.
    port : Out(ReadPort)
    write : Out(StripeWrite)
    channel_done : Out(1)
        High for one cycle when the last pixel of a channel is being written, or later; once per channel, in order.
    done : Out(1)
        High for one cycle, together with the `channel_done` of the job's last channel.
    is_reading : Out(1)
        There is more to request from memory.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*LOADER_FIELDS))),
                "channel_read": In(1),
                "port": Out(ReadPort(config)),
                "write": Out(StripeWrite(config)),
                "channel_done": Out(1),
                "done": Out(1),
                "is_reading": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.walk = walk = RunWalk()
        m.submodules.reader = reader = RunReader(config, max(ACT_DEPTH_BEATS, 2 * config.max_burst_beats))
        m.submodules.ring = ring = ByteRing(config.port_bytes, _ring_bytes(config))
        m.submodules.slot = slot = JobSlot(NN.subset(*_PLACE_FIELDS))
        m.submodules.segments = segments = _Segments(config)
        m.submodules.sources = sources = _Sources(config)
        m.submodules.queued = queued = Queue(
            _source_layout(config), 2
        )  # the wait for bytes holds the walk back a cycle later
        m.submodules.phases = phases = _Phases(config)
        m.submodules.placer = placer = _Placer(config)

        # The job goes to the memory side at once, to the image side when that has finished the previous one.
        job, walk_job = self.job.payload, walk.jobs.payload
        m.d.comb += [
            self.job.ready.eq(walk.jobs.ready & slot.i.ready),
            walk.jobs.valid.eq(self.job.valid & slot.i.ready),
            slot.i.valid.eq(self.job.valid & walk.jobs.ready),
            walk_job.addr.eq(job.act_addr),
            walk_job.run_bytes.eq(job.act_run_bytes),
            walk_job.num_inner.eq(job.num_act_inner),
            walk_job.pitch_inner_bytes.eq(job.act_pitch_inner_bytes),
            walk_job.num_outer.eq(job.num_act_outer),
            walk_job.pitch_outer_bytes.eq(job.act_pitch_outer_bytes),
            *(slot.i.payload[name].eq(job[name]) for name in _PLACE_FIELDS),
        ]
        fields = Signal(NN.subset(*_PLACE_FIELDS), reset_less=True)
        index = Signal(2)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += slot.o.ready.eq(1)
                m.d.sync += fields.eq(slot.o.payload)
                with m.If(slot.o.valid):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += phases.prepare.eq(1)
                m.d.sync += index.eq(index + 1)
                with m.If(index == 3):
                    m.d.comb += segments.start.eq(1)
                    m.next = "LOAD"
            with m.State("LOAD"), m.If(self.done):
                m.next = "IDLE"

        wiring.connect(m, walk.runs, reader.runs)
        wiring.connect(m, reader.port, wiring.flipped(self.port))
        wiring.connect(m, reader.beats, ring.beats)
        wiring.connect(m, segments.segments, sources.segments)
        wiring.connect(m, sources.sources, queued.i)
        wiring.connect(m, queued.o, phases.sources)
        wiring.connect(m, phases.pieces, placer.pieces)
        wiring.connect(m, placer.write, wiring.flipped(self.write))
        m.d.comb += [
            segments.fields.eq(fields),
            segments.channel_read.eq(self.channel_read),
            sources.fields.eq(fields),
            phases.fields.eq(fields),
            placer.zero_point.eq(truncate(fields.zero_point_in, 8)),
            placer.bytes.eq(ring.data),
            placer.first.eq(ring.first),
            placer.level.eq(ring.level),
            ring.take.eq(placer.take),
            self.channel_done.eq(placer.channel_done),
            self.done.eq(placer.done),
            self.is_reading.eq(walk.runs.valid | reader.is_requesting),
        ]
        return m
