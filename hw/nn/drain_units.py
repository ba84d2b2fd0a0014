"""What the drain walks: superblocks, groups, kernels and cores in the order of the outputs, a unit of each."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.hw.post.fused_pool import POOL_FIELDS
from convoy.hw.post.lut import LUT_FIELDS
from convoy.hw.post.residual import RESIDUAL_FIELDS
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, NN_FEATURES, PARAM

__all__ = ["DRAIN_FIELDS", "GROUP_LAYOUT", "SCALE_FIELDS", "Row", "UnitSequencer", "place_layout", "unit_layout"]

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
    "is_swapped",
    "tile_iw",
    *LUT_FIELDS,
    *RESIDUAL_FIELDS,
    *POOL_FIELDS,
)
"""What the drain needs of an NN descriptor."""

SCALE_FIELDS = ("bias", "mult", "shift_left", "shift_right")
_UNIT_FIELDS = (*SCALE_FIELDS, "bias_low")


def unit_layout(config: NpuConfig) -> data.StructLayout:
    """One kernel of one core of a group; with `is_swapped` one channel, and `core` is its lane.

    `scale` are fields of its PARAM and `is_valid` says that it makes outputs, which go to `addr` and up. `entry` is its
    first accumulator entry, `line` its number in the job (modulo the lines of the pool), `is_odd` and `is_top` are as
    in `PoolUnit`. `is_last_group`: of its superblock; `is_group_last`: the last unit of its group; `is_job_last`: the
    last one of the job.
    """
    return data.StructLayout(
        {
            "scale": PARAM.subset(*_UNIT_FIELDS),
            "is_valid": 1,
            "addr": 32,
            "core": range(max(config.num_cores, config.num_lanes)),
            "entry": exact_log2(config.num_acc_entries),
            "line": exact_log2(config.pool_channels),
            "is_odd": 1,
            "is_top": 1,
            "is_last_group": 1,
            "is_group_last": 1,
            "is_job_last": 1,
        }
    )


class Row(data.Struct):
    """A row of positions: `width` of them from here to its end, whether they fit in a chunk, and whether it is the last
    row of the unit.
    """

    width: 14
    is_short: 1
    is_last: 1

    @classmethod
    def assign(cls, row, job, num_left, post_lanes):
        """Statements that set `row` to the one from whose start on `num_left` positions are left; a chunk has
        `post_lanes`.
        """
        return [
            row.width.eq(Mux(~job.is_flat & (job.tile_ow < num_left), job.tile_ow, num_left)),
            row.is_short.eq((num_left <= post_lanes) | (~job.is_flat & (job.tile_ow <= post_lanes))),
            row.is_last.eq(job.is_flat | (num_left <= job.drain_pitch)),
        ]


GROUP_LAYOUT = data.StructLayout({"num_vec": 9, "num_pos": 14, "first": Row, "second": Row, "third_left": 14})
"""T and positions of a group, the first two rows of its units, and the positions from the start of the third row on."""


def place_layout() -> data.StructLayout:
    """Where a chunk goes, as in the chunks of ChunkWriter."""
    return data.StructLayout({"addr": 32, "start": 1, "last": 1})


class UnitSequencer(wiring.Component):
    """Runs through superblocks, groups, kernels and cores and takes a PARAM for each; with `is_swapped` through vectors
    and their lanes, that is channels.

    | state | cycles | what happens |
    | -- | -- | -- |
    | `IDLE` | until `job` is taken, not before `is_quiet` | all counters go to the first group |
    | `PREPARE` | until `is_prepared`, at least 1 | the walker and the lookup table make themselves ready |
    | `GROUP` | until `group_valid`, at least 1 | `group.num_vec` and `num_pos`, kernels; first entry and line |
    | `UNITS` | 1 per unit | a PARAM is taken, its unit offered from the next cycle on; `group` has its rows then |
    | `WALK` | until `group_done`, at least 1 | then the next group, superblock or job |

    Latency: 1 cycle from a PARAM to its unit. Throughput: a unit per cycle; 3 cycles more per group.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    job : In(stream of NN.subset(*DRAIN_FIELDS))
        Taken while `is_quiet`.
    params : In(stream of PARAM.layout)
        One for each unit, in their order.
    is_quiet : In(1)
        Nothing of the job before is on its way.
    is_prepared : In(1)
        With `prepare`: whoever prepares has done so.
    prepare : Out(1)
        The job is in `fields`: prepare for it.
    group_valid : In(1)
        The accumulators of the group are complete.
    group_done : In(1)
        Strobe: the walk of the group has ended.
    fields : Out(NN.subset(*DRAIN_FIELDS))
        The job, from the cycle after it was taken until the next one is.
    units : Out(stream of unit_layout(config))
        The units of a group, then those of the next one.
    group : Out(GROUP_LAYOUT)
        The group, constant from its first unit until `group_done`.
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
                "group": Out(GROUP_LAYOUT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = data_register(m, self.fields)
        unit = data_register(m, self.units.payload)
        extent = data_register(m, self.group)
        param = self.params.payload
        sbs_left = Signal(16)  # with the one in work
        groups_left = Signal(16)  # the same, of the superblock
        kernel = Signal(9)
        core = Signal.like(unit.core)
        entry = Signal.like(unit.entry)
        line = Signal.like(unit.line)
        first_line = Signal.like(unit.line)  # of the superblock
        group_addr = Signal(32)
        group_step = Signal(25)  # to the next group's address
        is_odd = Signal()  # the group's first row
        channel_bits = exact_log2(self._config.num_lanes)
        last_channel = Signal.like(job.tile_iw)
        last_kernel = Signal(max(len(kernel), len(last_channel) - channel_bits))  # of the group
        is_last_sb = Signal()
        is_first_group, is_last_group = Signal(), Signal()
        is_last_core = Signal()
        is_last_unit = Signal()
        post_lanes, num_lanes = self._config.post_lanes, self._config.num_lanes
        last_lane = last_channel[:channel_bits]
        m.d.sync += last_channel.eq(job.tile_iw - 1)
        m.d.comb += [
            is_last_core.eq(core == Mux(job.is_swapped, num_lanes - 1, self._config.num_cores - 1)),
            is_last_unit.eq((kernel == last_kernel) & Mux(job.is_swapped, core == last_lane, is_last_core)),
        ]
        with m.If(self.units.ready):
            m.d.sync += self.units.valid.eq(0)
        num_pos, second_left = Signal.like(extent.num_pos), Signal.like(extent.num_pos)
        m.d.comb += num_pos.eq(Mux(is_last_group, job.num_pos_last, job.num_pos))
        m.d.sync += [
            extent.third_left.eq(second_left - job.drain_pitch),
            Row.assign(extent.first, job, extent.num_pos, Mux(job.is_swapped, 1, post_lanes)),
            Row.assign(extent.second, job, second_left, post_lanes),
        ]

        first_group = [groups_left.eq(job.num_groups), is_first_group.eq(1), is_last_group.eq(job.num_groups == 1)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(self.is_quiet)
                m.d.sync += [first_line.eq(0), is_odd.eq(0), group_addr.eq(self.job.payload.out_addr)]
                with m.If(self.job.valid & self.is_quiet):
                    m.d.sync += [
                        job.eq(self.job.payload),
                        *(job[name].eq(0) for name in self._config.absent(NN_FEATURES)),
                    ]
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.prepare.eq(1)
                m.d.sync += [sbs_left.eq(job.num_sb), is_last_sb.eq(job.num_sb == 1), *first_group]
                with m.If(self.is_prepared):
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.sync += [
                    extent.num_vec.eq(Mux(is_last_group, job.num_vec_last, job.num_vec)),
                    extent.num_pos.eq(num_pos),
                    second_left.eq(num_pos - job.drain_pitch),
                    last_kernel.eq(
                        Mux(
                            job.is_swapped,
                            last_channel[channel_bits:],
                            Mux(is_last_sb, job.num_kernels_last, job.num_kernels) - 1,
                        )
                    ),
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
                        unit.is_top.eq(is_first_group & ~job.pool_continues),
                        unit.is_last_group.eq(is_last_group),
                        unit.is_group_last.eq(is_last_unit),
                        unit.is_job_last.eq(is_last_unit & is_last_group & is_last_sb),
                        self.units.valid.eq(1),
                        line.eq(line + 1),
                        core.eq(Mux(is_last_core, 0, core + 1)),
                    ]
                    with m.If(is_last_core):
                        next_entry = entry + Mux(job.is_swapped, 1, job.num_vec)
                        m.d.sync += [kernel.eq(kernel + 1), entry.eq(truncate(next_entry, entry.shape()))]
                    with m.If(is_last_unit):
                        m.next = "WALK"
            with m.State("WALK"), m.If(self.group_done):
                m.d.sync += [
                    groups_left.eq(groups_left - 1),
                    is_first_group.eq(0),
                    is_last_group.eq(groups_left == 2),
                    group_addr.eq(group_addr + group_step),
                    is_odd.eq((is_odd ^ job.pool_rows[0]) & (job.pool_size != 0)),
                ]
                m.next = "GROUP"
                with m.If(is_last_group):
                    m.d.sync += [
                        *first_group,
                        group_addr.eq(job.out_addr),
                        sbs_left.eq(sbs_left - 1),
                        is_last_sb.eq(sbs_left == 2),
                        first_line.eq(line),
                        is_odd.eq(0),
                    ]
                    with m.If(is_last_sb):
                        m.next = "IDLE"
        return m
