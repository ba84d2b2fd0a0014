"""Orders of axes in memory, and copies of the tensor processor from one to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

__all__ = ["AXES", "Box", "CopyWork", "Shape", "memory_axes", "order_steps", "reordered"]

Shape = tuple[int, int, int, int]
"""NHWC."""

AXES: dict[str, tuple[int, int, int]] = {"linear": (0, 1, 2), "planar": (2, 0, 1), "planar_transposed": (2, 1, 0)}
"""Order in memory of (h, w, c), outermost first, by `Placement.layout`."""


Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(extent of the whole, first place in it) along three axes."""


@dataclass(frozen=True)
class CopyWork:
    """A change of the order of axes on the TP engine, perhaps of a part of an array into a part of another one."""

    sizes: tuple[int, int, int]
    source: tuple[int, ...]
    target: tuple[int, ...]
    source_box: Box | None = None
    """Where in its array the source is; None: all of it."""
    target_box: Box | None = None
    lut: np.ndarray | None = None
    """Table that the elements are looked up in."""

    @property
    def boxes(self) -> tuple[Box, Box]:
        """Where source and target are in their arrays."""
        a, b, c = self.sizes
        whole = (a, 0), (b, 0), (c, 0)
        return self.source_box or whole, self.target_box or whole


def memory_axes(sizes: Sequence[int], shape: Shape, layout: str) -> list[int] | None:
    """The axes of a tensor seen as `sizes`, those of one element left out, in the order in which they lie in memory,
    the outermost first; None where no axes of `sizes` make up the rows, columns and channels of `shape`.
    """
    left = [axis for axis, size in enumerate(sizes) if size > 1]
    if layout == "linear":
        return left
    if shape[0] != 1:
        return None
    parts: list[list[int]] = []
    for extent in shape[1:]:
        part: list[int] = []
        while left and prod(sizes[axis] for axis in part) < extent:
            part.append(left.pop(0))
        if prod(sizes[axis] for axis in part) != extent:
            return None
        parts.append(part)
    return [axis for number in AXES[layout] for axis in parts[number]]


def _blocks(source: Sequence[int], target: Sequence[int]) -> list[list[int]]:
    """The axes in the order `source`; those that are next to one another in the order `target` too are a block."""
    blocks: list[list[int]] = []
    for axis in source:
        place = target.index(axis)
        if blocks and place > 0 and target[place - 1] == blocks[-1][-1]:
            blocks[-1].append(axis)
        else:
            blocks.append([axis])
    return blocks


def order_steps(source: list[int], target: list[int]) -> Iterator[list[int]]:
    """Orders from one to another one, each with at most three blocks of the order before."""
    while len(blocks := _blocks(source, target)) > 3:
        cuts = combinations(range(len(blocks) + 1), 3)
        parts = [(blocks[:a], blocks[a:b], blocks[b:c], blocks[c:]) for a, b, c in cuts if a == 0 or c == len(blocks)]
        orders = [
            [axis for part in (before, second, first, behind) for block in part for axis in block]
            for before, first, second, behind in parts
        ]
        source = min(orders, key=lambda order: len(_blocks(order, target)))
        yield source
    yield target


def reordered(sizes: Sequence[int], source: Sequence[int], target: Sequence[int]) -> CopyWork:
    """A copy from one order of axes in memory to another one, of at most three blocks."""
    blocks = _blocks(source, target)
    firsts = [block[0] for block in blocks]
    order = [firsts.index(axis) for axis in target if axis in firsts]
    padding = list(range(len(blocks), 3))
    a, b, c = [prod(sizes[axis] for axis in block) for block in blocks] + [1] * len(padding)
    return CopyWork((a, b, c), (0, 1, 2), tuple(order + padding))
