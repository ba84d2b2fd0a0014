"""Is a graph consistent? Order, dtypes and shapes, so that every later stage may rely on them."""

from __future__ import annotations

from math import prod

import numpy as np

from .graph import Graph, GraphError, Op, Tensor

__all__ = ["check_graph", "printable"]


def printable(name: str) -> str:
    """`name` on one line of reasonable length."""
    text = "".join(char if char.isprintable() else "?" for char in name)
    return text if len(text) <= 80 else text[:77] + "..."


def check_graph(graph: Graph) -> None:
    """Check a graph that comes from outside.

    Raises
    ------
    GraphError
        When an operator reads a tensor that nothing has written yet, writes one that is already there, has the wrong
        number of tensors, or disagrees with the shapes of its tensors (the operators of `_CHECKS` only).
    """
    ready = {tensor.index for tensor in graph.tensors if not tensor.is_activation}
    if not graph.inputs:
        raise GraphError("the network has no inputs")
    if not graph.outputs:
        raise GraphError("the network has no outputs")
    for index in graph.inputs:
        if graph.tensors[index].dtype.kind == "V":
            raise GraphError(
                f"{_name(graph.tensors[index])} is an input of the network but a handle; handles come from VAR_HANDLE "
                "only"
            )
        if index in ready:
            raise GraphError(f"{_name(graph.tensors[index])} is an input of the network but constant, or given twice")
        ready.add(index)
    for op in graph.ops:
        where = f"operator {op.index} ({op.kind})"
        if not op.outputs and op.kind != "ASSIGN_VARIABLE":
            raise GraphError(f"{where} has no outputs")
        for index in op.inputs:
            if index >= 0 and index not in ready:
                raise GraphError(f"{where} reads {_name(graph.tensors[index])}, which nothing has written")
        for index in op.outputs:
            if index in ready:
                raise GraphError(f"{where} writes {_name(graph.tensors[index])}, which already has a value")
            ready.add(index)
        if op.kind in _CHECKS:
            _check_op(graph, op, where)
    for index in graph.outputs:
        if index not in ready:
            raise GraphError(f"{_name(graph.tensors[index])} is an output of the network, but nothing has written it")


def _name(tensor: Tensor) -> str:
    return f"tensor {tensor.index} ({printable(tensor.name)})"


def _check_op(graph: Graph, op: Op, where: str) -> None:
    """Number of tensors, quantisation and shapes of one operator."""
    num_inputs, check = _CHECKS[op.kind]
    if not num_inputs[0] <= len(op.inputs) <= num_inputs[1] or len(op.outputs) != 1:
        raise GraphError(f"{where} has {len(op.inputs)} inputs and {len(op.outputs)} outputs")
    if -1 in op.inputs[: num_inputs[0]]:
        raise GraphError(f"{where}: a mandatory input is missing")
    tensors = [graph.tensors[index] for index in op.inputs if index >= 0]
    if problem := check(op, tensors, graph.tensors[op.outputs[0]]):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise GraphError(f"{where}: {problem} (inputs {shapes}; output {list(graph.tensors[op.outputs[0]].shape)})")


def _out_extent(extent: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Output rows or columns of a sliding window, as TFLite counts them."""
    span = (kernel - 1) * dilation + 1
    return -(-extent // stride) if padding == "SAME" else (extent - span + stride) // stride


def _window(op: Op, x: Tensor, y: Tensor, kernel_h: int, kernel_w: int) -> str | None:
    options = op.options
    if "pads" in options:
        return None
    expected = (
        x.shape[0],
        _out_extent(x.shape[1], kernel_h, options["stride_h"], options.get("dilation_h", 1), options["padding"]),
        _out_extent(x.shape[2], kernel_w, options["stride_w"], options.get("dilation_w", 1), options["padding"]),
    )
    return None if y.shape[:3] == expected else f"the output should be {list(expected)} pixels"


def _bias(op: Op, inputs: list[Tensor], num_oc: int) -> str | None:
    """LiteRT reads the bias of int16 activations as int64, whatever its type, unless the operator says that it is
    int32.
    """
    if len(inputs) < 3:
        return None
    bias = inputs[2]
    if prod(bias.shape) != num_oc:
        return f"the bias should have {num_oc} entries"
    expected = "int32" if inputs[0].dtype != np.int16 or op.options.get("quantized_bias_type") == "INT32" else "int64"
    is_right = bias.dtype == expected or bias.dtype.kind == "f" or inputs[0].dtype.kind == "f"
    return (
        None
        if is_right
        else (
            f"the bias is {bias.dtype}; with activations of {inputs[0].dtype} and these options it should be {expected}"
        )
    )


def _transpose_conv(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    return _bias(op, [inputs[2], inputs[1], *inputs[3:]], y.shape[-1]) if y.shape else None


def _conv(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    x, wgt = inputs[0], inputs[1]
    if len(x.shape) != 4 or len(wgt.shape) != 4 or len(y.shape) != 4:
        return "input, weights and output should have 4 dimensions"
    if x.shape[3] % wgt.shape[3] or wgt.shape[0] != y.shape[3]:
        return "the channels of input, weights and output do not match"
    return _bias(op, inputs, y.shape[3]) or _window(op, x, y, wgt.shape[1], wgt.shape[2])


def _depthwise(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    x, wgt = inputs[0], inputs[1]
    if len(x.shape) != 4 or len(wgt.shape) != 4 or len(y.shape) != 4:
        return "input, weights and output should have 4 dimensions"
    if wgt.shape[0] != 1 or wgt.shape[3] != y.shape[3] or y.shape[3] % x.shape[3]:
        return "the channels of input, weights and output do not match"
    return _bias(op, inputs, y.shape[3]) or _window(op, x, y, wgt.shape[1], wgt.shape[2])


def _pool(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    x = inputs[0]
    if len(x.shape) != 4 or len(y.shape) != 4:
        return "input and output should have 4 dimensions"
    if x.shape[3] != y.shape[3]:
        return "input and output should have the same channels"
    return _window(op, x, y, op.options["filter_h"], op.options["filter_w"])


def _fully_connected(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    x, wgt = inputs[0], inputs[1]
    if len(wgt.shape) != 2:
        return "the weights should have 2 dimensions"
    num_oc, num_ic = wgt.shape
    if prod(x.shape) % num_ic or prod(y.shape) != prod(x.shape) // num_ic * num_oc:
        return "the features of input, weights and output do not match"
    return _bias(op, inputs, num_oc)


def _elementwise(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    rank = len(y.shape)
    for tensor in inputs:
        shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
        if len(shape) != rank or any(extent not in (1, out) for extent, out in zip(shape, y.shape, strict=True)):
            return "the shapes cannot be broadcast"
    return None


def _same_size(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    return (
        None if prod(inputs[0].shape) == prod(y.shape) else "input and output should have the same number of elements"
    )


def _same_shape(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    return None if inputs[0].shape == y.shape else "input and output should have the same shape"


def _given(expected: tuple[int, ...], y: Tensor) -> str | None:
    return None if y.shape == expected else f"the output should be {list(expected)}"


def _values(inputs: list[Tensor], position: int) -> list[int] | None:
    """A constant input's integers; None when it is absent, made by an operator, or holds something else."""
    data = inputs[position].data if position < len(inputs) else None
    return None if data is None or data.dtype not in (np.int32, np.int64) else data.reshape(-1).tolist()


def _reshape(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    """The shape is the second input, or else an option."""
    size = prod(inputs[0].shape)
    has_tensor = len(inputs) > 1 and inputs[1].dtype == np.int32 and len(inputs[1].shape) == 1
    shape = _values(inputs, 1) if has_tensor else op.options.get("new_shape")
    if shape is None:
        return (
            _same_size(op, inputs, y)
            if has_tensor or len(inputs) == 1
            else f"its shape should be a vector of int32, but is {inputs[1].dtype} {list(inputs[1].shape)}"
        )
    rest = prod(extent for extent in shape if extent != -1)
    shape = tuple(size // rest if extent == -1 and rest else extent for extent in shape)
    return (
        f"the output should be {list(shape)}" if shape != y.shape and prod(shape) == size else _same_size(op, inputs, y)
    )


def _squeeze(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    shape = inputs[0].shape
    if (dims := op.options.get("squeeze_dims")) is None:
        return _same_size(op, inputs, y)
    dropped = {axis % len(shape) for axis in dims} if shape else set()
    return _given(
        tuple(extent for axis, extent in enumerate(shape) if not (axis in dropped if dims else extent == 1)), y
    )


def _expand_dims(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    axis, shape = _values(inputs, 1), inputs[0].shape
    if axis is None or len(axis) != 1:
        return _same_size(op, inputs, y)
    place = axis[0] % (len(shape) + 1)
    return _given((*shape[:place], 1, *shape[place:]), y)


def _reduce(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    axes, shape = _values(inputs, 1), inputs[0].shape
    if axes is None or not shape:
        return None
    reduced = {axis % len(shape) for axis in axes}
    kept = [
        1 if axis in reduced else extent
        for axis, extent in enumerate(shape)
        if op.options.get("keep_dims") or axis not in reduced
    ]
    return _given(tuple(kept), y)


def _resize(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    size, shape = _values(inputs, 1), inputs[0].shape
    return None if size is None or len(shape) != 4 else _given((shape[0], *size, shape[3]), y)


def _any(op: Op, inputs: list[Tensor], y: Tensor) -> str | None:
    """Shapes that the compiler checks."""
    return None


_CHECKS = {
    "CONV_2D": ((2, 3), _conv),
    "DEPTHWISE_CONV_2D": ((2, 3), _depthwise),
    "AVERAGE_POOL_2D": ((1, 1), _pool),
    "MAX_POOL_2D": ((1, 1), _pool),
    "FULLY_CONNECTED": ((2, 3), _fully_connected),
    "ADD": ((2, 2), _elementwise),
    "SUB": ((2, 2), _elementwise),
    **dict.fromkeys(("MUL", "MAXIMUM", "MINIMUM"), ((2, 2), _elementwise)),
    "RESHAPE": ((1, 2), _reshape),
    "PAD": ((2, 2), _any),
    "PADV2": ((3, 3), _any),
    "DEPTH_TO_SPACE": ((1, 1), _any),
    "TRANSPOSE_CONV": ((3, 4), _transpose_conv),
    "TRANSPOSE": ((2, 2), _any),
    "PACK": ((1, 1 << 16), _any),
    **dict.fromkeys(("GATHER", "TILE", "MIRROR_PAD"), ((2, 2), _any)),
    "SQUEEZE": ((1, 1), _squeeze),
    "EXPAND_DIMS": ((1, 2), _expand_dims),
    "RESIZE_BILINEAR": ((2, 2), _resize),
    "SLICE": ((3, 3), _any),
    "SPACE_TO_DEPTH": ((1, 1), _any),
    "STRIDED_SLICE": ((4, 4), _any),
    "CONCATENATION": ((1, 1 << 16), _any),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), ((2, 2), _reduce)),
    "RESIZE_NEAREST_NEIGHBOR": ((2, 2), _resize),
    "SOFTMAX": ((1, 1), _same_shape),
    "QUANTIZE": ((1, 1), _same_shape),
    "DEQUANTIZE": ((1, 1), _same_shape),
    **dict.fromkeys(
        ("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "ELU", "GELU", "RELU", "RELU6", "RELU_N1_TO_1"),
        ((1, 1), _same_shape),
    ),
}
"""For each known operator: fewest and most inputs, and a function that names what is wrong with the shapes, or None."""
