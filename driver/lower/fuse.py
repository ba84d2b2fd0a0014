"""Operators that vanish into the one before: what an engine does to its outputs anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from convoy.driver.graph.graph import Graph, Op
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp
from convoy.spec.limits import FusedPool, broken_limit

from .work import ConvWork, ElementwiseWork, FusedWork, HostWork, InterleaveWork, LutWork, PoolWork, Residual, ZoomWork

__all__ = ["fuse"]


def fuse(
    graph: Graph,
    works: list,
    is_worth: Callable[[ConvWork, ElementwiseWork], bool],
    can_pool: Callable[[ConvWork], str | None],
    config: NpuConfig,
) -> tuple[list, dict[int, str]]:
    """Tables go into the operator that makes the operand, sums and maximum pools into the convolution that makes one
    operand, where nobody else wants that operand.

    Parameters
    ----------
    works : the lowered form of each operator of `graph`
    is_worth : whether to fuse a convolution and a sum that could be fused
    can_pool : why a convolution with a legal pool cannot be cut into tiles, if so
    config : of the NPU, whose line buffers limit pools

    Returns
    -------
    (works, notes)
        Works with `FusedWork` for what has vanished, and by operator index what was fused or why not.
    """
    return _Fuser(graph, list(works), is_worth, can_pool, config).run()


class _Fuser:
    def __init__(
        self,
        graph: Graph,
        works: list[Any],
        is_worth: Callable[[ConvWork, ElementwiseWork], bool],
        can_pool: Callable[[ConvWork], str | None],
        config: NpuConfig,
    ):
        self.graph, self.works, self.is_worth, self.can_pool, self.config = graph, works, is_worth, can_pool, config
        self.notes: dict[int, str] = {}
        self.makers = {output: position for position, op in enumerate(graph.ops) for output in op.outputs}
        self.readers = Counter(index for op in graph.ops for index in op.inputs)

    def run(self) -> tuple[list, dict[int, str]]:
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
        return self.works, self.notes

    def _root(self, tensor: int) -> int | None:
        """Position of the operator whose task makes a tensor; None for an input of the network."""
        root = self.makers.get(tensor)
        while root is not None and isinstance(self.works[root], FusedWork):
            root = self.makers[self.works[root].operand]
        return root

    def _obstacle(self, operand: int, root: int | None, position: int, kinds: type | tuple[type, ...]) -> str | None:
        """Why operator `position` cannot be done where its operand is made, if so."""
        if root is None:
            return "its operand is an input of the network"
        if not isinstance(self.works[root], kinds):
            return f"its operand comes from {self.graph.ops[root].kind}"
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
        if obstacle := self._obstacle(
            operand, root, position, (ConvWork, PoolWork, ElementwiseWork, LutWork, InterleaveWork, ZoomWork)
        ):
            return obstacle
        before = self.works[root]
        if isinstance(before, ConvWork) and before.residual is not None:
            return "a sum is fused there, which comes last"
        if isinstance(before, ConvWork) and before.pool_size and not _is_rising(work.lut):
            return "a pool is fused there, which comes last"
        self._merge(
            position,
            root,
            operand,
            replace(before, lut=work.lut if before.lut is None else work.lut[before.lut.view("u1")]),
        )
        return None

    def _pool(self, position: int, op: Op, work: PoolWork) -> str | None:
        """Maxima of outputs that have been clamped, and looked up, are the same as outputs of maxima clamped by
        both.
        """
        operand = op.inputs[0]
        root = self._root(operand)
        obstacle = self._obstacle(operand, root, position, ConvWork)
        if obstacle is None and self.graph.ops[root].kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            obstacle = f"its operand comes from {self.graph.ops[root].kind}"
        if obstacle is None:
            obstacle = broken_limit(self._described(work, operand), self.config)
        if obstacle is None and (self.works[root].residual is not None or self.works[root].pool_size):
            obstacle = "a sum or a pool is fused there, which comes last"
        if obstacle is None:
            pooled = _pooled(self.works[root], work)
            obstacle = self.can_pool(pooled)
        if obstacle is None:
            self._merge(position, root, operand, pooled)
        return obstacle

    def _described(self, work: PoolWork, operand: int) -> FusedPool:
        rows, cols = work.rows, work.cols
        has_pads = any(
            axis.pad > 0 or (axis.size_out - 1) * axis.stride + axis.kernel > axis.size_in for axis in (rows, cols)
        )
        return FusedPool(
            (rows.kernel, cols.kernel),
            (rows.stride, cols.stride),
            has_pads,
            (rows.size_in, cols.size_in),
            self.graph.tensors[operand].dtype.itemsize,
        )

    def _add(self, position: int, op: Op, work: ElementwiseWork) -> str | None:
        """Into the operand that is made last, else into the other one."""
        roots = [self._root(index) for index in op.inputs[:2]]
        order = sorted((0, 1), key=lambda n: -1 if roots[n] is None else roots[n], reverse=True)
        obstacles = []
        for mine in order:
            operand, other = op.inputs[mine], op.inputs[1 - mine]
            root, other_root = roots[mine], roots[1 - mine]
            obstacle = self._obstacle(operand, root, position, ConvWork)
            if obstacle is None and self.graph.ops[root].kind == "FULLY_CONNECTED":
                obstacle = "its operand comes from FULLY_CONNECTED"
            if obstacle is None and self.works[root].interleave is not None:
                obstacle = "its operand's pixels are interleaved first"
            if obstacle is None and self.works[root].residual is not None:
                obstacle = "a sum is fused there already"
            if obstacle is None and self.works[root].pool_size:
                obstacle = "a pool is fused there, which comes last"
            if obstacle is None and other_root is not None and other_root >= root:
                obstacle = "its other operand is made later"
            if obstacle is None and not self.is_worth(self.works[root], work):
                obstacle = "the tensor processor is faster"
            if obstacle is None:
                fields = {_SWAPPED.get(name, name) if mine else name: value for name, value in work.fields.items()}
                self._merge(position, root, operand, replace(self.works[root], residual=Residual(other, fields)))
                return None
            obstacles.append(obstacle)
        return obstacles[0]

    def _merge(self, position: int, root: int, operand: int, work: Any) -> None:
        """The operator at `root` becomes `work` and does what the one at `position` did."""
        op, maker = self.graph.ops[position], self.graph.ops[root]
        self.works[root], self.works[position] = work, FusedWork(operand)
        self.notes[op.index] = f"fused into operator {maker.index} {maker.kind}"
        last = self.graph.ops[self.makers[operand]].index
        text = f"followed by operator {op.index} {op.kind}, its own result is not stored"
        self.notes[last] = f"{self.notes[last]}; {text}" if last in self.notes else text


def _pooled(conv: ConvWork, pool: PoolWork) -> ConvWork:
    """A convolution with a pool, whose clamp goes into the convolution's clamp or table."""
    if conv.lut is not None:
        return replace(conv, pool_size=pool.rows.kernel, lut=np.clip(conv.lut, pool.act_min, pool.act_max))
    return replace(
        conv,
        pool_size=pool.rows.kernel,
        act_min=max(conv.act_min, pool.act_min),
        act_max=min(conv.act_max, pool.act_max),
    )


def _is_rising(lut: np.ndarray) -> bool:
    """A table that never falls; the maximum of its values is its value of the maximum."""
    return bool((np.diff(np.roll(lut, 128).astype(int)) >= 0).all())


_SWAPPED = {f"{a}_{name}": f"{b}_{name}" for a, b in ("ab", "ba") for name in ("zero_point", "mult", "shift")}
"""The fields of a sum with its operands exchanged."""
