"""The walk of the drain: groups, kernels and lanes in the order of the outputs in memory."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.register import data_register
from convoy.hw.post.fused_pool import POOL_FIELDS
from convoy.hw.post.lut import LUT_FIELDS
from convoy.hw.post.residual import RESIDUAL_FIELDS
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, PARAM

__all__ = ["DRAIN_FIELDS", "SCALE_FIELDS", "UnitSequencer", "Walker", "place_layout", "unit_layout"]

DRAIN_FIELDS = (
    "num_sb",
    "num_groups",
    "num_vec",
    "num_vec_last",
    "num_vec_x",
    "split_log2",
    "num_kernels",
    "num_kernels_last",
    "out_addr",
    "out_group_step_bytes",
    "out_pitch_row_bytes",
    "drain_pitch",
    "tile_ow",
    "num_pos",
    "num_pos_last",
    "is_flat",
    "zero_point_out",
    "act_min",
    "act_max",
    "rounding",
    "is_wide",
    "out_high_bytes",
    *LUT_FIELDS,
    *RESIDUAL_FIELDS,
    *POOL_FIELDS,
)
"""What the drain needs of an NN descriptor."""

SCALE_FIELDS = ("bias", "mult", "shift_left", "shift_right")
_UNIT_FIELDS = (*SCALE_FIELDS, "bias_low")


def unit_layout(config: NpuConfig) -> data.StructLayout:
    """One kernel of one core of a group.

    `entry` is its first accumulator entry, `line` its number in the job (modulo the lines of the pool), `is_odd` and
    `is_top` are as in `PoolUnit`.
    """
    return data.StructLayout(
        {
            "scale": PARAM.subset(*_UNIT_FIELDS),
            "is_valid": 1,
            "addr": 32,
            "core": range(config.num_cores),
            "entry": exact_log2(config.num_acc_entries),
            "line": exact_log2(config.pool_channels),
            "is_odd": 1,
            "is_top": 1,
            "is_last_group": 1,
            "is_group_last": 1,
            "is_job_last": 1,
        }
    )


class _Row(data.Struct):
    """A row of positions: those to walk from here to its end, whether they fit in a chunk, and whether it is the
    last row of the unit.
    """

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
"""T and positions of a group, the first two rows of its units, and the positions from the start of the second row
on.
"""


def place_layout() -> data.StructLayout:
    """Where a chunk goes, as in the chunks of ChunkWriter."""
    return data.StructLayout({"addr": 32, "start": 1, "last": 1})


class UnitSequencer(wiring.Component):
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
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*DRAIN_FIELDS))),
                "params": In(stream.Signature(PARAM.layout)),
                "is_quiet": In(1),
                "is_prepared": In(1),
                "prepare": Out(1),
                "group_valid": In(1),
                "group_done": In(1),
                "fields": Out(NN.subset(*DRAIN_FIELDS)),
                "units": Out(stream.Signature(unit_layout(config))),
                "group": Out(_GROUP_LAYOUT),
            }
        )

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
                m.d.sync += [
                    sb.eq(0),
                    group.eq(0),
                    first_line.eq(0),
                    is_odd.eq(0),
                    group_addr.eq(self.job.payload.out_addr),
                ]
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
                    kernel.eq(0),
                    core.eq(0),
                    entry.eq(0),
                    line.eq(first_line),
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
                m.d.sync += [
                    group.eq(group + 1),
                    group_addr.eq(group_addr + group_step),
                    is_odd.eq((is_odd ^ job.pool_rows[0]) & (job.pool_size != 0)),
                ]
                m.next = "GROUP"
                with m.If(is_last_group):
                    m.d.sync += [
                        group.eq(0),
                        group_addr.eq(job.out_addr),
                        sb.eq(sb + 1),
                        first_line.eq(line),
                        is_odd.eq(0),
                    ]
                    with m.If(is_last_sb):
                        m.next = "IDLE"
        return m


class _LaneColumns(wiring.Component):
    """The output column of each lane of a chunk when vectors run on across row ends, without any division.

    `prepare` for `num_lanes` cycles at the start of a job; `restart` goes to position 0, `advance` on by `num_lanes`
    positions. `mask` says for which lanes the column is below `tile_ow`.
    """

    def __init__(self, num_lanes: int):
        self._num_lanes = num_lanes
        super().__init__(
            {
                "prepare": In(1),
                "is_prepared": Out(1),
                "restart": In(1),
                "advance": In(1),
                "drain_pitch": In(14),
                "tile_ow": In(14),
                "mask": Out(num_lanes),
            }
        )

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


class Walker(wiring.Component):
    """Walks the chunks of a unit: one per cycle while `can_issue`, units without a gap.

    With `is_wide` every visit is made twice, without a gap: to an entry of low bytes, then to that of high bytes; there
    are twice as many entries then as are counted here.

    Rows of positions are walked in order, each from vector to vector; a flat unit is a single row. An entry is cleared
    with the last read from it; entries that hold no position, and all entries of a unit that is not valid, get a visit
    of their own.

    Members
    -------
    fields, group, units : In, from the sequencer
    can_issue : In(1), there is room for a chunk, or for both of a pair; is_emitted : Out(1), this cycle's visit makes a
        chunk; is_active : Out(1), there is a unit to walk
    acc_* : Out, the read; group_done : Out(1), with the group's last visit
    emit, is_low, place, scale : Out, the chunk that belongs to the read, `is_low`: of low bytes; mask : Out, its lanes
        in use, a cycle later: with `is_interleaved` each lane of the lower half counts twice, for the second chunk each
        of the upper half
    is_interleaved : In(1), is_wide and the two chunks have bytes in the order of the outputs; only the second one is
        the last of a job
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        num_parts = config.num_lanes // config.post_lanes
        super().__init__(
            {
                "fields": In(NN.subset(*DRAIN_FIELDS)),
                "group": In(_GROUP_LAYOUT),
                "units": In(stream.Signature(unit_layout(config))),
                "prepare": In(1),
                "is_prepared": Out(1),
                "can_issue": In(1),
                "is_interleaved": In(1),
                "is_emitted": Out(1),
                "is_active": Out(1),
                "acc_read": Out(1),
                "acc_clear": Out(1),
                "acc_core": Out(range(config.num_cores)),
                "acc_entry": Out(exact_log2(config.num_acc_entries)),
                "acc_lane": Out(range(num_parts)),
                "group_done": Out(1),
                "emit": Out(1),
                "is_low": Out(1),
                "mask": Out(config.post_lanes),
                "place": Out(place_layout()),
                "scale": Out(PARAM.subset(*SCALE_FIELDS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.fields
        post_lanes = config.post_lanes
        part_bits = exact_log2(config.num_lanes // post_lanes)
        m.submodules.columns = columns = _LaneColumns(post_lanes)

        is_active = self.is_active
        unit = Signal(unit_layout(config), reset_less=True)
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
            self.emit.eq(self.is_emitted),
            self.is_low.eq(is_low),
            below.eq(
                Mux(
                    is_empty,
                    0,
                    Mux(here.is_short, Cat(here.width > i for i in range(post_lanes)), (1 << post_lanes) - 1),
                )
            ),
            self.mask.eq(
                Mux(self.is_interleaved, Mux(self.is_low, doubled[:post_lanes], doubled[post_lanes:]), in_use)
            ),
            self.place.addr.eq(row_addr),
            self.place.start.eq(is_row_start & ~is_empty),
            self.place.last.eq(is_unit_end & unit.is_job_last & ~(self.is_interleaved & is_low)),
            *(self.scale[name].eq(unit.scale[name]) for name in SCALE_FIELDS[1:]),
            self.scale.bias.eq(Mux(is_low, unit.scale.bias_low, unit.scale.bias)),
            columns.restart.eq(self.units.ready),
            columns.advance.eq(step),
        ]

        # The next visit
        beyond_left = Signal(14)
        m.d.comb += beyond_left.eq(ahead_left - job.drain_pitch)
        with m.If(step):
            m.d.sync += [
                part.eq(Mux(is_vector_end, 0, part + 1)),
                here.width.eq(here.width - post_lanes),
                here.is_short.eq(here.is_short | (here.width <= 2 * post_lanes)),
                is_row_start.eq(0),
                vec_left.eq(vec_left - is_clear),
                is_last_vec.eq(Mux(is_clear, vec_left == 2, is_last_vec)),
                entry.eq(entry + (is_dead | is_vector_end)),
                vec_x_left.eq(vec_x_left - is_vector_end),
                is_last_vec_x.eq(Mux(is_vector_end, vec_x_left == 2, is_last_vec_x)),
            ]
            with m.If(~is_dead & is_vector_end):
                with m.If(here.is_short & here.is_last):
                    m.d.sync += is_dead.eq(1)
                with m.Elif((here.is_short & ~is_clear_row) | is_last_vec_x):
                    m.d.sync += [
                        row.eq(Mux(is_clear_row, 0, row + 1)),
                        entry.eq(Mux(is_clear_row, entry + vec_x_left, row_entry)),
                        row_entry.eq(Mux(is_clear_row, entry + vec_x_left, row_entry)),
                        vec_x_left.eq(job.num_vec_x),
                        is_last_vec_x.eq(job.num_vec_x == 1),
                        here.eq(ahead),
                        ahead_left.eq(beyond_left),
                        _Row.assign(ahead, job, beyond_left, post_lanes),
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
                is_active.eq(self.units.valid),
                unit.eq(load),
                entry.eq(load.entry),
                row_entry.eq(load.entry),
                row_addr.eq(load.addr),
                vec_left.eq(self.group.num_vec),
                vec_x_left.eq(num_vec_x),
                is_last_vec.eq(self.group.num_vec == 1),
                is_last_vec_x.eq(num_vec_x == 1),
                row.eq(0),
                part.eq(0),
                here.eq(self.group.first),
                ahead.eq(self.group.second),
                ahead_left.eq(self.group.second_left),
                is_row_start.eq(1),
                is_dead.eq(~load.is_valid),
                is_row_dead.eq(0),
            ]
        m.d.comb += [
            columns.prepare.eq(self.prepare),
            self.is_prepared.eq(columns.is_prepared),
            columns.drain_pitch.eq(job.drain_pitch),
            columns.tile_ow.eq(job.tile_ow),
        ]
        return m
