"""Convolutions that the NPU does not take as they are, in forms that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convoy.driver.graph.graph import Op, Quant, Tensor

from .operands import MAX_PAD, MAX_TAPS, integers, nhwc, require, require_same_quant, weight_constant
from .operators import num_taps, window_axis
from .origins import PADS, origins
from .parts import Expansion, Parts
from .work import NATIVE_STRIDES, Axis

__all__ = ["CONV_EXPANSIONS"]

MAX_WEIGHTS = 1 << 26
"""Of a kernel with added zeros: more take too much memory and time to encode."""
CONVS = "CONV_2D", "DEPTHWISE_CONV_2D"


def _weights(parts: Parts, weights: Tensor, values: np.ndarray, axis: int = 0) -> int:
    """Add other weights with the scales of `weights`, along `axis` if there are several; the index."""
    quant = weights.quantisation
    zero_point = quant.zero_point if weights.dtype == np.uint8 else np.zeros_like(quant.zero_point)
    return parts.constant(np.ascontiguousarray(values, weights.dtype), Quant(quant.scale, zero_point, axis))


def _require_room(num_weights: int) -> None:
    require(num_weights <= MAX_WEIGHTS, f"{num_weights} weights with zeros; the limit is {MAX_WEIGHTS}")


def _images(tensor: Tensor) -> tuple[int, int, int, int]:
    """The shape as NHWC, of any batch."""
    require(len(tensor.shape) <= 4, f"{tensor.name!r} has {len(tensor.shape)} axes")
    return nhwc(tensor.shape)


def _macs(parts: Parts, op: Op) -> int:
    """Multiply-accumulates of a convolution as the file has it."""
    weights, target = parts[op.inputs[1]].shape, parts[op.outputs[0]].shape
    depth = 1 if op.kind == "DEPTHWISE_CONV_2D" else weights[3]
    return int(np.prod(target)) * weights[1] * weights[2] * depth


def _grouped(parts: Parts) -> bool:
    """A convolution whose kernels see a part of the channels each: zeros for the others, which the NPU skips. With one
    channel for each kernel it is a depthwise convolution.
    """
    op = parts.op
    weights, zero_point = weight_constant(parts.graph, op)
    require(len(weights.shape) == 4, f"{weights.name!r} has {len(weights.shape)} axes")
    (num_oc, kernel_h, kernel_w, num_ic), channels = weights.shape, _images(parts[op.inputs[0]])[3]
    if num_ic == channels or channels % num_ic or num_oc % (channels // num_ic):
        return False
    if num_taps(*_axes(parts, op)) > MAX_TAPS or (op.index in parts.narrow and kernel_h * kernel_w > 1):
        return False
    if num_ic == 1:
        kernels = _weights(parts, weights, weights.values.transpose(3, 1, 2, 0), 3)
        options = op.options | {"depth_multiplier": num_oc // channels}
        _put_grouped(parts, "DEPTHWISE_CONV_2D", kernels, options)
        return True
    kernels = _weights(parts, weights, _dense(parts, op, weights, zero_point))
    options = op.options | {"macs": _macs(parts, op)}
    _put_grouped(parts, op.kind, kernels, options)
    return True


def _put_grouped(parts: Parts, kind: str, kernels: int, options: dict[str, Any]) -> None:
    """Add a convolution like `parts.op` with other kernels."""
    op, axes = replace(parts.op, options=options), _axes(parts, parts.op)
    inputs = op.inputs[0], kernels, *op.inputs[2:]
    if _is_wide_padded(axes):
        _put_conv(parts, op, kind, inputs, axes)
    else:
        parts.add(kind, inputs, op.outputs, **options)


def _axes(parts: Parts, op: Op) -> tuple[Axis, Axis]:
    """Rows and columns of a convolution; `GraphError` where its sizes contradict one another."""
    kernel = parts[op.inputs[1]].shape
    require(len(kernel) == 4, "the weights have another number of axes than 4")
    sizes = zip(_images(parts[op.inputs[0]])[1:3], _images(parts[op.outputs[0]])[1:3], kernel[1:3], strict=True)
    rows, cols = (window_axis(op, name, *size) for name, size in zip("hw", sizes, strict=True))
    return rows, cols


def _inside(axis: Axis) -> range:
    """The taps that meet a pixel of the image for at least one output."""
    starts = np.arange(axis.size_out) * axis.stride - axis.pad
    meets = [
        k
        for k in range(axis.kernel)
        if ((starts + k * axis.dilation >= 0) & (starts + k * axis.dilation < axis.size_in)).any()
    ]
    return range(meets[0], meets[-1] + 1) if meets else range(1)


def _behind(axis: Axis) -> int:
    """Pads behind the image that outputs need."""
    return max(axis.end, 0)


def _is_wide_padded(axes: Sequence[Axis]) -> bool:
    return max(max(axis.pad, _behind(axis)) for axis in axes) > MAX_PAD


def _has_dead_taps(axes: Sequence[Axis]) -> bool:
    return any(len(_inside(axis)) < axis.kernel for axis in axes)


def _padded(parts: Parts) -> bool:
    """A convolution with pads that the NPU does not have, or with taps that only ever meet pads."""
    op, axes = parts.op, _axes(parts, parts.op)
    if not (_is_wide_padded(axes) or _has_dead_taps(axes)) or op.index in parts.narrow:
        return False
    _put_conv(parts, op, op.kind, op.inputs, axes)
    return True


def _put_pad(parts: Parts, source: int, axes: Sequence[Axis]) -> tuple[int, list[Axis]]:
    """Add an operator that makes the pads of a convolution: its result, and the axes without pads."""
    require(min(axis.pad for axis in axes) >= 0, "an image that begins with pixels of no use")
    pads = np.zeros((4, 2), np.int32)
    pads[1:3] = [(axis.pad, _behind(axis)) for axis in axes]
    padded = parts.tensor(tuple(np.array(_images(parts[source])) + pads.sum(axis=1)), source)
    parts.add("PAD", (source, parts.constant(pads)), (padded,))
    sizes = parts[padded].shape[1:3]
    return padded, [replace(axis, size_in=size, pad=0) for axis, size in zip(axes, sizes, strict=True)]


def _put_conv(parts: Parts, op: Op, kind: str, inputs: Sequence[int], axes: Sequence[Axis]) -> None:
    """Add a convolution like `op`, of these axes. Taps that never meet the image go, and pads that are large even so
    become an operator before it.
    """
    if op.index in parts.narrow and axes[0].kernel * axes[1].kernel > 1:
        _put_patched(parts, op, inputs, axes, (1, 1))
        return
    source, kernels, *bias = inputs
    if _has_dead_taps(axes):
        require(min(axis.pad for axis in axes) >= 0, "an image that begins with pixels of no use")
        weights = parts[kernels] if kernels >= parts.first_tensor else weight_constant(parts.graph, op)[0]
        taps = [_inside(axis) for axis in axes]
        values = weights.values[:, taps[0].start : taps[0].stop, taps[1].start : taps[1].stop]
        kernels = _weights(parts, weights, values, weights.quantisation.axis)
        axes = [
            replace(axis, kernel=len(part), pad=axis.pad - part.start * axis.dilation)
            for axis, part in zip(axes, taps, strict=True)
        ]
    if min(axis.pad for axis in axes) < 0 or _is_wide_padded(axes):
        source, axes = _put_pad(parts, source, axes)
    rows, cols = axes
    options = {name: value for name, value in op.options.items() if name != "padding"}
    for name, axis in zip("hw", axes, strict=True):
        options |= {f"stride_{name}": axis.stride, f"dilation_{name}": axis.dilation}
    options |= {"pads": (rows.pad, _behind(rows), cols.pad, _behind(cols)), "macs": _macs(parts, op)}
    parts.add(kind, (source, kernels, *bias), op.outputs, **options)


def _patched(parts: Parts) -> bool:
    """A convolution with more taps than the NPU has, or taps too far apart."""
    op, axes = parts.op, _axes(parts, parts.op)
    is_narrow = op.index in parts.narrow and axes[0].kernel * axes[1].kernel > 1
    if num_taps(*axes) <= MAX_TAPS and not is_narrow:
        return False
    part = (1, 1) if op.index in parts.narrow else _part(axes[0].kernel, axes[1].kernel)
    _put_patched(parts, op, op.inputs, axes, part)
    return True


def _put_patched(parts: Parts, op: Op, inputs: Sequence[int], axes: Sequence[Axis], part: tuple[int, int]) -> None:
    """Add a convolution like `op`, of these axes: shifted copies of the image are further channels, which take the taps
    of a part of the kernel each.
    """
    (kernel_h, kernel_w), (part_h, part_w) = (axis.kernel for axis in axes), part
    num_y, num_x = -(-kernel_h // part_h), -(-kernel_w // part_w)
    weights, zero_point = weight_constant(parts.graph, op)
    values = _dense(parts, op, weights, zero_point)
    missing = num_y * part_h - kernel_h, num_x * part_w - kernel_w
    values = np.pad(
        values, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)], constant_values=values.dtype.type(zero_point)
    )
    num_oc, num_ic = values.shape[0], values.shape[3]
    values = values.reshape(num_oc, num_y, part_h, num_x, part_w, num_ic).transpose(0, 2, 4, 1, 3, 5)
    source, whole = _put_pad(
        parts, inputs[0], [replace(axis, kernel=axis.kernel + more) for axis, more in zip(axes, missing, strict=True)]
    )
    steps = [part * axis.dilation for part, axis in zip((part_h, part_w), axes, strict=True)]
    sizes = [
        (axis.size_out - 1) * axis.stride + (part - 1) * axis.dilation + 1
        for part, axis in zip((part_h, part_w), axes, strict=True)
    ]
    copies, batch = [], parts[source].shape[0]
    for y in range(num_y):
        for x in range(num_x):
            copies.append(parts.tensor((batch, *sizes, num_ic), source))
            begins = parts.constant(np.array([0, y * steps[0], x * steps[1], 0], np.int32))
            parts.add(
                "SLICE", (source, begins, parts.constant(np.array([batch, *sizes, num_ic], np.int32))), copies[-1:]
            )
    together = parts.tensor((batch, *sizes, num_ic * len(copies)), source)
    parts.add("CONCATENATION", copies, (together,), axis=3, activation="NONE")
    kernels = _weights(parts, weights, values.reshape(num_oc, part_h, part_w, -1))
    kept = [
        Axis(size, axis.size_out, part, axis.stride, axis.dilation)
        for size, part, axis in zip(sizes, (part_h, part_w), whole, strict=True)
    ]
    _put_conv(parts, op, "CONV_2D", (together, kernels, *inputs[2:]), kept)


def _part(kernel_h: int, kernel_w: int) -> tuple[int, int]:
    """Rows and columns of the parts of a kernel, as few as there can be, that the NPU has taps for."""
    found = []
    for num_x in range(-(-kernel_w // MAX_TAPS), kernel_w + 1):
        part_w = -(-kernel_w // num_x)
        num_y = -(-kernel_h // min(kernel_h, MAX_TAPS // part_w))
        found.append((num_x * num_y, -(-kernel_h // num_y), part_w))
    return min(found)[1:]


def _dense(parts: Parts, op: Op, weights: Tensor, zero_point: int) -> np.ndarray:
    """Weights of a convolution as (OC, KH, KW, IC), with zeros for channels that a kernel does not see."""
    channels = _images(parts[op.inputs[0]])[3]
    kernels = weights.values if op.kind == "CONV_2D" else weights.values.transpose(3, 1, 2, 0)
    num_oc, kernel_h, kernel_w, num_ic = kernels.shape
    if num_ic == channels:
        return kernels
    require(
        channels % num_ic == 0 and num_oc % (channels // num_ic) == 0,
        f"kernels of {num_ic} channels of {channels}, {num_oc} of them",
    )
    num_groups = channels // num_ic
    _require_room(kernels.size * num_groups)
    dense = np.full(
        (num_groups, num_oc // num_groups, kernel_h, kernel_w, num_groups, num_ic), zero_point, weights.dtype
    )
    for group, part in enumerate(np.split(kernels, num_groups)):
        dense[group, ..., group, :] = part
    return dense.reshape(num_oc, kernel_h, kernel_w, channels)


def _unpadded(parts: Parts) -> bool:
    """A convolution of what a PAD with zero points makes has these pads itself, and another form if it needs one."""
    op = parts.op
    if (found := _framed(parts, op.inputs[0])) is None:
        return False
    source, pads, makers = found
    axes, shape = _axes(parts, op), _images(parts[op.inputs[0]])
    in_shape = tuple(np.array(shape) - pads.sum(axis=1))
    if parts[source].shape != in_shape:
        made = parts.tensor(in_shape, source)
        parts.add(
            "RESHAPE", (source, parts.constant(np.array(in_shape, np.int32))), (made,), new_shape=np.array(in_shape)
        )
        source = made
    options = {name: value for name, value in op.options.items() if name != "padding"}
    rows, cols = (
        replace(axis, size_in=size, pad=axis.pad + int(before))
        for axis, size, (before, _) in zip(axes, in_shape[1:3], pads[1:3], strict=True)
    )
    options |= {"pads": (rows.pad, _behind(rows), cols.pad, _behind(cols)), "macs": _macs(parts, op)}
    parts.op, parts.unread = replace(op, inputs=(source, *op.inputs[1:]), options=options), makers
    if not any(form(parts) for form in (_grouped, _padded, _patched)):
        parts.add(op.kind, parts.op.inputs, op.outputs, **options)
    parts.note("with the pads of the PAD before it")
    return True


MAX_LEAD = 4
"""Pixels of no use before an image that a kernel may have zero taps for: more make windows larger than a copy is worth.
"""


def _unmoved(parts: Parts) -> bool:
    """A convolution of a slice, of pads around it and of pools of one pixel, which nobody else reads, reads the pixels
    where they are: at a stride of its own, and with zero taps for those that come before them.
    """
    op, (rows, cols) = parts.op, _axes(parts, parts.op)
    zero_point = int(parts[op.inputs[0]].quantisation.zero_point[0])
    for origin in reversed([*origins(parts, op.inputs[0])]):
        seen = origin.axes(parts, rows, cols)
        is_pad = all(other.kind in PADS for other in origin.ops)
        if seen is None or is_pad or origin.fill not in (None, zero_point):
            continue
        is_coarser = any(axis.stride > old.stride for axis, old in zip(seen, (rows, cols), strict=True))
        has_steps = all(axis.stride in NATIVE_STRIDES or axis.kernel == 1 for axis in seen)
        if max(-axis.pad for axis in seen) > MAX_LEAD or (is_coarser and not has_steps):
            continue
        kernels, axes = _led(parts, op, seen)
        options = {name: value for name, value in op.options.items() if name != "padding"} | {"macs": _macs(parts, op)}
        for name, axis in zip("hw", axes, strict=True):
            options |= {f"stride_{name}": axis.stride, f"dilation_{name}": axis.dilation}
        options["pads"] = axes[0].pad, axes[0].end, axes[1].pad, axes[1].end
        parts.op = replace(op, inputs=(origin.source, kernels, *op.inputs[2:]), options=options)
        parts.unread |= {other.index for other in origin.ops}
        if kernels != op.inputs[1] or not any(form(parts) for form in (_grouped, _padded, _patched)):
            parts.add(op.kind, parts.op.inputs, op.outputs, **options)
        parts.note(origin.note)
        return True
    return False


def _led(parts: Parts, op: Op, axes: Sequence[Axis]) -> tuple[int, list[Axis]]:
    """Kernels that begin with zero taps where an image begins with pixels of no use, and the axes with them."""
    if min(axis.pad for axis in axes) >= 0:
        return op.inputs[1], [*axes]
    weights, zero_point = weight_constant(parts.graph, op)
    apart = [-axis.pad if axis.kernel == 1 and axis.pad < 0 else axis.dilation for axis in axes]
    leads = [max(0, -(axis.pad // step)) for axis, step in zip(axes, apart, strict=True)]
    values = np.pad(weights.values, [(0, 0), *((lead, 0) for lead in leads), (0, 0)], constant_values=zero_point)
    led = [
        replace(axis, kernel=axis.kernel + lead, dilation=step, pad=axis.pad + lead * step)
        for axis, lead, step in zip(axes, leads, apart, strict=True)
    ]
    return _weights(parts, weights, values, weights.quantisation.axis), led


def _framed(parts: Parts, tensor: int) -> tuple[int, np.ndarray, set[int]] | None:
    """The image in a frame of zero points that a PAD makes of it, perhaps seen otherwise: its tensor, the frame of its
    NHWC axes, int64 (4, 2), and the indices of the operators. None if there is no such frame.
    """
    makers = {output: op for op in parts.graph.ops for output in op.outputs}
    outer, found = parts[tensor], set[int]()
    while (op := makers.get(tensor)) is not None and op.kind in RESHAPES:
        found.add(op.index)
        (tensor, *_) = op.inputs
    if op is None or op.part is not None or op.kind not in PADS:
        return None
    source, padded = parts[op.inputs[0]], parts[op.outputs[0]]
    pads = integers(parts.graph, op.inputs[1], (np.int8, np.int16, np.int32, np.int64)).reshape(-1, 2).astype(np.int64)
    for tensor_of_frame in (padded, outer):
        require_same_quant(source, tensor_of_frame)
    if op.kind == "PADV2":
        filler = parts[op.inputs[2]].data
        if filler is None or filler.size != 1 or filler.item() != padded.quantisation.zero_point[0]:
            return None
    if len(padded.shape) != len(outer.shape):  # rows or columns were put in
        sizes = [size for size in padded.shape if size > 1]
        if sizes != [size for size in outer.shape if size > 1] or len(outer.shape) != 4:
            return None
        places = [n for n, size in enumerate(outer.shape) if size > 1]
        kept = [n for n, size in enumerate(padded.shape) if size > 1]
        frame = np.zeros((4, 2), np.int64)
        frame[places] = pads[kept]
        if frame.sum() != pads.sum():
            return None
        pads = frame
    pads = np.concatenate([np.zeros((4 - len(pads), 2), np.int64), pads]) if len(pads) < 4 else pads
    if len(pads) != 4 or pads[[0, 3]].any() or pads.min() < 0 or source.data is not None:
        return None
    found.add(op.index)
    return op.inputs[0], pads, found


POINTWISE = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "GELU"),
    *("QUANTIZE", "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PRELU"),
)
RESHAPES = "RESHAPE", "EXPAND_DIMS", "SQUEEZE"


def _chain(parts: Parts) -> list[Op]:
    """The operators between a BATCH_TO_SPACE_ND and the SPACE_TO_BATCH_ND before it, that first; from the convolution
    on they are read by one another only. Empty if there is something else.
    """
    makers = {output: op for op in parts.graph.ops for output in op.outputs}
    chain, tensor = list[Op](), parts.op.inputs[0]
    while (op := makers.get(tensor)) is not None:
        readers = sum(tensor in other.inputs for other in parts.graph.ops)
        is_before = bool(chain) and chain[0].kind in (*CONVS, *RESHAPES) and any(made.kind in CONVS for made in chain)
        if (readers > 1 and not is_before) or tensor in parts.graph.outputs:
            break
        chain.insert(0, op)
        if op.kind == "SPACE_TO_BATCH_ND":
            return chain
        if op.kind not in (*CONVS, *POINTWISE, *RESHAPES) or not _is_alike_everywhere(parts, op):
            break
        (tensor,) = [index for index in op.inputs if index >= 0 and parts[index].data is None]
    return []


def _is_alike_everywhere(parts: Parts, op: Op) -> bool:
    """Has an operator one activation, and if it is pointwise constants that are the same at each pixel?"""
    constants = [parts[index] for index in op.inputs if index >= 0 and parts[index].data is not None]
    num_activations = sum(index >= 0 for index in op.inputs) - len(constants)
    return num_activations == 1 and (
        op.kind not in POINTWISE or all(np.prod(constant.shape[:-1]) == 1 for constant in constants)
    )


def _dilated(parts: Parts) -> bool:
    """SPACE_TO_BATCH_ND, a convolution of stride 1, what follows it pixel by pixel, and BATCH_TO_SPACE_ND are a
    convolution with dilation, and what follows.
    """
    chain = _chain(parts)
    convs = [op for op in chain if op.kind in CONVS]
    if len(convs) != 1:
        return False
    first, conv, place = chain[0], convs[0], chain.index(convs[0])
    if any(op.kind not in RESHAPES for op in chain[1:place]):
        return False
    (source, block, pads), (_, block_behind, crops) = first.inputs, parts.op.inputs
    require_same_quant(parts[source], parts[conv.inputs[0]])
    frame = parts[pads].values
    if (found := _framed(parts, source)) is not None and len(parts[found[0]].shape) == len(parts[source].shape):
        axes_of_frame = found[1][4 - len(parts[source].shape) :]
        if not axes_of_frame[1 + len(frame) :].any() and not axes_of_frame[0].any():
            source, frame = found[0], frame + axes_of_frame[1 : 1 + len(frame)]
            parts.unread |= found[2]
    require_same_quant(parts[chain[-1].outputs[0]], parts[parts.op.outputs[0]])
    if not np.array_equal(parts[block].values, parts[block_behind].values):
        return False
    spread = _spread(parts, conv, source, parts[block].values.tolist(), frame, parts[crops].values)
    if spread is None:
        return False
    shape_in, shape_out, axes = spread
    parts.stands_for = conv
    parts.absorbed |= {op.index for op in chain[place:]}
    parts.unread |= {op.index for op in chain[:place]}
    tensor = source
    if parts[source].shape != shape_in:
        tensor = parts.tensor(shape_in, source)
        parts.add("RESHAPE", (source, parts.constant(np.array(shape_in, np.int32))), (tensor,), new_shape=shape_in)
    note = (
        f"with operators {first.number} {first.kind} and {parts.op.number} {parts.op.kind}, "
        "its own result is not stored"
    )
    later = [op for op in chain[place:] if op.kind not in RESHAPES]
    has_shape = parts[parts.op.outputs[0]].shape != shape_out
    for op in later:
        is_last = op is later[-1] and not has_shape
        num_oc = parts[conv.outputs[0]].shape[-1]
        made = parts.op.outputs[0] if is_last else parts.tensor((*shape_out[:3], num_oc), op.outputs[0])
        inputs = tuple(tensor if index >= 0 and parts[index].data is None else index for index in op.inputs)
        if op is conv:
            _put_conv(parts, replace(conv, outputs=(made,)), conv.kind, inputs, axes)
            parts.note(note)
        else:
            parts.add(op.kind, inputs, (made,), **op.options)
        tensor = made
    if has_shape:
        shape = parts[parts.op.outputs[0]].shape
        parts.add("RESHAPE", (tensor, parts.constant(np.array(shape, np.int32))), parts.op.outputs, new_shape=shape)
    return True


def _spread(
    parts: Parts, conv: Op, tensor: int, block: list[int], pads: np.ndarray, crops: np.ndarray
) -> tuple[tuple[int, ...], tuple[int, ...], list[Axis]] | None:
    """Shapes of the input and the output of a convolution with dilation in place of one on an image of each phase, and
    its axes; None if there is none.

    With b the block, output Y of the whole is output j of phase p, Y + crop = j*b + p: it reads pixel Y + crop + (k*d -
    pad of the convolution)*b - pad of SPACE_TO_BATCH_ND.
    """
    source, target = parts[tensor].shape, parts[parts.op.outputs[0]].shape
    phases_in = parts[conv.inputs[0]].shape
    if source[0] != 1 or target[0] != 1 or len(phases_in) != 4 or len(source) not in (3, 4):
        return None
    if len(source) == 4:
        places = [0, 1] if len(block) == 2 else [0]
    else:  # the other axis was put in later
        places = [0] if phases_in[2] == 1 and phases_in[1] > 1 else [1]
    if len(block) != len(places) or parts[conv.inputs[0]].shape[3] != source[-1]:
        return None
    axes, sizes = [], [[1, 1], [1, 1]]
    phases_out, kernel = parts[conv.outputs[0]].shape, parts[conv.inputs[1]].shape
    for place, name in enumerate("hw"):
        here = window_axis(conv, name, phases_in[1 + place], phases_out[1 + place], kernel[1 + place])
        if here.stride != 1:
            return None
        if place in places:
            n = places.index(place)
            size_in, size_out = source[1 + n], target[1 + n]
            sizes[place] = [size_in, size_out]
            pad = int(pads[n, 0]) + here.pad * block[n] - int(crops[n, 0])
            axes.append(Axis(size_in, size_out, here.kernel, 1, here.dilation * block[n], pad))
        else:
            sizes[place] = [here.size_in, here.size_out]
            axes.append(here)
    if min(axis.pad for axis in axes) < 0:
        return None
    return ((1, sizes[0][0], sizes[1][0], source[-1]), (1, sizes[0][1], sizes[1][1], target[-1]), axes)


CONV_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {
    "CONV_2D": (_unmoved, _unpadded, _grouped, _padded, _patched),
    "DEPTHWISE_CONV_2D": (_unmoved, _unpadded, _padded, _patched),
    "BATCH_TO_SPACE_ND": (_dilated,),
}
"""By kind of operator."""
