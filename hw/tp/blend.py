"""The pixels of BILINEAR windows, weighted and added up."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import truncate
from convoy.spec.isa import FRACTION_BITS

from .walk import Place

__all__ = ["Blend", "BlendWeights"]

PIXEL_WEIGHT_BITS = 2 * FRACTION_BITS + 1


class BlendWeights(wiring.Component):
    """The weights of the two pixels of a row of a window: (1 - x) and x, times (1 - y) for the first row or y for
    the second.

    Latency: `PIPELINE_CYCLES`. Throughput: a row per cycle.

    Members
    -------
    place : In(Place)
    is_row_0 : In(1)
    weight_0, weight_1 : Out(PIXEL_WEIGHT_BITS)
        In 2^-20.
    """

    PIPELINE_CYCLES = 2

    place: In(Place)
    is_row_0: In(1)
    weight_0: Out(PIXEL_WEIGHT_BITS)
    weight_1: Out(PIXEL_WEIGHT_BITS)

    def elaborate(self, platform):
        m = Module()
        place = self.place
        row, col_1 = Signal(FRACTION_BITS + 1, reset_less=True), Signal(PIXEL_WEIGHT_BITS, reset_less=True)
        m.d.sync += [
            row.eq(Mux(self.is_row_0, (1 << FRACTION_BITS) - place.frac_y, place.frac_y)),
            col_1.eq(Mux(self.is_row_0, (place.frac_x << FRACTION_BITS) - place.product, place.product)),
            self.weight_0.eq((row << FRACTION_BITS) - col_1),
            self.weight_1.eq(col_1),
        ]
        return m


class Blend(wiring.Component):
    """Adds the rows of a window and rounds, half away from zero.

    Latency: `BLEND_CYCLES` from the last row. Throughput: a row per cycle.

    Members
    -------
    en : In(1)
        Strobe for a row.
    row : In(signed(32))
        In 2^-20.
    window_last, last : In(1)
        The row ends its window; the window is the last one of the descriptor.
    valid : Out(1)
        Strobe for `result` and `result_last`.
    result : Out(signed(8))
    result_last : Out(1)
    """

    en: In(1)
    row: In(signed(32))
    window_last: In(1)
    last: In(1)
    valid: Out(1)
    result: Out(signed(8))
    result_last: Out(1)

    def elaborate(self, platform):
        m = Module()
        total_bits = 8 + 2 * FRACTION_BITS + 1
        total, rounded = Signal(signed(total_bits), reset_less=True), Signal(signed(total_bits), reset_less=True)
        is_first = Signal(init=1)
        with m.If(self.en):
            m.d.sync += [
                total.eq(truncate(Mux(is_first, 0, total) + self.row, total.shape())),
                is_first.eq(self.window_last),
            ]
        is_complete, is_rounded, is_last, is_rounded_last = Signal(), Signal(), Signal(), Signal()
        half = 1 << (2 * FRACTION_BITS - 1)
        m.d.sync += [
            is_complete.eq(self.en & self.window_last),
            is_last.eq(self.last),
            rounded.eq(total + half - (total < 0)),
            is_rounded.eq(is_complete),
            is_rounded_last.eq(is_last),
            self.result.eq(truncate(rounded >> (2 * FRACTION_BITS), self.result.shape())),
            self.valid.eq(is_rounded),
            self.result_last.eq(is_rounded_last),
        ]
        return m
