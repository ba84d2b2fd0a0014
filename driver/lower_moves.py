"""Operators that move values without computing: what the tensor processor copies."""

from __future__ import annotations

import numpy as np

from .graph import Graph, Op, Tensor
from .operands import activation, constant, image, nhwc, require, require_same_quant
from .work import AssignWork, ConcatWork, HostWork, MoveAxis, MovesWork, MoveWork, ReadWork, ReshapeWork, ResizeWork

__all__ = ["MOVE_LOWERINGS"]


def _move_tensors(graph: Graph, op: Op) -> tuple[Tensor, Tensor]:
    """Input and output of an operator that moves values."""
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    image(source)
    image(target)
    require_same_quant(source, target)
    return source, target


def _lower_pad(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    values = constant(graph, op.inputs[1], np.int32).data
    require(values.size == 2 * len(source.shape), f"{values.size} pads for {len(source.shape)} axes")
    pads = values.reshape(-1, 2).astype(np.int64)
    pads = np.concatenate([np.zeros((4 - len(pads), 2), np.int64), pads])
    require(not pads[[0, 3]].any(), "only rows and columns can be padded")
    require(bool((pads >= 0).all()), "a pad is negative")
    sizes, padded = nhwc(source.shape), nhwc(target.shape)
    require(all(size + pad.sum() == total for size, pad, total in zip(sizes, pads, padded, strict=True)), f"{sizes} with the pads is not {padded}")
    rows, cols, channels = (MoveAxis(sizes[axis], padded[axis], sizes[axis], before=int(pads[axis, 0]), behind=int(pads[axis, 1])) for axis in (1, 2, 3))
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, int(target.quant.zero_point[0]))),))


def _lower_slice(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    begins, ends = (constant(graph, index, np.int32).data.reshape(-1).astype(int).tolist() for index in op.inputs[1:3])
    steps = [1] * len(begins)
    if op.kind == "STRIDED_SLICE":
        require(not op.options["shrink_axis_mask"] | op.options["new_axis_mask"] | op.options["ellipsis_mask"], "the slice adds or removes axes")
        steps = constant(graph, op.inputs[3], np.int32).data.reshape(-1).astype(int).tolist()
        begins = [None if op.options["begin_mask"] >> axis & 1 else begin for axis, begin in enumerate(begins)]
        ends = [None if op.options["end_mask"] >> axis & 1 else end for axis, end in enumerate(ends)]
    else:
        ends = [None if size == -1 else begin + size for begin, size in zip(begins, ends, strict=True)]
    rank = len(source.shape)
    require({len(begins), len(ends), len(steps), len(target.shape)} == {rank} and min(steps) >= 1, "the slice has another number of axes, or a step below 1")
    chosen = [range(size)[begin:end:step] for size, begin, end, step in zip(source.shape, begins, ends, steps, strict=True)]
    require(tuple(map(len, chosen)) == tuple(target.shape), f"the slice has {list(map(len, chosen))} elements, its tensor {list(target.shape)}")
    axes = [MoveAxis(size, len(part), len(part), part.start, part.step) for size, part in zip(source.shape, chosen, strict=True)]
    rows, cols, channels = ([MoveAxis(1, 1, 1)] * 3 + axes)[-3:]
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, 0)),))


def _lower_split(graph: Graph, op: Op) -> MovesWork:
    """SPLIT (axis, source) in equal parts, SPLIT_V (source, sizes, axis) in parts of the sizes that the outputs have."""
    number = 1 if op.kind == "SPLIT" else 0
    require(len(op.inputs) == 3 - number, f"{len(op.inputs)} inputs")
    source, axis = activation(graph, op.inputs[number]), constant(graph, op.inputs[0 if number else 2], np.int32).data
    require(axis.size == 1 and -len(source.shape) <= axis.item() < len(source.shape), "the axis does not exist")
    shape, part = image(source), axis.item() % len(source.shape) + 4 - len(source.shape)
    targets = [activation(graph, index) for index in op.outputs]
    sizes = [nhwc(target.shape)[part] for target in targets]
    is_whole = sum(sizes) == shape[part] and (op.kind == "SPLIT_V" or len(set(sizes)) == 1)
    require(part > 0 and is_whole, f"{shape} cannot be cut in parts of {sizes} along axis {axis.item()}")
    start, moves = 0, []
    for n, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        require_same_quant(source, target)
        expected = tuple(size if axis == part else extent for axis, extent in enumerate(shape))
        require(nhwc(target.shape) == expected, f"{target.name!r} should be {expected}")
        axes = [MoveAxis(extent, extent, extent) for extent in shape]
        axes[part] = MoveAxis(shape[part], size, size, start=start)
        moves.append((n, MoveWork(*axes[1:], 0)))
        start += size
    return MovesWork(number, tuple(moves))


def _lower_space_to_depth(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    (_, height, width, num_c), block, shape = nhwc(source.shape), op.options["block_size"], nhwc(target.shape)
    require(shape == (1, height // block, width // block, num_c * block * block) and not height % block and not width % block,
             f"blocks of {block} of {source.shape} do not give {target.shape}")
    return MovesWork(0, tuple((0, MoveWork(
        MoveAxis(height, shape[1], shape[1], dy, block), MoveAxis(width, shape[2], shape[2], dx, block),
        MoveAxis(num_c, shape[3], num_c, target_start=(dy * block + dx) * num_c), 0)) for dy in range(block) for dx in range(block)))


def _lower_concatenation(graph: Graph, op: Op) -> ConcatWork:
    target = activation(graph, op.outputs[0])
    axis = op.options["axis"] % len(target.shape) + 4 - len(target.shape) - 1
    require(axis >= 0, "tensors cannot be concatenated along the batch")
    require(op.options["activation"] == "NONE", f"fused activation {op.options['activation']} is not supported")
    image(target)
    for index in op.inputs:
        source = activation(graph, index)
        require_same_quant(source, target)
        require(len(source.shape) == len(target.shape), "the tensors differ in their number of axes")
    shapes, result = np.array([nhwc(graph.tensors[index].shape) for index in op.inputs]), np.array(nhwc(target.shape))
    total = np.where(np.arange(4) == axis + 1, shapes.sum(axis=0), shapes[0])
    require(bool((np.delete(shapes, axis + 1, 1) == np.delete(result, axis + 1)).all() and (total == result).all()), "the shapes do not fit together")
    return ConcatWork(axis)


def _lower_resize(graph: Graph, op: Op) -> ResizeWork:
    source, target = _move_tensors(graph, op)
    require(len(source.shape) == len(target.shape) == 4, f"shapes {source.shape} and {target.shape}; a resized image has 4 axes")
    require(source.shape[3] == target.shape[3], "input and output should have the same channels")
    require(not op.options["align_corners"], "corners are aligned")
    times = []
    for axis in (1, 2):
        size_in, size_out = source.shape[axis], target.shape[axis]
        offset = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
        nearest = np.floor((np.arange(size_out, dtype=np.float32) + offset) * (np.float32(size_in) / np.float32(size_out)))
        times.append(size_out // size_in)
        require(size_out % size_in == 0 and np.array_equal(nearest, np.arange(size_out) // times[-1]), f"{size_in} pixels to {size_out}; the factor must be whole")
    return ResizeWork(*times)


def _lower_reshape(graph: Graph, op: Op) -> ReshapeWork | HostWork:
    source, target = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if source.dtype != np.int8:
        return HostWork(f"a tensor of {source.dtype} is not in NPU memory")
    require(source.data is None, f"{source.name!r} is a constant where an activation is expected")
    require(max(len(source.shape), len(target.shape)) <= 4, f"shapes {source.shape} and {target.shape}; the limit is 4 axes")
    require(np.prod(source.shape) == np.prod(target.shape), f"{source.shape} and {target.shape} differ in size")
    return ReshapeWork()


def _lower_variable(graph: Graph, op: Op) -> ReadWork | AssignWork:
    number, tensor = op.options["variable"], activation(graph, (op.outputs or op.inputs)[0])
    variable = graph.variables[number]
    require(tensor.shape == variable.shape, f"shape {tensor.shape}, but the variable {variable.name!r} is {variable.shape}")
    require(len(tensor.shape) <= 4, f"a variable of shape {tensor.shape}; the limit is 4 axes")
    return ReadWork(number) if op.kind == "READ_VARIABLE" else AssignWork(number)


MOVE_LOWERINGS = {
    "PAD": _lower_pad, "SLICE": _lower_slice, "STRIDED_SLICE": _lower_slice, "SPLIT": _lower_split, "SPLIT_V": _lower_split, "SPACE_TO_DEPTH": _lower_space_to_depth,
    "CONCATENATION": _lower_concatenation, "RESIZE_NEAREST_NEIGHBOR": _lower_resize, "RESHAPE": _lower_reshape,
    "READ_VARIABLE": _lower_variable, "ASSIGN_VARIABLE": _lower_variable,
}
"""By kind of operator: (graph, operator) -> work. They raise `GraphError`."""
