"""The walk of the drain: the chunks of a unit, in the order of the outputs in memory.

`Walker` makes a visit per cycle, to an entry of the accumulators. Where it is stand four chapters, which all go on with
its `step`:

    _Rows          the row of positions, its address, and whether positions are left
    _VectorPlace   the chunk and the row within a lane vector
    _Entries       the accumulator entry, and how many are left
    _LaneColumns   which lanes are columns of the output, for flat units

and `_LaneMask` says which lanes of a chunk are outputs.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from convoy.hw.lib.choose import below
from convoy.hw.lib.narrow import truncate
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, PARAM

from .drain_units import DRAIN_FIELDS, GROUP_LAYOUT, SCALE_FIELDS, Row, place_layout, unit_layout

__all__ = ["Walker"]


class _Rows(wiring.Component):
    """The row of positions that the walk is in: what is left of it, where its outputs go.

    | cycle | what happens |
    | -- | -- |
    | `load` | the first row of the unit from the next cycle on |
    | `step` | `post_lanes` positions less from the next cycle on; with `is_swapped` one |
    | `step` with `next_row` | the next row from the next cycle on |
    | `step` at the end of the last row | `is_dead` from the next cycle on |

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    job : In(fields of an NN descriptor)
        Constant from `load` to the last `step`.
    group : In(GROUP_LAYOUT)
        The group of the unit, with `load`.
    addr : In(32)
        Address of the unit's first output, with `load`.
    is_valid : In(1)
        The unit has outputs, with `load`.
    load : In(1)
        Strobe: begin with a unit.
    step : In(1)
        Strobe: go on to the next visit; counts for nothing together with `load`.
    is_vector_end : In(1)
        The visit is the last one of this row in its vector.
    is_clear_row : In(1)
        No row after this one reads its vectors.
    is_last_vec_x : In(1)
        The vector is the last one of the row.
    next_row : Out(1)
        In the cycle of `step`: the next visit is to the next row.
    here : Out(Row)
        The row, from the position of the visit on.
    row_addr : Out(32)
        Address of the row's first output.
    is_start : Out(1)
        The visit is the first one of its row.
    is_dead : Out(1)
        No position is left in the unit; its remaining entries are to be cleared.
    is_row_dead : Out(1)
        No position is left in the row, but vectors are.
    """

    def __init__(self, config: NpuConfig):
        self._post_lanes = config.post_lanes
        super().__init__(
            {
                "job": In(NN.subset("is_flat", "tile_ow", "drain_pitch", "out_pitch_row_bytes", "is_swapped")),
                "group": In(GROUP_LAYOUT),
                "addr": In(32),
                "is_valid": In(1),
                "load": In(1),
                "step": In(1),
                "is_vector_end": In(1),
                "is_clear_row": In(1),
                "is_last_vec_x": In(1),
                "next_row": Out(1),
                "here": Out(Row),
                "row_addr": Out(32),
                "is_start": Out(1),
                "is_dead": Out(1),
                "is_row_dead": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, here, post_lanes = self.job, self.here, self._post_lanes
        ahead = Signal(Row)  # the next row
        beyond_left = Signal(14)  # positions from the start of the row after it on
        is_end = Signal()  # of the last row
        is_row_end = Signal()  # of the row's vectors, or of those that it must visit
        m.d.comb += [
            is_end.eq(here.is_short & here.is_last),
            is_row_end.eq((here.is_short & ~self.is_clear_row) | self.is_last_vec_x),
            self.next_row.eq(self.step & self.is_vector_end & ~self.is_dead & ~is_end & is_row_end),
        ]
        with m.If(self.step):
            m.d.sync += [
                here.width.eq(here.width - Mux(job.is_swapped, 1, post_lanes)),
                here.is_short.eq(here.is_short | (here.width <= Mux(job.is_swapped, 2, 2 * post_lanes))),
                self.is_start.eq(0),
            ]
            with m.If(self.is_vector_end & ~self.is_dead):
                m.d.sync += [self.is_dead.eq(is_end), self.is_row_dead.eq(here.is_short)]
        with m.If(self.next_row):
            m.d.sync += [
                here.eq(ahead),
                beyond_left.eq(beyond_left - job.drain_pitch),
                Row.assign(ahead, job, beyond_left, post_lanes),
                self.row_addr.eq(self.row_addr + job.out_pitch_row_bytes),
                self.is_start.eq(1),
                self.is_row_dead.eq(0),
            ]
        with m.If(self.load):
            m.d.sync += [
                here.eq(self.group.first),
                ahead.eq(self.group.second),
                beyond_left.eq(self.group.third_left),
                self.row_addr.eq(self.addr),
                self.is_start.eq(1),
                self.is_dead.eq(~self.is_valid),
                self.is_row_dead.eq(0),
            ]
        return m


class _VectorPlace(wiring.Component):
    """Where in its lane vector a visit is: which row of the vector, and which chunk of the row.

    | cycle | what happens |
    | -- | -- |
    | `load` | the first chunk of the first row from the next cycle on |
    | `step` | the next chunk, or the first one of the next vector, from the next cycle on |
    | `next_row` | the next row of the vector, or the first one of the next vector, from the next cycle on |

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    split_log2 : In(2)
        A vector has `1 << split_log2` rows; constant from `load` to the last `step`.
    is_swapped : In(1)
        All visits of a unit are to one chunk of the vectors, and its last one counts as the end of a vector; constant
        like `split_log2`.
    first : In
        That chunk, with `load`; otherwise it is 0.
    is_short : In(1)
        The visit is the last one of its row.
    is_last_row : In(1)
        The row is the last one of the unit.
    load : In(1)
        Strobe: begin with a unit.
    step : In(1)
        Strobe: go on to the next visit; counts for nothing together with `load`.
    next_row : In(1)
        With `step`: to the next row.
    is_vector_end : Out(1)
        The visit is the last one of this row in its vector.
    is_clear_row : Out(1)
        No row after this one reads its vectors.
    acc_lane : Out(range of chunks in a vector)
        The chunk of the vector.
    """

    def __init__(self, config: NpuConfig):
        self._part_bits = exact_log2(config.num_lanes // config.post_lanes)
        super().__init__(
            {
                "split_log2": In(2),
                "is_swapped": In(1),
                "first": In(self._part_bits),
                "is_short": In(1),
                "is_last_row": In(1),
                "load": In(1),
                "step": In(1),
                "next_row": In(1),
                "is_vector_end": Out(1),
                "is_clear_row": Out(1),
                "acc_lane": Out(self._part_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        part_bits = self._part_bits
        row = Signal(2)  # of the vector
        part = Signal(part_bits)  # chunk of the row
        is_last_part, is_bottom = Signal(), Signal()  # that the vector has of the row; that it has
        rows_mask = Signal(2)
        parts_mask = Signal(part_bits)
        next_part, next_row = Signal.like(part), Signal.like(row)
        m.d.comb += [
            rows_mask.eq(truncate((1 << self.split_log2) - 1, rows_mask.shape())),
            parts_mask.eq(((1 << part_bits) - 1) >> self.split_log2),
            next_part.eq(Mux(self.is_vector_end, 0, part + 1)),
            next_row.eq(Mux(self.is_clear_row, 0, row + 1)),
            self.is_vector_end.eq(self.is_short | is_last_part),
            self.is_clear_row.eq(self.is_last_row | is_bottom),
            self.acc_lane.eq(truncate(part | ((row << part_bits) >> self.split_log2), self.acc_lane.shape())),
        ]
        with m.If(self.load):
            m.d.sync += [
                row.eq(0),
                part.eq(self.first),
                is_last_part.eq(~self.is_swapped & (parts_mask == 0)),
                is_bottom.eq(rows_mask == 0),
            ]
        with m.Elif(self.step):
            with m.If(~self.is_swapped):
                m.d.sync += [part.eq(next_part), is_last_part.eq(next_part == parts_mask)]
            with m.If(self.next_row):
                m.d.sync += [row.eq(next_row), is_bottom.eq(next_row == rows_mask)]
        return m


class _Entries(wiring.Component):
    """The accumulator entry of a visit: from vector to vector, back to the row's first one, on to those of other rows.

    | cycle | what happens |
    | -- | -- |
    | `load` | the unit's first entry from the next cycle on |
    | `step` | the entry of the next visit from the next cycle on |

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    job : In(fields of an NN descriptor)
        Constant from `load` to the last `step`.
    num_vec : In(9)
        Entries of the unit, with `load`.
    first : In(range of entries)
        The first of them, with `load`.
    load : In(1)
        Strobe: begin with a unit.
    step : In(1)
        Strobe: go on to the next visit; counts for nothing together with `load`.
    is_vector_end : In(1)
        The visit is the last one of this row in its vector.
    is_dead : In(1)
        No position is left in the unit: every visit has an entry of its own.
    is_clear_row : In(1)
        No row after this one reads its vectors.
    is_clear : In(1)
        The visit clears its entry.
    is_round_end : In(1)
        With `is_swapped`: the next visit is to the next kernel.
    next_row : In(1)
        With `step`: to the next row.
    entry : Out(range of entries)
        Of the visit.
    is_last_vec : Out(1)
        The entry is the last one of the unit to be cleared.
    is_last_vec_x : Out(1)
        The vector is the last one of the row.
    """

    def __init__(self, config: NpuConfig):
        entry_bits = exact_log2(config.num_acc_entries)
        super().__init__(
            {
                "job": In(NN.subset("is_flat", "num_vec_x", "num_vec", "is_swapped")),
                "num_vec": In(9),
                "first": In(entry_bits),
                "load": In(1),
                "step": In(1),
                "is_vector_end": In(1),
                "is_dead": In(1),
                "is_clear_row": In(1),
                "is_clear": In(1),
                "is_round_end": In(1),
                "next_row": In(1),
                "entry": Out(entry_bits),
                "is_last_vec": Out(1),
                "is_last_vec_x": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        row_entry = Signal.like(self.entry)  # the first one of the row
        vec_left = Signal(9)  # entries to clear
        vec_x_left = Signal(9)  # vectors to the end of the row
        num_vec_x = Mux(self.job.is_flat, self.num_vec, self.job.num_vec_x)
        next_entry = Mux(self.is_clear_row, self.entry + vec_x_left, row_entry)  # of the next row
        to_kernel = Mux(self.is_round_end, truncate(self.job.num_vec, self.entry.shape()), 0)
        to_next = Mux(self.job.is_swapped, to_kernel, self.is_dead | self.is_vector_end)
        with m.If(self.step):
            m.d.sync += [
                self.entry.eq(self.entry + to_next),
                vec_left.eq(vec_left - self.is_clear),
                self.is_last_vec.eq(Mux(self.is_clear, vec_left == 2, self.is_last_vec)),
                vec_x_left.eq(vec_x_left - self.is_vector_end),
                self.is_last_vec_x.eq(Mux(self.is_vector_end, vec_x_left == 2, self.is_last_vec_x)),
            ]
        with m.If(self.next_row):
            m.d.sync += [
                self.entry.eq(truncate(next_entry, self.entry.shape())),
                row_entry.eq(truncate(next_entry, row_entry.shape())),
                vec_x_left.eq(self.job.num_vec_x),
                self.is_last_vec_x.eq(self.job.num_vec_x == 1),
            ]
        with m.If(self.load):
            m.d.sync += [
                self.entry.eq(self.first),
                row_entry.eq(self.first),
                vec_left.eq(self.num_vec),
                self.is_last_vec.eq(self.num_vec == 1),
                vec_x_left.eq(num_vec_x),
                self.is_last_vec_x.eq(num_vec_x == 1),
            ]
        return m


class _LaneColumns(wiring.Component):
    """Which lanes of a chunk are columns of the output when vectors run on across row ends, without any division.

    | cycle | what happens |
    | -- | -- |
    | `prepare`, `num_lanes` + 1 cycles | lane by lane, were lane 0 at position 0; `num_lanes` modulo the pitch |
    | `restart` | lane 0 is at position 0 from the next cycle on |
    | `advance` | lane 0 is `num_lanes` positions further from the next cycle on |
    | a cycle after that | `mask` |

    Parameters
    ----------
    num_lanes : int
        Lanes of a chunk.

    Members
    -------
    prepare : In(1)
        Held at the start of a job until `is_prepared`; low before.
    is_prepared : Out(1)
        With `prepare`: done.
    restart : In(1)
        Strobe, not in the cycle after `prepare`.
    advance : In(1)
        Strobe; counts for nothing together with `restart`.
    drain_pitch : In(14)
        Positions from row to row, at least 1; constant from `prepare` to the end of the job.
    tile_ow : In(14)
        Columns that are outputs; constant like `drain_pitch`.
    mask : Out(num_lanes)
        Lanes whose column is below `tile_ow`, of the positions of the cycle before.
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
        num_lanes = self._num_lanes
        low_bits = ceil_log2(num_lanes)
        in_image = Signal(num_lanes)  # of the positions from the start of a row on, over as many rows as there are
        last = Signal(14)  # column of a row
        num_after = Signal(14)  # the first lane's position to the end of its row
        gap = Signal(signed(15))  # columns that are no outputs
        index = Signal(range(num_lanes + 1))
        step = Signal(14)  # num_lanes modulo the pitch
        wrapped_step = Signal(signed(15))  # that less the pitch

        m.d.comb += self.is_prepared.eq(index == num_lanes)
        with m.If(~self.prepare):
            m.d.sync += index.eq(0)
        with m.Elif(~self.is_prepared):
            column, after, next_column = Signal(14), Signal(14), Signal(14)
            m.d.comb += [
                column.eq(Mux(index == 0, 0, step)),
                after.eq(column + 1),
                next_column.eq(Mux(after == self.drain_pitch, 0, after)),
            ]
            m.d.sync += [
                index.eq(index + 1),
                in_image.eq(Cat(in_image, column < self.tile_ow)[1:]),
                step.eq(next_column),
            ]

        m.d.sync += [
            wrapped_step.eq(step - self.drain_pitch),
            last.eq(self.drain_pitch - 1),
            gap.eq(self.drain_pitch - self.tile_ow),
        ]
        left = Signal(signed(15))
        m.d.comb += left.eq(num_after - step)
        with m.If(self.restart):
            m.d.sync += num_after.eq(last)
        with m.Elif(self.advance):
            m.d.sync += num_after.eq(truncate(Mux(left < 0, num_after - wrapped_step, left), num_after.shape()))

        # Lanes up to the end of the row, then those from the start of the next row on.
        num_here = Signal.like(num_after, reset_less=True)  # after the first lane, to the end of its row
        num_outputs = Signal(signed(16), reset_less=True)  # the same of outputs; negative if that is none
        m.d.sync += [num_here.eq(num_after), num_outputs.eq(num_after - gap)]
        beyond = Cat(Const(0, 1), in_image) << num_here[:low_bits]
        reached, with_output = (
            Cat(Const(1, 1), below(count[:low_bits], num_lanes - 1)) for count in (num_here, num_outputs)
        )
        for lane in range(num_lanes):
            is_here = num_here[low_bits:].any() | reached[lane]
            is_output = ~num_outputs[-1] & (num_outputs[low_bits:-1].any() | with_output[lane])
            m.d.comb += self.mask[lane].eq(Mux(is_here, is_output, beyond[lane]))
        return m


class _LaneMask(wiring.Component):
    """Which lanes of a chunk are outputs.

    | cycle | what happens |
    | -- | -- |
    | 0 | the visit: how many positions the row has |
    | 1 | the read: which of them are columns of the output, if it is low bytes |
    | 2 | `mask` |

    Parameters
    ----------
    num_lanes : int
        Lanes of a chunk.

    Members
    -------
    is_empty : In(1)
        The visit has no position.
    is_short : In(1)
        The visit is the last one of its row.
    width : In(14)
        Positions of the row from the visit on.
    is_flat : In(1)
        Columns count; constant during a job.
    is_swapped : In(1)
        There is one output, in `lane`; constant during a job.
    lane : In(range(num_lanes))
    is_interleaved : In(1)
        Each lane has two bytes: the lower half of the lanes in the chunk of low bytes, the upper half in the other one.
        Constant during a job.
    in_image : In(num_lanes)
        Lanes whose column is an output, of the visit of the cycle before.
    is_low : In(1)
        Of low bytes, the visit of the cycle before.
    mask : Out(num_lanes)
        Lanes in use, of the visit of two cycles before.
    """

    def __init__(self, num_lanes: int):
        self._num_lanes = num_lanes
        super().__init__(
            {
                "is_empty": In(1),
                "is_short": In(1),
                "width": In(14),
                "is_flat": In(1),
                "is_swapped": In(1),
                "lane": In(range(num_lanes)),
                "is_interleaved": In(1),
                "in_image": In(num_lanes),
                "is_low": In(1),
                "mask": Out(num_lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        num_lanes = self._num_lanes
        in_row = Signal(num_lanes)  # the lanes below the row's width
        in_use = Signal(num_lanes)
        low_bits = ceil_log2(num_lanes)
        lanes = Cat(self.width[low_bits:].any() | (self.width[:low_bits] > i) for i in range(num_lanes))
        full = Mux(self.is_short, lanes, (1 << num_lanes) - 1)
        does_count = self.is_flat & ~self.is_swapped
        doubled = Cat(bit.replicate(2) for bit in in_use)
        m.d.comb += in_use.eq(in_row & (self.in_image | (~does_count).replicate(num_lanes)))
        m.d.sync += [
            in_row.eq(Mux(self.is_empty, 0, Mux(self.is_swapped, truncate(1 << self.lane, num_lanes), full))),
            self.mask.eq(Mux(self.is_interleaved, Mux(self.is_low, doubled[:num_lanes], doubled[num_lanes:]), in_use)),
        ]
        return m


class Walker(wiring.Component):
    """Walks the chunks of a unit: one per cycle while `can_issue`, units without a gap.

    With `is_wide` every visit is made twice, without a gap: to an entry of low bytes, then to that of high bytes; there
    are twice as many entries then as are counted here.

    Rows of positions are walked in order, each from vector to vector; a flat unit is a single row. An entry is cleared
    with the last read from it; entries that hold no position, and all entries of a unit that is not valid, get a visit
    of their own.

    With `is_swapped` a unit is a lane, and there is a visit to each position's entry, one core after the other; entries
    are cleared with the last lane of theirs.

    | cycle | what happens |
    | -- | -- |
    | 0 | the visit: what it reads, clears and makes, and where the next one goes; the last one takes the next unit |
    | 1 | the read (`acc_*`) and its chunk (`emit`, `is_low`, `place`, `scale`); columns of its lanes |
    | 2 | `mask` |

    Latency: 1 cycle from a unit to its first visit. Throughput: a visit per cycle.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    fields : In(NN.subset(*DRAIN_FIELDS))
        From the sequencer; constant from `prepare` to the last visit of the job.
    group : In(GROUP_LAYOUT)
        From the sequencer; of the unit at `units`.
    units : In(stream of unit_layout(config))
        Taken with the last visit of the unit before.
    prepare : In(1)
        From the sequencer: held at the start of a job until `is_prepared`.
    is_prepared : Out(1)
        With `prepare`: units may come.
    can_issue : In(1)
        There is room for a chunk, or for both of a pair.
    is_interleaved : In(1)
        `is_wide` and the two chunks have bytes in the order of the outputs; only the second one is the last of a job.
        Constant like `fields`.
    is_emitted : Out(1)
        This cycle's visit makes a chunk.
    is_active : Out(1)
        There is a unit to walk.
    acc_read : Out(1)
        Read `acc_lane` of `acc_entry` of `acc_core`.
    acc_clear : Out(1)
        Clear `acc_entry` of `acc_core`, after the read.
    acc_core : Out(range of cores)
        With `acc_read`, `acc_clear`.
    acc_entry : Out(range of entries)
        With `acc_read`, `acc_clear`.
    acc_lane : Out(range of chunks in a vector)
        With `acc_read`.
    group_done : Out(1)
        Strobe, with the last `acc_clear` of a group.
    emit : Out(1)
        A chunk belongs to this cycle, with or without a read.
    is_low : Out(1)
        It is one of low bytes; with `emit`.
    place : Out(place_layout())
        Where it goes; with `emit`.
    scale : Out(PARAM.subset(*SCALE_FIELDS))
        How it is requantised; with `emit`.
    mask : Out(post_lanes)
        Its lanes in use, a cycle after `emit`. With `is_interleaved` each lane of the lower half counts twice, for the
        second chunk each of the upper half.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        num_parts = config.num_lanes // config.post_lanes
        super().__init__(
            {
                "fields": In(NN.subset(*DRAIN_FIELDS)),
                "group": In(GROUP_LAYOUT),
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
                "place": Out(place_layout()),
                "scale": Out(PARAM.subset(*SCALE_FIELDS)),
                "mask": Out(config.post_lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.fields
        m.submodules.rows = rows = _Rows(config)
        m.submodules.vector = vector = _VectorPlace(config)
        m.submodules.entries = entries = _Entries(config)
        m.submodules.columns = columns = _LaneColumns(config.post_lanes)
        m.submodules.lanes = lanes = _LaneMask(config.post_lanes)

        unit = Signal(unit_layout(config), reset_less=True)
        is_high = Signal()  # the second visit of a pair
        is_low = Signal()  # the first one
        go = Signal()
        step = Signal()
        is_empty = Signal()
        is_clear = Signal()
        is_unit_end = Signal()
        # With is_swapped: the unit's lane, whether it is the last one of its vector; the core of the position
        lane, load_lane = (each.core[: exact_log2(config.num_lanes)] for each in (unit, self.units.payload))
        part_log2 = exact_log2(config.post_lanes)
        is_last_lane = Signal(reset_less=True)
        core = Signal(range(config.num_cores))
        is_round_end = core == config.num_cores - 1
        m.d.comb += [
            is_low.eq(job.is_wide & ~is_high),
            go.eq(self.is_active & (self.can_issue | is_high)),
            step.eq(go & ~is_low),
            is_empty.eq(rows.is_dead | rows.is_row_dead),
            is_clear.eq(Mux(job.is_swapped, is_last_lane, rows.is_dead | (vector.is_vector_end & vector.is_clear_row))),
            is_unit_end.eq(Mux(job.is_swapped, rows.here.is_short, is_clear & entries.is_last_vec)),
            self.is_emitted.eq(go & (~is_empty | (is_unit_end & unit.is_job_last))),
            self.units.ready.eq(~self.is_active | (step & is_unit_end)),
        ]
        with m.If(go):
            m.d.sync += is_high.eq(is_low)
        with m.If(step):
            m.d.sync += core.eq(Mux(is_round_end, 0, core + 1))
        with m.If(self.units.ready):
            m.d.sync += [
                self.is_active.eq(self.units.valid),
                unit.eq(self.units.payload),
                is_last_lane.eq(load_lane.all() | self.units.payload.is_group_last),
                core.eq(0),
            ]

        m.d.sync += [
            self.acc_read.eq(go & ~is_empty),
            self.acc_clear.eq(go & is_clear),
            self.acc_core.eq(Mux(job.is_swapped, core, truncate(unit.core, core.shape()))),
            self.acc_entry.eq(
                truncate(Mux(job.is_wide, Cat(is_high, entries.entry), entries.entry), self.acc_entry.shape())
            ),
            self.acc_lane.eq(vector.acc_lane),
            self.group_done.eq(step & is_unit_end & unit.is_group_last),
            self.emit.eq(self.is_emitted),
            self.is_low.eq(is_low),
            self.place.addr.eq(rows.row_addr),
            self.place.start.eq(rows.is_start & ~is_empty),
            self.place.last.eq(is_unit_end & unit.is_job_last & ~(self.is_interleaved & is_low)),
            *(self.scale[name].eq(unit.scale[name]) for name in SCALE_FIELDS[1:]),
            self.scale.bias.eq(Mux(is_low, unit.scale.bias_low, unit.scale.bias)),
        ]
        self._connect_place(m, rows, vector, entries, step=step, is_clear=is_clear)
        m.d.comb += [
            columns.restart.eq(self.units.ready),
            columns.advance.eq(step),
            columns.prepare.eq(self.prepare),
            self.is_prepared.eq(columns.is_prepared),
            columns.drain_pitch.eq(job.drain_pitch),
            columns.tile_ow.eq(job.tile_ow),
            lanes.is_empty.eq(is_empty),
            lanes.is_short.eq(rows.here.is_short),
            lanes.width.eq(rows.here.width),
            lanes.is_flat.eq(job.is_flat),
            lanes.is_swapped.eq(job.is_swapped),
            lanes.lane.eq(lane[:part_log2]),
            entries.is_round_end.eq(is_round_end),
            vector.first.eq(Mux(job.is_swapped, load_lane[part_log2:], 0)),
            lanes.is_interleaved.eq(self.is_interleaved),
            lanes.in_image.eq(columns.mask),
            lanes.is_low.eq(self.is_low),
            self.mask.eq(lanes.mask),
        ]
        return m

    def _connect_place(self, m, rows, vector, entries, *, step, is_clear):
        """The chapters that say where the next visit goes."""
        load = self.units.payload
        for chapter in (rows, vector, entries):
            m.d.comb += [chapter.load.eq(self.units.ready), chapter.step.eq(step)]
        for chapter in (rows, entries):
            m.d.comb += [chapter.job[name].eq(self.fields[name]) for name, _ in chapter.job.shape()]
        m.d.comb += [
            rows.group.eq(self.group),
            rows.addr.eq(load.addr),
            rows.is_valid.eq(load.is_valid),
            rows.is_vector_end.eq(vector.is_vector_end),
            rows.is_clear_row.eq(vector.is_clear_row),
            rows.is_last_vec_x.eq(entries.is_last_vec_x),
            vector.split_log2.eq(self.fields.split_log2),
            vector.is_swapped.eq(self.fields.is_swapped),
            vector.is_short.eq(rows.here.is_short),
            vector.is_last_row.eq(rows.here.is_last),
            vector.next_row.eq(rows.next_row),
            entries.num_vec.eq(self.group.num_vec),
            entries.first.eq(load.entry),
            entries.is_vector_end.eq(vector.is_vector_end),
            entries.is_dead.eq(rows.is_dead),
            entries.is_clear_row.eq(vector.is_clear_row),
            entries.is_clear.eq(is_clear),
            entries.next_row.eq(rows.next_row),
        ]
