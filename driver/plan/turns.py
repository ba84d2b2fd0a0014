"""Interleaved and resized images by turning them.

In a copy the innermost loop takes several bytes per cycle if it is long. Neighbours in a row of a resized or
interleaved image come from few planes, or from one pixel: that is a short loop. With columns outermost in memory they
are whole planes apart, and what is made of them lies where it belongs after turning the image back: two copies with
long loops. What is interpolated is a convolution of the turned image, to whose output channels columns are inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.lower.work import Axis, ConvWork, InterleaveWork, MoveAxis, MoveWork, RepeatWork, ZoomAxis, ZoomWork
from convoy.spec.isa import FRACTION_BITS, Rounding, TpOp

from .orders import CopyWork
from .pools import average_multiplier

__all__ = ["Step", "Steps", "chain", "conv_forms", "image_forms", "one_step"]

_MAX_WEIGHT = 255
"""Of weights that are not negative."""


StepWork = CopyWork | ConvWork | InterleaveWork | MoveWork | RepeatWork | ZoomWork
"""What there is in a step."""


@dataclass(frozen=True)
class Step:
    """Works that each make a part of the same `num_bytes`, or of the result."""

    num_bytes: int
    works: tuple[StepWork, ...]
    source: int
    """Number of the step whose bytes they read; -1: they read the image."""
    is_result: bool


@dataclass(frozen=True)
class Steps:
    """Works in place of one, on an image, in their order."""

    steps: tuple[Step, ...]


def one_step(work: InterleaveWork | RepeatWork | ZoomWork) -> Steps:
    """The work as it is."""
    return chain((0, [work]))


def chain(*parts: tuple[int, Sequence[StepWork]]) -> Steps:
    """Steps of (bytes, works), each of which reads what the one before made."""
    last = len(parts) - 1
    return Steps(
        tuple(
            Step(num_bytes, tuple(works), number - 1, number == last) for number, (num_bytes, works) in enumerate(parts)
        )
    )


def _by_turns(chains: Sequence[Steps]) -> Steps:
    """Chains of steps that each begin with a convolution and make a part of the result: one after the other, but a
    convolution comes behind the first step that follows the one before.
    """
    order = [(0, 0)]
    for number, each in enumerate(chains):
        following = [(number + 1, 0)] * (number + 1 < len(chains))
        order += [(number, 1), *following, *((number, place) for place in range(2, len(each.steps)))]
    places = {where: number for number, where in enumerate(order)}
    steps = []
    for number, place in order:
        step = chains[number].steps[place]
        steps.append(replace(step, source=places[number, step.source] if step.source >= 0 else -1))
    return Steps(tuple(steps))


def image_forms(work: InterleaveWork | RepeatWork | ZoomWork) -> Iterator[Steps]:
    """Forms in several steps of what interleaves or resizes an image."""
    if isinstance(work, InterleaveWork):
        yield from _interleave_forms(work)
    elif isinstance(work, RepeatWork):
        yield from _repeat_forms(work)
    else:
        yield from _zoom_forms(work)


def conv_forms(work: ConvWork) -> Iterator[Steps]:
    """A convolution whose outputs are interleaved, in parts: that of each row within a block is interleaved while the
    next one is computed.
    """
    interleave = work.interleave
    if interleave is None or interleave.block_h == 1 or interleave.order != (0, 1, 2):
        return
    num_oc = work.num_oc // interleave.block_h
    made, result = work.value_bytes * num_oc * interleave.size_in[0] * interleave.size_in[1], interleave.num_out
    parts = [
        (_part_of_outputs(work, range(dy * num_oc, (dy + 1) * num_oc)), replace(interleave, only_dy=dy))
        for dy in range(interleave.block_h)
    ]
    yield _by_turns([chain((made, [conv]), (result, [part])) for conv, part in parts])
    if interleave.size_out == interleave.whole_size:
        yield _by_turns(
            [
                chain((made, [conv]), *((step.num_bytes, step.works) for step in form.steps))
                for conv, part in parts
                for form in _interleave_forms(part)
            ]
        )


def _part_of_outputs(work: ConvWork, channels: range) -> ConvWork:
    """The same convolution with some of its output channels, which are not interleaved."""
    part = slice(channels.start, channels.stop)
    return replace(
        work,
        weights=work.weights[part],
        bias=work.bias[part],
        mult=work.mult[part],
        exponent=work.exponent[part],
        interleave=None,
    )


def _cut(
    num_c: int, whole: tuple[int, int], size: tuple[int, int], lut: np.ndarray | None
) -> tuple[int, list[MoveWork]]:
    """The first rows and columns of whole images: bytes and work."""
    rows, cols = (MoveAxis(*sizes, sizes[1]) for sizes in zip(whole, size, strict=True))
    return num_c * size[0] * size[1], [MoveWork(rows, cols, MoveAxis(num_c, num_c, num_c), 0, lut)]


def _interleave_forms(work: InterleaveWork) -> Iterator[Steps]:
    """Other forms of interleaving; pixels that are not in the result are cut off last."""
    if work.size_out != work.whole_size:
        whole = replace(work, size_out=work.whole_size, lut=None)
        cut = _cut(work.num_c, whole.size_out, work.size_out, work.lut)
        for form in (chain((whole.num_out, [whole])), *_interleave_forms(whole)):
            yield chain(*((step.num_bytes, step.works) for step in form.steps), cut)
        return
    (height, width), (block_h, block_w, num_c), rows = work.size_in, work.counts, work.rows_made
    num_rows, columns = num_c * height, width * block_w
    if work.order[2] == 2:
        dy_step, dx_step, _ = work.channel_steps
        turned = [CopyWork((len(rows), block_w * num_rows, width), (0, 1, 2), (0, 2, 1))]
        if dy_step < dx_step:
            turned = [
                CopyWork(
                    (block_w, num_rows, width),
                    (0, 1, 2),
                    (2, 0, 1),
                    ((block_w, 0), (block_h * num_rows, dy * num_rows), (width, 0)),
                    ((block_w, 0), (num_rows, 0), (block_h * width, dy * width)),
                )
                for dy in range(block_h)
            ]
        box = (1, 0), (block_h * columns, rows.start * columns), (num_rows, 0)
        back = CopyWork((1, len(rows) * columns, num_rows), (0, 1, 2), (0, 2, 1), target_box=box, lut=work.lut)
    elif work.order == (2, 0, 1):
        turned = [CopyWork((num_c * block_h, block_w * height, width), (0, 1, 2), (0, 2, 1))]
        back = CopyWork((num_c, block_h * columns, height), (0, 1, 2), (0, 2, 1), lut=work.lut)
    else:
        return
    yield chain((len(rows) * columns * num_rows, turned), (work.num_out, [back]))


def _repeat_forms(work: RepeatWork) -> Iterator[Steps]:
    """Other forms of pixels repeated in both directions."""
    num_rows, width, times_h, times_w = work.num_rows, work.width, work.times_h, work.times_w
    if times_w == 1 or width == 1:
        return
    row_bytes = num_rows * width * times_w
    wide = RepeatWork(num_rows, width * times_w, times_h, 1)
    yield chain((row_bytes, [replace(work, times_h=1)]), (row_bytes * times_h, [wide]))
    turned = [
        CopyWork(
            (1, num_rows, width),
            (0, 1, 2),
            (0, 2, 1),
            target_box=((1, 0), (times_w * num_rows, x * num_rows), (width, 0)),
        )
        for x in range(times_w)
    ]
    columns = width * times_w
    back = [
        CopyWork(
            (1, columns, num_rows),
            (0, 1, 2),
            (0, 2, 1),
            target_box=((1, 0), (times_h * columns, y * columns), (num_rows, 0)),
        )
        for y in range(times_h)
    ]
    yield chain((row_bytes, turned), (row_bytes * times_h, back))


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


def _zoom_forms(work: ZoomWork) -> Iterator[Steps]:
    """Bilinear interpolation as a convolution of the turned image: its input channels are columns, its output channels
    columns of the result for each phase of its rows. The other form has a convolution for each phase, the result of
    which is turned while the next one is computed. None if the rows have no phases or weights are too fine.

    All weights are exact, and their sum is a power of two, so that one multiplier rounds as the tensor processor does.
    """
    if work.op != TpOp.BILINEAR or (found := _periodic(work.rows)) is None:
        return
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
        return
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
    num_rows, size = num_c * height, (work.rows.size_out, columns)
    num_out, is_whole = num_oc * num_rows, phases * height == size[0]
    lut = work.lut if is_whole else None
    image_step = width * framed * num_c, [image, *frame]
    back = CopyWork((1, num_oc, num_rows), (0, 1, 2), (0, 2, 1), lut=lut)
    form = image_step, (num_out, [conv]), (num_out, [back])
    if not is_whole:
        yield chain(*form, _cut(num_c, (phases * height, columns), size, work.lut))
        return
    yield chain(*form)
    if phases > 1:
        parts = []
        for y in range(phases):
            part = _part_of_outputs(conv, range(y * columns, (y + 1) * columns))
            box = (1, 0), (num_oc, y * columns), (num_rows, 0)
            turned = CopyWork((1, columns, num_rows), (0, 1, 2), (0, 2, 1), target_box=box, lut=lut)
            parts.append(chain((columns * num_rows, [part]), (num_out, [turned])))
        ahead = Step(image_step[0], tuple(image_step[1]), -1, False)
        steps = [replace(step, source=step.source + 1) for step in _by_turns(parts).steps]
        yield Steps((ahead, *steps))
