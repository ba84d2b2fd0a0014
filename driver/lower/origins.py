"""Which pixels of an earlier tensor an image is made of, where only pads, slices and pools of one pixel lie between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from convoy.driver.graph.graph import GraphError, Op

from .moves import slice_index
from .operands import integers, require, require_same_quant
from .parts import Parts
from .work import Axis

__all__ = ["PADS", "Origin", "origins"]

PADS = "PAD", "PADV2"


@dataclass(frozen=True)
class Origin:
    """Pixels of an image as those of the tensor `source`, NHWC."""

    source: int
    ops: tuple[Op, ...]
    """What is between, the last one first; nothing else reads the results of those that are no pads."""
    index: tuple[np.ndarray, np.ndarray]
    """For each row, and each column, of the image that of the source, or -1: all of it is `fill`."""
    fill: int | None
    """As stored; None: no pixel is."""

    @property
    def note(self) -> str:
        """What to say of an operator that reads the source."""
        names = ", ".join(f"{op.number} {op.kind}" for op in self.ops)
        return f"reads what operator{'s' * (len(self.ops) > 1)} {names} would read"

    def axes(self, parts: Parts, rows: Axis, cols: Axis) -> tuple[Axis, Axis] | None:
        """Rows and columns of a convolution or pool of the image, or of the source instead: pads may be negative. None
        where pads of the image would be pixels of the source, or pixels are not evenly spaced.
        """
        sizes = parts[self.source].shape[1:3]
        found = [_seen(*part) for part in zip((rows, cols), self.index, sizes, strict=True)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])


def _seen(axis: Axis, index: np.ndarray, size: int) -> Axis | None:
    extent = (axis.size_out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
    places = np.pad(index, (axis.pad, max(0, extent - axis.pad - axis.size_in)), constant_values=-1)[:extent]
    inside = np.flatnonzero(places >= 0)
    if not inside.size:
        return None
    step = int(places[inside[1]] - places[inside[0]]) if inside.size > 1 and inside[1] == inside[0] + 1 else 1
    start = int(places[inside[0]] - step * inside[0])
    evenly = start + step * np.arange(extent)
    if step < 1 or not np.array_equal(np.where((evenly >= 0) & (evenly < size), evenly, -1), places):
        return None
    return Axis(size, axis.size_out, axis.kernel, step * axis.stride, step * axis.dilation, -start)


def origins(parts: Parts, tensor: int) -> Iterator[Origin]:
    """Where the pixels of an image come from, the nearest tensor first."""
    graph = parts.graph
    makers = {output: op for op in graph.ops for output in op.outputs}
    readers = Counter(index for op in graph.ops for index in op.inputs) + Counter(graph.outputs)
    if len(parts[tensor].shape) != 4:
        return
    index, fill, ops = [np.arange(size) for size in parts[tensor].shape], None, list[Op]()
    with suppress(GraphError):
        while (op := makers.get(tensor)) is not None and op.index not in parts.taken and op.part is None:
            if (readers[tensor] > 1 and op.kind not in PADS) or (made := _taken(parts, op)) is None:
                return
            source = parts[op.inputs[0]]
            require_same_quant(source, parts[tensor])
            taken, value = made
            if fill is not None and value is not None and value != fill:
                return
            index = [np.where(place < 0, -1, part[place]) for place, part in zip(index, taken, strict=True)]
            fill, tensor = value if fill is None else fill, op.inputs[0]
            ops.append(op)
            is_image = all(np.array_equal(index[axis], np.arange(source.shape[axis])) for axis in (0, 3))
            if source.data is not None or not is_image:
                return
            yield Origin(tensor, tuple(ops), (index[1], index[2]), fill)


def _taken(parts: Parts, op: Op) -> tuple[list[np.ndarray], int | None] | None:
    """The elements of its source that an operator takes along each axis, -1 for those that it adds, and what these are;
    None if it does something else.
    """
    graph = parts.graph
    if op.kind not in (*PADS, "SLICE", "STRIDED_SLICE", "MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return None
    source, target = parts[op.inputs[0]], parts[op.outputs[0]]
    if not len(source.shape) == len(target.shape) == 4:
        return None
    if op.kind in ("SLICE", "STRIDED_SLICE"):
        return slice_index(graph, op), None
    if op.kind in PADS:
        pads = integers(graph, op.inputs[1], (np.int8, np.int16, np.int32, np.int64)).reshape(-1, 2)
        require(pads.shape == (4, 2) and bool((pads >= 0).all()), "other pads than of four axes")
        frame = [
            np.pad(np.arange(size), pad.tolist(), constant_values=-1)
            for size, pad in zip(source.shape, pads, strict=True)
        ]
        if op.kind == "PAD":
            return frame, int(target.quantisation.zero_point[0])
        filler = parts[op.inputs[2]].data
        return None if filler is None or filler.size != 1 else (frame, int(filler.item()))
    options = op.options
    is_plain = options.get("activation", "NONE") == "NONE" and not any(options.get("pads", ()))
    if not is_plain or (options["filter_h"], options["filter_w"]) != (1, 1):
        return None
    steps = 1, options["stride_h"], options["stride_w"], 1
    return [np.arange(0, size, step) for size, step in zip(source.shape, steps, strict=True)], None
