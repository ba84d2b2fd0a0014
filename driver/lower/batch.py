"""Operators that treat the images of a batch alike: they are lowered for one image, and scheduled for each."""

from __future__ import annotations

from dataclasses import replace

from convoy.driver.graph.graph import Graph, Op

__all__ = ["one_image"]


def one_image(graph: Graph, op: Op) -> Graph:
    """The graph as an operator sees it: with a batch of 1 where it does the same to each image of a batch, else as it
    is.

    All its activations have four axes then, and one batch.
    """
    sources = [graph.tensors[index] for index in op.inputs if index >= 0 and graph.tensors[index].data is None]
    targets = [graph.tensors[index] for index in op.outputs]
    batch = sources[0].shape[0] if sources and len(sources[0].shape) == 4 else 1
    is_same = all(len(tensor.shape) == 4 and tensor.shape[0] == batch for tensor in sources) and all(
        tensor.shape[:1] == (batch,) for tensor in targets
    )
    if batch == 1 or not is_same or op.kind not in _IS_ALIKE or not _IS_ALIKE[op.kind](graph, op):
        return graph
    tensors = list(graph.tensors)
    for tensor in (*sources, *targets):
        tensors[tensor.index] = replace(tensor, shape=(1, *tensor.shape[1:]))
    return replace(graph, tensors=tuple(tensors))


def _always(graph: Graph, op: Op) -> bool:
    return True


def _has_common_constants(graph: Graph, op: Op) -> bool:
    """A constant with a value for each image is another one for each."""
    constants = (graph.tensors[index] for index in op.inputs if graph.tensors[index].data is not None)
    return all(len(tensor.shape) < 4 or tensor.shape[0] == 1 for tensor in constants)


def _is_slice_alike(graph: Graph, op: Op) -> bool:
    options = op.options
    masks = options.get("shrink_axis_mask", 0) | options.get("new_axis_mask", 0)
    if op.kind == "STRIDED_SLICE":
        steps = graph.tensors[op.inputs[3]].data
        if steps is None or not steps.size or steps.reshape(-1)[0] < 0:
            return False
    return not masks & 1 and not options.get("ellipsis_mask", 0) and not options.get("is_offset", False)


def _is_axis_option_behind(graph: Graph, op: Op) -> bool:
    return bool(op.options["axis"] % len(graph.tensors[op.outputs[0]].shape))


def _are_axes_behind(graph: Graph, op: Op) -> bool:
    """Are the axes, which are one of the inputs, none that counts images?"""
    axes = graph.tensors[op.inputs[_AXES[op.kind]]].data
    return axes is not None and axes.dtype.kind == "i" and bool((axes % 4 != 0).all())


def _is_order_alike(graph: Graph, op: Op) -> bool:
    """A transposition of another view of its source says itself what it does with all images."""
    if "view" in op.options:
        return False
    order = graph.tensors[op.inputs[1]].data
    return order is not None and order.size == 4 and order.reshape(-1)[0] % 4 == 0


_AXES = {"SPLIT": 0, "SPLIT_V": 2, **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), 1)}
_IS_ALIKE = {
    **dict.fromkeys(
        (
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "TRANSPOSE_CONV",
            "AVERAGE_POOL_2D",
            "MAX_POOL_2D",
            "PAD",
            "PADV2",
            "MIRROR_PAD",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
            "RESIZE_NEAREST_NEIGHBOR",
            "RESIZE_BILINEAR",
        ),
        _always,
    ),
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PRELU"), _has_common_constants),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _is_slice_alike),
    "CONCATENATION": _is_axis_option_behind,
    **dict.fromkeys(_AXES, _are_axes_behind),
    "TRANSPOSE": _is_order_alike,
}
"""By kind of operator: (graph, operator) -> does it do the same to each image, if results have one for each?"""
