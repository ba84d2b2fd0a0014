"""What an operator becomes when the compiler puts others in its place: collected, then put into the graph as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convoy.driver.graph.graph import Graph, Op, Part, Quant, Tensor
from convoy.spec.config import NpuConfig

__all__ = ["Expansion", "Parts"]


@dataclass
class Parts:
    """Operators in place of `op`, the last of which writes `op`'s outputs, and the tensors between them."""

    graph: Graph
    """All that `op` may look at; what is added is not in it yet."""
    op: Op
    """The operator to replace."""
    config: NpuConfig
    first_tensor: int
    """Index of the first tensor that is added."""
    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    narrow: frozenset[int] = frozenset()
    """Indices of operators that read more at once than the NPU holds: a form that reads less is wanted."""
    taken: frozenset[int] = frozenset()
    """Indices of operators that have gone away with others before."""
    stands_for: Op = field(init=False)
    """The operator whose place is shown: `op`, or another one that is absorbed."""
    absorbed: set[int] = field(default_factory=set)
    """Indices of other operators of the graph that go away with `op`."""
    unread: set[int] = field(default_factory=set)
    """Indices of other operators whose results are no longer read here; they go away if nobody else reads them."""

    def __post_init__(self) -> None:
        self.stands_for = self.op

    def __getitem__(self, index: int) -> Tensor:
        """A tensor of the graph, or one that has been added."""
        return self.graph.tensors[index] if index < self.first_tensor else self.tensors[index - self.first_tensor]

    def tensor(self, shape: Sequence[int], like: int, quant: Quant | None = None) -> int:
        """Add an activation of the dtype and the quantisation of the tensor `like`, or with `quant`; its index."""
        return self._add(tuple(int(size) for size in shape), self[like].dtype, quant or self[like].quant, None)

    def constant(self, data: np.ndarray, quant: Quant | None = None) -> int:
        """Add a constant; its index."""
        return self._add(data.shape, data.dtype, quant, data)

    def _add(self, shape: tuple[int, ...], dtype: np.dtype, quant: Quant | None, data: np.ndarray | None) -> int:
        index = self.first_tensor + len(self.tensors)
        name = f"{self.graph.name_of(self.op)} ({len(self.tensors) + 1})"
        self.tensors.append(Tensor(index, name, shape, np.dtype(dtype), quant, data))
        return index

    def add(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operator; `options` as in `Op`."""
        self.ops.append(Op(-1, kind, tuple(inputs), tuple(outputs), options))

    def note(self, text: str) -> None:
        """Say something of the operator added last."""
        self.ops[-1] = replace(self.ops[-1], note=text)

    def leave(self, reason: str) -> None:
        """Leave the operator added last to the host, for a reason; no reason: it is one for the NPU."""
        self.ops[-1] = replace(self.ops[-1], host_reason=reason)

    def numbered(self, first_index: int) -> list[Op]:
        """The operators with indices from `first_index` on, as parts of the one that they stand for; a single one has
        its index.
        """
        index, kind = self.stands_for.index, self.stands_for.kind
        if len(self.ops) == 1:
            (only,) = self.ops
            return [replace(only, index=index, part=Part(index, kind, 1, 1) if only.kind != kind else None)]
        return [
            replace(made, index=first_index + n, part=Part(index, kind, n + 1, len(self.ops)))
            for n, made in enumerate(self.ops)
        ]


Expansion = Callable[[Parts], bool]
"""Puts an equivalent exact sequence in place of `Parts.op` and returns True, or False where the operator may stay what
it is; what it adds the NPU should take, unless it is left to the host. May raise `GraphError` for what it does not
understand: that stays too.
"""
