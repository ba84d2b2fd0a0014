"""Moves that the NPU does not take as they are, in forms that it takes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, Op

from .functions import stored_table
from .host_ops import run_host_ops
from .operands import axis_number, integers, require
from .parts import Expansion, Parts

__all__ = ["MOVE_EXPANSIONS"]


def _transposed_view(parts: Parts) -> bool:
    """RESHAPE, TRANSPOSE, RESHAPE, as channels are shuffled: one transposition of the first tensor, seen otherwise."""
    op, graph = parts.op, parts.graph
    (source, _), (target,) = op.inputs, op.outputs
    view = parts[source].shape
    order = [axis_number(axis, len(view)) for axis in integers(graph, op.inputs[1]).reshape(-1).tolist()]
    require(sorted(order) == list(range(len(view))), f"{order} is not an order of {len(view)} axes")
    maker = next((made for made in graph.ops if source in made.outputs), None)
    if maker is not None and _is_view(parts, maker, source):
        source = maker.inputs[0]
        parts.absorbed.add(maker.index)
    reader = next((read for read in graph.ops if target in read.inputs), None)
    if reader is not None and _is_view(parts, reader, target):
        target = reader.outputs[0]
        parts.absorbed.add(reader.index)
    if not parts.absorbed:
        return False
    note = "what lies between it and a RESHAPE is not stored"
    parts.add("TRANSPOSE", (source,), (target,), view=tuple(view), order=tuple(order))
    parts.note(note)
    return True


def _is_view(parts: Parts, op: Op, inner: int) -> bool:
    """Is it a RESHAPE, and the tensor between it and the operator nobody else's?"""
    num_readers = sum(inner in other.inputs for other in parts.graph.ops)
    is_inner = num_readers == 1 and inner not in parts.graph.outputs
    is_free = op.index not in parts.taken and op.part is None
    return op.kind == "RESHAPE" and is_free and is_inner and parts[op.inputs[0]].data is None


def _concatenation(parts: Parts) -> bool:
    """Constants become activations, and uint8 of other scales is converted by tables that LiteRT computes."""
    op, (target,) = parts.op, parts.op.outputs
    like = next((index for index in op.inputs if parts[index].data is None), None)
    if like is None or op.options.get("activation", "NONE") != "NONE":
        return False
    inputs = []
    for index in dict.fromkeys(op.inputs):
        tensor, values, made = parts[index], parts[index].data, index
        table = _conversion(parts, index) if tensor.dtype == np.uint8 else None
        if values is not None:
            values = values if table is None else table[values]
            made = _activation(parts, values, like, target)
        elif table is not None and not np.array_equal(table, np.arange(256)):
            made = parts.tensor(tensor.shape, target)
            parts.add("TABLE", (index,), (made,), table=stored_table(table, tensor, parts[target]))
        elif tensor.quant != parts[target].quant and tensor.dtype == np.uint8:
            made = parts.tensor(tensor.shape, target)
            parts.add("RESHAPE", (index,), (made,))
        inputs.append((index, made))
    made_of = dict(inputs)
    if all(index == made for index, made in inputs):
        return False
    parts.add(op.kind, [made_of[index] for index in op.inputs], op.outputs, **op.options)
    return True


def _conversion(parts: Parts, index: int) -> np.ndarray:
    """What LiteRT's CONCATENATION makes of each value of an input of uint8: (256,)."""
    op, tensors = parts.op, list(parts.graph.tensors)
    rank = len(tensors[index].shape)
    axis = axis_number(op.options["axis"], rank)
    shape = tuple(256 if place == axis else 1 for place in range(rank))
    (target,) = op.outputs
    tensors[index] = replace(tensors[index], shape=shape, data=None)
    tensors[target] = replace(tensors[target], shape=shape)
    alone = replace(op, inputs=(index,))
    graph, values = Graph("conversion", tuple(tensors), (alone,), (), ()), np.arange(256, dtype=np.uint8)
    return run_host_ops(graph, [alone], {index: values.reshape(shape)})[target].reshape(-1)


def _activation(parts: Parts, values: np.ndarray, like: int, target: int) -> int:
    """Add an activation with constant values: the larger ones of them and of the least value, which is made of an
    element of the activation `like`.
    """
    rank, dtype = values.ndim, values.dtype
    info = np.iinfo(dtype)
    ones, least = (1,) * rank, parts.tensor((1,) * rank, target)
    element = parts.tensor(ones, like)
    zeros, sizes = (parts.constant(np.full(rank, number, np.int32)) for number in (0, 1))
    parts.add("SLICE", (like, zeros, sizes), (element,))
    parts.add("MINIMUM", (element, parts.constant(np.full(ones, info.min, dtype), parts[target].quant)), (least,))
    made = parts.tensor(values.shape, target)
    parts.add("MAXIMUM", (least, parts.constant(values, parts[target].quant)), (made,))
    return made


def _broadcast(parts: Parts) -> bool:
    """The larger ones of the source and of a constant of least values, which has the axes that the source has not."""
    op, (target,) = parts.op, parts.op.outputs
    source, shape = parts[op.inputs[0]], parts[target].shape
    padded = (1,) * (len(shape) - len(source.shape)) + tuple(source.shape)
    require(prod(shape) > 0 and len(shape) <= 4, f"shape {shape}")
    require(source.dtype.kind in "iu", f"{source.name!r} is {source.dtype}")
    missing = tuple(1 if have == want else want for have, want in zip(padded, shape, strict=True))
    least = np.full(missing, np.iinfo(source.dtype).min, source.dtype)
    parts.add("MAXIMUM", (op.inputs[0], parts.constant(least, source.quant)), op.outputs)
    return True


MOVE_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {
    "TRANSPOSE": (_transposed_view,),
    "CONCATENATION": (_concatenation,),
    "BROADCAST_TO": (_broadcast,),
}
"""By kind of operator."""
