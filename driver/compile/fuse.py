"""Works -> fusions: which operators vanish into the one before, because an engine does them to its outputs anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from convoy.driver.emit.tp_moves import move_blocks
from convoy.driver.graph.graph import Graph, GraphError, Op
from convoy.driver.lower.work import (
    ConvWork,
    ElementwiseWork,
    FusedWork,
    HostWork,
    InterleaveWork,
    LutWork,
    MovesWork,
    PoolWork,
    Residual,
    Work,
    ZoomWork,
    composed,
    is_rising,
)
from convoy.driver.plan.cost import table_cycles, tp_cycles
from convoy.driver.plan.phases import native_parts
from convoy.driver.plan.pools import alone_cycles
from convoy.driver.plan.swap import nn_cycles, swap_work
from convoy.driver.plan.tile import tile_work
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp
from convoy.spec.limits import FusedPool, broken_limit

__all__ = ["Fusions", "choose_fusions"]

LutMaker = ConvWork | PoolWork | ElementwiseWork | LutWork | InterleaveWork | ZoomWork | MovesWork
"""What can look its outputs up in a table."""


@dataclass(frozen=True)
class Fusions:
    """What is chosen for a network."""

    works: tuple[Work | FusedWork, ...]
    """By position: `FusedWork` for what has vanished, and what does it instead in place of what was there."""
    notes: dict[int, str]
    """By operator index: what was fused or why not."""


def choose_fusions(graph: Graph, works: Sequence[Work], config: NpuConfig) -> Fusions:
    """Tables go into the operator that makes the operand, sums and maximum pools into the convolution that makes one
    operand, where nobody else wants that operand.

    A sum is fused only if that is estimated to take less time, a pool only if the convolution can still be tiled.
    `works`: the lowered form of each operator of `graph`.
    """
    return _Fuser(graph, works, config).run()


def is_sum_cheaper_fused(alone: ConvWork, fused: ConvWork, add: ElementwiseWork, config: NpuConfig) -> bool:
    """Is a convolution with a residual estimated to take less time than a convolution and a sum? False when it
    cannot be tiled.
    """
    try:
        cycles_alone, cycles_fused = (nn_cycles(conv, config) for conv in (alone, fused))
    except GraphError:
        return False
    return cycles_fused < cycles_alone + tp_cycles("add", add.num_elements, 2 * add.num_elements, config)


def pool_refusal(conv: ConvWork, config: NpuConfig) -> str | None:
    """Why a convolution with a pool cannot be tiled in one of the orientations, if so."""
    try:
        for part, is_transposed in product(native_parts(conv, config), (False, True)):
            tile_work(part.oriented(is_transposed), config)
    except GraphError as error:
        return str(error)
    return None


def is_pool_cheaper_alone(before: ConvWork, pooled: ConvWork, pool: PoolWork, config: NpuConfig) -> bool:
    """Do a convolution with swapped operands and a pool of its own take less time than one with a pool?"""
    swapped = swap_work(before, config)
    return swapped is not None and swapped.is_faster(nn_cycles(pooled, config) - alone_cycles(pool, config))


class _Fuser:
    def __init__(self, graph: Graph, works: Sequence[Work], config: NpuConfig):
        self.graph, self.config = graph, config
        self.works: list[Work | FusedWork] = list(works)
        self.notes: dict[int, str] = {}
        self.makers = {output: position for position, op in enumerate(graph.ops) for output in op.outputs}
        self.readers = Counter(index for op in graph.ops for index in op.inputs)

    def run(self) -> Fusions:
        for position, (op, work) in enumerate(zip(self.graph.ops, self.works, strict=True)):
            if isinstance(work, LutWork):
                obstacle = self._lut(position, op, work)
            elif isinstance(work, ElementwiseWork) and work.is_plain_sum:
                obstacle = self._add(position, op, work)
            elif isinstance(work, PoolWork) and work.op == TpOp.MAX_POOL:
                obstacle = self._pool(position, op, work)
            else:
                continue
            if obstacle:
                self.notes[op.index] = f"not fused: {obstacle}"
        return Fusions(tuple(self.works), self.notes)

    def _root(self, tensor: int) -> int:
        """Position of the operator whose task makes a tensor; -1 for an input of the network."""
        root = self.makers.get(tensor, -1)
        while root >= 0 and isinstance(work := self.works[root], FusedWork):
            root = self.makers[work.operand]
        return root

    def _origin(self, tensor: int) -> int:
        """The tensor of the operator whose task makes a tensor."""
        while isinstance(work := self.works[self.makers[tensor]], FusedWork):
            tensor = work.operand
        return tensor

    def _foreign(self, root: int) -> str:
        """What to say of an operand that is not made by what could do more."""
        return f"its operand comes from {self.graph.ops[root].kind}" if root >= 0 else _IS_INPUT

    def _obstacle(self, operand: int, root: int, position: int) -> str | None:
        """Why operator `position` cannot be done at `root`, where its operand is made, if so."""
        if self.readers[operand] > 1:
            return f"its operand has {self.readers[operand]} readers"
        if operand in self.graph.outputs:
            return "its operand is an output of the network"
        if any(isinstance(work, HostWork) for work in self.works[root:position]):
            return "the host works in between"
        return None

    def _lut(self, position: int, op: Op, work: LutWork) -> str | None:
        operand = op.inputs[work.source]
        root = self._root(operand)
        before = self.works[root] if root >= 0 else None
        if not isinstance(before, LutMaker):
            return self._foreign(root)
        if obstacle := self._obstacle(operand, root, position):
            return obstacle
        if not self.config.has_lut and (isinstance(before, ConvWork) or getattr(before, "fill", None) is not None):
            return "the NN engine has no tables (has_lut = false)"
        if isinstance(before, ConvWork) and before.residual is not None:
            return "a sum is fused there, which comes last"
        if isinstance(before, ConvWork) and before.pool_size and not is_rising(work.lut):
            return "a pool is fused there, which comes last"
        if isinstance(before, MovesWork):
            number = self.graph.ops[root].outputs.index(self._origin(operand))
            moves = [move for n, move in before.moves if n == number]
            if any(move.has_frame for move in moves):
                return "its operand has a frame"
            num_blocks = sum(1 for move in moves for _ in move_blocks(move, 0, 0, self.config))
            cycles_alone = tp_cycles("copy", work.num_elements, work.num_elements, self.config)
            if num_blocks * table_cycles(self.config) > cycles_alone:
                return "its operand is made in so many pieces that a table for each costs more"
            self._merge(position, root, operand, before.with_table(number, work.lut))
            return None
        self._merge(position, root, operand, replace(before, lut=composed(before.lut, work.lut)))
        return None

    def _pool(self, position: int, op: Op, work: PoolWork) -> str | None:
        """Maxima of outputs that have been clamped, and looked up, are the same as outputs of maxima clamped by
        both.
        """
        operand = op.inputs[0]
        root = self._root(operand)
        before = self.works[root] if root >= 0 else None
        if not isinstance(before, ConvWork):
            return self._foreign(root)
        obstacle = self._obstacle(operand, root, position)
        if obstacle is None and self.graph.ops[root].kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            obstacle = self._foreign(root)
        if obstacle is None:
            obstacle = broken_limit(self._described(work, operand), self.config)
        if obstacle is None and (before.residual is not None or before.pool_size):
            obstacle = "a sum or a pool is fused there, which comes last"
        if obstacle is not None:
            return obstacle
        pooled = _pooled(before, work)
        if (refusal := pool_refusal(pooled, self.config)) is None and is_pool_cheaper_alone(
            before, pooled, work, self.config
        ):
            refusal = "the convolution is faster with its operands swapped, which leaves no place for a pool"
        if refusal is None:
            self._merge(position, root, operand, pooled)
        return refusal

    def _described(self, work: PoolWork, operand: int) -> FusedPool:
        """The pool, of the rows and columns that windows have."""
        rows, cols = work.rows, work.cols
        return FusedPool(
            (rows.kernel, cols.kernel),
            (rows.stride, cols.stride),
            any(axis.pad > 0 or axis.end > 0 for axis in (rows, cols)),
            (rows.size_in + rows.end, cols.size_in + cols.end),
            self.graph.tensors[operand].dtype.itemsize,
        )

    def _add(self, position: int, op: Op, work: ElementwiseWork) -> str | None:
        """Into the operand that is made last, else into the other one."""
        if not self.config.has_residual:
            return "the NN engine adds no second operand (has_residual = false)"
        roots = [self._root(index) for index in op.inputs[:2]]
        last, first = sorted((0, 1), key=roots.__getitem__, reverse=True)
        obstacle = self._add_into(last, roots[last], roots[first], position, op, work)
        if obstacle and self._add_into(first, roots[first], roots[last], position, op, work) is None:
            return None
        return obstacle

    def _add_into(
        self, mine: int, root: int, other_root: int, position: int, op: Op, work: ElementwiseWork
    ) -> str | None:
        """Into operand `mine`, which is made at `root`."""
        operand, other = op.inputs[mine], op.inputs[1 - mine]
        before = self.works[root] if root >= 0 else None
        if not isinstance(before, ConvWork):
            return self._foreign(root)
        if obstacle := self._obstacle(operand, root, position):
            return obstacle
        if self.graph.ops[root].kind == "FULLY_CONNECTED":
            return self._foreign(root)
        if before.interleave is not None:
            return "its operand's pixels are interleaved first"
        if before.residual is not None:
            return "a sum is fused there already"
        if before.pool_size:
            return "a pool is fused there, which comes last"
        if other_root >= root:
            return "its other operand is made later"
        fields = {_SWAPPED.get(name, name) if mine else name: value for name, value in work.fields.items()}
        fused = replace(before, residual=Residual(other, fields))
        if not is_sum_cheaper_fused(before, fused, work, self.config):
            return "the tensor processor is faster"
        self._merge(position, root, operand, fused)
        return None

    def _merge(self, position: int, root: int, operand: int, work: Work) -> None:
        """The operator at `root` becomes `work` and does what the one at `position` did."""
        op, maker = self.graph.ops[position], self.graph.ops[root]
        self.works[root], self.works[position] = work, FusedWork(operand)
        self.notes[op.index] = f"fused into operator {maker.number} {maker.title}"
        last = self.graph.ops[self.makers[operand]].index
        text = f"followed by operator {op.number} {op.title}, its own result is not stored"
        self.notes[last] = f"{self.notes[last]}; {text}" if last in self.notes else text


def _pooled(conv: ConvWork, pool: PoolWork) -> ConvWork:
    """A convolution with a pool, whose clamp goes into the convolution's clamp or table: it makes only the rows and
    columns that windows have.
    """
    rows, cols = (
        replace(axis, size_out=read.size_in + read.end)
        for axis, read in zip((conv.rows, conv.cols), (pool.rows, pool.cols), strict=True)
    )
    conv = replace(conv, rows=rows, cols=cols)
    if conv.lut is not None:
        return replace(conv, pool_size=pool.rows.kernel, lut=np.clip(conv.lut, pool.act_min, pool.act_max))
    return replace(
        conv,
        pool_size=pool.rows.kernel,
        act_min=max(conv.act_min, pool.act_min),
        act_max=min(conv.act_max, pool.act_max),
    )


_IS_INPUT = "its operand is an input of the network"
_SWAPPED = {f"{a}_{name}": f"{b}_{name}" for a, b in ("ab", "ba") for name in ("zero_point", "mult", "shift")}
"""The fields of a sum with its operands exchanged."""
