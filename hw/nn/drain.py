"""The drain: accumulators of finished groups to requantised bytes in memory."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.chunk_writer import Chunk
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.register import data_register
from convoy.hw.lib.rest import Rest, rested
from convoy.hw.post.compress import Compressor
from convoy.hw.post.lut import LUT_FIELDS, Lut
from convoy.hw.post.pool import POOL_FIELDS, Pool
from convoy.hw.post.requant import Requantiser, delay
from convoy.hw.post.residual import RESIDUAL_FIELDS, Residual
from convoy.hw.post.split import ByteSplitter
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, PARAM

__all__ = ["DRAIN_FIELDS", "DrainChunks"]

DRAIN_FIELDS = (
    "num_sb", "num_groups", "num_vec", "num_vec_last", "num_vec_x", "split_log2", "num_kernels", "num_kernels_last",
    "out_addr", "out_group_step_bytes", "out_pitch_row_bytes", "drain_pitch", "tile_ow", "num_pos", "num_pos_last", "is_flat",
    "zero_point_out", "act_min", "act_max", "rounding", "is_wide", "out_high_bytes", *LUT_FIELDS, *RESIDUAL_FIELDS, *POOL_FIELDS,
)
"""What the drain needs of an NN descriptor."""

_SCALE_FIELDS = ("bias", "mult", "shift_left", "shift_right")
_UNIT_FIELDS = (*_SCALE_FIELDS, "bias_low")


def _unit_layout(config: NpuConfig) -> data.StructLayout:
    """One kernel of one core of a group. `entry` is its first accumulator entry, `line` its number in the job (modulo the lines of the pool), `is_odd` and `is_top` are as in `PoolUnit`."""
    return data.StructLayout({
        "scale": PARAM.subset(*_UNIT_FIELDS), "is_valid": 1, "addr": 32, "core": range(config.num_cores),
        "entry": exact_log2(config.num_acc_entries), "line": exact_log2(config.pool_channels),
        "is_odd": 1, "is_top": 1, "is_last_group": 1, "is_group_last": 1, "is_job_last": 1,
    })


class _Row(data.Struct):
    """A row of positions: those to walk from here to its end, whether they fit in a chunk, and whether it is the last row of the unit."""

    width: 14
    is_short: 1
    is_last: 1

    @classmethod
    def assign(cls, row, job, num_left, post_lanes):
        """Statements that set `row` to the one from whose start on `num_left` positions are left."""
        return [
            row.width.eq(Mux(~job.is_flat & (job.tile_ow < num_left), job.tile_ow, num_left)),
            row.is_short.eq((num_left <= post_lanes) | (~job.is_flat & (job.tile_ow <= post_lanes))),
            row.is_last.eq(job.is_flat | (num_left <= job.drain_pitch)),
        ]


_GROUP_LAYOUT = data.StructLayout({"num_vec": 9, "num_pos": 14, "first": _Row, "second": _Row, "second_left": 14})
"""T and positions of a group, the first two rows of its units, and the positions from the start of the second row on."""


def _place_layout() -> data.StructLayout:
    """Where a chunk goes, as in the chunks of ChunkWriter."""
    return data.StructLayout({"addr": 32, "start": 1, "last": 1})


class _UnitSequencer(wiring.Component):
    """Runs through superblocks, groups, kernels and cores and takes a PARAM for each: one unit per cycle.

    Members
    -------
    job : In(stream of DRAIN_FIELDS), taken while `is_quiet`; `fields` holds it afterwards
    params : In(stream of PARAM)
    group_valid : In(1); group_done : In(1), the walk of the group has ended
    units : Out(stream of units); group : Out, constant from the first unit until `group_done`
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({
            "job": In(stream.Signature(NN.subset(*DRAIN_FIELDS))),
            "params": In(stream.Signature(PARAM.layout)),
            "is_quiet": In(1), "is_prepared": In(1), "prepare": Out(1),
            "group_valid": In(1), "group_done": In(1),
            "fields": Out(NN.subset(*DRAIN_FIELDS)),
            "units": Out(stream.Signature(_unit_layout(config))),
            "group": Out(_GROUP_LAYOUT),
        })

    def elaborate(self, platform):
        m = Module()
        job, unit, param = data_register(m, self.fields), data_register(m, self.units.payload), self.params.payload
        extent = data_register(m, self.group)
        sb, group, kernel = Signal(16), Signal(16), Signal(9)
        core = Signal(range(self._config.num_cores))
        entry, line, first_line = Signal.like(unit.entry), Signal.like(unit.line), Signal.like(unit.line)
        group_addr, group_step = Signal(32), Signal(25)
        is_odd = Signal()  # the group's first row
        num_kernels = Signal(9)
        is_last_sb, is_last_group = Signal(), Signal()
        is_last_core, is_last_unit = Signal(), Signal()
        m.d.comb += [
            is_last_sb.eq(sb == job.num_sb - 1),
            is_last_group.eq(group == job.num_groups - 1),
            is_last_core.eq(core == self._config.num_cores - 1),
            is_last_unit.eq(is_last_core & (kernel == num_kernels - 1)),
        ]
        with m.If(self.units.ready):
            m.d.sync += self.units.valid.eq(0)
        second_left = Signal.like(extent.second_left)
        m.d.comb += second_left.eq(extent.num_pos - job.drain_pitch)
        m.d.sync += [
            extent.second_left.eq(second_left),
            _Row.assign(extent.first, job, extent.num_pos, self._config.post_lanes),
            _Row.assign(extent.second, job, second_left, self._config.post_lanes),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(self.is_quiet)
                m.d.sync += [sb.eq(0), group.eq(0), first_line.eq(0), is_odd.eq(0), group_addr.eq(self.job.payload.out_addr)]
                with m.If(self.job.valid & self.is_quiet):
                    m.d.sync += job.eq(self.job.payload)
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.prepare.eq(1)
                with m.If(self.is_prepared):
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.sync += [
                    extent.num_vec.eq(Mux(is_last_group, job.num_vec_last, job.num_vec)),
                    extent.num_pos.eq(Mux(is_last_group, job.num_pos_last, job.num_pos)),
                    num_kernels.eq(Mux(is_last_sb, job.num_kernels_last, job.num_kernels)),
                    kernel.eq(0), core.eq(0), entry.eq(0), line.eq(first_line),
                    group_step.eq(job.out_group_step_bytes + Mux(is_odd, job.out_pitch_row_bytes, 0)),
                ]
                with m.If(self.group_valid):
                    m.next = "UNITS"
            with m.State("UNITS"):
                m.d.comb += self.params.ready.eq(~self.units.valid | self.units.ready)
                with m.If(self.params.valid & self.params.ready):
                    m.d.sync += [
                        *(unit.scale[name].eq(param[name]) for name in _UNIT_FIELDS),
                        unit.is_valid.eq(param.is_valid),
                        unit.addr.eq(group_addr + param.out_offset_bytes),
                        unit.core.eq(core),
                        unit.entry.eq(entry),
                        unit.line.eq(line),
                        unit.is_odd.eq(is_odd),
                        unit.is_top.eq((group == 0) & ~job.pool_continues),
                        unit.is_last_group.eq(is_last_group),
                        unit.is_group_last.eq(is_last_unit),
                        unit.is_job_last.eq(is_last_unit & is_last_group & is_last_sb),
                        self.units.valid.eq(1),
                        line.eq(line + 1),
                        core.eq(Mux(is_last_core, 0, core + 1)),
                    ]
                    with m.If(is_last_core):
                        m.d.sync += [kernel.eq(kernel + 1), entry.eq(entry + job.num_vec)]
                    with m.If(is_last_unit):
                        m.next = "WALK"
            with m.State("WALK"), m.If(self.group_done):
                m.d.sync += [group.eq(group + 1), group_addr.eq(group_addr + group_step), is_odd.eq((is_odd ^ job.pool_rows[0]) & (job.pool_size != 0))]
                m.next = "GROUP"
                with m.If(is_last_group):
                    m.d.sync += [group.eq(0), group_addr.eq(job.out_addr), sb.eq(sb + 1), first_line.eq(line), is_odd.eq(0)]
                    with m.If(is_last_sb):
                        m.next = "IDLE"
        return m


class _LaneColumns(wiring.Component):
    """The output column of each lane of a chunk when vectors run on across row ends, without any division.

    `prepare` for `num_lanes` cycles at the start of a job; `restart` goes to position 0, `advance` on by `num_lanes` positions.
    `mask` says for which lanes the column is below `tile_ow`.
    """

    def __init__(self, num_lanes: int):
        self._num_lanes = num_lanes
        super().__init__({
            "prepare": In(1), "is_prepared": Out(1), "restart": In(1), "advance": In(1),
            "drain_pitch": In(14), "tile_ow": In(14), "mask": Out(num_lanes),
        })

    def elaborate(self, platform):
        m = Module()
        firsts = [Signal(14, name=f"first_{i}") for i in range(self._num_lanes)]
        columns = [Signal(14, name=f"column_{i}") for i in range(self._num_lanes)]
        index = Signal(range(self._num_lanes + 1))
        step, wrapped_step = Signal(14), Signal(signed(15))  # num_lanes modulo the pitch, and that less the pitch

        m.d.comb += self.is_prepared.eq(index == self._num_lanes)
        with m.If(~self.prepare):
            m.d.sync += [index.eq(0), step.eq(step)]
        with m.Elif(~self.is_prepared):
            m.d.sync += [index.eq(index + 1), firsts[-1].eq(Mux(index == 0, 0, step))]
            m.d.sync += [low.eq(high) for low, high in pairwise(firsts)]
            after = Signal(14)
            m.d.comb += after.eq(Mux(index == 0, 0, step) + 1)
            m.d.sync += [
                step.eq(Mux(after == self.drain_pitch, 0, after)),
                wrapped_step.eq(Mux(after == self.drain_pitch, 0, after) - self.drain_pitch),
            ]

        for i in range(self._num_lanes):
            wrapped = Signal(signed(15), name=f"wrapped_{i}")
            m.d.comb += [wrapped.eq(columns[i] + wrapped_step), self.mask[i].eq(columns[i] < self.tile_ow)]
            with m.If(self.restart):
                m.d.sync += columns[i].eq(firsts[i])
            with m.Elif(self.advance):
                m.d.sync += columns[i].eq(Mux(wrapped < 0, columns[i] + step, wrapped[:14]))
        return m


class _Walker(wiring.Component):
    """Walks the chunks of a unit: one per cycle while `can_issue`, units without a gap.

    With `is_wide` every visit is made twice, without a gap: to an entry of low bytes, then to that of high bytes; there are twice as many entries
    then as are counted here.

    Rows of positions are walked in order, each from vector to vector; a flat unit is a single row. An entry is cleared with the last
    read from it; entries that hold no position, and all entries of a unit that is not valid, get a visit of their own.

    Members
    -------
    fields, group, units : In, from the sequencer
    can_issue : In(1), there is room for a chunk, or for both of a pair; is_emitted : Out(1), this cycle's visit makes a chunk; is_active : Out(1), there is a unit to walk
    acc_* : Out, the read; group_done : Out(1), with the group's last visit
    emit, is_low, place, scale : Out, the chunk that belongs to the read, `is_low`: of low bytes; mask : Out, its lanes in use, a cycle later: with `is_interleaved`
        each lane of the lower half counts twice, for the second chunk each of the upper half
    is_interleaved : In(1), is_wide and the two chunks have bytes in the order of the outputs; only the second one is the last of a job
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        num_parts = config.num_lanes // config.post_lanes
        super().__init__({
            "fields": In(NN.subset(*DRAIN_FIELDS)), "group": In(_GROUP_LAYOUT),
            "units": In(stream.Signature(_unit_layout(config))),
            "prepare": In(1), "is_prepared": Out(1),
            "can_issue": In(1), "is_interleaved": In(1), "is_emitted": Out(1), "is_active": Out(1),
            "acc_read": Out(1), "acc_clear": Out(1), "acc_core": Out(range(config.num_cores)),
            "acc_entry": Out(exact_log2(config.num_acc_entries)), "acc_lane": Out(range(num_parts)),
            "group_done": Out(1),
            "emit": Out(1), "is_low": Out(1), "mask": Out(config.post_lanes), "place": Out(_place_layout()), "scale": Out(PARAM.subset(*_SCALE_FIELDS)),
        })

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.fields
        post_lanes = config.post_lanes
        part_bits = exact_log2(config.num_lanes // post_lanes)
        m.submodules.columns = columns = _LaneColumns(post_lanes)

        is_active = self.is_active
        unit = Signal(_unit_layout(config), reset_less=True)
        entry, row_entry = Signal.like(unit.entry), Signal.like(unit.entry)
        vec_left, vec_x_left = Signal(9), Signal(9)  # entries to clear; vectors to the end of the row
        row, part = Signal(2), Signal(part_bits)  # row of the vector, chunk of the vector's row
        here, ahead = Signal(_Row), Signal(_Row)  # this row and the next
        ahead_left = Signal(14)  # positions from the start of the next row on
        row_addr = Signal(32)
        is_row_start, is_dead, is_row_dead = Signal(), Signal(), Signal()  # dead: no position in what is left
        is_last_vec, is_last_vec_x = Signal(), Signal()  # vec_left == 1, vec_x_left == 1

        go, step = Signal(), Signal()
        is_high, is_low = Signal(), Signal()
        m.d.comb += [
            is_low.eq(job.is_wide & ~is_high),
            go.eq(is_active & (self.can_issue | is_high)),
            step.eq(go & ~is_low),
        ]
        with m.If(go):
            m.d.sync += is_high.eq(is_low)

        # What this visit is
        parts_mask, rows_mask = Signal(part_bits), Signal(2)
        is_clear_row, is_vector_end, is_unit_end = Signal(), Signal(), Signal()
        is_empty, is_clear = Signal(), Signal()
        m.d.comb += [
            parts_mask.eq(((1 << part_bits) - 1) >> job.split_log2),
            rows_mask.eq((1 << job.split_log2) - 1),
            is_empty.eq(is_dead | is_row_dead),
            is_clear_row.eq(here.is_last | (row == rows_mask)),
            is_vector_end.eq(here.is_short | (part == parts_mask)),
            is_clear.eq(is_dead | (is_vector_end & is_clear_row)),
            is_unit_end.eq(is_clear & is_last_vec),
            self.is_emitted.eq(go & (~is_empty | (is_unit_end & unit.is_job_last))),
        ]

        # The read and its chunk, registered; the columns follow a cycle later
        below = Signal(post_lanes)  # the lanes below the row's width
        in_use = below & (columns.mask | (~job.is_flat).replicate(post_lanes))
        doubled = Cat(bit.replicate(2) for bit in in_use)
        m.d.sync += [
            self.acc_read.eq(go & ~is_empty),
            self.acc_clear.eq(go & is_clear),
            self.acc_core.eq(unit.core),
            self.acc_entry.eq(Mux(job.is_wide, Cat(is_high, entry), entry)),
            self.acc_lane.eq(part | ((row << part_bits) >> job.split_log2)),
            self.group_done.eq(step & is_unit_end & unit.is_group_last),
            self.emit.eq(self.is_emitted), self.is_low.eq(is_low),
            below.eq(Mux(is_empty, 0, Mux(here.is_short, Cat(here.width > i for i in range(post_lanes)), (1 << post_lanes) - 1))),
            self.mask.eq(Mux(self.is_interleaved, Mux(self.is_low, doubled[:post_lanes], doubled[post_lanes:]), in_use)),
            self.place.addr.eq(row_addr),
            self.place.start.eq(is_row_start & ~is_empty),
            self.place.last.eq(is_unit_end & unit.is_job_last & ~(self.is_interleaved & is_low)),
            *(self.scale[name].eq(unit.scale[name]) for name in _SCALE_FIELDS[1:]),
            self.scale.bias.eq(Mux(is_low, unit.scale.bias_low, unit.scale.bias)),
            columns.restart.eq(self.units.ready), columns.advance.eq(step),
        ]

        # The next visit
        beyond_left = Signal(14)
        m.d.comb += beyond_left.eq(ahead_left - job.drain_pitch)
        with m.If(step):
            m.d.sync += [
                part.eq(Mux(is_vector_end, 0, part + 1)),
                here.width.eq(here.width - post_lanes), here.is_short.eq(here.is_short | (here.width <= 2 * post_lanes)),
                is_row_start.eq(0),
                vec_left.eq(vec_left - is_clear), is_last_vec.eq(Mux(is_clear, vec_left == 2, is_last_vec)),
                entry.eq(entry + (is_dead | is_vector_end)),
                vec_x_left.eq(vec_x_left - is_vector_end), is_last_vec_x.eq(Mux(is_vector_end, vec_x_left == 2, is_last_vec_x)),
            ]
            with m.If(~is_dead & is_vector_end):
                with m.If(here.is_short & here.is_last):
                    m.d.sync += is_dead.eq(1)
                with m.Elif((here.is_short & ~is_clear_row) | is_last_vec_x):
                    m.d.sync += [
                        row.eq(Mux(is_clear_row, 0, row + 1)),
                        entry.eq(Mux(is_clear_row, entry + vec_x_left, row_entry)),
                        row_entry.eq(Mux(is_clear_row, entry + vec_x_left, row_entry)),
                        vec_x_left.eq(job.num_vec_x), is_last_vec_x.eq(job.num_vec_x == 1),
                        here.eq(ahead), ahead_left.eq(beyond_left), _Row.assign(ahead, job, beyond_left, post_lanes),
                        row_addr.eq(row_addr + job.out_pitch_row_bytes),
                        is_row_start.eq(1),
                        is_row_dead.eq(0),
                    ]
                with m.Else():
                    m.d.sync += is_row_dead.eq(here.is_short)

        m.d.comb += self.units.ready.eq(~is_active | (step & is_unit_end))
        with m.If(self.units.ready):
            load = self.units.payload
            num_vec_x = Mux(job.is_flat, self.group.num_vec, job.num_vec_x)
            m.d.sync += [
                is_active.eq(self.units.valid), unit.eq(load),
                entry.eq(load.entry), row_entry.eq(load.entry), row_addr.eq(load.addr),
                vec_left.eq(self.group.num_vec), vec_x_left.eq(num_vec_x),
                is_last_vec.eq(self.group.num_vec == 1), is_last_vec_x.eq(num_vec_x == 1),
                row.eq(0), part.eq(0), here.eq(self.group.first), ahead.eq(self.group.second), ahead_left.eq(self.group.second_left),
                is_row_start.eq(1), is_dead.eq(~load.is_valid), is_row_dead.eq(0),
            ]
        m.d.comb += [
            columns.prepare.eq(self.prepare), self.is_prepared.eq(columns.is_prepared),
            columns.drain_pitch.eq(job.drain_pitch), columns.tile_ow.eq(job.tile_ow),
        ]
        return m


class DrainChunks(wiring.Component):
    """Reads, requantises, looks up and compresses the accumulators of finished groups, and adds a residual or pools, into chunks for `ChunkWriter`.

    The loops are those of "Drain" in docs/architecture.md. Beyond what is written there the descriptor must obey:
    `post_lanes <= num_lanes >> split_log2`; without `is_flat` no chunk reaches into the next row, whatever `drain_pitch` is;
    with `is_flat` `split_log2` is 0 and `num_vec_x` is not used. `num_vec` (or `num_vec_last`) vectors of every kernel are
    cleared, each once, with or after the last read from it, also where no position or no output channel needs them.

    Throughput: one chunk of `post_lanes` positions per cycle, per two cycles if is_wide; a row of each kernel begins a new chunk; one cycle per vector of an output
    channel that does not exist; about 4 cycles per group. The next job is taken when the chunks of the last one have left; a job with
    a lookup table starts when that has been fetched. With a residual `Residual` sets the pace, and with
    a pool `Pool` where rows are no multiples of `post_lanes`; its results leave some 16 cycles later.

    Parameters
    ----------
    config : NpuConfig
    acc_read_cycles : int
        Cycles from `acc_read` to `acc_data`, at least 1.

    Members
    -------
    job : In(stream of NN.subset(*DRAIN_FIELDS))
    params : In(stream of PARAM.layout)
        One for each group, kernel and core.
    group_valid : In(1)
        The accumulators of the next group to drain are complete. In the cycle after `group_done` it must speak of the following group.
    group_done : Out(1)
        High for one cycle, together with the last `acc_clear` of a group.
    acc_read, acc_core, acc_entry, acc_lane : Out
        Read lanes `acc_lane * post_lanes` and up of an entry (`kernel * num_vec + v`) of a core.
    acc_clear : Out(1)
        Clear all lanes of `acc_entry` of `acc_core`, after the read if there is one in the same cycle.
    acc_data : In(array of signed(32))
        The accumulators, `acc_read_cycles` cycles after `acc_read`.
    chunks : Out(stream of Chunk(chunk_lanes))
        One `last` per job; such a chunk may be empty.
    read_lut, read_residual : Out(ReadPort)
        For lookup tables, and for second operands.
    """

    FIFO_DEPTH = 64

    def __init__(self, config: NpuConfig, acc_read_cycles: int = 2):
        self._config, self._acc_read_cycles = config, acc_read_cycles
        num_parts = config.num_lanes // config.post_lanes
        super().__init__({
            "job": In(stream.Signature(NN.subset(*DRAIN_FIELDS))),
            "params": In(stream.Signature(PARAM.layout)),
            "group_valid": In(1), "group_done": Out(1),
            "acc_read": Out(1), "acc_clear": Out(1), "acc_core": Out(range(config.num_cores)),
            "acc_entry": Out(exact_log2(config.num_acc_entries)), "acc_lane": Out(range(num_parts)),
            "acc_data": In(data.ArrayLayout(signed(32), config.post_lanes)),
            "chunks": Out(stream.Signature(Chunk(config.chunk_lanes))),
            "read_lut": Out(ReadPort(config)), "read_residual": Out(ReadPort(config)),
        })

    def elaborate(self, platform):
        m = Module()
        config, depth = self._config, self.FIFO_DEPTH
        m.submodules.sequencer = sequencer = _UnitSequencer(config)
        walker = _Walker(config)
        m.submodules.walker_rest = walker_rest = Rest(tail_cycles=3)
        m.submodules.walker = rested(walker, walker_rest.is_active, platform, "walk")
        requantiser, lut, compressor = Requantiser(config, config.post_lanes), Lut(config, config.post_lanes), Compressor(config.post_lanes)
        masks = fifo.SyncFIFO(width=config.post_lanes, depth=depth)
        places = fifo.SyncFIFO(width=_place_layout().size, depth=depth)
        results = fifo.SyncFIFO(width=len(compressor.out) + len(compressor.count), depth=depth)
        has_chunks = Signal()  # between the walker and the residual
        for name, unit in (("requantiser", requantiser), ("lut", lut), ("compressor", compressor), ("masks", masks), ("places", places), ("results", results)):
            m.submodules[name] = rested(unit, has_chunks, platform, "post")
        residual = Residual(config)
        m.submodules.residual = rested(residual, residual.job.has_residual, platform, "residual")
        pool = Pool(config)
        m.submodules.pool = rested(pool, pool.job.pool_size != 0, platform, "pool")

        # Every chunk issued has its room in the queues.
        num_free = Signal(range(depth + 1), init=depth)
        can_issue, has_mask, is_taken = Signal(init=1), Signal(), Signal()
        m.d.sync += [num_free.eq(num_free - walker.is_emitted + is_taken), can_issue.eq(num_free > Mux(sequencer.fields.is_wide, 2, 1)), has_mask.eq(walker.emit)]
        m.d.comb += [
            has_chunks.eq((num_free != depth) | lut.start | ~lut.is_ready),
            walker_rest.offered.eq(walker.units.valid | walker.prepare | walker.is_active),
        ]

        wiring.connect(m, wiring.flipped(self.job), sequencer.job)
        wiring.connect(m, wiring.flipped(self.params), sequencer.params)
        self._connect_units(m, sequencer, walker, residual, pool)
        splitter = ByteSplitter(config.chunk_lanes)
        m.submodules.splitter = rested(splitter, splitter.is_wide, platform, "split")
        wiring.connect(m, pool.o, splitter.i)
        wiring.connect(m, splitter.o, wiring.flipped(self.chunks))
        m.submodules.chunks = chunks = Queue(Chunk(config.post_lanes), 2)  # keeps what comes behind off the paths in front
        wiring.connect(m, chunks.o, residual.i)
        is_interleaved = sequencer.fields.is_wide & (sequencer.fields.pool_size != 0)
        m.d.comb += [
            walker.is_interleaved.eq(is_interleaved), requantiser.is_interleaved.eq(is_interleaved), splitter.has_both.eq(is_interleaved),
            splitter.is_wide.eq(sequencer.fields.is_wide), splitter.high_bytes.eq(sequencer.fields.out_high_bytes),
            sequencer.is_quiet.eq((num_free == depth) & residual.is_idle & pool.is_idle & splitter.is_idle & ~chunks.o.valid),
            sequencer.group_valid.eq(self.group_valid), sequencer.group_done.eq(walker.group_done),
            sequencer.is_prepared.eq(walker.is_prepared & lut.is_ready), walker.prepare.eq(sequencer.prepare),
            walker.fields.eq(sequencer.fields), walker.group.eq(sequencer.group), walker.can_issue.eq(can_issue),
            *(getattr(self, name).eq(getattr(walker, name)) for name in ("acc_read", "acc_clear", "acc_core", "acc_entry", "acc_lane", "group_done")),
        ]

        wiring.connect(m, lut.port, wiring.flipped(self.read_lut))
        m.d.sync += lut.start.eq(sequencer.job.valid & sequencer.job.ready)
        m.d.comb += [lut.job[name].eq(sequencer.fields[name]) for name in LUT_FIELDS]

        scale = delay(m, walker.scale, self._acc_read_cycles, name="scale", reset_less=True)
        m.d.comb += [
            requantiser.valid.eq(delay(m, walker.emit, self._acc_read_cycles, name="emit")),
            requantiser.is_low.eq(delay(m, walker.is_low, self._acc_read_cycles, name="is_low")),
            requantiser.accs.eq(self.acc_data),
            *(requantiser.param[name].eq(scale[name]) for name in _SCALE_FIELDS),
            *(getattr(requantiser, name).eq(sequencer.fields[name]) for name in ("is_wide", "rounding", "zero_point_out", "act_min", "act_max")),
            masks.w_en.eq(has_mask), masks.w_data.eq(walker.mask), masks.r_en.eq(lut.out_valid),
            places.w_en.eq(walker.emit), places.w_data.eq(walker.place),
            lut.valid.eq(requantiser.out_valid), lut.lanes.eq(requantiser.outs),
            compressor.valid.eq(lut.out_valid), compressor.lanes.eq(lut.outs), compressor.mask.eq(masks.r_data),
            results.w_en.eq(compressor.out_valid), results.w_data.eq(Cat(compressor.out, compressor.count)),
        ]

        m.d.comb += [
            is_taken.eq(results.r_rdy & chunks.i.ready), results.r_en.eq(is_taken), places.r_en.eq(is_taken), chunks.i.valid.eq(results.r_rdy),
            Cat(chunks.i.p.data, chunks.i.p.count).eq(results.r_data), Cat(chunks.i.p.addr, chunks.i.p.start, chunks.i.p.last).eq(places.r_data),
        ]
        return m

    def _connect_units(self, m, sequencer, walker, residual, pool):
        """The walker, the residual and the pool see the same units; the latter only those that make outputs."""
        m.submodules.units = units = Queue(_unit_layout(self._config), 2)  # keeps the walk's decisions off the path to the parameters
        wiring.connect(m, sequencer.units, units.i)
        unit, fields = units.o.p, sequencer.fields
        has_room = residual.units.ready & pool.units.ready
        is_taken = units.o.valid & walker.units.ready & unit.is_valid & has_room
        m.d.comb += [
            walker.units.p.eq(unit), walker.units.valid.eq(units.o.valid & has_room), units.o.ready.eq(walker.units.ready & has_room),
            residual.units.p.addr.eq(unit.addr), residual.units.p.is_last_group.eq(unit.is_last_group),
            residual.units.valid.eq(is_taken & fields.has_residual),
            *(pool.units.p[name].eq(unit[name]) for name, _ in pool.units.p.shape()),
            pool.units.valid.eq(is_taken & (fields.pool_size != 0)),
            *(residual.job[name].eq(fields[name]) for name, _ in residual.job.shape()),
            *(pool.job[name].eq(fields[name]) for name, _ in pool.job.shape()),
        ]
        wiring.connect(m, residual.port, wiring.flipped(self.read_residual))
        wiring.connect(m, residual.o, pool.i)
