"""Changes of a network: graph -> graph, each with the shapes of all other tensors as they are, but for channels.

New weights are drawn from those that are there, so that as many are zero; the function is then another one, to be
trained. An edit that does not fit raises `CannotEdit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np

from convoy.driver.errors import GraphError
from convoy.driver.graph.check import check_graph
from convoy.driver.graph.graph import Graph, Op, Quant, Tensor
from convoy.driver.workload.prune import smallest_to_zero

__all__ = [
    "CannotEdit",
    "Edit",
    "as_dense",
    "kernel_of",
    "pooled_by_stride",
    "producer",
    "prune_weights",
    "with_activation",
    "with_channels",
    "with_kernel",
    "with_pool_before",
    "with_pool_behind",
    "with_pool_window",
    "with_pools_in_steps",
    "with_stacked_kernels",
]

Edit = Callable[[Graph], Graph]
"""Finds its operator by the name of the operator's output, so that edits may follow one another."""
P = ParamSpec("P")
SEED = 0
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SAME_CHANNELS = frozenset(
    (
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "HARD_SWISH"),
        *("LEAKY_RELU", "ELU", "GELU", "QUANTIZE", "PAD", "MEAN", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"),
    )
)
"""Operators of one activation, whose outputs have the channels of that."""


class CannotEdit(GraphError):
    """The network has something that this change does not take into account; the message says what."""


class _Draft:
    """A graph while it is changed."""

    def __init__(self, graph: Graph):
        self.before, self.tensors, self.ops = graph, list(graph.tensors), list(graph.ops)

    def add(self, name: str, shape: tuple[int, ...], like: Tensor) -> int:
        """An activation of the dtype and quantisation of another one."""
        self.tensors.append(Tensor(len(self.tensors), name, shape, like.dtype, like.quant))
        return len(self.tensors) - 1

    def constant(self, old: int, data: np.ndarray, quant: Quant | None) -> int:
        """A new constant in place of an old one, which others may read."""
        index = len(self.tensors)
        self.tensors.append(replace(self.tensors[old], index=index, shape=data.shape, data=data, quant=quant))
        return index

    def name_of(self, op: Op) -> str:
        return self.before.name_of(op)

    def weights(self, op: Op) -> Tensor:
        """Of a convolution or a fully connected layer."""
        return self.tensors[op.inputs[1]]

    def with_weights(self, op: Op, data: np.ndarray) -> Op:
        """The operator with others of the same quantisation."""
        new = self.constant(op.inputs[1], data, self.weights(op).quant)
        return replace(op, inputs=(op.inputs[0], new, *op.inputs[2:]))

    def position(self, op: Op) -> int:
        return next(number for number, other in enumerate(self.ops) if other is op)

    def put(self, op: Op, *new: Op) -> None:
        """Others in place of an operator."""
        position = self.position(op)
        self.ops[position : position + 1] = new

    def graph(self) -> Graph:
        """The new graph, its operators numbered from 0; `CannotEdit` if it contradicts itself."""
        ops = tuple(replace(op, index=number, raw=op.raw) for number, op in enumerate(self.ops))
        made = replace(self.before, tensors=tuple(self.tensors), ops=ops)
        try:
            check_graph(made)
        except GraphError as error:
            raise CannotEdit(str(error)) from None
        return made


def producer(graph: Graph, name: str) -> Op:
    """The operator whose first output has this name."""
    for op in graph.ops:
        if op.outputs and graph.tensors[op.outputs[0]].name == name:
            return op
    raise CannotEdit(f"no operator makes {name!r} any more")


def _on_operator(change: Callable[Concatenate[_Draft, Op, P], None]) -> Callable[Concatenate[str, P], Edit]:
    """Of a change of a draft at an operator: the edit at the operator that makes a tensor of that name."""

    @wraps(change)
    def edit_of(name: str, *args: P.args, **kwargs: P.kwargs) -> Edit:
        def edit(graph: Graph) -> Graph:
            draft = _Draft(graph)
            change(draft, producer(graph, name), *args, **kwargs)
            return draft.graph()

        return edit

    return edit_of


def kernel_of(graph: Graph, op: Op) -> tuple[int, int]:
    """Rows and columns."""
    _, rows, cols, _ = graph.tensors[op.inputs[1]].shape
    return rows, cols


def _drawn(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values drawn from others."""
    return np.random.default_rng(SEED).choice(values.reshape(-1), shape)


def _per_channel(values: np.ndarray, channels: int, axis: int = 0) -> np.ndarray:
    """The first channels, or more, repeated."""
    return np.take(values, np.arange(channels) % values.shape[axis], axis)


def _cut_quant(quant: Quant | None, channels: int) -> Quant | None:
    """Scales of the first channels, or more."""
    if quant is None or quant.scale.size == 1:
        return quant
    return replace(
        quant, scale=_per_channel(quant.scale, channels), zero_point=_per_channel(quant.zero_point, channels)
    )


@_on_operator
def with_channels(draft: _Draft, op: Op, channels: int) -> None:
    """The convolution that makes `name` with another number of output channels, and all that reads them."""
    if op.kind != "CONV_2D":
        raise CannotEdit(f"{op.kind} has as many channels as what it reads")
    _cut_outputs(draft, op, channels, axis=0)
    _cut_readers(draft, op.outputs[0], channels, frozenset(draft.before.outputs))


def _cut_outputs(draft: _Draft, op: Op, channels: int, axis: int) -> None:
    """Weights, bias and output of a convolution for so many channels; `axis` of the weights has them."""
    weights = draft.tensors[op.inputs[1]]
    inputs = list(op.inputs)
    inputs[1] = draft.constant(
        weights.index, _per_channel(weights.values, channels, axis), _cut_quant(weights.quant, channels)
    )
    if len(inputs) > 2 and inputs[2] >= 0:
        bias = draft.tensors[inputs[2]]
        inputs[2] = draft.constant(bias.index, _per_channel(bias.values, channels), _cut_quant(bias.quant, channels))
    output = draft.tensors[op.outputs[0]]
    draft.tensors[output.index] = replace(output, shape=(*output.shape[:-1], channels))
    draft.ops[draft.position(op)] = replace(op, inputs=tuple(inputs))


def _cut_readers(draft: _Draft, tensor: int, channels: int, outputs: frozenset[int]) -> None:
    """What reads a tensor whose channels have changed."""
    if tensor in outputs:
        raise CannotEdit("its channels are an output of the network")
    had = draft.before.tensors[tensor].shape[-1]
    for op in [op for op in draft.ops if tensor in op.inputs]:
        if op.kind in ("CONV_2D", "FULLY_CONNECTED"):
            weights = draft.weights(op)
            if op.inputs[0] != tensor or weights.data is None or weights.shape[-1] != had:
                raise CannotEdit(f"{op.kind} reads its channels in groups, with its pixels or as weights")
            draft.put(op, draft.with_weights(op, _per_channel(weights.values, channels, -1)))
        elif op.kind == "DEPTHWISE_CONV_2D":
            made = channels * op.options["depth_multiplier"]
            _cut_outputs(draft, op, made, axis=3)
            _cut_readers(draft, op.outputs[0], made, outputs)
        elif op.kind in _SAME_CHANNELS:
            output = draft.tensors[op.outputs[0]]
            if output.shape[-1] != had or (op.kind == "MEAN" and _is_over_channels(draft, op)):
                raise CannotEdit(f"{op.kind} changes its channels")
            draft.tensors[output.index] = replace(output, shape=(*output.shape[:-1], channels))
            _cut_readers(draft, output.index, channels, outputs)
        else:
            raise CannotEdit(f"{op.kind} reads its channels")


def _is_over_channels(draft: _Draft, op: Op) -> bool:
    """Of a mean."""
    rank = len(draft.tensors[op.inputs[0]].shape)
    return any(axis % rank == rank - 1 for axis in draft.tensors[op.inputs[1]].values.flat)


@_on_operator
def with_kernel(draft: _Draft, op: Op, kernel: tuple[int, int]) -> None:
    """The convolution that makes `name` with another kernel; its output keeps its size by padding."""
    if op.options.get("padding") != "SAME":
        raise CannotEdit("without padding another kernel makes another size")
    weights = draft.weights(op)
    first, _, _, last = weights.shape
    draft.put(op, draft.with_weights(op, _drawn(weights.values, (first, *kernel, last))))


@_on_operator
def with_stacked_kernels(draft: _Draft, op: Op) -> None:
    """Two convolutions of 3x3 in place of one of 5x5 that is padded and has stride 1."""
    if op.options.get("padding") != "SAME" or (op.options["stride_h"], op.options["stride_w"]) != (1, 1):
        raise CannotEdit("only padded kernels at stride 1 are split")
    weights, output = draft.weights(op), draft.tensors[op.outputs[0]]
    first, _, _, last = weights.shape
    middle = draft.add(f"{draft.name_of(op)}/first", output.shape, output)
    outer = draft.with_weights(op, _drawn(weights.values, (first, 3, 3, last)))
    is_depthwise = op.kind == "DEPTHWISE_CONV_2D"
    inner = draft.with_weights(op, _drawn(weights.values, (first, 3, 3, last if is_depthwise else first)))
    options = op.options | ({"depth_multiplier": 1} if is_depthwise else {})
    draft.put(
        op, replace(outer, outputs=(middle,)), replace(inner, inputs=(middle, *inner.inputs[1:]), options=options)
    )


@_on_operator
def with_activation(draft: _Draft, op: Op, activation: str) -> None:
    """The operator that makes `name` with another fused activation."""
    draft.put(op, replace(op, options=op.options | {"activation": activation}))


def _pool(source: int, made: int, window: tuple[int, int], stride: tuple[int, int], padding: str) -> Op:
    options: dict[str, Any] = {
        "padding": padding,
        "filter_h": window[0],
        "filter_w": window[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "activation": "NONE",
    }
    return Op(0, "MAX_POOL_2D", (source,), (made,), options)


def _strides(op: Op) -> tuple[int, int]:
    return op.options["stride_h"], op.options["stride_w"]


def _without_stride(options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {**options, "stride_h": 1, "stride_w": 1, **more}


@_on_operator
def with_pool_before(draft: _Draft, op: Op) -> None:
    """A convolution of a larger stride as a maximum pool with that stride, and a convolution of stride 1 behind it."""
    source, output = draft.tensors[op.inputs[0]], draft.tensors[op.outputs[0]]
    stride, weights = _strides(op), draft.weights(op)
    first, rows, cols, last = weights.shape
    sizes = [-(-size // step) for size, step in zip(source.shape[1:3], stride, strict=True)]
    wanted = output.shape[1:3]
    is_padded = tuple(sizes) == tuple(wanted)
    kernel = (min(rows, sizes[0]), min(cols, sizes[1]))
    if not is_padded:
        kernel = (sizes[0] - wanted[0] + 1, sizes[1] - wanted[1] + 1)
        if not (1 <= kernel[0] <= rows and 1 <= kernel[1] <= cols):
            raise CannotEdit("no kernel on the smaller image makes as many outputs")
    small = draft.add(f"{draft.name_of(op)}/pooled", (source.shape[0], *sizes, source.shape[3]), source)
    conv = op if kernel == (rows, cols) else draft.with_weights(op, _drawn(weights.values, (first, *kernel, last)))
    options = _without_stride(op.options, padding="SAME" if is_padded else "VALID")
    draft.put(
        op,
        _pool(source.index, small, stride, stride, "SAME"),
        replace(conv, inputs=(small, *conv.inputs[1:]), options=options),
    )


@_on_operator
def with_pool_behind(draft: _Draft, op: Op) -> None:
    """A convolution of a larger stride as one of stride 1, and a maximum pool with that stride behind it."""
    source, output = draft.tensors[op.inputs[0]], draft.tensors[op.outputs[0]]
    stride, kernel = _strides(op), kernel_of(draft.before, op)
    is_padded = op.options["padding"] == "SAME"
    spans = [
        (taps - 1) * op.options.get(key, 1) for taps, key in zip(kernel, ("dilation_h", "dilation_w"), strict=True)
    ]
    sizes = [size if is_padded else size - span for size, span in zip(source.shape[1:3], spans, strict=True)]
    large = draft.add(f"{draft.name_of(op)}/all", (output.shape[0], *sizes, output.shape[3]), output)
    draft.put(
        op,
        replace(op, outputs=(large,), options=_without_stride(op.options)),
        _pool(large, output.index, stride, stride, "SAME"),
    )


@_on_operator
def with_pool_window(draft: _Draft, op: Op, window: int) -> None:
    """A maximum pool that can be fused in place of another pool: stride 2, no pads, the same outputs."""
    source, output = draft.tensors[op.inputs[0]], draft.tensors[op.outputs[0]]
    if [(size - window) // 2 + 1 for size in source.shape[1:3]] != list(output.shape[1:3]):
        raise CannotEdit(f"a {window}x{window} pool of stride 2 makes another size")
    pool = _pool(source.index, output.index, (window, window), (2, 2), "VALID")
    draft.put(op, replace(pool, options=pool.options | {"activation": op.options.get("activation", "NONE")}))


@_on_operator
def with_pools_in_steps(draft: _Draft, op: Op) -> None:
    """Maximum pools of 2x2 in place of one of 4x4, 8x8 ... with as large a stride: the same function."""
    size = op.options["filter_h"]
    sizes = {size, op.options["filter_w"], *_strides(op)}
    if op.kind != "MAX_POOL_2D" or len(sizes) > 1 or size < 4 or size & (size - 1):
        raise CannotEdit("only windows of 4x4, 8x8 ... with as large a stride are split")
    source, output = draft.tensors[op.inputs[0]], draft.tensors[op.outputs[0]]
    if any(extent % size for extent in source.shape[1:3]):
        raise CannotEdit("windows that reach beyond the image are not split")
    steps, shape, before = [], source.shape, source.index
    while size > 1:
        size //= 2
        shape = (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
        made = output.index if size == 1 else draft.add(f"{draft.name_of(op)}/{size}", shape, source)
        steps.append(_pool(before, made, (2, 2), (2, 2), "VALID"))
        before = made
    steps[-1] = replace(steps[-1], options=steps[-1].options | {"activation": op.options["activation"]})
    draft.put(op, *steps)


@_on_operator
def pooled_by_stride(draft: _Draft, pool: Op) -> None:
    """A convolution of stride 2 in place of one of stride 1 and the pool of stride 2 that makes `name`."""
    source, output = draft.tensors[pool.inputs[0]], draft.tensors[pool.outputs[0]]
    makers = [op for op in draft.before.ops if source.index in op.outputs]
    readers = [op for op in draft.before.ops if source.index in op.inputs]
    if (
        len(makers) != 1
        or makers[0].kind not in CONVOLUTIONS
        or len(readers) != 1
        or source.index in draft.before.outputs
        or source.quant is None
    ):
        raise CannotEdit("the pool does not follow a convolution alone")
    conv = makers[0]
    if _strides(conv) != (1, 1) or conv.options.get("padding") != "SAME":
        raise CannotEdit("only a padded convolution of stride 1 takes the stride of the pool")
    if [-(-size // 2) for size in draft.tensors[conv.inputs[0]].shape[1:3]] != list(output.shape[1:3]):
        raise CannotEdit("a convolution of stride 2 makes another size")
    activation = pool.options.get("activation", "NONE")
    options = conv.options | {"stride_h": 2, "stride_w": 2}
    options |= {"activation": activation} if options.get("activation", "NONE") == "NONE" else {}
    draft.put(pool)
    draft.put(conv, replace(conv, outputs=pool.outputs, options=options))


@_on_operator
def as_dense(draft: _Draft, op: Op) -> None:
    """A 2D convolution in place of the depthwise one that makes `name`."""
    weights, source = draft.weights(op), draft.tensors[op.inputs[0]]
    _, rows, cols, channels = weights.shape
    dense = draft.with_weights(op, _drawn(weights.values, (channels, rows, cols, source.shape[3])))
    draft.tensors[-1] = replace(draft.tensors[-1], quant=weights.quant and replace(weights.quant, axis=0))
    options = {key: value for key, value in op.options.items() if key != "depth_multiplier"}
    draft.put(op, replace(dense, kind="CONV_2D", options=options))


def prune_weights(share: float) -> Edit:
    """The smallest weights of every 2D convolution and fully connected layer zero; what is zero already counts."""

    def edit(graph: Graph) -> Graph:
        draft = _Draft(graph)
        for op in graph.ops:
            if op.kind in ("CONV_2D", "FULLY_CONNECTED") and (quant := draft.weights(op).quant) is not None:
                weights = draft.weights(op)
                if weights.data is not None and weights.dtype.kind in "iu":
                    data, _ = smallest_to_zero(weights.data, quant.scale, quant.zero_point, share)
                    draft.put(op, draft.with_weights(op, data))
        return draft.graph()

    return edit
