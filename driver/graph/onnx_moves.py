"""Nodes of ONNX that move or compare values, and the windows that pools and convolutions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from convoy.driver.ort.unit import Port

from .onnx_builder import Activation, Handler, Node, OnnxBuilder, Unsuited, suits

__all__ = ["MOVES", "axis_in_graph", "emit_over_image", "pads_and_steps", "transpose", "window"]

_Value = TypeVar("_Value")


def _shapes_only(builder: OnnxBuilder, node: Node) -> None:
    """Flatten, Reshape, Squeeze, Unsqueeze: another shape for the same elements."""
    x, y = node.inputs[0], node.outputs[0]
    is_same = builder.form(x) and builder.values[x][0] == builder.values[y][0]
    source = builder.act(x, is_same)
    target = builder.new(y, is_same, builder.tensors[source].quant)
    shape = builder.tensors[target].shape
    inputs = [source, builder.constant("shape", np.array(shape, np.int32))]
    builder.emit("RESHAPE", [node], inputs, [target], new_shape=list(shape))


def transpose(builder: OnnxBuilder, node: Node) -> None:
    """Another order of axes."""
    x, y = node.inputs[0], node.outputs[0]
    shape = builder.values[x][0]
    perm = list(node.attrs.get("perm", range(len(shape))[::-1]))
    is_image = builder.form(x) and len(shape) == 4
    stored = [0, 2, 3, 1] if is_image else list(range(len(shape)))
    order, is_image_out = [stored.index(axis) for axis in perm], False
    if len(shape) == 4 and [order[axis] for axis in (0, 2, 3, 1)] == [0, 1, 2, 3]:
        order, is_image_out = [0, 1, 2, 3], True
    source = builder.act(x, is_image)
    target = builder.new(y, is_image_out, builder.tensors[source].quant)
    if order == sorted(order):
        shape_constant = builder.constant("shape", np.array(builder.tensors[target].shape, np.int32))
        builder.emit("RESHAPE", [node], [source, shape_constant], [target])
    else:
        builder.emit("TRANSPOSE", [node], [source, builder.constant("order", np.array(order, np.int32))], [target])


def _max_pool(builder: OnnxBuilder, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    builder.form(x)
    shape, out_shape = builder.values[x][0], builder.values[y][0]
    suits(len(shape) in (3, 4) and len(node.outputs) == 1)
    options = window(node, shape, out_shape)
    source = builder.act(x, True)
    builder.emit("MAX_POOL_2D", [node], [source], [builder.new(y, True, builder.tensors[source].quant)], **options)


def window(node: Node, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> dict[str, Any]:
    """Options of a pool; its pads behind the image are those that its output needs."""
    kernel = tuple(node.attrs["kernel_shape"])
    options = pads_and_steps(node, shape[2:], kernel)
    suits(options.pop("dilation_h") == options.pop("dilation_w") == 1)
    kernel_h, kernel_w = (1, *kernel) if len(kernel) == 1 else kernel
    (height, width), (out_h, out_w) = (
        ((1, *sizes) if len(sizes) == 1 else sizes) for sizes in (shape[2:], out_shape[2:])
    )
    top, bottom, left, right = options["pads"]
    bottom = max(bottom, (out_h - 1) * options["stride_h"] + kernel_h - height - top)
    right = max(right, (out_w - 1) * options["stride_w"] + kernel_w - width - left)
    return options | {"filter_h": kernel_h, "filter_w": kernel_w, "pads": (top, bottom, left, right)}


def pads_and_steps(node: Node, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    """Strides, dilations and explicit pads of a window, along rows and columns."""
    rank = len(kernel)
    strides = list(node.attrs.get("strides", [1] * rank))
    dilations = list(node.attrs.get("dilations", [1] * rank))
    pads = list(node.attrs.get("pads", [0] * (2 * rank)))
    auto_pad = node.attrs.get("auto_pad", b"NOTSET").decode()
    if auto_pad == "VALID":
        pads = [0] * (2 * rank)
    elif auto_pad.startswith("SAME"):
        for axis in range(rank):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((-(-sizes[axis] // strides[axis]) - 1) * strides[axis] + extent - sizes[axis], 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[axis + rank] = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if rank == 1:
        strides, dilations, pads = [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
    top, left, bottom, right = pads
    return {
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilations[0],
        "dilation_w": dilations[1],
        "pads": (top, bottom, left, right),
        "activation": "NONE",
    }


def _global_max_pool(builder: OnnxBuilder, node: Node) -> None:
    x = node.inputs[0]
    builder.form(x)
    suits(len(builder.values[x][0]) in (3, 4))
    emit_over_image(builder, "REDUCE_MAX", [node], (x, None), (node.outputs[0], None))


def emit_over_image(
    builder: OnnxBuilder, kind: str, nodes: list[Node], source: Activation, target: Activation, *,
    keep_dims: bool = True, **options: Any,
) -> None:  # fmt: skip
    """Emit what makes one value of each channel of an image; of the quantisation of its input if none is given."""
    inputs = [builder.act(source[0], True, source[1]), builder.constant("axes", np.array([1, 2], np.int32))]
    outputs = [builder.new(target[0], keep_dims, target[1] or builder.tensors[inputs[0]].quant)]
    builder.emit(kind, nodes, inputs, outputs, keep_dims=keep_dims, **options)


def _slice(builder: OnnxBuilder, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    is_image, shape = builder.form(x), builder.values[x][0]
    starts, ends = (builder.integers(node, place, attr) for place, attr in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise Unsuited
    axes = builder.integers(node, 3, "axes") or list(range(len(starts)))
    steps = builder.integers(node, 4, "steps") or [1] * len(starts)
    chosen = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen[axis] = chosen[axis][start:end:step]
    _cut(builder, node, y, chosen, is_image)


def _cut(builder: OnnxBuilder, node: Node, output: str, chosen: list[range], is_image: bool) -> None:
    """Emit the elements of a node's input at these places along each axis in the file."""
    suits(all(len(part) > 0 and part.step > 0 for part in chosen))
    source = builder.act(node.inputs[0], is_image)
    parts = _in_graph(chosen, is_image, range(1))
    bounds = [[getattr(part, name) for part in parts] for name in ("start", "stop", "step")]
    inputs = [source, *(builder.constant("bounds", np.array(values, np.int32)) for values in bounds)]
    outputs = [builder.new(output, is_image, builder.tensors[source].quant)]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    builder.emit("STRIDED_SLICE", [node], inputs, outputs, **dict.fromkeys(masks, 0))


def _split(builder: OnnxBuilder, node: Node) -> None:
    x = node.inputs[0]
    is_image, shape = builder.form(x), builder.values[x][0]
    axis, start = node.attrs.get("axis", 0) % len(shape), 0
    for output in node.outputs:
        size = builder.values[output][0][axis]
        chosen = [range(extent) for extent in shape]
        chosen[axis] = range(start, start + size)
        _cut(builder, node, output, chosen, is_image)
        start += size


def _pad(builder: OnnxBuilder, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    is_image, shape = builder.form(x), builder.values[x][0]
    pads = builder.integers(node, 1, "pads")
    if pads is None or node.attrs.get("mode", b"constant") != b"constant" or min(pads) < 0:
        raise Unsuited
    axes = [axis % len(shape) for axis in builder.integers(node, 3, "") or range(len(shape))]
    by_axis = [(0, 0)] * len(shape)
    for number, axis in enumerate(axes):
        by_axis[axis] = pads[number], pads[number + len(axes)]
    suits(not node.name(2) or node.inputs[2] in builder.constants)
    is_image = is_image or (len(shape) in (3, 4) and by_axis[0] == by_axis[1] == (0, 0))
    source = builder.act(x, is_image)
    tensor = builder.tensors[source]
    fill = builder.constants[node.inputs[2]].reshape(-1)[0] if node.name(2) else 0
    if node.is_on_real:
        suits(fill == 0 and len(node.inputs) > 1)
        fill = tensor.quantisation.zero_point[0]
        filler = f"{y} (filler)"
        builder.constants[filler] = np.array(fill, tensor.dtype)
        node = node.changed((*node.inputs[:2], filler, *node.inputs[3:]), node.outputs)
    inputs = [
        source,
        builder.constant("pads", np.array(_in_graph(by_axis, is_image, (0, 0)), np.int32)),
        builder.constant("filler", np.array([fill], tensor.dtype)),
    ]
    builder.emit("PADV2", [node], inputs, [builder.new(y, is_image, tensor.quant)])


def _resize(builder: OnnxBuilder, node: Node) -> None:
    """Nearest neighbours; which ones onnxruntime says."""
    x, y = node.inputs[0], node.outputs[0]
    builder.form(x)
    shape, out_shape = builder.values[x][0], builder.values[y][0]
    suits(node.attrs.get("mode", b"nearest") == b"nearest" and len(shape) == 4 and shape[:2] == out_shape[:2])
    suits(node.attrs.get("coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize")
    port = Port(x, 0, shape, np.dtype(np.float32), False), Port(y, 0, out_shape, np.dtype(np.float32), False)
    unit = builder.unit([node], [], [])
    unit = replace(unit, inputs=port[:1], outputs=port[1:])
    pixels = []
    for axis in (2, 3):
        places = np.arange(shape[axis], dtype=np.float32).reshape([-1 if n == axis else 1 for n in range(4)])
        (found,) = unit.run(unit.load(), [np.broadcast_to(places, shape).copy()])
        line = np.moveaxis(found, axis, -1).reshape(-1, out_shape[axis])
        suits(bool((line == line[0]).all()))
        pixels.append(line[0].astype(np.int64))
    source = builder.act(x, True)
    size = builder.constant("size", np.array(out_shape[2:], np.int32))
    outputs = [builder.new(y, True, builder.tensors[source].quant)]
    builder.emit("RESIZE_NEAREST_NEIGHBOR", [node], [source, size], outputs, pixels=tuple(pixels))


def _blocks(builder: OnnxBuilder, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    builder.form(x)
    source = builder.act(x, True)
    kind = {"DepthToSpace": "DEPTH_TO_SPACE", "SpaceToDepth": "SPACE_TO_DEPTH"}[node.kind]
    outputs = [builder.new(y, True, builder.tensors[source].quant)]
    options = {"is_by_channel": True} if node.attrs.get("mode", b"DCR") == b"CRD" else {}
    builder.emit(kind, [node], [source], outputs, block_size=node.attrs["blocksize"], **options)


def _gather(builder: OnnxBuilder, node: Node) -> None:
    """Elements at constant places that are evenly spaced."""
    x, y, name = node.inputs[0], node.outputs[0], node.inputs[1]
    is_image, shape = builder.form(x), builder.values[x][0]
    suits(name in builder.constants and builder.constants[name].ndim <= 1 and builder.constants[name].size > 0)
    axis, places = node.attrs.get("axis", 0) % len(shape), builder.constants[name]
    indices = places.reshape(-1) % shape[axis]
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    suits(step > 0 and bool((np.diff(indices) == step).all()))
    chosen = [range(extent) for extent in shape]
    chosen[axis] = range(int(indices[0]), int(indices[-1]) + 1, step)
    if places.ndim:
        _cut(builder, node, y, chosen, is_image)
        return
    kept = f"{y} (with its axis)"
    builder.values[kept] = tuple(map(len, chosen)), builder.values[x][1]
    _cut(builder, node, kept, chosen, False)
    source = builder.act(kept, False)
    builder.reshape(source, builder.new(y, False, builder.tensors[source].quant))


def _in_graph(values: Sequence[_Value], is_image: bool, filler: _Value) -> list[_Value]:
    """Something for each axis in the file, in the order of the graph's axes."""
    if not is_image:
        return list(values)
    channels_first = list(values) if len(values) == 4 else [values[0], values[1], filler, values[2]]
    return [channels_first[axis] for axis in (0, 2, 3, 1)]


def axis_in_graph(axis: int, rank: int, is_image: bool) -> int:
    """An axis in the file as one of the graph's."""
    return _in_graph([n == axis % rank for n in range(rank)], is_image, False).index(True)


MOVES: dict[str, Handler] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), _shapes_only),
    "Transpose": transpose,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _global_max_pool,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
    "Gather": _gather,
}
"""Nodes that move or compare values, and so do the same to bytes as to real numbers of one scale."""
