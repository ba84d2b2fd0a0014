"""Operators that move values without computing: what the tensor processor copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.spec.isa import FRACTION_BITS, TP, TpOp

from .operands import axis_number, image, integers, moved, nhwc, require, require_quant, require_same_quant
from .work import (
    AssignWork,
    ConcatWork,
    InterleaveWork,
    Lowering,
    MoveAxis,
    MovesWork,
    MoveWork,
    ReadWork,
    ReshapeWork,
    ResizeWork,
    TransposeWork,
    ZoomAxis,
    ZoomPiece,
    ZoomWork,
)

__all__ = ["MOVE_LOWERINGS", "slice_index"]

MAX_ZOOM = TP.fields["stride_h"].max


def _move_tensors(graph: Graph, op: Op, *, is_wide_ok: bool = True) -> tuple[Tensor, Tensor]:
    """Input and output of an operator that moves values."""
    source, target = (moved(graph, index, is_wide_ok=is_wide_ok) for index in (op.inputs[0], op.outputs[0]))
    image(source)
    image(target)
    require(
        source.dtype == target.dtype,
        f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
    )
    return source, target


MAX_PIECES = 256
"""Most boxes that one operator's move consists of."""


def _alike(source: Tensor, *targets: Tensor) -> None:
    for target in targets:
        require(
            source.dtype == target.dtype,
            f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
        )


def _axis_groups(shape: tuple[int, ...], is_plain: Sequence[bool]) -> list[list[int]]:
    """Axes taken together as rows, columns and channels: those of the tensor itself where it is an image, else
    neighbours that are plain, of which every element stays.

    Raises
    ------
    GraphError
        When there are more than three then.
    """
    rank = len(shape)
    if rank < 4 or (rank == 4 and shape[0] == 1 and is_plain[0]):
        groups = [[axis] for axis in range(rank)][-3:]
    else:
        groups = []
        for axis in (axis for axis in range(rank) if shape[axis] > 1 or not is_plain[axis]):
            if groups and is_plain[axis] and is_plain[groups[-1][-1]]:
                groups[-1].append(axis)
            else:
                groups.append([axis])
    require(len(groups) <= 3, f"axes of {list(shape)} that are not neighbours; the NPU moves images of three axes")
    return [[]] * (3 - len(groups)) + groups


def _moves(graph: Graph, op: Op, source: Tensor, parts: Sequence[Sequence[np.ndarray]], number: int = 0) -> MovesWork:
    """What takes, for each output, the elements of `source` at an index per axis of `source`."""
    targets = [moved(graph, index) for index in op.outputs]
    _alike(source, *targets)
    is_plain = [
        all(np.array_equal(part[axis], np.arange(size)) for part in parts) for axis, size in enumerate(source.shape)
    ]
    groups = _axis_groups(source.shape, is_plain)
    sizes = [prod(source.shape[axis] for axis in group) for group in groups]
    max_steps = *sizes[:2], 1 if source.dtype == np.int16 else sizes[2]
    moves = []
    for output, (target, part) in enumerate(zip(targets, parts, strict=True)):
        require(prod(map(len, part)) == prod(target.shape), f"{prod(map(len, part))} elements for {list(target.shape)}")
        indices = [
            part[group[0]] if len(group) == 1 else np.arange(size) for group, size in zip(groups, sizes, strict=True)
        ]
        runs = [_runs(index, step) for index, step in zip(indices, max_steps, strict=True)]
        num_pieces = prod(map(len, runs))
        require(num_pieces <= MAX_PIECES, f"{num_pieces} pieces; the limit is {MAX_PIECES}")
        for pieces in product(*runs):
            axes = [
                MoveAxis(size, len(index), count, start, step, place)
                for size, index, (place, count, start, step) in zip(sizes, indices, pieces, strict=True)
            ]
            rows, cols, channels = axes
            moves.append((output, MoveWork(rows, cols, channels, 0)))
    height, width, num_c = sizes
    return MovesWork(number, (1, height, width, num_c), tuple(moves))


def _filled(axis: MoveAxis) -> MoveAxis:
    """All frame."""
    return replace(axis, count=0, start=0, step=1, before=axis.count)


def _runs(index: np.ndarray, max_step: int) -> list[tuple[int, int, int, int]]:
    """(place, count, first element, step) of parts of an index that are evenly spaced, with steps of at most
    `max_step`.
    """
    runs, place = [], 0
    while place < len(index):
        rest = index[place:]
        step = int(rest[1] - rest[0]) if len(rest) > 1 else 1
        if 1 <= step <= max_step:
            is_even = rest == rest[0] + np.arange(len(rest)) * step
            count = int(np.argmin(np.append(is_even, False)))
        else:
            step = count = 1
        runs.append((place, count, int(rest[0]), step))
        place += count
    return runs


def _whole(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The index that takes everything."""
    return [np.arange(size) for size in shape]


def _lower_pad(graph: Graph, op: Op) -> MovesWork:
    source, target = moved(graph, op.inputs[0]), moved(graph, op.outputs[0])
    values = integers(graph, op.inputs[1], (np.int8, np.int16, np.int32, np.int64))
    if op.kind == "PADV2":
        filler = graph.tensors[op.inputs[2]]
        require(
            filler.data is not None and filler.data.size == 1,
            f"{filler.name!r} should be a constant of one value to pad with",
        )
        fill = int(filler.values.item()) - 128 * (filler.dtype == np.uint8)
        require(
            source.dtype == np.int8 or fill == 0, f"{source.name!r} is {source.dtype}; it can be padded with 0 only"
        )
    else:
        require(source.quant is not None, f"{source.name!r} has no scale")
        require_quant(target)
        fill = int(target.quantisation.zero_point[0])
    require(values.size == 2 * len(source.shape), f"{values.size} pads for {len(source.shape)} axes")
    pads = values.reshape(-1, 2)
    require(bool((pads >= 0).all()), "a pad is negative")
    _alike(source, target)
    padded = tuple(int(size + pad.sum()) for size, pad in zip(source.shape, pads, strict=True))
    require(padded == tuple(target.shape), f"{source.shape} with the pads is not {target.shape}")
    groups = _axis_groups(source.shape, [not pad.any() for pad in pads])
    sizes, totals = ([prod(shape[axis] for axis in group) for group in groups] for shape in (source.shape, padded))
    frames = [pads[group[0]].tolist() if len(group) == 1 else [0, 0] for group in groups]
    rows, cols = (
        MoveAxis(size, total, size, before=before, behind=behind)
        for size, total, (before, behind) in zip(sizes[:2], totals, frames, strict=False)
    )
    (before, behind), size, total = frames[2], sizes[2], totals[2]
    moves = [MoveWork(rows, cols, MoveAxis(size, total, size, target_start=before), fill)]
    rows, cols = (_filled(MoveAxis(1, total, total)) for total in totals[:2])
    for start, count in ((0, before), (before + size, behind)):
        if count:
            moves.append(MoveWork(rows, cols, MoveAxis(size, total, count, target_start=start), fill))
    return MovesWork(0, (1, sizes[0], sizes[1], size), tuple((0, move) for move in moves))


def _lower_mirror_pad(graph: Graph, op: Op) -> MovesWork:
    source = moved(graph, op.inputs[0])
    pads = integers(graph, op.inputs[1]).reshape(-1, 2).tolist()
    require(len(pads) == len(source.shape), f"{len(pads)} pads for {len(source.shape)} axes")
    is_symmetric = op.options["mode"] == "SYMMETRIC"
    index = [
        np.pad(np.arange(size), (before, behind), "symmetric" if is_symmetric else "reflect")
        for size, (before, behind) in zip(source.shape, pads, strict=True)
    ]
    return _moves(graph, op, source, [index])


def slice_index(graph: Graph, op: Op) -> list[np.ndarray]:
    """The elements that a SLICE or STRIDED_SLICE takes of each axis.

    Raises
    ------
    GraphError
        When it is no slice of its source, or its result has another shape.
    """
    source = graph.tensors[op.inputs[0]]
    begins, ends = (integers(graph, index).reshape(-1).tolist() for index in op.inputs[1:3])
    if op.kind == "SLICE":
        require(len(begins) == len(ends) == len(source.shape), "the slice has another number of axes")
        slices = [slice(begin, None if size == -1 else begin + size) for begin, size in zip(begins, ends, strict=True)]
    else:
        slices = _strided_slices(op, source.shape, begins, ends, integers(graph, op.inputs[3]).reshape(-1).tolist())
    index = [np.arange(size)[part] for size, part in zip(source.shape, slices, strict=True)]
    require(all(map(len, index)), "the slice is empty")
    target = graph.tensors[op.outputs[0]]
    counts = list(map(len, index))
    require(
        [count for count in counts if count > 1] == [size for size in target.shape if size > 1],
        f"the slice has {counts} elements, its tensor {list(target.shape)}",
    )
    return index


def _lower_slice(graph: Graph, op: Op) -> MovesWork:
    return _moves(graph, op, moved(graph, op.inputs[0]), [slice_index(graph, op)])


def _strided_slices(
    op: Op, shape: tuple[int, ...], begins: list[int], ends: list[int], steps: list[int]
) -> list[slice]:
    """A slice per axis of the source: axes that the slice adds are left out, an ellipsis stands for as many as are
    missing, and of an axis that goes one element stays.
    """
    masks = {name: op.options[f"{name}_mask"] for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}

    def has(name: str, number: int) -> bool:
        return bool(masks[name] >> number & 1)

    require(len(begins) == len(ends) == len(steps), "begin, end and strides of the slice differ in length")
    numbers = [n for n in range(len(begins)) if has("ellipsis", n) or not has("new_axis", n)]
    is_ellipsis = [has("ellipsis", n) for n in numbers]
    require(sum(is_ellipsis) <= 1 and len(numbers) - sum(is_ellipsis) <= len(shape), "the slice has more axes")
    if not any(is_ellipsis):
        numbers, is_ellipsis = [*numbers, -1], [*is_ellipsis, True]
    slices: list[slice] = []
    for n, is_rest in zip(numbers, is_ellipsis, strict=True):
        if is_rest:
            slices += [slice(None)] * (len(shape) - len(numbers) + 1)
            continue
        size, step = shape[len(slices)], steps[n]
        require(step != 0, "a step of 0")
        begin = None if has("begin", n) else begins[n]
        if has("shrink_axis", n):
            first = axis_number(0 if begin is None else begin, size)
            slices.append(slice(first, first + 1))
        elif op.options.get("is_offset", False):
            require(step >= 1, "a step below 1")
            slices.append(slice(begin, _end_of_offset(begin, ends[n], size), step))
        else:
            slices.append(slice(begin, None if has("end", n) else ends[n], step))
    return slices


def _end_of_offset(begin: int | None, count: int, size: int) -> int:
    """Where a slice along an axis ends that is given by its beginning and an offset from there; LiteRT has no mask
    for it, and does not keep to the axis.
    """
    first = slice(begin, None).indices(size)[0]
    require(0 < count <= size - first, f"an offset of {count} from {first} in an axis of {size}; use 1..{size - first}")
    return first + count


def _lower_gather(graph: Graph, op: Op) -> MovesWork:
    source, places = moved(graph, op.inputs[0]), integers(graph, op.inputs[1]).reshape(-1)
    require(op.options["batch_dims"] == 0, f"batch_dims {op.options['batch_dims']}; the NPU gathers with 0")
    axis = axis_number(op.options["axis"], len(source.shape))
    size = source.shape[axis]
    require(bool(((places >= 0) & (places < size)).all()), f"an index is beyond the axis of {size}")
    index = _whole(source.shape)
    index[axis] = places
    return _moves(graph, op, source, [index])


def _lower_tile(graph: Graph, op: Op) -> MovesWork:
    source, times = moved(graph, op.inputs[0]), integers(graph, op.inputs[1]).reshape(-1)
    require(len(times) == len(source.shape), f"{len(times)} numbers for {len(source.shape)} axes")
    index = [np.tile(np.arange(size), count) for size, count in zip(source.shape, times, strict=True)]
    return _moves(graph, op, source, [index])


def _lower_split(graph: Graph, op: Op) -> MovesWork:
    """SPLIT (axis, source) in equal parts, SPLIT_V (source, sizes, axis) in parts of the sizes that the outputs have,
    UNPACK (source) in parts of one element, without the axis.
    """
    number = 1 if op.kind == "SPLIT" else 0
    source = moved(graph, op.inputs[number])
    if op.kind == "UNPACK":
        axis = axis_number(op.options["axis"], len(source.shape))
        sizes = [1] * len(op.outputs)
    else:
        require(len(op.inputs) == 3 - number, f"{len(op.inputs)} inputs")
        axes = integers(graph, op.inputs[0 if number else 2])
        require(axes.size == 1, f"{axes.size} axes to cut along; it is one")
        axis = axis_number(axes.item(), len(source.shape))
        targets = [moved(graph, index) for index in op.outputs]
        for target in targets:
            require(
                np.array_equal(np.delete(target.shape, axis), np.delete(source.shape, axis)),
                f"{target.name!r} is no part of {list(source.shape)} along axis {axis}",
            )
        sizes = [target.shape[axis] for target in targets]
    is_whole = sum(sizes) == source.shape[axis] and (op.kind == "SPLIT_V" or len(set(sizes)) == 1)
    require(is_whole, f"{list(source.shape)} cannot be cut in parts of {sizes} along axis {axis}")
    parts = []
    for first, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
        index = _whole(source.shape)
        index[axis] = np.arange(first, first + size)
        parts.append(index)
    return _moves(graph, op, source, parts, number)


def _lower_space_to_depth(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    (_, height, width, num_c), block, shape = nhwc(source.shape), op.options["block_size"], nhwc(target.shape)
    require(
        shape == (1, height // block, width // block, num_c * block * block)
        and not height % block
        and not width % block,
        f"blocks of {block} of {source.shape} do not give {target.shape}",
    )
    return MovesWork(
        0,
        (1, height, width, num_c),
        tuple(
            (
                0,
                MoveWork(
                    MoveAxis(height, shape[1], shape[1], dy, block),
                    MoveAxis(width, shape[2], shape[2], dx, block),
                    MoveAxis(num_c, shape[3], num_c, target_start=(dy * block + dx) * num_c),
                    0,
                ),
            )
            for dy in range(block)
            for dx in range(block)
        ),
    )


def _lower_depth_to_space(graph: Graph, op: Op) -> InterleaveWork:
    source, target = _move_tensors(graph, op, is_wide_ok=False)
    (_, height, width, num_c), block, shape = nhwc(source.shape), op.options["block_size"], nhwc(target.shape)
    require(
        num_c % (block * block) == 0 and shape == (1, height * block, width * block, num_c // (block * block)),
        f"blocks of {block} of {source.shape} do not give {target.shape}",
    )
    order = (2, 0, 1) if op.options.get("is_by_channel", False) else (0, 1, 2)
    return InterleaveWork(shape[3], block, block, (height, width), shape[1:3], order)


def _lower_transpose(graph: Graph, op: Op) -> TransposeWork:
    """TRANSPOSE of the source; or of the source seen as `view` and in the order `order`, where the options say so."""
    source, target = moved(graph, op.inputs[0]), moved(graph, op.outputs[0])
    _alike(source, target)
    if (view := op.options.get("view")) is not None:
        return TransposeWork(view, op.options["order"])
    rank = len(source.shape)
    order = [axis_number(axis, rank) for axis in integers(graph, op.inputs[1], (np.int32,)).reshape(-1).tolist()]
    require(sorted(order) == list(range(rank)), f"{order} is not an order of {rank} axes")
    require(
        tuple(source.shape[axis] for axis in order) == tuple(target.shape),
        f"{source.shape} in the order {order} is not {target.shape}",
    )
    return TransposeWork(tuple(source.shape), tuple(order))


def _concatenated(graph: Graph, op: Op, axis: int) -> ConcatWork:
    """Tensors that make up the result along an axis; its shape tells how they are seen."""
    target = graph.tensors[op.outputs[0]]
    groups = _axis_groups(target.shape, [place != axis for place in range(len(target.shape))])
    place = groups.index([axis])
    height, width, channels = (prod(target.shape[part] for part in group) for group in groups)
    out_shape = (1, height, width, channels)
    others = prod(size for number, size in enumerate(out_shape[1:]) if number != place)
    in_shapes = []
    for index in op.inputs:
        rows, cols, depth = (
            prod(graph.tensors[index].shape) // others if number == place else size
            for number, size in enumerate(out_shape[1:])
        )
        in_shapes.append((1, rows, cols, depth))
    return ConcatWork(place, tuple(in_shapes), out_shape)


def _lower_concatenation(graph: Graph, op: Op) -> ConcatWork:
    target = moved(graph, op.outputs[0])
    axis = axis_number(op.options["axis"], len(target.shape))
    require(op.options["activation"] == "NONE", f"fused activation {op.options['activation']} is not supported")
    shapes = []
    for index in op.inputs:
        source = moved(graph, index)
        _alike(source, target)
        if source.dtype == np.int8:  # of int16 LiteRT does not look at it
            require_same_quant(source, target)
        require(len(source.shape) == len(target.shape), "the tensors differ in their number of axes")
        shapes.append(source.shape)
    parts, result = np.array(shapes), np.array(target.shape)
    total = np.where(np.arange(len(result)) == axis, parts.sum(axis=0), parts[0])
    require(
        bool((np.delete(parts, axis, 1) == np.delete(result, axis)).all() and (total == result).all()),
        "the shapes do not fit together",
    )
    return _concatenated(graph, op, axis)


def _lower_resize(graph: Graph, op: Op) -> ResizeWork | ZoomWork:
    source, target = _move_tensors(graph, op)
    require(
        len(source.shape) == len(target.shape) == 4,
        f"shapes {source.shape} and {target.shape}; a resized image has 4 axes",
    )
    require(source.shape[3] == target.shape[3], "input and output should have the same channels")
    sizes = [(source.shape[axis], target.shape[axis]) for axis in (1, 2)]
    only_factors = f"{source.name!r} is {source.dtype}; it can be resized to nearest pixels in whole factors"
    if op.kind == "RESIZE_BILINEAR":
        require(source.dtype == np.int8, only_factors)
        require(not op.options.get("is_half_up"), "LiteRT interpolates uint8 in float32; the NPU takes int8")
        rows, cols = (_bilinear_axis(op, *size) for size in sizes)
        if any(axis.places[1].any() for axis in (rows, cols)):
            return ZoomWork(TpOp.BILINEAR, source.shape[3], rows, cols)
        nearest = [axis.places[0] for axis in (rows, cols)]
    else:
        nearest = op.options.get("pixels") or [_nearest_pixels(op, *size) for size in sizes]
    if all(
        size_out % size_in == 0 and np.array_equal(pixels, np.arange(size_out) // (size_out // size_in))
        for pixels, (size_in, size_out) in zip(nearest, sizes, strict=True)
    ):
        times_h, times_w = (size_out // size_in for size_in, size_out in sizes)
        _, height, width, num_c = nhwc(source.shape)
        return ResizeWork(source.dtype.itemsize * num_c, (height, width), times_h, times_w)
    require(source.dtype == np.int8, only_factors)
    rows, cols = (_nearest_axis(pixels, *size) for pixels, size in zip(nearest, sizes, strict=True))
    return ZoomWork(TpOp.MAX_POOL, source.shape[3], rows, cols)


def _bilinear_axis(op: Op, size_in: int, size_out: int) -> ZoomAxis:
    """Places as LiteRT's int8 kernel computes them, in 1/1024."""
    span_in, span_out = (
        (size_in - 1, size_out - 1) if op.options["align_corners"] and size_out > 1 else (size_in, size_out)
    )
    step = ((span_in << FRACTION_BITS) + span_out // 2) // span_out
    start = (step >> 1) - (1 << FRACTION_BITS - 1) if op.options["half_pixel_centers"] else 0
    require(step >> FRACTION_BITS <= MAX_ZOOM, f"{size_in} pixels to {size_out}; the limit is a factor of {MAX_ZOOM}")
    require(
        start + (size_out - 1) * step >> FRACTION_BITS < size_in,
        f"{size_in} pixels to {size_out}: the last one lies outside the image",
    )
    return ZoomAxis(size_in, size_out, (ZoomPiece(0, size_out, start, step),))


def _nearest_pixels(op: Op, size_in: int, size_out: int) -> np.ndarray:
    """The input pixel of each output, as LiteRT computes it in float32."""
    is_aligned = op.options["align_corners"] and size_out > 1
    scale = (
        np.float32(size_in - 1) / np.float32(size_out - 1) if is_aligned else np.float32(size_in) / np.float32(size_out)
    )
    places = (
        np.arange(size_out, dtype=np.float32) + np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
    ) * scale
    rounded = np.floor(places.astype(np.float64) + 0.5) if op.options["align_corners"] else np.floor(places)
    return np.clip(rounded.astype(np.int64), 0, size_in - 1)


def _nearest_axis(pixels: np.ndarray, size_in: int, size_out: int) -> ZoomAxis:
    """Starts and steps in 1/1024 that lead to these pixels, in pieces as long as possible."""
    ratio = size_in * (1 << FRACTION_BITS) // size_out
    require(ratio >> FRACTION_BITS <= MAX_ZOOM, f"{size_in} pixels to {size_out}; the limit is a factor of {MAX_ZOOM}")
    aligned = (size_in - 1) * (1 << FRACTION_BITS) // max(size_out - 1, 1)
    steps = np.array([step for step in (ratio, ratio + 1, aligned, aligned + 1) if step >> FRACTION_BITS <= MAX_ZOOM])
    pieces, first = [], 0
    while first < size_out:
        starts = (pixels[first:] << FRACTION_BITS) - np.arange(size_out - first) * steps[:, None]
        highest, lowest = np.maximum.accumulate(starts, axis=1), np.minimum.accumulate(starts, axis=1)
        counts = (highest < lowest + (1 << FRACTION_BITS)).sum(axis=1)
        best = int(counts.argmax())
        count = int(counts[best])
        pieces.append(ZoomPiece(first, count, int(highest[best, count - 1]), int(steps[best])))
        first += count
    return ZoomAxis(size_in, size_out, tuple(pieces))


def _lower_pack(graph: Graph, op: Op) -> ConcatWork:
    """A concatenation along an axis that the parts have not: with an extent of 1 there, they are other shapes of the
    same elements.
    """
    target = moved(graph, op.outputs[0])
    axis = axis_number(op.options["axis"], len(target.shape))
    require(target.shape[axis] == len(op.inputs), f"{len(op.inputs)} tensors for {target.shape[axis]} places")
    for index in op.inputs:
        source = moved(graph, index)
        require_same_quant(source, target)
        _alike(source, target)
        require(
            tuple(source.shape) == tuple(np.delete(target.shape, axis)),
            f"{source.name!r} should be {target.shape} without axis {axis}",
        )
    return _concatenated(graph, op, axis)


def _lower_reshape(graph: Graph, op: Op) -> ReshapeWork:
    source, target = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    require(source.data is None, f"{source.name!r} is a constant where an activation is expected")
    if op.kind == "EXPAND_DIMS":
        require_same_quant(source, target)
    require(np.prod(source.shape) == np.prod(target.shape), f"{source.shape} and {target.shape} differ in size")
    return ReshapeWork()


def _lower_variable(graph: Graph, op: Op) -> ReadWork | AssignWork:
    number, tensor = op.options["variable"], moved(graph, (op.outputs or op.inputs)[0], is_wide_ok=False)
    variable = graph.variables[number]
    require(
        tensor.shape == variable.shape, f"shape {tensor.shape}, but the variable {variable.name!r} is {variable.shape}"
    )
    require(len(tensor.shape) <= 4, f"a variable of shape {tensor.shape}; the limit is 4 axes")
    return ReadWork(number) if op.kind == "READ_VARIABLE" else AssignWork(number)


MOVE_LOWERINGS: dict[str, Lowering] = {
    "PAD": _lower_pad,
    "PADV2": _lower_pad,
    "SLICE": _lower_slice,
    "STRIDED_SLICE": _lower_slice,
    "SPLIT": _lower_split,
    "SPLIT_V": _lower_split,
    "UNPACK": _lower_split,
    "GATHER": _lower_gather,
    "TILE": _lower_tile,
    "MIRROR_PAD": _lower_mirror_pad,
    "SPACE_TO_DEPTH": _lower_space_to_depth,
    "DEPTH_TO_SPACE": _lower_depth_to_space,
    "TRANSPOSE": _lower_transpose,
    "CONCATENATION": _lower_concatenation,
    "PACK": _lower_pack,
    "RESIZE_NEAREST_NEIGHBOR": _lower_resize,
    "RESIZE_BILINEAR": _lower_resize,
    "RESHAPE": _lower_reshape,
    "SQUEEZE": _lower_reshape,
    "EXPAND_DIMS": _lower_reshape,
    "READ_VARIABLE": _lower_variable,
    "ASSIGN_VARIABLE": _lower_variable,
}
"""By kind of operator: (graph, operator) -> work. They raise `GraphError`."""
