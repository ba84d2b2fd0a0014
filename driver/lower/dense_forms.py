"""Fully connected layers that the NPU does not take as they are, in forms that it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Quant

from .conv_forms import RESHAPES
from .operands import MAX_TAPS, require, require_same_quant
from .operators import inexact_channels
from .parts import Expansion, Parts

__all__ = ["DENSE_EXPANSIONS"]

_JOINS = "it joins the channels of the CPU and those of the NPU"


def _split_by_exactness(parts: Parts) -> bool:
    """The NPU computes the channels that it rounds as LiteRT does, the host the others, if those are not the most."""
    op, (target,) = parts.op, parts.op.outputs
    inexact = inexact_channels(signed_view(parts.graph), op)
    num_oc = parts[op.inputs[1]].shape[0]
    if inexact is None or 2 * len(inexact.channels) > num_oc:
        return False
    shape = parts[target].shape
    require(shape[-1:] == (num_oc,), f"output shape {shape} for {num_oc} channels")
    exact = np.setdiff1d(np.arange(num_oc), inexact.channels)
    made = []
    for channels, reason in ((exact, ""), (inexact.channels, str(inexact))):
        constants = (_channels(parts, index, channels) for index in op.inputs[1:])
        made.append(parts.tensor((*shape[:-1], len(channels)), target))
        parts.add(op.kind, (op.inputs[0], *constants), made[-1:], **op.options)
        parts.leave(reason)
    joined, axis = parts.tensor(shape, target), len(shape) - 1
    parts.add("CONCATENATION", made, (joined,), axis=axis, activation="NONE")
    parts.leave(_JOINS)
    places = parts.constant(np.argsort(np.concatenate([exact, inexact.channels])).astype(np.int32))
    parts.add("GATHER", (joined, places), (target,), axis=axis, batch_dims=0)
    parts.leave(_JOINS)
    return True


def _channels(parts: Parts, index: int, channels: np.ndarray) -> int:
    """Add some channels of the weights or of the bias; the index, -1 for a bias that is absent."""
    if index < 0:
        return index
    tensor, num_oc = parts[index], parts[parts.op.inputs[1]].shape[0]
    quant = tensor.quant
    if quant is not None and quant.scale.size == quant.zero_point.size == num_oc:
        quant = Quant(quant.scale[channels], quant.zero_point[channels], quant.axis)
    return parts.constant(tensor.values.reshape(num_oc, *tensor.shape[1:])[channels], quant)


def _of_image(parts: Parts) -> bool:
    """A layer that takes a whole image reads it as it is, with a kernel of its size, before it is seen as a row."""
    op = parts.op
    if "is_image" in op.options or op.index in parts.narrow:
        return False
    makers = {output: maker for maker in parts.graph.ops for output in maker.outputs}
    tensor, found = op.inputs[0], set[int]()
    while (maker := makers.get(tensor)) is not None and maker.kind in RESHAPES and maker.part is None:
        found.add(maker.index)
        tensor = maker.inputs[0]
    source, shape = parts[tensor], parts[tensor].shape
    if len(shape) != 4 or shape[0] != 1 or not 1 < shape[1] * shape[2] <= MAX_TAPS or source.data is not None:
        return False
    if int(np.prod(shape)) != parts[op.inputs[1]].shape[-1]:
        return False
    require_same_quant(source, parts[op.inputs[0]])
    parts.op, parts.unread = replace(op, inputs=(tensor, *op.inputs[1:])), found
    parts.add(op.kind, parts.op.inputs, op.outputs, **op.options, is_image=True)
    parts.note("with the RESHAPE before it" if found else op.note)
    return True


DENSE_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {"FULLY_CONNECTED": (_split_by_exactness, _of_image)}
"""By kind of operator."""
