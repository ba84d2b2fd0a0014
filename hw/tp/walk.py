"""Address generation of the TP engine: descriptor loops to windows, windows to groups of buffer bytes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.isa import FRACTION_BITS, TP, TpOp

__all__ = ["GroupWalk", "Place", "WindowWalk", "group_layout", "is_pool", "window_layout"]

_WINDOW_JOB = TP.subset("op", "num_0", "num_1", "num_2", "step_0", "step_1", "b_step_0", "b_step_1", "kernel_h", "kernel_w", "stride_h", "stride_w",
                        "stride_h_frac", "stride_w_frac", "start_y", "start_x", "start_y_frac", "start_x_frac", "tile_ih", "tile_iw")
_GROUP_JOB = TP.subset("op", "step_2", "b_step_2", "tile_iw")


def is_pool(op) -> Value:
    """Whether `op`, a `TpOp` value, reduces a window to one byte."""
    return (op == TpOp.MAX_POOL) | (op == TpOp.AVG_POOL) | (op == TpOp.BILINEAR)


Place = data.StructLayout({"frac_y": FRACTION_BITS, "frac_x": FRACTION_BITS, "product": 2 * FRACTION_BITS})
"""How far a place lies from the first row and column of its window, in 2**-FRACTION_BITS, and the product of both."""


def window_layout(addr_bits: int) -> data.StructLayout:
    """Bytes in the buffer: `num_rows` rows of `num_cols` columns from `addr`; `last` of the descriptor.

    A window of a pool or of `BILINEAR`, clipped to the image, or a row of elements of the other operations (from `addr_b` for operand B); `is_fill`
    says that they are outside the image. An empty window has `num_rows` and `num_cols` 0.
    """
    return data.StructLayout({"addr": addr_bits, "addr_b": addr_bits, "num_rows": 16, "num_cols": 16, "is_fill": 1, "last": 1})


def group_layout(addr_bits: int, num_lanes: int) -> data.StructLayout:
    """Up to `num_lanes` bytes that are read at once: `count` bytes from `addr`, a step apart, and from `addr_b`.

    `is_row_0`: of the first row of its window. `is_fill`: nothing is read, the bytes are outside the image. `window_last` ends a window, `last` the descriptor.
    """
    return data.StructLayout({
        "addr": addr_bits, "addr_b": addr_bits, "count": range(num_lanes + 1), "is_row_0": 1, "is_fill": 1, "window_last": 1, "last": 1,
    })


class WindowWalk(wiring.Component):
    """The outer loops of a TP descriptor.

    Pools, `BILINEAR`: a window per output, clipped to the image, in the order of the loops. Others: a window of one row of
    `num_2` elements per iteration of the two outer loops; `COPY` cuts it where the image begins and ends.

    Latency: 5 cycles from `start` to the first window. Throughput: a window in two cycles, further parts of a row in one each.

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
        super().__init__({
            "job": In(_WINDOW_JOB),
            "start": In(1),
            "windows": Out(stream.Signature(window_layout(addr_bits))),
            "place": Out(Place),
        })

    def elaborate(self, platform):
        m = Module()
        job, windows = self.job, self.windows
        bits = self._addr_bits

        pool, is_copy = Signal(), Signal()
        m.d.comb += [pool.eq(is_pool(job.op)), is_copy.eq(job.op == TpOp.COPY)]

        # Where COPY's image begins and ends within a row, and the parts that this makes: before, inside, behind.
        num_before, image_end = Signal(17), Signal(18)
        inside_start, inside_end = Signal(16), Signal(16)
        part_cols = [Signal(16, name=name) for name in ("cols_before", "cols_inside", "cols_behind")]
        parts, parts_left = Signal(3), Signal(3)
        is_row_inside, has_more = Signal(), Signal()
        m.d.comb += [
            parts_left.eq(parts & (parts - 1)[:3]),
            has_more.eq(parts_left != 0),
        ]

        left_0, left_1, left_2 = Signal(16), Signal(16), Signal(16)
        reload_2 = Signal(16)
        m.d.comb += reload_2.eq(Mux(pool, job.num_2 - 1, 0))
        plane = Signal(bits)
        y, x, y_frac, x_frac = Signal(signed(26)), Signal(signed(26)), Signal(FRACTION_BITS), Signal(FRACTION_BITS)
        next_y, next_x = Signal(signed(26 + FRACTION_BITS)), Signal(signed(26 + FRACTION_BITS))
        step_y_frac, has_carry = Signal(FRACTION_BITS), Signal()
        row, row_start, row_step = Signal(bits), Signal(bits), Signal(bits)
        plane_b, row_b = Signal(bits), Signal(bits)
        m.d.comb += [
            step_y_frac.eq(Mux(pool, job.stride_h_frac, 0)),
            next_y.eq(Cat(y_frac, y).as_signed() + Cat(step_y_frac, Mux(is_copy, 1, job.stride_h))),
            next_x.eq(Cat(x_frac, x).as_signed() + Cat(job.stride_w_frac, job.stride_w)),
            has_carry.eq(pool & (y_frac + step_y_frac)[FRACTION_BITS]),
        ]

        # row = y * tile_iw in pools is kept incrementally; this multiplier makes its start and step, and the product of a place.
        factor_bits = max(bits, FRACTION_BITS)
        factor_a, factor_b, product = Signal(factor_bits), Signal(factor_bits), Signal(max(bits, 2 * FRACTION_BITS))
        can_emit, is_held = Signal(), Signal()
        m.d.comb += can_emit.eq(~windows.valid | windows.ready)
        with m.If(~is_held):
            m.d.sync += product.eq(factor_a * factor_b)
        frac_y, frac_x = Signal(FRACTION_BITS), Signal(FRACTION_BITS)
        m.d.comb += [self.place.frac_y.eq(frac_y), self.place.frac_x.eq(frac_x), self.place.product.eq(product)]

        y_low, x_low = Signal(16), Signal(16)
        y_high, x_high = Signal(signed(27)), Signal(signed(27))
        row_addr, row_addr_b = Signal(bits), Signal(bits)
        num_rows, num_cols = Signal(signed(28)), Signal(signed(28))
        m.d.comb += [num_rows.eq(y_high - y_low), num_cols.eq(x_high - x_low)]
        is_empty = Signal()
        m.d.comb += is_empty.eq((num_rows <= 0) | (num_cols <= 0))

        with m.If(windows.ready):
            m.d.sync += windows.valid.eq(0)

        with m.FSM() as fsm:
            m.d.comb += is_held.eq(fsm.ongoing("EMIT") & ~can_emit)
            with m.State("IDLE"):
                m.d.sync += [
                    left_0.eq(job.num_0 - 1), left_1.eq(job.num_1 - 1), left_2.eq(reload_2),
                    plane.eq(0), y.eq(job.start_y), x.eq(job.start_x), y_frac.eq(job.start_y_frac), x_frac.eq(job.start_x_frac),
                    plane_b.eq(0), row_b.eq(0),
                    factor_a.eq(job.start_y), factor_b.eq(job.tile_iw),
                    num_before.eq(-job.start_x), image_end.eq(job.tile_iw - job.start_x),
                ]
                with m.If(self.start):
                    m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.d.sync += [
                    factor_a.eq(job.stride_h),
                    inside_start.eq(Mux(is_copy, Mux(num_before > job.num_2, job.num_2, num_before), 0)),
                    inside_end.eq(Mux(is_copy & (image_end < job.num_2), image_end, job.num_2)),
                ]
                m.next = "ROW_START"
            with m.State("ROW_START"):
                m.d.sync += [
                    row.eq(Mux(pool, product, 0)), row_start.eq(Mux(pool, product, 0)),
                    part_cols[0].eq(inside_start), part_cols[1].eq(inside_end - inside_start), part_cols[2].eq(job.num_2 - inside_end),
                ]
                m.next = "ROW_STEP"
            with m.State("ROW_STEP"):
                m.d.sync += row_step.eq(Mux(pool, product, job.step_1))
                m.next = "CLIP"
            with m.State("CLIP"):
                y_end, x_end = Signal(signed(27)), Signal(signed(27))
                m.d.comb += [y_end.eq(y + job.kernel_h), x_end.eq(x + job.kernel_w)]
                m.d.sync += [
                    y_low.eq(Mux(y < 0, 0, y)), y_high.eq(Mux(y_end > job.tile_ih, job.tile_ih, y_end)),
                    x_low.eq(Mux((x < 0) | ~pool, 0, x)), x_high.eq(Mux(x_end > job.tile_iw, job.tile_iw, x_end)),
                    row_addr.eq(plane + Mux((y < 0) & pool, 0, row)), row_addr_b.eq(plane_b + row_b),
                    # Where a row or column is clipped, the other one counts alone.
                    factor_a.eq(Mux((y < 0) | (y_end > job.tile_ih), 0, y_frac)), factor_b.eq(Mux((x < 0) | (x_end > job.tile_iw), 0, x_frac)),
                ]
                with m.If(~is_copy | ((y >= 0) & (y < job.tile_ih))):
                    m.d.sync += [is_row_inside.eq(1), parts.eq(Mux(pool, 0b010, Cat(cols != 0 for cols in part_cols)))]
                with m.Else():
                    m.d.sync += [is_row_inside.eq(0), parts.eq(0b001)]
                m.next = "EMIT"
            with m.State("EMIT"), m.If(can_emit):
                row_cols = Signal(16)
                m.d.comb += row_cols.eq(Mux(is_row_inside, Mux(parts[0], part_cols[0], Mux(parts[1], part_cols[1], part_cols[2])), job.num_2))
                m.d.sync += [
                    windows.valid.eq(1),
                    windows.p.addr.eq(row_addr + x_low), windows.p.addr_b.eq(row_addr_b),
                    frac_y.eq(factor_a), frac_x.eq(factor_b),
                    windows.p.num_rows.eq(Mux(pool, Mux(is_empty, 0, num_rows), 1)),
                    windows.p.num_cols.eq(Mux(pool, Mux(is_empty, 0, num_cols), row_cols)),
                    windows.p.is_fill.eq(~is_row_inside | (parts[:2] != 0b10)),
                    windows.p.last.eq(0),
                    parts.eq(parts_left),
                ]
                m.next = "CLIP"
                with m.If(has_more):
                    m.next = "EMIT"
                with m.Elif(left_2 != 0):
                    m.d.sync += [left_2.eq(left_2 - 1), x_frac.eq(next_x), x.eq(next_x >> FRACTION_BITS)]
                with m.Else():
                    m.d.sync += [left_2.eq(reload_2), x.eq(job.start_x), x_frac.eq(job.start_x_frac)]
                    with m.If(left_1 != 0):
                        m.d.sync += [left_1.eq(left_1 - 1), y_frac.eq(next_y), y.eq(next_y >> FRACTION_BITS), row_b.eq(row_b + job.b_step_1)]
                        with m.If(~is_copy | (y >= 0)):
                            m.d.sync += row.eq(row + row_step + Mux(has_carry, job.tile_iw, 0))
                    with m.Else():
                        m.d.sync += [
                            left_1.eq(job.num_1 - 1), y.eq(job.start_y), y_frac.eq(job.start_y_frac), row.eq(row_start), row_b.eq(0),
                            left_0.eq(left_0 - 1), plane.eq(plane + job.step_0), plane_b.eq(plane_b + job.b_step_0),
                        ]
                        with m.If(left_0 == 0):
                            m.d.sync += windows.p.last.eq(1)
                            m.next = "IDLE"
        return m


class GroupWalk(wiring.Component):
    """Cuts windows into groups of bytes that the buffer reads at once: row by row, up to `num_lanes` columns each.

    Columns are `step_2` bytes apart (pools, `BILINEAR`: 1), `b_step_2` in operand B, rows `tile_iw`. When a step would put two lanes into
    one bank, groups have one byte; a step of 0 does not, all lanes then read one byte. Nothing is read for bytes outside the image, so their groups are always full.

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
        super().__init__({
            "job": In(_GROUP_JOB),
            "windows": In(stream.Signature(window_layout(addr_bits))),
            "groups": Out(stream.Signature(group_layout(addr_bits, num_lanes))),
            "place_in": In(Place), "place": Out(Place),
            "steps": Out(data.ArrayLayout(addr_bits, 2)),
        })

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
            steps[0].eq(Mux(is_pool(job.op), 1, job.step_2)), steps[1].eq(Mux(is_pool(job.op), 1, job.b_step_2)),
            is_wide.eq(Cat(each[:free_bits].any() | (each == 0) for each in steps).all()),
        ]
        m.d.sync += [total.eq(Mux(is_wide, each * lanes, each)) for total, each in zip(group_steps, steps, strict=True)]

        is_active, is_last, is_fill, is_full = Signal(), Signal(), Signal(), Signal()
        row_addr = Signal.like(groups.p.addr)
        num_cols, cols_left, rows_left = Signal(16), Signal(16), Signal(16)
        is_row_end, is_last_row, is_short, is_window_end = Signal(), Signal(), Signal(), Signal()  # short: a row is a group
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
                is_last.eq(windows.p.last), is_fill.eq(windows.p.is_fill),
                row_addr.eq(windows.p.addr), addr.eq(windows.p.addr), addr_b.eq(windows.p.addr_b),
                is_row_0.eq(1), self.place.eq(self.place_in),
                num_cols.eq(windows.p.num_cols), cols_left.eq(windows.p.num_cols),
                rows_left.eq(windows.p.num_rows), is_last_row.eq(windows.p.num_rows <= 1),
                is_row_end.eq(is_first_short), is_short.eq(is_first_short),
            ]
        with m.Elif(groups.ready):
            with m.If(is_row_end):
                m.d.sync += [
                    row_addr.eq(row_addr + job.tile_iw), addr.eq(row_addr + job.tile_iw),
                    cols_left.eq(num_cols), rows_left.eq(rows_left - 1), is_row_0.eq(0), is_last_row.eq(rows_left <= 2), is_row_end.eq(is_short),
                ]
            with m.Else():
                m.d.sync += [
                    is_row_end.eq(Mux(is_full, cols_left <= 2 * lanes, cols_left <= 2)),
                    addr.eq(addr + group_steps[0]), addr_b.eq(addr_b + group_steps[1]), cols_left.eq(cols_left - groups.p.count),
                ]
        return m
