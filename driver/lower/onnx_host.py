"""Operators of ONNX networks on the host, by onnxruntime's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op
from convoy.driver.ort.runtime import OrtError, OrtModel
from convoy.driver.ort.unit import OnnxUnit

from .operands import describe

__all__ = ["OnnxHostGroup"]


class OnnxHostGroup:
    """Operators of the host that follow one another, as `HostGroup` with onnxruntime in LiteRT's place; each is a
    network by itself.

    Raises
    ------
    GraphError
        On construction, when an operator stands for no node of the file.
    """

    def __init__(self, graph: Graph, ops: Sequence[Op], outputs: Sequence[int] | None = None):
        self._graph, self.ops = graph, tuple(ops)
        self._outputs = {index for op in ops for index in op.outputs} if outputs is None else set(outputs)
        self._units = [(op, self._unit(op)) for op in ops]
        self._loaded: dict[int, OrtModel] = {}
        self.remarks: dict[int, str] = {}

    def _unit(self, op: Op) -> OnnxUnit:
        if not isinstance(op.raw, OnnxUnit):
            raise GraphError(f"{describe(self._graph, op)}: the ONNX file has no such operator")
        return op.raw

    def reset_state(self) -> None:
        """Nothing: the operators keep no state."""

    def run(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """As `HostGroup.run`."""
        known = dict(values)
        for op, unit in self._units:
            if op.index not in self._loaded:
                self._loaded[op.index] = unit.load()
            places = {port.place for port in unit.inputs}
            inputs = [known[index] if place in places else np.empty(0) for place, index in enumerate(op.inputs)]
            try:
                known |= zip(op.outputs, unit.run(self._loaded[op.index], inputs), strict=True)
            except OrtError as error:
                raise GraphError(f"{describe(self._graph, op)}: {error}") from None
        return {index: known[index] for index in self._outputs}
