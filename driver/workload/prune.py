"""`prune_file`: the smallest weights of a TFLite file's convolutions become zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from rich.console import Console

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.tables import print_meanings, print_table

__all__ = ["PrunedLayer", "least_share", "print_pruned", "prune_file", "smallest_to_zero"]

SHARE_STEPS = 100
_DATA_SLOT = 4
"""Where the table of a buffer says where its data are."""


@dataclass(frozen=True)
class PrunedLayer:
    """What became of one convolution's weights."""

    index: int
    """Position of the operator."""
    name: str
    num_weights: int
    num_zero_before: int
    num_zero: int


def prune_file(model: bytes, share: float) -> tuple[bytes, list[PrunedLayer]]:
    """Set the smallest weights of every `CONV_2D` to zero; every other byte stays as it is.

    No training, so accuracy is not kept.

    Weights are compared by their real magnitude, |(q - zero_point) * scale|, within a layer; of equal ones those that
    come first in the file stay.

    Parameters
    ----------
    model : a TFLite file
    share : the share of each layer's weights that is zero afterwards, rounded up to whole weights, 0 .. 1; weights that
        are zero already count

    Raises
    ------
    GraphError
        When the file is damaged, holds no `CONV_2D` with constant quantised weights, two of them share weights, their
        scales or zero points do not fit, or `share` is not in 0 .. 1.
    """
    if not 0 <= share <= 1:
        raise GraphError(f"a share of {share:g} zero weights; use 0 .. 1")
    graph = read_tflite(model)
    file, pruned = schema.Model.GetRootAs(model, 0), bytearray(model)
    layers, used = [], set()
    for op in graph.ops:
        if op.kind != "CONV_2D":
            continue
        tensor = graph.tensors[op.inputs[1]]
        number = file.Subgraphs(0).Tensors(tensor.index).Buffer()
        if (
            tensor.data is None
            or tensor.quant is None
            or tensor.dtype.kind not in "iu"
            or file.Buffers(number).DataLength() != tensor.data.nbytes
        ):
            raise GraphError(f"operator {op.index} CONV_2D: {tensor.name!r} is not a quantised constant")
        if number in used:
            raise GraphError(f"operator {op.index} CONV_2D: {tensor.name!r} is the weights of another operator too")
        used.add(number)
        scale, zero_point, limits = tensor.quant.scale, tensor.quant.zero_point, np.iinfo(tensor.dtype)
        if (
            scale.size not in (1, tensor.shape[0])
            or zero_point.size != scale.size
            or zero_point.min() < limits.min
            or zero_point.max() > limits.max
        ):
            raise GraphError(
                f"operator {op.index} CONV_2D: {tensor.name!r} needs one scale and zero point, or one per output "
                f"channel, with zero points in {limits.min}..{limits.max}"
            )
        weights, layer = smallest_to_zero(tensor.data, scale, zero_point, share)
        record = file.Buffers(number)._tab
        start = record.Vector(record.Offset(_DATA_SLOT))
        pruned[start : start + weights.nbytes] = weights.tobytes()
        layers.append(PrunedLayer(op.index, tensor.name, weights.size, *layer))
    if not layers:
        raise GraphError("the network has no CONV_2D to prune")
    return bytes(pruned), layers


def smallest_to_zero(
    weights: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, share: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Weights, output channels outermost, with the smallest of them zero, and the number of zeros before and after.

    One scale and zero point, or one per output channel.
    """
    per_channel = (-1, *(1 for _ in weights.shape[1:]))
    zero = np.broadcast_to(zero_point.reshape(per_channel), weights.shape)
    magnitude = np.abs((weights - zero) * scale.reshape(per_channel)).reshape(-1)
    order = np.argsort(-magnitude, kind="stable")
    dropped = order[weights.size - int(np.ceil(share * weights.size)) :]
    pruned = weights.copy()
    pruned.reshape(-1)[dropped] = zero.reshape(-1)[dropped]
    return pruned, (int(np.sum(weights == zero)), int(np.sum(pruned == zero)))


def least_share(
    model: bytes, target: int, cycles: Callable[[bytes], int], progress: Callable[[int], None] = lambda done: None
) -> dict[float, int]:
    """Cycles by share of zero weights, as far as it had to be looked for; the last one is the least share, in steps of
    1 / SHARE_STEPS, with at most `target` cycles.

    Parameters
    ----------
    cycles : of a file
    progress : called with the number of shares that were tried

    Raises
    ------
    GraphError
        As from `prune_file`, and when even without weights there are more cycles.
    """
    tried: dict[int, int] = {}

    def reaches(step: int) -> bool:
        tried[step] = cycles(prune_file(model, step / SHARE_STEPS)[0])
        progress(len(tried))
        return tried[step] <= target

    if not reaches(SHARE_STEPS):
        raise GraphError(
            f"{target:,} cycles: with all weights of its convolutions zero the network takes {tried[SHARE_STEPS]:,}; "
            "the rest is for other operators, see `convoy advise`"
        )
    low, high = -1, SHARE_STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    rest = sorted(step for step in tried if step != high)
    return {step / SHARE_STEPS: tried[step] for step in (*rest, high)}


def print_pruned(layers: list[PrunedLayer], console: Console) -> None:
    """The layers and their zeros as a table."""
    rows = [
        (
            str(layer.index),
            layer.name,
            f"{layer.num_weights:,}",
            f"{layer.num_zero_before / layer.num_weights:.1%}",
            f"{layer.num_zero / layer.num_weights:.1%}",
        )
        for layer in layers
    ]
    print_table(
        console,
        {"#": "right", "weights": "left", "count": "right", "zero before": "right", "zero": "right"},
        rows,
        ("count", "weights"),
    )
    print_meanings(
        console,
        {
            "weights": "name of a layer's weights",
            "count": "how many",
            "zero before, zero": "share of them that was and is zero",
        },
    )
