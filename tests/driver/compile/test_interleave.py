"""An order in which one engine works while another one is waited for."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.compile.interleave import interleave
from convoy.driver.compile.order import Ordered
from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.driver.lower.work import AssignWork, HostWork, LutWork, ReadWork, ReshapeWork, Work
from convoy.spec.config import PRESETS

CONFIG = PRESETS["S"]
WORKS: dict[str, Work] = {
    "t": LutWork(1, np.zeros(256, np.int8)),
    "e": ReshapeWork(),
    "h": HostWork("left"),
    "a": AssignWork(0),
    "r": ReadWork(0),
}


def ordered(kinds: str, edges: list[tuple[int, int]]) -> Ordered:
    """Operators by kind, tensor p + 1 made by operator p; those without operand read the input."""
    operands = [[1 + a for a, b in edges if b == place] or [0] for place in range(len(kinds))]
    ops = tuple(Op(place, kind, tuple(operands[place]), (place + 1,)) for place, kind in enumerate(kinds))
    tensors = tuple(Tensor(index, f"t{index}", (1, 4), np.dtype(np.int8)) for index in range(len(kinds) + 1))
    return Ordered(Graph("g", tensors, ops, (0,), (len(kinds),)), tuple(WORKS[kind] for kind in kinds))


def order(given: Ordered) -> list[int]:
    return [op.index for op in interleave(given, CONFIG).graph.ops]


CHAINS = [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_chains_take_turns():
    found = order(ordered("tttttt", CHAINS))
    assert found == [0, 3, 1, 4, 2, 5]
    assert order(ordered("teetee", CHAINS)) == [0, 1, 2, 3, 4, 5]  # nothing waits


def test_the_host_stays_where_it_is():
    given = ordered(
        "tttttthtttttt", [*CHAINS, *((6, 7 + first) for first in (0, 3)), *((a + 7, b + 7) for a, b in CHAINS)]
    )
    found = interleave(given, CONFIG)
    assert [op.index for op in found.graph.ops] == [0, 3, 1, 4, 2, 5, 6, 7, 10, 8, 11, 9, 12]
    assert all(WORKS[op.kind] is work for op, work in zip(found.graph.ops, found.works, strict=True))


@pytest.mark.parametrize("kinds", ["ttttta", "tttttr"])
def test_assignments_are_left_alone(kinds):
    given = ordered(kinds, CHAINS)
    assert (interleave(given, CONFIG) is given) == ("a" in kinds)
