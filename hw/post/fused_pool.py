"""The fused maximum pool: the last stage of the drain."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.dma.byte_queue import ByteQueue
from convoy.hw.dma.types import Chunk
from convoy.hw.lib.narrow import is_at_most
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

__all__ = ["POOL_FIELDS", "Pool", "PoolUnit"]

POOL_FIELDS = ("pool_size", "pool_rows", "pool_rows_last", "pool_continues")
"""What the pool and its units need of an NN descriptor, beyond the shape of its outputs."""

_JOB_FIELDS = ("tile_ow", "out_pitch_row_bytes", "is_wide", *POOL_FIELDS)


class PoolUnit(data.StructLayout):
    """One channel of a group.

    `addr` is that of row n div 2 of its results, where n is the group's first row; `line` is the channel's number;
    `is_odd`: n is odd; `is_top`: the image begins with the group.
    """

    def __init__(self, config: NpuConfig):
        super().__init__(
            {"addr": 32, "line": exact_log2(config.pool_channels), "is_odd": 1, "is_top": 1, "is_last_group": 1}
        )


def _piece(config: NpuConfig) -> data.StructLayout:
    """Up to `pool_lanes` bytes of neighbouring outputs of a row, `count` of them: what the pipeline does with them.

    `word` is their place in the line memory, `addr` that of the row's first result in memory. `is_fresh`: the line
    holds nothing for them; `keeps_row`: it gets this row's maxima, not those with the row before; `emits`: they
    complete a row of results; `is_first`: of a row; `starts`: results do not follow those before.
    """
    return data.StructLayout(
        {
            "count": range(config.pool_lanes + 1),
            "word": exact_log2(_num_words(config)),
            "addr": 32,
            "is_fresh": 1,
            "keeps_row": 1,
            "emits": 1,
            "is_first": 1,
            "starts": 1,
        }
    )


def _num_words(config: NpuConfig) -> int:
    """Words of the line memory, of `pool_lanes / 2` bytes of maxima each."""
    return config.pool_channels * config.pool_line_bytes // config.pool_lanes


class _Cutter(wiring.Component):
    """Cuts the bytes of chunks into pieces of rows; a piece per cycle while `can_issue`.

    Members
    -------
    job, units, chunks : In, as in `Pool`
    can_issue : In(1)
    valid, piece, acts : Out, a piece and its bytes, from registers; what is above its count is not defined
    is_going : Out(1), the piece in the next cycle
    is_idle : Out(1), no channel is being cut
    """

    UNIT_DEPTH = 16

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(NN.subset(*_JOB_FIELDS)),
                "units": In(stream.Signature(PoolUnit(config))),
                "chunks": In(stream.Signature(Chunk(config.post_lanes))),
                "can_issue": In(1),
                "is_going": Out(1),
                "is_idle": Out(1),
                "valid": Out(1),
                "piece": Out(_piece(config)),
                "acts": Out(8 * config.pool_lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job, lanes = self._config, self.job, self._config.pool_lanes
        m.submodules.bytes = byte_queue = ByteQueue(lanes, lanes)
        m.submodules.units = units = Queue(PoolUnit(config), self.UNIT_DEPTH)
        is_three = job.pool_size[0]
        beat = byte_queue.beats
        m.d.comb += [
            beat.valid.eq(self.chunks.valid),
            self.chunks.ready.eq(beat.ready),
            beat.p.data.eq(self.chunks.p.data),
            beat.p.count.eq(self.chunks.p.count),
            units.i.valid.eq(self.units.valid),
            self.units.ready.eq(units.i.ready),
            units.i.p.eq(self.units.p),
        ]
        # In a 3x3 pool an even row completes the results that began two rows earlier.
        with m.If(is_three & ~self.units.p.is_top & ~self.units.p.is_odd):
            m.d.comb += units.i.p.addr.eq(self.units.p.addr - job.out_pitch_row_bytes)

        is_active, is_odd_row, is_top = Signal(), Signal(), Signal()  # top row of the channel
        rows_left, width_left = Signal(14), Signal(15)  # to the end of the unit; bytes to the end of the row
        row_bytes = job.tile_ow << job.is_wide
        need = Signal(range(lanes + 1))  # the bytes of the next piece
        is_dense = Signal()  # rows of results follow one another
        m.d.sync += is_dense.eq(job.out_pitch_row_bytes == job.tile_ow >> 1)
        is_start, is_first, is_row_end = Signal(), Signal(), Signal()
        is_unit_end, emits = Signal(), Signal()
        row_addr = Signal(32)
        line, word = Signal.like(self.piece.word), Signal.like(self.piece.word)
        m.d.comb += [
            self.is_idle.eq(~is_active & ~units.o.valid),
            self.is_going.eq(is_active & self.can_issue & (byte_queue.level >= need)),
            byte_queue.take.eq(Mux(self.is_going, need, 0)),
            is_unit_end.eq(self.is_going & is_row_end & (rows_left == 1)),
            emits.eq(Mux(is_three, ~is_odd_row & ~is_top, is_odd_row)),
        ]
        piece, acts = data_register(m, self.piece), data_register(m, self.acts)
        m.d.sync += [
            self.valid.eq(self.is_going),
            acts.eq(byte_queue.data),
            piece.count.eq(need),
            piece.word.eq(word),
            piece.addr.eq(row_addr),
            piece.is_first.eq(is_first),
            piece.emits.eq(emits),
            piece.starts.eq(is_start),
            piece.is_fresh.eq(Mux(is_three, is_top, ~is_odd_row)),
            piece.keeps_row.eq(is_three & ~is_odd_row),
        ]

        def start_row(width):
            is_last = is_at_most(width, Const(lanes))
            return [width_left.eq(width), need.eq(Mux(is_last, width[: len(need)], lanes)), is_row_end.eq(is_last)]

        with m.If(self.is_going):
            after = Signal(15)
            m.d.comb += after.eq(width_left - lanes)
            m.d.sync += [*start_row(after), is_start.eq(0), is_first.eq(0), word.eq(word + 1)]
            with m.If(is_row_end):
                m.d.sync += [
                    *start_row(row_bytes),
                    is_start.eq(~is_dense),
                    is_first.eq(1),
                    word.eq(line),
                    rows_left.eq(rows_left - 1),
                    is_odd_row.eq(~is_odd_row),
                    is_top.eq(0),
                ]
                with m.If(emits):
                    m.d.sync += row_addr.eq(row_addr + job.out_pitch_row_bytes)
        m.d.comb += units.o.ready.eq(~is_active | is_unit_end)
        with m.If(units.o.ready):
            unit = units.o.p
            first_word = unit.line << exact_log2(config.pool_line_bytes // lanes)
            m.d.sync += [
                is_active.eq(units.o.valid),
                rows_left.eq(Mux(unit.is_last_group, job.pool_rows_last, job.pool_rows)),
                is_odd_row.eq(unit.is_odd),
                is_top.eq(unit.is_top),
                *start_row(row_bytes),
                is_start.eq(1),
                is_first.eq(1),
                row_addr.eq(unit.addr),
                line.eq(first_word),
                word.eq(first_word),
            ]
        return m


def _halves(raw) -> Value:
    """The bytes at even places, then those at odd places."""
    places = [raw.word_select(i, 8) for i in range(len(raw) // 8)]
    return Cat(places[::2], places[1::2])


class _Maxima(wiring.Component):
    """Maxima of pairs or triples of columns, then of two or three rows: a piece per cycle, without stalls.

    Outputs come `PIPELINE_CYCLES` cycles after their piece.

    Members
    -------
    is_three, is_wide : In(1), 3x3; int16
    valid, piece, acts : In, as from `_Cutter`
    out_valid : Out(1), a piece comes out; out : Out(Chunk), its results, perhaps none; high bytes of results of int16
        in the upper half of its data
    """

    PIPELINE_CYCLES = 3

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "is_three": In(1),
                "is_wide": In(1),
                "valid": In(1),
                "piece": In(_piece(config)),
                "acts": In(8 * config.pool_lanes),
                "out_valid": Out(1),
                "out": Out(Chunk(config.chunk_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, num = self._config, self._config.pool_lanes // 2
        acts = Mux(self.is_wide, _halves(self.acts), self.acts)
        acts = [acts.word_select(i, 8) for i in range(2 * num)]

        # Columns: pairs; then the maximum of a pair and the output after it, which is one place further.
        pairs, evens, columns = (
            Signal(data.ArrayLayout(8, num), reset_less=True, name=name) for name in ("pairs", "evens", "columns")
        )
        carried, carried_high = (
            Signal(8, reset_less=True),
            Signal(8, reset_less=True),
        )  # the last pair of the piece before
        with_pairs, with_columns = (
            Signal(self.piece.shape(), reset_less=True),
            Signal(self.piece.shape(), reset_less=True),
        )
        has_pairs, has_columns = Signal(), Signal()
        m.d.sync += [
            has_pairs.eq(self.valid),
            with_pairs.eq(self.piece),
            has_columns.eq(has_pairs),
            with_columns.eq(with_pairs),
            self.out_valid.eq(has_columns),
        ]
        before = [carried, *(pairs[i] for i in range(num - 1))]
        before[num // 2] = Mux(self.is_wide, carried_high, before[num // 2])
        for i, (pair, triple) in enumerate(
            zip(_maxima(acts[::2], acts[1::2], self.is_wide), _maxima(before, list(evens), self.is_wide), strict=True)
        ):
            m.d.sync += [
                pairs[i].eq(pair),
                evens[i].eq(acts[2 * i]),
                columns[i].eq(Mux(self.is_three, triple, pairs[i])),
            ]
        with m.If(has_pairs):
            m.d.sync += [
                carried.eq(Mux(self.is_wide, pairs[num // 2 - 1], pairs[num - 1])),
                carried_high.eq(pairs[num - 1]),
            ]

        # Rows: with the line memory. Its word is in a register; what the piece before writes there does not get that
        # far in time, and goes past the memory.
        m.submodules.lines = lines = Memory(shape=8 * num, depth=_num_words(config), init=[])
        write = lines.write_port()
        read = lines.read_port(transparent_for=[write])
        kept, is_same_word = Signal(8 * num, reset_less=True), Signal()
        rows = Signal(data.ArrayLayout(8, num))
        for i, both in enumerate(_maxima(list(columns), [kept.word_select(i, 8) for i in range(num)], self.is_wide)):
            m.d.comb += rows[i].eq(Mux(with_columns.is_fresh, columns[i], both))
        m.d.comb += [
            read.addr.eq(self.piece.word),
            read.en.eq(self.valid),
            write.addr.eq(with_columns.word),
            write.en.eq(has_columns),
            write.data.eq(Mux(with_columns.keeps_row, columns.as_value(), rows.as_value())),
        ]
        m.d.sync += [
            is_same_word.eq(has_pairs & (self.piece.word == with_pairs.word)),
            kept.eq(Mux(is_same_word, write.data, read.data)),
        ]

        # Results: a row of a 3x3 pool begins with a place that is none. The first of those that do not follow others
        # says where they go: to the row's address, for pieces before it in its row had none.
        drops, starts, is_late = self.is_three & with_columns.is_first, Signal(), Signal()
        count, results = Signal(range(num + 1)), Signal(8 * num)
        m.d.comb += [
            starts.eq(with_columns.starts | is_late),
            results.eq(rows.as_value() >> Mux(drops, 8, 0)),
            count.eq(Mux(with_columns.emits, (((with_columns.count >> self.is_wide) + 1) >> 1) - drops, 0)),
        ]
        with m.If(has_columns):
            m.d.sync += is_late.eq(starts & (count == 0))
        out, half_bits = data_register(m, self.out), 4 * config.chunk_lanes
        m.d.sync += [
            out.data.eq(Cat(results[:half_bits], Mux(self.is_wide, results[4 * num :], results[half_bits:]))),
            out.count.eq(count),
            out.start.eq(starts),
            out.last.eq(0),
        ]
        with m.If(with_columns.is_first):
            m.d.sync += out.addr.eq(with_columns.addr)
        return m


def _maxima(a: list[Value], b: list[Value], is_wide: Value) -> list[Value]:
    """The larger ones of two lists of signed bytes; with `is_wide` of int16, whose low bytes are in the first half
    of a list, high bytes in the second.
    """
    half, flip = len(a) // 2, is_wide << 7
    takes_low, takes_high = [], []
    for low_a, low_b, high_a, high_b in zip(a[:half], b[:half], a[half:], b[half:], strict=True):
        # One carry chain for both bytes, which a bit between them breaks.
        is_low_more = (low_a ^ flip).as_signed() > (low_b ^ flip).as_signed()
        takes_high.append(Cat(low_a, Const(0, 1), high_a).as_signed() > Cat(low_b, ~is_wide, high_b).as_signed())
        takes_low.append(Mux(is_wide, takes_high[-1], is_low_more))
    return [Mux(takes, *each) for takes, each in zip(takes_low + takes_high, zip(a, b, strict=True), strict=True)]


class Pool(wiring.Component):
    """Maxima over windows of 2x2 or 3x3 outputs at stride 2, without pads; without pool a wire.

    Bytes come channel by channel of a group, row by row; of int16 the low byte of each output, then its high byte.
    Results of int16 leave as chunks with low bytes in the lower half, high bytes in the upper half, and the `count` of
    either. Maxima of columns are kept in a line of the line memory until the rows of the window are complete; in a 3x3
    pool, or when groups have an odd number of rows, over the end of a group; in a 3x3 pool also from one descriptor to
    the next.

    Throughput: up to `pool_lanes` bytes of one row per cycle (of int16 half as many outputs); a row never shares a
    cycle with another. Latency: about 8 cycles; the end of a job costs 8 more.

    Members
    -------
    job : In
        Fields of the descriptor; they may change only while `is_idle` and no chunk is offered.
    units : In(stream of PoolUnit)
        The channels in the order of their bytes, at the latest with these; only while there is a pool.
    i, o : In(stream of Chunk(post_lanes)), Out(stream of Chunk(chunk_lanes))
        Addresses and starts of `i` are not used if there is a pool.
    is_idle : Out(1)
        No byte is inside.
    """

    OUT_DEPTH = 9

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(NN.subset(*_JOB_FIELDS)),
                "units": In(stream.Signature(PoolUnit(config))),
                "i": In(stream.Signature(Chunk(config.post_lanes))),
                "o": Out(stream.Signature(Chunk(config.chunk_lanes))),
                "is_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        m.submodules.cutter = cutter = _Cutter(config)
        m.submodules.maxima = maxima = _Maxima(config)
        m.submodules.results = results = Queue(Chunk(config.chunk_lanes), self.OUT_DEPTH)
        wiring.connect(m, wiring.flipped(self.units), cutter.units)
        has_pool = job.pool_size != 0

        # Every piece on its way has its room in the queue.
        num_free = Signal(range(self.OUT_DEPTH + 1), init=self.OUT_DEPTH)
        can_issue = Signal()  # there is room for one more than may go in this cycle
        is_leaving, is_empty = Signal(), Signal()
        is_three, is_wide = Signal(reset_less=True), Signal(reset_less=True)  # near what they choose
        is_ending, is_end = Signal(), Signal()  # the job's last chunk has come; its end goes out
        m.d.comb += [
            *(cutter.job[name].eq(job[name]) for name, _ in job.shape()),
            cutter.can_issue.eq(can_issue),
            cutter.chunks.p.eq(self.i.p),
            cutter.chunks.valid.eq(self.i.valid & has_pool),
            maxima.is_three.eq(is_three),
            maxima.is_wide.eq(is_wide),
            maxima.valid.eq(cutter.valid),
            maxima.piece.eq(cutter.piece),
            maxima.acts.eq(cutter.acts),
            is_empty.eq(maxima.out_valid & (maxima.out.count == 0)),
            results.i.valid.eq(maxima.out_valid & ~is_empty),
            results.i.p.eq(maxima.out),
            is_leaving.eq(results.o.valid & results.o.ready),
            is_end.eq(is_ending & cutter.is_idle & (num_free == self.OUT_DEPTH)),
            self.is_idle.eq(cutter.is_idle & ~is_ending & (num_free == self.OUT_DEPTH)),
        ]
        m.d.sync += [
            num_free.eq(num_free - cutter.is_going + is_leaving + is_empty),
            can_issue.eq(num_free > 1),
            is_three.eq(job.pool_size[0]),
            is_wide.eq(job.is_wide),
        ]
        with m.If(has_pool & self.i.valid & self.i.ready & self.i.p.last):
            m.d.sync += is_ending.eq(1)
        with m.Elif(is_end & self.o.ready):
            m.d.sync += is_ending.eq(0)

        with m.If(has_pool):
            m.d.comb += [
                self.i.ready.eq(cutter.chunks.ready),
                self.o.valid.eq(results.o.valid | is_end),
                results.o.ready.eq(self.o.ready & ~is_end),
            ]
            with m.If(is_end):
                m.d.comb += self.o.p.last.eq(1)
            with m.Else():
                m.d.comb += self.o.p.eq(results.o.p)
        with m.Else():
            m.d.comb += [
                self.o.valid.eq(self.i.valid),
                *(self.o.p[name].eq(self.i.p[name]) for name, _ in self.i.p.shape()),
                self.i.ready.eq(self.o.ready),
            ]
        return m
