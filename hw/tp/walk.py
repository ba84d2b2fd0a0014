"""Address generation of the TP engine: descriptor loops to windows, windows to groups of buffer bytes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import is_at_most, truncate
from convoy.spec.isa import FRACTION_BITS, TP, TP_TWO_OPERANDS, TP_WINDOWS, TpOp

from .window_position import Axis, Loops, Multiplier, RowAddresses, RowParts

__all__ = ["GroupWalk", "Place", "WindowWalk", "group_layout", "is_pool", "window_layout"]

_WINDOW_JOB = TP.subset(
    "op",
    "num_0",
    "num_1",
    "num_2",
    "step_0",
    "step_1",
    "b_step_0",
    "b_step_1",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "stride_h_frac",
    "stride_w_frac",
    "start_y",
    "start_x",
    "start_y_frac",
    "start_x_frac",
    "tile_ih",
    "tile_iw",
)
_GROUP_JOB = TP.subset("op", "step_2", "b_step_2", "kernel_w", "tile_iw", "is_wide")


def is_pool(op, windows: tuple[TpOp, ...] = TP_WINDOWS) -> Value:
    """Whether `op`, a `TpOp` value, reduces a window to one byte; `windows` are the operations of that kind that there
    are.
    """
    return Cat(op == each for each in windows).any()


Place = data.StructLayout({"frac_y": FRACTION_BITS, "frac_x": FRACTION_BITS, "product": 2 * FRACTION_BITS})
"""How far a place lies from the first row and column of its window, in 2**-FRACTION_BITS, and the product of both."""


def window_layout(addr_bits: int) -> data.StructLayout:
    """Bytes in the buffer: `num_rows` rows of `num_cols` columns from `addr`; `last` of the descriptor.

    A window of a pool or of `BILINEAR`, clipped to the image, or a row of elements of the other operations (from
    `addr_b` for operand B); `is_fill` says that they are outside the image. An empty window has `num_rows` and
    `num_cols` 0.
    """
    return data.StructLayout(
        {"addr": addr_bits, "addr_b": addr_bits, "num_rows": 16, "num_cols": 16, "is_fill": 1, "last": 1}
    )


def group_layout(addr_bits: int, num_lanes: int) -> data.StructLayout:
    """Up to `num_lanes` bytes that are read at once: `count` bytes from `addr`, a step apart, and from `addr_b`; in
    pools of int8 the second gather takes `count_b` bytes more of the window, from where `pool_mode` says.

    `place` of its window; `is_row_0`: of the first row of that. `is_fill`: nothing is read, the bytes are outside the
    image. `window_last` ends a window, `last` the descriptor.
    """
    return data.StructLayout(
        {
            "addr": addr_bits,
            "addr_b": addr_bits,
            "count": range(num_lanes + 1),
            "count_b": range(num_lanes + 1),
            "place": Place,
            "is_row_0": 1,
            "is_fill": 1,
            "window_last": 1,
            "last": 1,
        }
    )


class WindowWalk(wiring.Component):
    """The outer loops of a TP descriptor.

    Pools, `BILINEAR`: a window per output, clipped to the image, in the order of the loops. Others: a window of one row
    of `num_2` elements per iteration of the two outer loops; `COPY` cuts it where the image begins and ends.

    | state | cycle | what happens |
    | -- | -- | -- |
    | `IDLE` | 0, `start` | loops, axes, addresses: first window; the multiplier takes `start_y` and `tile_iw` |
    | `PRODUCT` | 1 | it multiplies them, and takes `stride_h` |
    | `ROW_START` | 2 | the product is the first row; the next one is made |
    | `ROW_STEP` | 3 | the product is the step from row to row |
    | `CLIP` | 4 | the window or row is cut to the image; the multiplier takes the fractions of the place; all goes on |
    | `EMIT` | 5, 6, 7 ... | the window goes to `windows`, the product to `place`; the next one is cut as in `CLIP` |

    `EMIT` lasts while the window before is not taken, and a cycle more for each further part of a row.

    Latency: 6 cycles from `start` to the first window. Throughput: a window, or a part of a row, per cycle.

    Parameters
    ----------
    addr_bits : int
        Bits of an address within a buffer half; addresses are computed modulo this.
    windows : tuple of TpOp
        The operations on windows that there are.

    Members
    -------
    job : In(fields of the descriptor)
        Constant from the cycle before `start` to the last window. Every `num_*` is at least 1.
    start : In(1)
        Strobe, only when the last window of the previous descriptor has been taken.
    windows : Out(stream of `window_layout`)
        The last one has `last`.
    place : Out(Place)
        Of the window that is offered; for `BILINEAR`.
    """

    def __init__(self, addr_bits: int, *, windows: tuple[TpOp, ...] = TP_WINDOWS):
        self._addr_bits, self._windows = addr_bits, windows
        super().__init__(
            {
                "job": In(_WINDOW_JOB),
                "start": In(1),
                "windows": Out(stream.Signature(window_layout(addr_bits))),
                "place": Out(Place),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, bits = self.job, self._addr_bits
        m.submodules.loops = loops = Loops()
        m.submodules.y = y = Axis()
        m.submodules.x = x = Axis()
        m.submodules.addresses = addresses = RowAddresses(bits)
        m.submodules.parts = parts = RowParts()
        m.submodules.multiplier = multiplier = Multiplier(max(bits, FRACTION_BITS), max(bits, 2 * FRACTION_BITS))

        load = Signal()
        clip = Signal()
        emit = Signal()
        can_emit = Signal()
        is_last = Signal()  # the window or row that is cut
        m.d.comb += [can_emit.eq(~self.windows.valid | self.windows.ready), multiplier.b.eq(job.tile_iw)]
        m.d.comb += multiplier.is_held.eq(~can_emit)  # its product belongs to the window that is offered
        of_place = [
            multiplier.a.eq(y.frac),
            multiplier.b.eq(x.frac),
            multiplier.take_a.eq(clip),
            multiplier.take_b.eq(clip),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [load.eq(1), multiplier.a.eq(job.start_y), multiplier.take_a.eq(1), multiplier.take_b.eq(1)]
                with m.If(self.start):
                    m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.d.comb += [multiplier.a.eq(job.stride_h), multiplier.take_a.eq(1)]
                m.next = "ROW_START"
            with m.State("ROW_START"):
                m.d.comb += addresses.load_row.eq(1)
                m.next = "ROW_STEP"
            with m.State("ROW_STEP"):
                m.d.comb += addresses.load_step.eq(1)
                m.next = "CLIP"
            with m.State("CLIP"):
                m.d.comb += [clip.eq(1), *of_place]
                m.next = "EMIT"
            with m.State("EMIT"):
                m.d.comb += of_place
                m.d.comb += [emit.eq(can_emit), clip.eq(can_emit & ~parts.has_more & ~is_last)]
                with m.If(can_emit & ~parts.has_more & is_last):
                    m.next = "IDLE"
        with m.If(clip):
            m.d.sync += is_last.eq(loops.is_last)

        pool = Signal()
        is_copy = Signal()
        m.d.sync += [pool.eq(is_pool(job.op, self._windows)), is_copy.eq(job.op == TpOp.COPY)]
        for unit in (loops, addresses, parts):
            m.d.comb += [unit.is_pool.eq(pool), *(unit.job[name].eq(job[name]) for name, _ in unit.job.shape())]
        m.d.comb += [
            loops.load.eq(load),
            loops.step.eq(clip),
            addresses.is_copy.eq(is_copy),
            addresses.product.eq(truncate(multiplier.product, addresses.product.shape())),
            addresses.load.eq(load),
            addresses.next_row.eq(loops.next_row),
            addresses.next_plane.eq(loops.next_plane),
            addresses.is_plane_end.eq(loops.is_plane_end),
            addresses.is_above.eq(y.is_before),
            addresses.has_carry.eq(y.has_carry),
            addresses.clip.eq(clip),
            parts.is_copy.eq(is_copy),
            parts.is_inside.eq(y.is_inside),
            parts.clip.eq(clip),
            parts.take.eq(emit),
        ]
        self._connect_axes(m, load, clip, loops, y, x, pool=pool, is_copy=is_copy)
        self._emit(m, emit, addresses, y, x, parts, multiplier, pool=pool, is_last=is_last & ~parts.has_more)
        return m

    def _connect_axes(self, m, load, clip, loops, y, x, *, pool, is_copy):
        """Rows move with the middle loop, columns with the innermost one; only windows have strides."""
        job = self.job
        m.d.comb += [
            y.stride.eq(Mux(is_copy, 1, job.stride_h)),
            y.stride_frac.eq(Mux(pool, job.stride_h_frac, 0)),
            y.kernel.eq(job.kernel_h),
            y.extent.eq(job.tile_ih),
            y.restart.eq(load | loops.next_plane),
            y.advance.eq(loops.next_row),
            x.stride.eq(job.stride_w),
            x.stride_frac.eq(job.stride_w_frac),
            x.kernel.eq(job.kernel_w),
            x.extent.eq(job.tile_iw),
            x.restart.eq(load | loops.next_row | loops.next_plane),
            x.advance.eq(loops.next_col),
        ]
        for axis, name in ((y, "y"), (x, "x")):
            m.d.comb += [
                axis.start.eq(job[f"start_{name}"]),
                axis.start_frac.eq(job[f"start_{name}_frac"]),
                axis.is_window.eq(pool),
                axis.clip.eq(clip),
            ]

    def _emit(self, m, emit, addresses, y, x, parts, multiplier, *, pool, is_last):
        """Offer the window, or the next part of the row."""
        window = self.windows.p
        is_empty = Signal()
        frac_y = Signal(FRACTION_BITS)
        frac_x = Signal(FRACTION_BITS)
        m.d.comb += [
            is_empty.eq(y.is_empty | x.is_empty),
            self.place.frac_y.eq(frac_y),
            self.place.frac_x.eq(frac_x),
            self.place.product.eq(multiplier.product),
        ]
        with m.If(self.windows.ready):
            m.d.sync += self.windows.valid.eq(0)
        with m.If(emit):
            m.d.sync += [
                self.windows.valid.eq(1),
                window.addr.eq(truncate(addresses.addr + x.low, window.addr.shape())),
                window.addr_b.eq(addresses.addr_b),
                window.num_rows.eq(truncate(Mux(pool, Mux(is_empty, 0, y.count), 1), window.num_rows.shape())),
                window.num_cols.eq(
                    truncate(Mux(pool, Mux(is_empty, 0, x.count), parts.num_cols), window.num_cols.shape())
                ),
                window.is_fill.eq(parts.is_fill),
                window.last.eq(is_last),
                frac_y.eq(truncate(multiplier.factor_a, frac_y.shape())),
                frac_x.eq(truncate(multiplier.factor_b, frac_x.shape())),
            ]


def pair_mode(step: Signal, num_lanes: int, num_banks: int) -> tuple[Value, Value]:
    """How both gathers share the lanes of a `COPY` whose step would put lanes into one bank, if it does: half of the
    lanes each, which lie in different banks, or one lane each.
    """
    free_bits = (num_banks // num_lanes).bit_length()
    is_conflict = (step != 0) & ~step[:free_bits].any()
    return is_conflict & step[free_bits], is_conflict & ~step[free_bits]


def pool_mode(job, num_lanes: int, windows: tuple[TpOp, ...] = TP_WINDOWS) -> tuple[Value, Value]:
    """What the second gather takes of a window of int8, if it does: the next row, where a row has no more than
    `num_lanes` columns, or the next `num_lanes` columns.
    """
    is_pair = is_pool(job.op, windows) & (job.op != TpOp.BILINEAR) & ~job.is_wide
    is_narrow = job.kernel_w <= num_lanes
    return is_pair & is_narrow, is_pair & ~is_narrow


class GroupWalk(wiring.Component):
    """Cuts windows into groups of bytes that the buffer reads at once: row by row, up to `num_lanes` columns each; in
    pools of int8 of two rows, or twice as many columns, as `pool_mode` says.

    Columns are `step_2` bytes apart (pools, `BILINEAR`: 1), `b_step_2` in operand B, rows `tile_iw`. Groups of two
    operands have up to `num_math_lanes`. When a step would put two lanes into one bank, groups have one byte; a step of
    0 does not, all lanes then read one byte. `COPY`, which has no operand B, reads with both gathers then, as
    `pair_mode` says: its groups have two bytes, or are full. Nothing is read for bytes outside the image, so their
    groups are always full.

    | cycle | what happens |
    | -- | -- |
    | a window is taken | from the next cycle on its first group is offered |
    | a group is taken, not the last of the row | the next group of the row |
    | a group is taken, the last of the row | the first group of the next row |
    | a group is taken, the last of the window | the next window is taken, if there is one |

    Latency: 1 cycle. Throughput: a group per cycle, also from one window to the next.

    Parameters
    ----------
    addr_bits : int
        Bits of an address within a buffer half.
    num_lanes : int
        Bytes of a group, a power of two.
    num_math_lanes : int
        Elements of a group of two operands: `num_lanes`, 2 or 1.
    num_banks : int
        Banks of the buffer, a power of two of at least `num_lanes`.
    windows : tuple of TpOp
        The operations on windows that there are.

    Members
    -------
    job : In(fields of the descriptor)
        Constant from two cycles before its first window to its last group.
    windows : In(stream of `window_layout`)
        Taken with the last group of the window before.
    place_in : In(Place)
        Of the window that is offered at `windows`.
    groups : Out(stream of `group_layout`)
        An empty window gives a group with a `count` of 0 that has `window_last`.
    steps : Out(array of 2 x addr_bits)
        Bytes from lane to lane of A and of B, constant during a descriptor; the same in `COPY`.
    """

    def __init__(
        self,
        addr_bits: int,
        *,
        num_lanes: int,
        num_math_lanes: int,
        num_banks: int,
        windows: tuple[TpOp, ...] = TP_WINDOWS,
    ):
        self._num_lanes, self._num_math_lanes, self._num_banks = num_lanes, num_math_lanes, num_banks
        self._windows = windows
        super().__init__(
            {
                "job": In(_GROUP_JOB),
                "windows": In(stream.Signature(window_layout(addr_bits))),
                "groups": Out(stream.Signature(group_layout(addr_bits, num_lanes))),
                "place_in": In(Place),
                "steps": Out(data.ArrayLayout(addr_bits, 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, windows, groups = self.job, self.windows, self.groups
        lanes = self._num_lanes

        # Neighbouring lanes hit different banks unless the step has too many factors of two.
        is_wide, is_two = Signal(), Signal()
        is_two_rows, is_two_groups = Signal(), Signal()
        is_copy, halves, pairs = Signal(), Signal(), Signal()
        math_lanes, has_windows = self._num_math_lanes, is_pool(job.op, self._windows)
        steps = self.steps[0], self.steps[1]
        m.d.comb += [
            is_copy.eq(job.op == TpOp.COPY),
            Cat(halves, pairs).eq(Cat(*pair_mode(steps[0], lanes, self._num_banks))),
        ]
        has_b = Cat(job.op == op for op in TP_TWO_OPERANDS).any()

        def is_free(num_lanes):
            """Do so many lanes hit different banks?"""
            free_bits = (self._num_banks // num_lanes).bit_length()
            return Cat(each[:free_bits].any() | (each == 0) for each in steps).all()

        group_steps = [Signal.like(each, name=f"group_step_{n}") for n, each in enumerate(steps)]
        m.d.sync += [
            steps[0].eq(truncate(Mux(has_windows, 1, job.step_2), steps[0].shape())),
            steps[1].eq(truncate(Mux(has_windows, 1, Mux(is_copy, job.step_2, job.b_step_2)), steps[1].shape())),
            is_wide.eq(Mux(has_b, is_free(math_lanes) & (math_lanes == lanes), is_free(lanes) | (is_copy & halves))),
            is_two.eq(Mux(has_b, is_free(2) & (math_lanes == 2), is_copy & pairs)),
            Cat(is_two_rows, is_two_groups).eq(Cat(*pool_mode(job, lanes, self._windows))),
        ]
        m.d.sync += [
            total.eq(truncate(Mux(is_wide, each * lanes << is_two_groups, Mux(is_two, each << 1, each)), total.shape()))
            for total, each in zip(group_steps, steps, strict=True)
        ]

        is_active = Signal()
        is_last = Signal()  # window of the descriptor
        is_fill = Signal()
        is_full = Signal()  # groups have `num_lanes` bytes, where the row has as many
        is_short = Signal()  # a row is a group
        is_row_end = Signal()  # nothing follows in the row
        is_last_row = Signal()
        is_window_end = Signal()
        row_addr = Signal.like(groups.p.addr)
        num_cols = Signal(16)
        cols_left = Signal(16)
        rows_left = Signal(16)
        row_step = Signal.like(groups.p.addr)
        num_full = Signal(range(lanes + 1))
        rest = Signal(range(2 * lanes + 1))  # columns of the last group of a row
        num_next = Signal.like(groups.p.count)  # of the second gather, where it takes the next columns
        m.d.sync += row_step.eq(truncate(job.tile_iw << is_two_rows, row_step.shape()))
        m.d.comb += [
            is_full.eq(is_wide | is_fill),
            num_full.eq(Mux(is_full, lanes, Mux(is_two, 2, 1))),
            is_window_end.eq(is_row_end & is_last_row),
            rest.eq(truncate(cols_left, rest.shape())),
            num_next.eq(Mux(~is_row_end, lanes, Mux(rest > lanes, truncate(rest - lanes, num_next.shape()), 0))),
            groups.valid.eq(is_active),
            groups.p.count.eq(Mux(is_row_end & (rest <= lanes), truncate(rest, groups.p.count.shape()), num_full)),
            groups.p.count_b.eq(
                Mux(is_two_rows, Mux(is_last_row & ~rows_left[1], 0, groups.p.count), Mux(is_two_groups, num_next, 0))
            ),
            groups.p.is_fill.eq(is_fill),
            groups.p.window_last.eq(is_window_end),
            groups.p.last.eq(is_window_end & is_last),
            windows.ready.eq(~is_active | (groups.ready & is_window_end)),
        ]
        addr = Signal.like(groups.p.addr)
        addr_b = Signal.like(groups.p.addr)
        is_row_0 = Signal()
        place = Signal(Place)
        m.d.comb += [
            groups.p.addr.eq(addr),
            groups.p.addr_b.eq(addr_b),
            groups.p.is_row_0.eq(is_row_0),
            groups.p.place.eq(place),
        ]

        def fits(cols, is_full, num_groups):
            """Are these columns no more than so many groups?"""
            num_full = Mux(is_two_groups, 2 * lanes, Mux(is_full, lanes, Mux(is_two, 2, 1)))
            return is_at_most(cols, num_full * num_groups)

        is_first_short = fits(windows.p.num_cols, is_wide | windows.p.is_fill, 1)
        with m.If(windows.ready):
            m.d.sync += [
                is_active.eq(windows.valid),
                is_last.eq(windows.p.last),
                is_fill.eq(windows.p.is_fill),
                row_addr.eq(windows.p.addr),
                addr.eq(windows.p.addr),
                addr_b.eq(windows.p.addr_b),
                is_row_0.eq(1),
                place.eq(self.place_in),
                num_cols.eq(windows.p.num_cols),
                cols_left.eq(windows.p.num_cols),
                rows_left.eq(windows.p.num_rows),
                is_last_row.eq(is_at_most(windows.p.num_rows, Mux(is_two_rows, 2, 1))),
                is_row_end.eq(is_first_short),
                is_short.eq(is_first_short),
            ]
        with m.Elif(groups.ready):
            with m.If(is_row_end):
                m.d.sync += [
                    row_addr.eq(row_addr + row_step),
                    addr.eq(row_addr + row_step),
                    cols_left.eq(num_cols),
                    rows_left.eq(rows_left - Mux(is_two_rows, 2, 1)),
                    is_row_0.eq(0),
                    is_last_row.eq(is_at_most(rows_left, Mux(is_two_rows, 4, 2))),
                    is_row_end.eq(is_short),
                ]
            with m.Else():
                m.d.sync += [
                    is_row_end.eq(fits(cols_left, is_full, 2)),
                    addr.eq(addr + group_steps[0]),
                    addr_b.eq(addr_b + group_steps[1]),
                    cols_left.eq(cols_left - Mux(is_two_groups, 2 * lanes, num_full)),
                ]
        return m
