"""Where `WindowWalk` is: its loops, the window on either axis, the row's address, and the parts of a COPY's row."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import truncate
from convoy.spec.isa import FRACTION_BITS, TP

__all__ = ["Axis", "Loops", "Multiplier", "RowAddresses", "RowParts"]


class Loops(wiring.Component):
    """Counts the iterations of the three loops of a descriptor; of the innermost only where it makes windows.

    | cycle | what happens |
    | -- | -- |
    | `load` | all loops are at their first iteration |
    | `step` | one of the `next_*` says which loop goes on, in the same cycle |

    Members
    -------
    job : In(fields of the descriptor)
        Constant from the cycle before the last `load` to the last `step`. Every `num_*` is at least 1.
    is_pool : In(1)
        Every iteration of the innermost loop is a window; otherwise all of them together are one.
    load : In(1)
        Strobe, may last for several cycles.
    step : In(1)
        Strobe: the window is done. Not together with `load`.
    next_col : Out(1)
        Strobe: the innermost loop goes on.
    next_row : Out(1)
        Strobe: the middle loop goes on, the innermost begins again.
    next_plane : Out(1)
        Strobe: the outermost loop goes on or ends, both others begin again.
    is_plane_end : Out(1)
        Valid before and with `step`: the middle loop is at its last iteration.
    is_last : Out(1)
        Valid before and with `step`: no window follows.
    """

    job: In(TP.subset("num_0", "num_1", "num_2"))
    is_pool: In(1)
    load: In(1)
    step: In(1)
    next_col: Out(1)
    next_row: Out(1)
    next_plane: Out(1)
    is_plane_end: Out(1)
    is_last: Out(1)

    def elaborate(self, platform):
        m = Module()
        ends = Signal(3)  # of each loop: this is its last iteration
        m.d.comb += [
            self.is_last.eq(ends.all()),
            self.is_plane_end.eq(ends[1]),
            self.next_col.eq(self.step & ~ends[2]),
            self.next_row.eq(self.step & ends[2] & ~ends[1]),
            self.next_plane.eq(self.step & ends[2] & ends[1]),
        ]
        restart_1 = self.load | self.next_plane
        restarts = self.load, restart_1, restart_1 | self.next_row
        nexts = self.next_plane, self.next_row, self.next_col
        for n, (restart, advance) in enumerate(zip(restarts, nexts, strict=True)):
            count = self.job[f"num_{n}"]
            left, is_one = Signal(16, name=f"left_{n}"), Signal(name=f"is_one_{n}")
            m.d.sync += is_one.eq(count == 1)
            with m.If(restart):
                m.d.sync += [left.eq(count), ends[n].eq(is_one if n < 2 else is_one | ~self.is_pool)]
            with m.Elif(advance):
                m.d.sync += [left.eq(left - 1), ends[n].eq(left == 2)]
        return m


class Axis(wiring.Component):
    """The window on one axis of the image: its place, `start + n * stride` in 2**-FRACTION_BITS, and what of it is
    inside.

    | cycle | what happens |
    | -- | -- |
    | `restart` | the place is `start` from the next cycle on |
    | `advance` | the place is a stride further from the next cycle on |
    | `clip` | `low` and `count` are those of the place from the next cycle on |

    Members
    -------
    start : In(signed(17))
        First pixel of the first window, of the image.
    start_frac : In(FRACTION_BITS)
        Fraction of the first place.
    stride : In(8)
        Pixels from window to window.
    stride_frac : In(FRACTION_BITS)
        Fraction of the stride.
    kernel : In(16)
        Pixels of a window; constant from the cycle before the first `clip`.
    extent : In(16)
        Pixels of the image; constant like `kernel`.
    is_window : In(1)
        Otherwise `low` is 0.
    restart : In(1)
        Strobe.
    advance : In(1)
        Strobe; counts for nothing together with `restart`.
    clip : In(1)
        Strobe.
    is_before : Out(1)
        The window's first pixel lies before the image; of the place.
    is_inside : Out(1)
        The window's first pixel lies in the image; of the place.
    has_carry : Out(1)
        The next place is a pixel further than `stride`; of the place.
    frac : Out(FRACTION_BITS)
        Fraction of the place, or 0 where the window is clipped, because the other row or column then counts alone.
    low : Out(16)
        First pixel inside, from `clip` to `clip`.
    count : Out(signed(18))
        Pixels inside, not positive if there is none, from `clip` to `clip`.
    is_empty : Out(1)
        There is none, from `clip` to `clip`.
    """

    start: In(signed(17))
    start_frac: In(FRACTION_BITS)
    stride: In(8)
    stride_frac: In(FRACTION_BITS)
    kernel: In(16)
    extent: In(16)
    is_window: In(1)
    restart: In(1)
    advance: In(1)
    clip: In(1)
    is_before: Out(1)
    is_inside: Out(1)
    has_carry: Out(1)
    frac: Out(FRACTION_BITS)
    low: Out(16)
    count: Out(signed(18))
    is_empty: Out(1)

    def elaborate(self, platform):
        m = Module()
        # A window with a pixel inside begins less than its size before the image, and before the image's end.
        first = Signal(signed(17))  # the place
        first_frac = Signal(FRACTION_BITS)
        following = Signal(signed(17 + FRACTION_BITS))  # the next place, with its fraction
        end = Signal(signed(18))  # behind the window
        last_first = Signal(signed(17))  # the last place of a window that ends inside
        high = Signal(signed(18))  # `end`, cut to the image
        is_beyond = Signal()
        m.d.comb += [
            end.eq(first + self.kernel),
            following.eq(
                truncate(Cat(first_frac, first).as_signed() + Cat(self.stride_frac, self.stride), following.shape())
            ),
            is_beyond.eq(first > last_first),
            self.is_before.eq(first < 0),
            self.is_inside.eq(~self.is_before & (first < self.extent)),
            # The bit of the sum above the fraction, without those that are added there.
            self.has_carry.eq(following[FRACTION_BITS] ^ first[0] ^ self.stride[0]),
            self.frac.eq(Mux(self.is_before | is_beyond, 0, first_frac)),
            self.count.eq(high - self.low),
            self.is_empty.eq(high <= self.low),
        ]
        m.d.sync += last_first.eq(self.extent - self.kernel)
        with m.If(self.clip):
            m.d.sync += [
                self.low.eq(truncate(Mux(self.is_before | ~self.is_window, 0, first), self.low.shape())),
                high.eq(Mux(is_beyond, self.extent, end)),
            ]
        with m.If(self.restart):
            m.d.sync += [first.eq(self.start), first_frac.eq(self.start_frac)]
        with m.Elif(self.advance):
            m.d.sync += [first.eq(following >> FRACTION_BITS), first_frac.eq(following[:FRACTION_BITS])]
        return m


class Multiplier(wiring.Component):
    """One multiplier for the products that `WindowWalk` needs one after another.

    | cycle | what happens |
    | -- | -- |
    | `take_a`, `take_b` | `factor_a`, `factor_b` are the operand from the next cycle on |
    | the cycle after | `product` is that of both factors from the next cycle on, unless `is_held` |

    Parameters
    ----------
    factor_bits : int
        Bits of a factor; operands are computed modulo this.
    product_bits : int
        Bits of the product, which is computed modulo this.

    Members
    -------
    a : In(signed(17))
        First operand, with `take_a`.
    b : In(16)
        Second operand, with `take_b`.
    take_a : In(1)
        Strobe.
    take_b : In(1)
        Strobe.
    is_held : In(1)
        `product` stays as it is.
    factor_a : Out(factor_bits)
        The first operand taken last.
    factor_b : Out(factor_bits)
        The second operand taken last.
    product : Out(product_bits)
        Of the factors of the cycle before.
    """

    def __init__(self, factor_bits: int, product_bits: int):
        super().__init__(
            {
                "a": In(signed(17)),
                "b": In(16),
                "take_a": In(1),
                "take_b": In(1),
                "is_held": In(1),
                "factor_a": Out(factor_bits),
                "factor_b": Out(factor_bits),
                "product": Out(product_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        with m.If(self.take_a):
            m.d.sync += self.factor_a.eq(truncate(self.a, self.factor_a.shape()))
        with m.If(self.take_b):
            m.d.sync += self.factor_b.eq(truncate(self.b, self.factor_b.shape()))
        with m.If(~self.is_held):
            m.d.sync += self.product.eq(truncate(self.factor_a * self.factor_b, self.product.shape()))
        return m


class RowAddresses(wiring.Component):
    """Addresses of the row of the loops, of operands A and B, kept by addition.

    In pools row y of the image lies `y * tile_iw` bytes from the plane: two products give the first row and the step
    from row to row, and where the fraction of y carries, the step is a row more.

    | cycle | what happens |
    | -- | -- |
    | `load` | the first plane; operand B's first row |
    | `load_row`, `load_step` | operand A's first row, and its step, from `product` in pools |
    | `clip` | `addr` and `addr_b` are those of the row from the next cycle on |
    | `next_row`, `next_plane` | the row, or the plane, is the next one from the next cycle on |

    Parameters
    ----------
    addr_bits : int
        Bits of an address; addresses are computed modulo this.

    Members
    -------
    job : In(fields of the descriptor)
        Constant from `load` to the last window.
    is_pool : In(1)
        The operation reduces windows; constant like `job`.
    is_copy : In(1)
        The operation is COPY; constant like `job`.
    product : In(addr_bits)
        With `load_row` the place of the first row, with `load_step` that of the stride.
    load : In(1)
        Strobe.
    load_row : In(1)
        Strobe.
    load_step : In(1)
        Strobe.
    next_row : In(1)
        Strobe.
    next_plane : In(1)
        Strobe.
    is_plane_end : In(1)
        Before and with `next_row` and `next_plane`: it is, or will be, the latter.
    is_above : In(1)
        With `clip` and `next_row`: the row lies above the image. Windows then begin at row 0, and COPY stays there.
    has_carry : In(1)
        With `next_row`, in pools: the next row is one further than the stride.
    clip : In(1)
        Strobe.
    addr : Out(addr_bits)
        Operand A's row, from `clip` to `clip`.
    addr_b : Out(addr_bits)
        Operand B's row, from `clip` to `clip`.
    """

    def __init__(self, addr_bits: int):
        self._addr_bits = addr_bits
        super().__init__(
            {
                "job": In(TP.subset("step_0", "step_1", "b_step_0", "b_step_1", "tile_iw")),
                "is_pool": In(1),
                "is_copy": In(1),
                "product": In(addr_bits),
                "load": In(1),
                "load_row": In(1),
                "load_step": In(1),
                "next_row": In(1),
                "next_plane": In(1),
                "is_plane_end": In(1),
                "is_above": In(1),
                "has_carry": In(1),
                "clip": In(1),
                "addr": Out(addr_bits),
                "addr_b": Out(addr_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = self.job
        plane, row, first_row, row_step, long_step, plane_b, row_b = (
            Signal(self._addr_bits, name=name)
            for name in ("plane", "row", "first_row", "row_step", "long_step", "plane_b", "row_b")
        )
        next_b = truncate(
            Mux(self.is_plane_end, plane_b, row_b) + Mux(self.is_plane_end, job.b_step_0, job.b_step_1), self._addr_bits
        )
        with m.If(self.load):
            m.d.sync += [plane.eq(0), plane_b.eq(0), row_b.eq(0)]
        with m.Elif(self.next_row | self.next_plane):
            m.d.sync += row_b.eq(next_b)
            with m.If(self.next_plane):
                m.d.sync += plane_b.eq(next_b)
        with m.If(self.load_row):
            m.d.sync += [row.eq(Mux(self.is_pool, self.product, 0)), first_row.eq(Mux(self.is_pool, self.product, 0))]
        with m.If(self.load_step):
            m.d.sync += [
                row_step.eq(truncate(Mux(self.is_pool, self.product, job.step_1), row_step.shape())),
                long_step.eq(truncate(self.product + job.tile_iw, long_step.shape())),
            ]
        with m.If(self.next_row), m.If(~(self.is_copy & self.is_above)):
            m.d.sync += row.eq(truncate(row + Mux(self.has_carry, long_step, row_step), row.shape()))
        with m.If(self.next_plane):
            m.d.sync += [plane.eq(truncate(plane + job.step_0, plane.shape())), row.eq(first_row)]
        with m.If(self.clip):
            m.d.sync += [self.addr.eq(plane + Mux(self.is_pool & self.is_above, 0, row)), self.addr_b.eq(row_b)]
        return m


class RowParts(wiring.Component):
    """Cuts the rows of COPY into the parts before, inside and behind the image; other rows are one part.

    | cycle | what happens |
    | -- | -- |
    | 0 | `job` is there |
    | 1 | columns before the image, and to its end |
    | 2 | both cut to the row |
    | 3 | columns of each part |
    | `clip`, not before cycle 3 | the first part of the row from the next cycle on |
    | `take` | the next part from the next cycle on |

    Members
    -------
    job : In(fields of the descriptor)
        Constant from three cycles before the first `clip` to the last `take`.
    is_pool : In(1)
        The operation reduces windows; constant like `job`.
    is_copy : In(1)
        The operation is COPY; constant like `job`.
    is_inside : In(1)
        The row lies in the image, with `clip`. Matters to COPY alone.
    clip : In(1)
        Strobe: begin with the row.
    take : In(1)
        Strobe: the part is done.
    num_cols : Out(16)
        Elements of the part; not for pools.
    is_fill : Out(1)
        The part lies outside the image.
    has_more : Out(1)
        A part of the row follows this one.
    """

    job: In(TP.subset("num_2", "start_x", "tile_iw"))
    is_pool: In(1)
    is_copy: In(1)
    is_inside: In(1)
    clip: In(1)
    take: In(1)
    num_cols: Out(16)
    is_fill: Out(1)
    has_more: Out(1)

    def elaborate(self, platform):
        m = Module()
        job, num_elements = self.job, self.job.num_2
        num_before = Signal(17)
        image_end = Signal(18)
        inside_start = Signal(16)
        inside_end = Signal(16)
        cols_before, cols_inside, cols_behind = (
            Signal(16, name=name) for name in ("cols_before", "cols_inside", "cols_behind")
        )
        m.d.sync += [
            num_before.eq(-job.start_x),
            image_end.eq(job.tile_iw - job.start_x),
            inside_start.eq(
                truncate(
                    Mux(self.is_copy, Mux(num_before > num_elements, num_elements, num_before), 0), inside_start.shape()
                )
            ),
            inside_end.eq(
                truncate(Mux(self.is_copy & (image_end < num_elements), image_end, num_elements), inside_end.shape())
            ),
            cols_before.eq(inside_start),
            cols_inside.eq(inside_end - inside_start),
            cols_behind.eq(num_elements - inside_end),
        ]

        parts = Signal(3)  # to come: before, inside, behind
        parts_left = Signal(3)  # without the first of these
        part_cols = Signal(16)
        is_row_inside = Signal()
        m.d.comb += [
            parts_left.eq(parts & (parts - 1)[:3]),
            part_cols.eq(Mux(parts[0], cols_before, Mux(parts[1], cols_inside, cols_behind))),
            self.has_more.eq(parts_left != 0),
            self.num_cols.eq(Mux(is_row_inside, part_cols, num_elements)),
            self.is_fill.eq(~is_row_inside | (parts[:2] != 0b10)),
        ]
        with m.If(self.take):
            m.d.sync += parts.eq(parts_left)
        with m.If(self.clip):
            m.d.sync += is_row_inside.eq(self.is_inside | ~self.is_copy)
            with m.If(self.is_inside | ~self.is_copy):
                columns = cols_before, cols_inside, cols_behind
                m.d.sync += parts.eq(Mux(self.is_pool, 0b010, Cat(cols != 0 for cols in columns)))
            with m.Else():
                m.d.sync += parts.eq(0b001)
        return m
