"""Interleaved and resized images by turning them.

In a copy the innermost loop takes several bytes per cycle if it is long. Neighbours in a row of a resized or
interleaved image come from few planes, or from one pixel: that is a short loop. With columns outermost in memory they
are whole planes apart, and what is made of them lies where it belongs after turning the image back: two copies with
long loops. What is interpolated is a convolution of the turned image, to whose output channels columns are inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.lower.work import Axis, ConvWork, InterleaveWork, MoveAxis, MoveWork, RepeatWork, ZoomAxis, ZoomWork
from convoy.spec.isa import FRACTION_BITS, Rounding, TpOp

from .orders import CopyWork
from .pools import average_multiplier

__all__ = ["Step", "Steps", "image_forms"]

_MAX_WEIGHT = 255
"""Of weights that are not negative."""


@dataclass(frozen=True)
class Step:
    """Works that each make a part of the same `num_bytes`."""

    num_bytes: int
    works: tuple[CopyWork | ConvWork | InterleaveWork | MoveWork | RepeatWork, ...]


@dataclass(frozen=True)
class Steps:
    """Works in place of one, on an image: each step reads what the one before made."""

    steps: tuple[Step, ...]


def image_forms(work: InterleaveWork | RepeatWork | ZoomWork) -> Iterator[Steps]:
    """Forms in several steps of what interleaves or resizes an image."""
    if isinstance(work, InterleaveWork):
        yield from _interleave_forms(work)
    elif isinstance(work, RepeatWork):
        yield from _repeat_forms(work)
    elif (form := _zoom_form(work)) is not None:
        yield form


def _cut(num_c: int, whole: tuple[int, int], size: tuple[int, int], lut: np.ndarray | None) -> Step:
    """The first rows and columns of whole images."""
    rows, cols = (MoveAxis(*sizes, sizes[1]) for sizes in zip(whole, size, strict=True))
    return Step(num_c * size[0] * size[1], (MoveWork(rows, cols, MoveAxis(num_c, num_c, num_c), 0, lut),))


def _interleave_forms(work: InterleaveWork) -> Iterator[Steps]:
    """Other forms of interleaving; pixels that are not in the result are cut off last."""
    if work.size_out != work.whole_size:
        whole = replace(work, size_out=work.whole_size, lut=None)
        cut = _cut(work.num_c, whole.size_out, work.size_out, work.lut)
        alone = Step(work.num_c * whole.size_out[0] * whole.size_out[1], (whole,))
        for steps in (Steps((alone,)), *_interleave_forms(whole)):
            yield Steps((*steps.steps, cut))
        return
    (height, width), (block_h, block_w, num_c) = work.size_in, work.counts
    num_rows, num_bytes = num_c * height, num_c * work.size_out[0] * work.size_out[1]
    if work.order[2] == 2:
        dy_step, dx_step, _ = work.channel_steps
        turned: tuple[CopyWork, ...] = (CopyWork((block_h, block_w * num_rows, width), (0, 1, 2), (0, 2, 1)),)
        if dy_step < dx_step:
            turned = tuple(
                CopyWork(
                    (block_w, num_rows, width),
                    (0, 1, 2),
                    (2, 0, 1),
                    ((block_w, 0), (block_h * num_rows, dy * num_rows), (width, 0)),
                    ((block_w, 0), (num_rows, 0), (block_h * width, dy * width)),
                )
                for dy in range(block_h)
            )
        back = CopyWork((1, block_h * width * block_w, num_rows), (0, 1, 2), (0, 2, 1), lut=work.lut)
    elif work.order == (2, 0, 1):
        turned = (CopyWork((num_c * block_h, block_w * height, width), (0, 1, 2), (0, 2, 1)),)
        back = CopyWork((num_c, block_h * width * block_w, height), (0, 1, 2), (0, 2, 1), lut=work.lut)
    else:
        return
    yield Steps((Step(num_bytes, turned), Step(num_bytes, (back,))))


def _repeat_forms(work: RepeatWork) -> Iterator[Steps]:
    """Other forms of pixels repeated in both directions."""
    num_rows, width, times_h, times_w = work.num_rows, work.width, work.times_h, work.times_w
    if times_w == 1 or width == 1:
        return
    row_bytes = num_rows * width * times_w
    wide = Step(row_bytes, (replace(work, times_h=1),))
    yield Steps((wide, Step(row_bytes * times_h, (RepeatWork(num_rows, width * times_w, times_h, 1),))))
    turned = tuple(
        CopyWork(
            (1, num_rows, width),
            (0, 1, 2),
            (0, 2, 1),
            target_box=((1, 0), (times_w * num_rows, x * num_rows), (width, 0)),
        )
        for x in range(times_w)
    )
    columns = width * times_w
    back = tuple(
        CopyWork(
            (1, columns, num_rows),
            (0, 1, 2),
            (0, 2, 1),
            target_box=((1, 0), (times_h * columns, y * columns), (num_rows, 0)),
        )
        for y in range(times_h)
    )
    yield Steps((Step(row_bytes, turned), Step(row_bytes * times_h, back)))


def _common_bits(weights: np.ndarray) -> int:
    """How many low bits are zero in all of these weights."""
    return next((bit for bit in range(FRACTION_BITS) if (weights >> bit & 1).any()), FRACTION_BITS)


def _periodic(axis: ZoomAxis) -> tuple[int, np.ndarray] | None:
    """Weights of pixels in 2**-FRACTION_BITS, int64 (phases, taps): output phases*i + n is that sum of pixels from
    i + first on, the outermost ones repeated; (first, weights), or None where outputs are not so evenly spaced.
    """
    (piece, *others), one = axis.pieces, 1 << FRACTION_BITS
    phases, rest = divmod(one, piece.step) if piece.step else (0, 0)
    if others or rest or not 0 < axis.size_out <= phases * axis.size_in:
        return None
    place = piece.start + np.arange(phases) * piece.step
    pixel, fraction = place >> FRACTION_BITS, place & (one - 1)
    first, last = min(int(pixel.min()), 0), max(int((pixel + (fraction > 0)).max()), 0)
    weights = np.zeros((phases, last - first + 2), np.int64)
    weights[np.arange(phases), pixel - first] = one - fraction
    weights[np.arange(phases), pixel - first + 1] += fraction
    return first, weights[:, :-1]


def _zoom_form(work: ZoomWork) -> Steps | None:
    """Bilinear interpolation as a convolution of the turned image: its input channels are columns, its output channels
    columns of the result for each phase of its rows. None if the rows have no phases or weights are too fine.

    All weights are exact, and their sum is a power of two, so that one multiplier rounds as the tensor processor does.
    """
    if work.op != TpOp.BILINEAR or (found := _periodic(work.rows)) is None:
        return None
    first, row_weights = found
    num_c, height, width, columns = work.num_ic, work.rows.size_in, work.cols.size_in, work.cols.size_out
    low, fraction = work.cols.places
    col_weights = np.zeros((columns, width), np.int64)
    col_weights[np.arange(columns), low] = (1 << FRACTION_BITS) - fraction
    (inner,) = np.nonzero(fraction)
    col_weights[inner, low[inner] + 1] = fraction[inner]
    bits = _common_bits(row_weights), _common_bits(col_weights)
    row_weights, col_weights = row_weights >> bits[0], col_weights >> bits[1]
    most = int(row_weights.max() * col_weights.max())
    count = 1 << 2 * FRACTION_BITS - sum(bits)
    factor = average_multiplier(count, count << 7)
    if most > _MAX_WEIGHT or factor is None:
        return None
    phases, taps = row_weights.shape
    num_oc, framed = phases * columns, height + taps - 1
    weights = np.einsum("yk,pw->ypkw", row_weights, col_weights).reshape(num_oc, 1, taps, width)
    conv = ConvWork(
        width,
        Axis(num_c, num_c),
        Axis(framed, height, taps),
        is_depthwise=False,
        weights=weights.astype(np.int16),
        bias=np.zeros(num_oc, np.int64),
        mult=np.full(num_oc, factor[0], np.int64),
        exponent=np.full(num_oc, factor[1], np.int64),
        zero_point_in=0,
        zero_point_out=0,
        act_min=-128,
        act_max=127,
        rounding=Rounding.SINGLE,
        in_shape=(1, num_c, framed, width),
        wgt_zero_point=-128 if most > np.iinfo(np.int8).max else 0,
    )
    image = CopyWork(
        (num_c, height, width), (0, 1, 2), (2, 0, 1), target_box=((num_c, 0), (framed, -first), (width, 0))
    )
    frame = [
        CopyWork(
            (num_c, 1, width),
            (0, 1, 2),
            (2, 0, 1),
            ((num_c, 0), (height, 0 if place < -first else height - 1), (width, 0)),
            ((num_c, 0), (framed, place), (width, 0)),
        )
        for place in (*range(-first), *range(height - first, framed))
    ]
    num_out, is_whole = num_oc * height * num_c, phases * height == work.rows.size_out
    back = CopyWork((1, num_oc, num_c * height), (0, 1, 2), (0, 2, 1), lut=work.lut if is_whole else None)
    steps = Step(width * framed * num_c, (image, *frame)), Step(num_out, (conv,)), Step(num_out, (back,))
    if is_whole:
        return Steps(steps)
    size = work.rows.size_out, columns
    return Steps((*steps, _cut(num_c, (phases * height, columns), size, work.lut)))
