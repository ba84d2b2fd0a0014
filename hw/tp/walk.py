"""Address generation of the TP engine: descriptor loops to windows, windows to groups of buffer bytes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.isa import FRACTION_BITS, TP, TpOp

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
_GROUP_JOB = TP.subset("op", "step_2", "b_step_2", "tile_iw")


def is_pool(op) -> Value:
    """Whether `op`, a `TpOp` value, reduces a window to one byte."""
    return (op == TpOp.MAX_POOL) | (op == TpOp.AVG_POOL) | (op == TpOp.BILINEAR)


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
    """Up to `num_lanes` bytes that are read at once: `count` bytes from `addr`, a step apart, and from `addr_b`.

    `is_row_0`: of the first row of its window. `is_fill`: nothing is read, the bytes are outside the image.
    `window_last` ends a window, `last` the descriptor.
    """
    return data.StructLayout(
        {
            "addr": addr_bits,
            "addr_b": addr_bits,
            "count": range(num_lanes + 1),
            "is_row_0": 1,
            "is_fill": 1,
            "window_last": 1,
            "last": 1,
        }
    )


class _WindowState:
    """Where `WindowWalk` is.

    left : iterations of each loop that follow; reload_2 : those of the innermost in a row
    plane, row, row_start, row_step, plane_b, row_b : bytes of operands A and B; `row` is y * tile_iw in pools, kept
        incrementally
    y, x, y_frac, x_frac : of the window
    inside_start, inside_end : where COPY's image begins and ends within a row, from num_before and image_end
    part_cols, parts : columns of the parts that this makes (before, inside, behind), and those to come; parts_left :
        without the first, if it `has_more`
    factor_a, factor_b, product : a multiplier makes the first row and its step, and the product of a place; it stands
        while `is_held`
    y_low, y_high, x_low, x_high, row_addr, row_addr_b, is_row_inside : the window, clipped; num_rows, num_cols : its
        extents, not positive if it `is_empty`
    frac_y, frac_x : of the window that is offered; next_y, next_x : of those behind it and below it, `has_carry` if its
        fraction overflows
    """

    def __init__(self, bits: int):
        factor_bits = max(bits, FRACTION_BITS)
        self.left, self.reload_2 = [Signal(16, name=f"left_{n}") for n in range(3)], Signal(16, name="reload_2")
        self.plane, self.row, self.row_start, self.row_step, self.plane_b, self.row_b = (
            Signal(bits, name=name) for name in ("plane", "row", "row_start", "row_step", "plane_b", "row_b")
        )
        self.y, self.x = (Signal(signed(26), name=name) for name in "yx")
        self.y_frac, self.x_frac = (Signal(FRACTION_BITS, name=name) for name in ("y_frac", "x_frac"))
        self.num_before, self.image_end = Signal(17, name="num_before"), Signal(18, name="image_end")
        self.inside_start, self.inside_end = (Signal(16, name=name) for name in ("inside_start", "inside_end"))
        self.part_cols = [Signal(16, name=name) for name in ("cols_before", "cols_inside", "cols_behind")]
        self.parts, self.parts_left = (Signal(3, name=name) for name in ("parts", "parts_left"))
        self.factor_a, self.factor_b = (Signal(factor_bits, name=name) for name in ("factor_a", "factor_b"))
        self.product, self.is_held = Signal(max(bits, 2 * FRACTION_BITS), name="product"), Signal(name="is_held")
        self.y_low, self.x_low = (Signal(16, name=name) for name in ("y_low", "x_low"))
        self.y_high, self.x_high = (Signal(signed(27), name=name) for name in ("y_high", "x_high"))
        self.row_addr, self.row_addr_b = (Signal(bits, name=name) for name in ("row_addr", "row_addr_b"))
        self.num_rows, self.num_cols = (Signal(signed(28), name=name) for name in ("num_rows", "num_cols"))
        self.frac_y, self.frac_x = (Signal(FRACTION_BITS, name=name) for name in ("frac_y", "frac_x"))
        self.next_y, self.next_x = (Signal(signed(26 + FRACTION_BITS), name=name) for name in ("next_y", "next_x"))
        self.has_carry, self.has_more, self.is_empty, self.is_row_inside = (
            Signal(name=name) for name in ("has_carry", "has_more", "is_empty", "is_row_inside")
        )


class WindowWalk(wiring.Component):
    """The outer loops of a TP descriptor.

    Pools, `BILINEAR`: a window per output, clipped to the image, in the order of the loops. Others: a window of one row
    of `num_2` elements per iteration of the two outer loops; `COPY` cuts it where the image begins and ends.

    Latency: 5 cycles from `start` to the first window. Throughput: a window in two cycles, further parts of a row in
    one each.

    Parameters
    ----------
    addr_bits : int
        Bits of an address within a buffer half; addresses are computed modulo this.

    Members
    -------
    job : In
        Fields of the descriptor, constant from `start` to the last window. Every `num_*` is at least 1.
    start : In(1)
        Strobe, only when the last window of the previous descriptor has been taken.
    windows : Out(stream of `window_layout`)
    place : Out(Place)
        Of the window that is offered; for `BILINEAR`.
    """

    def __init__(self, addr_bits: int):
        self._addr_bits = addr_bits
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
        job, windows, state = self.job, self.windows, _WindowState(self._addr_bits)
        pool, is_copy, can_emit = Signal(), Signal(), Signal()
        m.d.comb += [
            pool.eq(is_pool(job.op)),
            is_copy.eq(job.op == TpOp.COPY),
            can_emit.eq(~windows.valid | windows.ready),
        ]
        self._look_ahead(m, state, pool, is_copy)
        with m.If(~state.is_held):
            m.d.sync += state.product.eq(state.factor_a * state.factor_b)
        with m.If(windows.ready):
            m.d.sync += windows.valid.eq(0)

        with m.FSM() as fsm:
            m.d.comb += state.is_held.eq(fsm.ongoing("EMIT") & ~can_emit)
            with m.State("IDLE"):
                self._start(m, state)
                with m.If(self.start):
                    m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.d.sync += [
                    state.factor_a.eq(job.stride_h),
                    state.inside_start.eq(
                        Mux(is_copy, Mux(state.num_before > job.num_2, job.num_2, state.num_before), 0)
                    ),
                    state.inside_end.eq(Mux(is_copy & (state.image_end < job.num_2), state.image_end, job.num_2)),
                ]
                m.next = "ROW_START"
            with m.State("ROW_START"):
                cols = state.inside_start, state.inside_end - state.inside_start, job.num_2 - state.inside_end
                m.d.sync += [
                    state.row.eq(Mux(pool, state.product, 0)),
                    state.row_start.eq(Mux(pool, state.product, 0)),
                    *(part.eq(count) for part, count in zip(state.part_cols, cols, strict=True)),
                ]
                m.next = "ROW_STEP"
            with m.State("ROW_STEP"):
                m.d.sync += state.row_step.eq(Mux(pool, state.product, job.step_1))
                m.next = "CLIP"
            with m.State("CLIP"):
                self._clip(m, state, pool, is_copy)
                m.next = "EMIT"
            with m.State("EMIT"), m.If(can_emit):
                self._emit(m, state, pool)
                m.next = "CLIP"
                self._advance(m, state, is_copy)
        return m

    def _look_ahead(self, m, state, pool, is_copy):
        """What becomes of the state in the next steps."""
        job, step_y_frac = self.job, Signal(FRACTION_BITS)
        m.d.comb += [
            state.parts_left.eq(state.parts & (state.parts - 1)[:3]),
            state.has_more.eq(state.parts_left != 0),
            state.reload_2.eq(Mux(pool, job.num_2 - 1, 0)),
            state.num_rows.eq(state.y_high - state.y_low),
            state.num_cols.eq(state.x_high - state.x_low),
            state.is_empty.eq((state.num_rows <= 0) | (state.num_cols <= 0)),
            step_y_frac.eq(Mux(pool, job.stride_h_frac, 0)),
            state.next_y.eq(Cat(state.y_frac, state.y).as_signed() + Cat(step_y_frac, Mux(is_copy, 1, job.stride_h))),
            state.next_x.eq(Cat(state.x_frac, state.x).as_signed() + Cat(job.stride_w_frac, job.stride_w)),
            state.has_carry.eq(pool & (state.y_frac + step_y_frac)[FRACTION_BITS]),
            self.place.frac_y.eq(state.frac_y),
            self.place.frac_x.eq(state.frac_x),
            self.place.product.eq(state.product),
        ]

    def _start(self, m, state):
        """The first window of a descriptor."""
        job = self.job
        m.d.sync += [
            *(
                left.eq(count)
                for left, count in zip(state.left, (job.num_0 - 1, job.num_1 - 1, state.reload_2), strict=True)
            ),
            state.plane.eq(0),
            state.y.eq(job.start_y),
            state.x.eq(job.start_x),
            state.y_frac.eq(job.start_y_frac),
            state.x_frac.eq(job.start_x_frac),
            state.plane_b.eq(0),
            state.row_b.eq(0),
            state.factor_a.eq(job.start_y),
            state.factor_b.eq(job.tile_iw),
            state.num_before.eq(-job.start_x),
            state.image_end.eq(job.tile_iw - job.start_x),
        ]

    def _clip(self, m, state, pool, is_copy):
        """Cut the window to the image, or COPY's row to its parts."""
        job, y, x = self.job, state.y, state.x
        y_end, x_end = Signal(signed(27)), Signal(signed(27))
        m.d.comb += [y_end.eq(y + job.kernel_h), x_end.eq(x + job.kernel_w)]
        m.d.sync += [
            state.y_low.eq(Mux(y < 0, 0, y)),
            state.y_high.eq(Mux(y_end > job.tile_ih, job.tile_ih, y_end)),
            state.x_low.eq(Mux((x < 0) | ~pool, 0, x)),
            state.x_high.eq(Mux(x_end > job.tile_iw, job.tile_iw, x_end)),
            state.row_addr.eq(state.plane + Mux((y < 0) & pool, 0, state.row)),
            state.row_addr_b.eq(state.plane_b + state.row_b),
            # Where a row or column is clipped, the other one counts alone.
            state.factor_a.eq(Mux((y < 0) | (y_end > job.tile_ih), 0, state.y_frac)),
            state.factor_b.eq(Mux((x < 0) | (x_end > job.tile_iw), 0, state.x_frac)),
        ]
        with m.If(~is_copy | ((y >= 0) & (y < job.tile_ih))):
            m.d.sync += [
                state.is_row_inside.eq(1),
                state.parts.eq(Mux(pool, 0b010, Cat(cols != 0 for cols in state.part_cols))),
            ]
        with m.Else():
            m.d.sync += [state.is_row_inside.eq(0), state.parts.eq(0b001)]

    def _emit(self, m, state, pool):
        """Offer the window, or the next part of the row."""
        windows, parts = self.windows, state.parts
        row_cols = Signal(16)
        part_cols = Mux(parts[0], state.part_cols[0], Mux(parts[1], state.part_cols[1], state.part_cols[2]))
        m.d.comb += row_cols.eq(Mux(state.is_row_inside, part_cols, self.job.num_2))
        m.d.sync += [
            windows.valid.eq(1),
            windows.p.addr.eq(state.row_addr + state.x_low),
            windows.p.addr_b.eq(state.row_addr_b),
            state.frac_y.eq(state.factor_a),
            state.frac_x.eq(state.factor_b),
            windows.p.num_rows.eq(Mux(pool, Mux(state.is_empty, 0, state.num_rows), 1)),
            windows.p.num_cols.eq(Mux(pool, Mux(state.is_empty, 0, state.num_cols), row_cols)),
            windows.p.is_fill.eq(~state.is_row_inside | (parts[:2] != 0b10)),
            windows.p.last.eq(0),
            parts.eq(state.parts_left),
        ]

    def _advance(self, m, state, is_copy):
        """Go on to the next part, window of the row, row or plane; or there is none, and the walk is over."""
        job, (left_0, left_1, left_2) = self.job, state.left
        y, x, y_frac, x_frac = state.y, state.x, state.y_frac, state.x_frac
        with m.If(state.has_more):
            m.next = "EMIT"
        with m.Elif(left_2 != 0):
            m.d.sync += [left_2.eq(left_2 - 1), x_frac.eq(state.next_x), x.eq(state.next_x >> FRACTION_BITS)]
        with m.Else():
            m.d.sync += [left_2.eq(state.reload_2), x.eq(job.start_x), x_frac.eq(job.start_x_frac)]
            with m.If(left_1 != 0):
                m.d.sync += [
                    left_1.eq(left_1 - 1),
                    y_frac.eq(state.next_y),
                    y.eq(state.next_y >> FRACTION_BITS),
                    state.row_b.eq(state.row_b + job.b_step_1),
                ]
                with m.If(~is_copy | (y >= 0)):
                    m.d.sync += state.row.eq(state.row + state.row_step + Mux(state.has_carry, job.tile_iw, 0))
            with m.Else():
                m.d.sync += [
                    left_1.eq(job.num_1 - 1),
                    y.eq(job.start_y),
                    y_frac.eq(job.start_y_frac),
                    state.row.eq(state.row_start),
                    state.row_b.eq(0),
                    left_0.eq(left_0 - 1),
                    state.plane.eq(state.plane + job.step_0),
                    state.plane_b.eq(state.plane_b + job.b_step_0),
                ]
                with m.If(left_0 == 0):
                    m.d.sync += self.windows.p.last.eq(1)
                    m.next = "IDLE"


class GroupWalk(wiring.Component):
    """Cuts windows into groups of bytes that the buffer reads at once: row by row, up to `num_lanes` columns each.

    Columns are `step_2` bytes apart (pools, `BILINEAR`: 1), `b_step_2` in operand B, rows `tile_iw`. When a step would
    put two lanes into one bank, groups have one byte; a step of 0 does not, all lanes then read one byte. Nothing is
    read for bytes outside the image, so their groups are always full.

    Latency: 1 cycle. Throughput: a group per cycle, also from one window to the next.

    Parameters
    ----------
    addr_bits : int
        Bits of an address within a buffer half.
    num_lanes, num_banks : int
        Bytes of a group, a power of two; banks of the buffer, a power of two of at least `num_lanes`.

    Members
    -------
    job : In
        Fields of the descriptor, constant from two cycles before its first window to its last group.
    windows : In(stream of `window_layout`)
    place_in, place : In(Place), Out(Place)
        Of the window that is offered at `windows`, and of the one that groups are cut from.
    groups : Out(stream of `group_layout`)
        An empty window gives a group with a `count` of 0 that has `window_last`.
    steps : Out(array of 2 x addr_bits)
        Bytes from lane to lane of A and of B, constant during a descriptor.
    """

    def __init__(self, addr_bits: int, *, num_lanes: int, num_banks: int):
        self._num_lanes, self._num_banks = num_lanes, num_banks
        super().__init__(
            {
                "job": In(_GROUP_JOB),
                "windows": In(stream.Signature(window_layout(addr_bits))),
                "groups": Out(stream.Signature(group_layout(addr_bits, num_lanes))),
                "place_in": In(Place),
                "place": Out(Place),
                "steps": Out(data.ArrayLayout(addr_bits, 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, windows, groups = self.job, self.windows, self.groups
        lanes = self._num_lanes

        # Lanes 0 .. num_lanes-1 hit different banks unless the step has too many factors of two.
        is_wide = Signal()
        free_bits = (self._num_banks // lanes).bit_length()
        steps = self.steps[0], self.steps[1]
        group_steps = [Signal.like(each, name=f"group_step_{n}") for n, each in enumerate(steps)]
        m.d.sync += [
            steps[0].eq(Mux(is_pool(job.op), 1, job.step_2)),
            steps[1].eq(Mux(is_pool(job.op), 1, job.b_step_2)),
            is_wide.eq(Cat(each[:free_bits].any() | (each == 0) for each in steps).all()),
        ]
        m.d.sync += [total.eq(Mux(is_wide, each * lanes, each)) for total, each in zip(group_steps, steps, strict=True)]

        is_active, is_last, is_fill, is_full = Signal(), Signal(), Signal(), Signal()
        row_addr = Signal.like(groups.p.addr)
        num_cols, cols_left, rows_left = Signal(16), Signal(16), Signal(16)
        is_row_end, is_last_row, is_short, is_window_end = (
            Signal(),
            Signal(),
            Signal(),
            Signal(),
        )  # short: a row is a group
        m.d.comb += [
            is_full.eq(is_wide | is_fill),
            is_window_end.eq(is_row_end & is_last_row),
            groups.valid.eq(is_active),
            groups.p.count.eq(Mux(is_row_end, cols_left, Mux(is_full, lanes, 1))),
            groups.p.is_fill.eq(is_fill),
            groups.p.window_last.eq(is_window_end),
            groups.p.last.eq(is_window_end & is_last),
            windows.ready.eq(~is_active | (groups.ready & is_window_end)),
        ]
        addr, addr_b = Signal.like(groups.p.addr), Signal.like(groups.p.addr)
        is_row_0 = Signal()
        m.d.comb += [groups.p.addr.eq(addr), groups.p.addr_b.eq(addr_b), groups.p.is_row_0.eq(is_row_0)]

        is_first_short = Mux(is_wide | windows.p.is_fill, windows.p.num_cols <= lanes, windows.p.num_cols <= 1)
        with m.If(windows.ready):
            m.d.sync += [
                is_active.eq(windows.valid),
                is_last.eq(windows.p.last),
                is_fill.eq(windows.p.is_fill),
                row_addr.eq(windows.p.addr),
                addr.eq(windows.p.addr),
                addr_b.eq(windows.p.addr_b),
                is_row_0.eq(1),
                self.place.eq(self.place_in),
                num_cols.eq(windows.p.num_cols),
                cols_left.eq(windows.p.num_cols),
                rows_left.eq(windows.p.num_rows),
                is_last_row.eq(windows.p.num_rows <= 1),
                is_row_end.eq(is_first_short),
                is_short.eq(is_first_short),
            ]
        with m.Elif(groups.ready):
            with m.If(is_row_end):
                m.d.sync += [
                    row_addr.eq(row_addr + job.tile_iw),
                    addr.eq(row_addr + job.tile_iw),
                    cols_left.eq(num_cols),
                    rows_left.eq(rows_left - 1),
                    is_row_0.eq(0),
                    is_last_row.eq(rows_left <= 2),
                    is_row_end.eq(is_short),
                ]
            with m.Else():
                m.d.sync += [
                    is_row_end.eq(Mux(is_full, cols_left <= 2 * lanes, cols_left <= 2)),
                    addr.eq(addr + group_steps[0]),
                    addr_b.eq(addr_b + group_steps[1]),
                    cols_left.eq(cols_left - groups.p.count),
                ]
        return m
