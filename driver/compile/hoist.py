"""Graph -> graph: functions of one byte behind operators that only move bytes change places with them, so that they can
vanish into what makes the bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Part, Runtime, Tensor
from convoy.driver.lower.functions import source_of, table_of
from convoy.driver.lower.lut import LUT_KINDS

__all__ = ["hoist_functions"]

_MOVES = frozenset(["RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION", "RESIZE_NEAREST_NEIGHBOR"])
"""Operators whose results are bytes of their operands, each at least once."""
_MAKERS = LUT_KINDS | frozenset(
    ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"]
) | frozenset(["AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "TABLE"])  # fmt: skip
"""Operators that can look their results up in a table."""


def hoist_functions(graph: Graph) -> Graph:
    """The network with functions of one byte, as tables, before RESHAPE, TRANSPOSE, CONCATENATION and the like instead
    of behind them, where at least half of the bytes moved come from operators that can do it, and nobody else reads
    them.
    """
    hoister = _Hoister(graph)
    while hoister.step():
        pass
    return hoister.result()


class _Hoister:
    def __init__(self, graph: Graph):
        self.graph, self.ops, self.tensors = graph, list(graph.ops), list(graph.tensors)
        self.hoisted: dict[int, Op] = {}
        """By index of an operator: the function of the file that it is a part of."""
        self.makers: dict[int, Op] = {}
        self.readers: Counter[int] = Counter()
        self.next_index = max((op.index for op in graph.ops), default=-1) + 1

    def step(self) -> bool:
        """Let one function change places with what is before it; False if there is none."""
        self.makers = {index: op for op in self.ops for index in op.outputs}
        self.readers = Counter(index for op in self.ops for index in op.inputs)
        now = replace(self.graph, tensors=tuple(self.tensors), ops=tuple(self.ops))
        for op in reversed(self.ops):
            source = source_of(now, op)
            move = self.makers.get(source) if source is not None else None
            if source is None or move is None or not self._can_pass(source):
                continue
            try:
                table = table_of(now, op)
            except GraphError:
                continue
            self._swap(op, move, table)
            return True
        return False

    def _is_inner(self, tensor: int) -> bool:
        return self.readers[tensor] == 1 and tensor not in self.graph.outputs

    def _can_pass(self, tensor: int) -> bool:
        """Does an operator that only moves bytes make a tensor, for one reader, half of them for it alone?"""
        move = self.makers.get(tensor)
        if move is None or move.kind not in _MOVES or move.part is not None or not self._is_inner(tensor):
            return False
        if move.options.get("activation", "NONE") != "NONE" or any(index < 0 for index in move.inputs):
            return False
        sources = self._moved(move)
        if any(not self._is_same(self.tensors[index], self.tensors[tensor]) for index in sources):
            return False
        sizes = {index: int(np.prod(self.tensors[index].shape)) for index in sources}
        free = sum(size for index, size in sizes.items() if self._is_free(index))
        return 2 * free >= sum(sizes.values())

    def _moved(self, move: Op) -> tuple[int, ...]:
        """The operands whose bytes are moved; those of a TRANSPOSE's order, a new shape ... are not."""
        return move.inputs if move.kind == "CONCATENATION" else move.inputs[:1]

    def _is_same(self, source: Tensor, target: Tensor) -> bool:
        """Are the bytes those of the result? LiteRT converts uint8 of other scales as it puts them together."""
        if source.data is not None or source.is_variable or source.is_dynamic or source.dtype != target.dtype:
            return False
        a, b = source.quant, target.quant
        if a is None or b is None or (source.dtype == np.int8 and self.graph.runtime == Runtime.LITERT):
            return True
        return bool(np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point))

    def _is_free(self, tensor: int) -> bool:
        """Can what makes a tensor look it up in a table?"""
        maker = self.makers.get(tensor)
        if maker is None or not self._is_inner(tensor):
            return False
        return maker.kind in _MAKERS or "table" in maker.options or self._can_pass(tensor)

    def _swap(self, op: Op, move: Op, table: np.ndarray) -> None:
        """Tables before a move in place of a function behind it."""
        (target,), made = op.outputs, dict[int, int]()
        like, origin = self.tensors[target], self.hoisted.pop(op.index, op)
        tables = list[Op]()
        for index in dict.fromkeys(self._moved(move)):
            source = self.tensors[index]
            made[index] = len(self.tensors)
            name = f"{like.name} ({len(self.tensors)})"
            self.tensors.append(Tensor(made[index], name, source.shape, like.dtype, like.quant))
            number = self.next_index + len(tables)
            tables.append(Op(number, "TABLE", (index,), (made[index],), {"table": table}, note=op.note))
            self.hoisted[number] = origin
        self.next_index += len(tables)
        text = f"behind operator {origin.number} {origin.kind}, its own result is not stored"
        moved = replace(
            move,
            inputs=tuple(made.get(index, index) for index in move.inputs),
            outputs=op.outputs,
            note=f"{move.note}; {text}" if move.note else text,
        )
        place = self.ops.index(move)
        self.ops[place : place + 1] = [*tables, moved]
        self.ops.remove(op)

    def result(self) -> Graph:
        """The network, with operators numbered as parts of those of the file."""
        if not self.hoisted:
            return self.graph
        counts = Counter(origin.index for origin in self.hoisted.values())
        seen, ops = Counter[int](), list[Op]()
        for op in self.ops:
            if (origin := self.hoisted.get(op.index)) is not None:
                index, count = origin.index, counts[origin.index]
                seen[index] += 1
                kind = origin.part.kind if origin.part else origin.kind
                op = replace(
                    op, index=index if count == 1 else op.index, part=Part(origin.place[0], kind, seen[index], count)
                )
            ops.append(op)
        num_added = self.graph.num_added + len(self.tensors) - len(self.graph.tensors)
        return replace(self.graph, tensors=tuple(self.tensors), ops=tuple(ops), num_added=num_added)
