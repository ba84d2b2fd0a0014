"""Moves that the NPU does not take as they are, in forms that it takes."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Transpositions with reshapes between and around them, as channels are shuffled: one transposition of the first
    tensor, seen otherwise.
    """
    op, graph = parts.op, parts.graph
    chain, (target,) = [op], op.outputs
    while (maker := next((made for made in graph.ops if chain[0].inputs[0] in made.outputs), None)) is not None:
        if not _is_inner(parts, maker, chain[0].inputs[0]):
            break
        chain.insert(0, maker)
    while (reader := next((read for read in graph.ops if target in read.inputs), None)) is not None:
        if not _is_inner(parts, reader, target):
            break
        if reader.kind == "TRANSPOSE":
            return False  # that one has all of them
        chain.append(reader)
        (target,) = reader.outputs
    if len(chain) == 1:
        return False
    parts.absorbed |= {other.index for other in chain if other is not op}
    source = chain[0].inputs[0]
    view, order = _composed(parts, chain)
    if order == sorted(order):
        shape = np.array(parts[target].shape, np.int32)
        parts.add("RESHAPE", (source, parts.constant(shape)), (target,), new_shape=shape)
    else:
        parts.add("TRANSPOSE", (source,), (target,), view=tuple(view), order=tuple(order))
    parts.note("what lies between it and a RESHAPE or TRANSPOSE is not stored")
    return True


def _composed(parts: Parts, chain: Sequence[Op]) -> tuple[list[int], list[int]]:
    """What RESHAPEs and TRANSPOSEs do to the source of the first one: how it is seen, and the order of these axes.

    Raises
    ------
    GraphError
        When there are no axes of the source that are moved as a whole.
    """
    view = [size for size in parts[chain[0].inputs[0]].shape if size > 1]
    order = list(range(len(view)))
    for op in chain:
        if op.kind != "TRANSPOSE":
            continue
        shape = parts[op.inputs[0]].shape
        perm = [axis_number(axis, len(shape)) for axis in integers(parts.graph, op.inputs[1]).reshape(-1).tolist()]
        require(sorted(perm) == list(range(len(shape))), f"{perm} is not an order of {len(shape)} axes")
        groups: list[list[int]] = []
        for size in shape:
            group, left = list[int](), size
            while left > 1:
                axis = order[sum(map(len, groups)) + len(group)]
                if left % view[axis]:
                    require(view[axis] % left == 0, f"axes of {list(shape)} that are parts of others")
                    view[axis : axis + 1] = [left, view[axis] // left]
                    order = [part for old in order for part in _split_axis(old, axis)]
                    groups = [[part for old in done for part in _split_axis(old, axis)] for done in groups]
                    group = [old + (old > axis) for old in group]
                group.append(axis)
                left //= view[axis]
            groups.append(group)
        order = [axis for place in perm for axis in groups[place]]
    return view, order


def _split_axis(number: int, axis: int) -> tuple[int, ...]:
    """The new numbers of an axis when `axis` becomes two."""
    return (number, number + 1) if number == axis else (number + (number > axis),)


def _is_inner(parts: Parts, op: Op, inner: int) -> bool:
    """Does an operator only move values, and is the tensor between it and another one nobody else's?"""
    num_readers = sum(inner in other.inputs for other in parts.graph.ops)
    is_inner = num_readers == 1 and inner not in parts.graph.outputs
    is_free = op.index not in parts.taken and op.part is None
    return op.kind in ("RESHAPE", "TRANSPOSE") and is_free and is_inner and parts[op.inputs[0]].data is None


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
