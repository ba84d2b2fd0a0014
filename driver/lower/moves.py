"""Operators that move values without computing: what the tensor processor copies."""

from __future__ import annotations

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

__all__ = ["MOVE_LOWERINGS"]

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


def _lower_pad(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
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
    pads = np.concatenate([np.zeros((4 - len(pads), 2), np.int64), pads])
    require(not pads[[0, 3]].any(), "only rows and columns can be padded")
    require(bool((pads >= 0).all()), "a pad is negative")
    sizes, padded = nhwc(source.shape), nhwc(target.shape)
    require(
        all(size + pad.sum() == total for size, pad, total in zip(sizes, pads, padded, strict=True)),
        f"{sizes} with the pads is not {padded}",
    )
    rows, cols, channels = (
        MoveAxis(sizes[axis], padded[axis], sizes[axis], before=int(pads[axis, 0]), behind=int(pads[axis, 1]))
        for axis in (1, 2, 3)
    )
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, fill)),))


def _lower_slice(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    begins, ends = (integers(graph, index).reshape(-1).tolist() for index in op.inputs[1:3])
    steps, rank = [1] * len(begins), len(source.shape)
    adds_axes = (
        op.kind == "STRIDED_SLICE"
        and op.options["shrink_axis_mask"] | op.options["new_axis_mask"] | op.options["ellipsis_mask"]
    )
    require(not adds_axes, "the slice adds or removes axes")
    require({len(begins), len(ends), len(target.shape)} == {rank}, "the slice has another number of axes")
    if op.kind == "STRIDED_SLICE":
        steps = integers(graph, op.inputs[3]).reshape(-1).tolist()
        begins = [None if op.options["begin_mask"] >> axis & 1 else begin for axis, begin in enumerate(begins)]
        if op.options.get("is_offset", False):
            ends = [
                _end_of_offset(begin, end, size) for begin, end, size in zip(begins, ends, source.shape, strict=True)
            ]
        else:
            ends = [None if op.options["end_mask"] >> axis & 1 else end for axis, end in enumerate(ends)]
    else:
        ends = [None if size == -1 else begin + size for begin, size in zip(begins, ends, strict=True)]
    require(
        len(steps) == rank and min(steps, default=1) >= 1, "the slice has another number of axes, or a step below 1"
    )
    chosen = [
        range(size)[begin:end:step] for size, begin, end, step in zip(source.shape, begins, ends, steps, strict=True)
    ]
    require(
        tuple(map(len, chosen)) == tuple(target.shape),
        f"the slice has {list(map(len, chosen))} elements, its tensor {list(target.shape)}",
    )
    axes = [
        MoveAxis(size, len(part), len(part), part.start, part.step)
        for size, part in zip(source.shape, chosen, strict=True)
    ]
    rows, cols, channels = ([MoveAxis(1, 1, 1)] * 3 + axes)[-3:]
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, 0)),))


def _end_of_offset(begin: int | None, count: int, size: int) -> int:
    """Where a slice along an axis ends that is given by its beginning and an offset from there; LiteRT has no mask
    for it, and does not keep to the axis.
    """
    first = slice(begin, None).indices(size)[0]
    require(0 < count <= size - first, f"an offset of {count} from {first} in an axis of {size}; use 1..{size - first}")
    return first + count


def _lower_split(graph: Graph, op: Op) -> MovesWork:
    """SPLIT (axis, source) in equal parts, SPLIT_V (source, sizes, axis) in parts of the sizes that the outputs
    have.
    """
    number = 1 if op.kind == "SPLIT" else 0
    require(len(op.inputs) == 3 - number, f"{len(op.inputs)} inputs")
    source, axis = moved(graph, op.inputs[number]), integers(graph, op.inputs[0 if number else 2])
    require(axis.size == 1, f"{axis.size} axes to cut along; it is one")
    shape, part = image(source), axis_number(axis.item(), len(source.shape)) + 4 - len(source.shape)
    targets = [moved(graph, index) for index in op.outputs]
    sizes = [nhwc(target.shape)[part] for target in targets]
    is_whole = sum(sizes) == shape[part] and (op.kind == "SPLIT_V" or len(set(sizes)) == 1)
    require(part > 0 and is_whole, f"{shape} cannot be cut in parts of {sizes} along axis {axis.item()}")
    start, moves = 0, []
    for n, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        require(
            source.dtype == target.dtype,
            f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
        )
        expected = tuple(size if axis == part else extent for axis, extent in enumerate(shape))
        require(nhwc(target.shape) == expected, f"{target.name!r} should be {expected}")
        axes = [MoveAxis(extent, extent, extent) for extent in shape]
        axes[part] = MoveAxis(shape[part], size, size, start=start)
        _, rows, cols, channels = axes
        moves.append((n, MoveWork(rows, cols, channels, 0)))
        start += size
    return MovesWork(number, tuple(moves))


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
    return InterleaveWork(shape[3], block, block, (height, width), shape[1:3])


def _lower_transpose(graph: Graph, op: Op) -> TransposeWork:
    source, target = _move_tensors(graph, op)
    rank = len(source.shape)
    order = [axis_number(axis, rank) for axis in integers(graph, op.inputs[1], (np.int32,)).reshape(-1).tolist()]
    require(sorted(order) == list(range(rank)), f"{order} is not an order of {rank} axes")
    require(
        tuple(source.shape[axis] for axis in order) == tuple(target.shape),
        f"{source.shape} in the order {order} is not {target.shape}",
    )
    full = list(range(4 - rank)) + [axis + 4 - rank for axis in order]
    require(full[0] == 0, "the batch cannot be exchanged with another axis")
    require(
        source.dtype == np.int8 or full[3] == 3,
        f"{source.name!r} is {source.dtype}; its rows and columns can be exchanged, its channels stay channels",
    )
    return TransposeWork((full[1] - 1, full[2] - 1, full[3] - 1))


def _lower_concatenation(graph: Graph, op: Op) -> ConcatWork:
    target = moved(graph, op.outputs[0])
    axis = axis_number(op.options["axis"], len(target.shape)) + 4 - len(target.shape) - 1
    require(axis >= 0, "tensors cannot be concatenated along the batch")
    require(op.options["activation"] == "NONE", f"fused activation {op.options['activation']} is not supported")
    image(target)
    for index in op.inputs:
        source = moved(graph, index)
        _require_plain_copy(source, target, op.options.get("is_rescaled", False))
        require(len(source.shape) == len(target.shape), "the tensors differ in their number of axes")
    shapes, result = np.array([nhwc(graph.tensors[index].shape) for index in op.inputs]), np.array(nhwc(target.shape))
    total = np.where(np.arange(4) == axis + 1, shapes.sum(axis=0), shapes[0])
    require(
        bool((np.delete(shapes, axis + 1, 1) == np.delete(result, axis + 1)).all() and (total == result).all()),
        "the shapes do not fit together",
    )
    return ConcatWork(axis)


def _require_plain_copy(source: Tensor, target: Tensor, is_rescaled: bool) -> None:
    """Raise `GraphError` unless a concatenation copies the values of `source` as they are.

    LiteRT demands the same quantisation for int8; for int16 it does not look at it; uint8 (`is_rescaled`) it converts
    in float32, to the same values if the scales are almost the same.
    """
    require(
        source.dtype == target.dtype,
        f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
    )
    if source.dtype == np.int8 and not (is_rescaled and _is_kept(source, target)):
        require(
            not is_rescaled,
            (
                f"{source.name!r} and {target.name!r} differ in scale or zero point; LiteRT converts uint8 then, the "
                "NPU does not: quantise both alike"
            ),
        )
        require_same_quant(source, target)


def _is_kept(source: Tensor, target: Tensor) -> bool:
    """Does LiteRT's conversion in float32 leave every value of uint8 (here 128 less) as it is?"""
    for tensor in (source, target):
        require_quant(tensor)
    scale = source.quantisation.scale[0] * (np.float32(1) / target.quantisation.scale[0])
    zero_in, zero_out = (np.float32(tensor.quantisation.zero_point[0] + 128) for tensor in (source, target))
    values = np.arange(256, dtype=np.float32)
    places = values * scale - zero_in * scale
    return bool(
        np.array_equal(np.copysign(np.floor(np.abs(places).astype(np.float64) + 0.5), places) + zero_out, values)
    )


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
        return ZoomWork(TpOp.BILINEAR, source.shape[3], rows, cols)
    nearest = op.options.get("pixels") or [_nearest_pixels(op, *size) for size in sizes]
    if all(
        size_out % size_in == 0 and np.array_equal(pixels, np.arange(size_out) // (size_out // size_in))
        for pixels, (size_in, size_out) in zip(nearest, sizes, strict=True)
    ):
        return ResizeWork(*(size_out // size_in for size_in, size_out in sizes))
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
    target = moved(graph, op.outputs[0], is_wide_ok=False)
    image(target)
    axis = axis_number(op.options["axis"], len(target.shape))
    require(axis + 4 - len(target.shape) > 0, "tensors cannot be put together along the batch")
    require(target.shape[axis] == len(op.inputs), f"{len(op.inputs)} tensors for {target.shape[axis]} places")
    for index in op.inputs:
        source = moved(graph, index, is_wide_ok=False)
        require_same_quant(source, target)
        require(
            tuple(source.shape) == tuple(np.delete(target.shape, axis)),
            f"{source.name!r} should be {target.shape} without axis {axis}",
        )
    return ConcatWork(axis + 3 - len(target.shape))


def _lower_reshape(graph: Graph, op: Op) -> ReshapeWork:
    source, target = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    require(source.data is None, f"{source.name!r} is a constant where an activation is expected")
    if op.kind == "EXPAND_DIMS":
        require_same_quant(source, target)
    require(
        max(len(source.shape), len(target.shape)) <= 4, f"shapes {source.shape} and {target.shape}; the limit is 4 axes"
    )
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
