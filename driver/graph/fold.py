"""Graph -> graph: what is the same in every run is computed once, by LiteRT; what nobody needs goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from convoy.driver.errors import GraphError
from convoy.driver.litert.process import LiteRT, LoadedModel

from .graph import Graph, Op, Tensor
from .tflite_group import group_model

__all__ = ["RANDOM_KINDS", "STATE_KINDS", "fold_graph", "has_subgraph"]

STATE_KINDS = "READ_VARIABLE", "ASSIGN_VARIABLE"
"""Operators on what a network keeps from run to run."""
RANDOM_KINDS = "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"
"""Operators that give other results each time."""
_SHAPE_KINDS = "SHAPE", "RANK", "ZEROS_LIKE"
"""Operators that do not look at the values of their input."""


def fold_graph(graph: Graph) -> Graph:
    """The same network with constants for all that does not depend on its inputs and variables.

    An operator whose inputs are all constants, or whose results only depend on a shape, is computed once by LiteRT, so
    that the constants are LiteRT's; what LiteRT does not compute stays. Operators whose results no output and no
    variable needs are left out. An operator that hands its input on unchanged becomes a RESHAPE to the same shape. The
    others keep their `index`, tensors keep theirs. `notes` say what was done.
    """
    folder = _Folder(graph)
    kept = tuple(_plain(folder.tensors, op) for op in graph.ops if not folder.fold(op))
    ops = _needed(graph, kept)
    notes = [
        *_note(folder.folded, "computed once, as nothing that changes is read"),
        *_note([op for op in kept if op.index not in {other.index for other in ops}], "left out, as nobody needs them"),
    ]
    return replace(graph, tensors=tuple(folder.tensors), ops=ops, notes=(*graph.notes, *notes))


def has_subgraph(op: Op) -> bool:
    """Does an operator run another part of its file: WHILE, IF, CALL ...?"""
    tables = (op.raw.record.builtinOptions, op.raw.record.builtinOptions2) if op.raw is not None else ()
    return any("subgraph" in name.lower() for table in tables if table is not None for name in vars(table))


class _Folder:
    """Tensors become constants, operator by operator."""

    def __init__(self, graph: Graph):
        self._graph, self._process = graph, LiteRT()
        self.tensors = list(graph.tensors)
        self.folded: list[Op] = []

    def fold(self, op: Op) -> bool:
        """Make constants of an operator's results; False if they are none."""
        if not self._is_fixed(op):
            return False
        try:
            results = self._results(op)
        except GraphError:
            return False
        tensors = [self.tensors[index] for index in op.outputs]
        if any(
            (values.shape, values.dtype) != (tensor.shape, tensor.dtype)
            for values, tensor in zip(results, tensors, strict=True)
        ):
            return False
        for tensor, values in zip(tensors, results, strict=True):
            self.tensors[tensor.index] = replace(tensor, data=values)
        self.folded.append(op)
        return True

    def _is_fixed(self, op: Op) -> bool:
        """Are its results the same in every run?"""
        if op.kind in (*STATE_KINDS, *RANDOM_KINDS) or has_subgraph(op):
            return False
        inputs = [self.tensors[index] for index in op.inputs if index >= 0]
        if any(tensor.is_dynamic for tensor in inputs):
            return False
        return bool(inputs) and (op.kind in _SHAPE_KINDS or all(tensor.data is not None for tensor in inputs))

    def _results(self, op: Op) -> list[np.ndarray]:
        if op.kind == "DENSIFY":  # the importer stores every constant densely
            return [self.tensors[op.inputs[0]].values]
        model = group_model(replace(self._graph, tensors=tuple(self.tensors)), [op], op.outputs)
        zeros = [np.zeros(self.tensors[index].shape, self.tensors[index].dtype) for index in model.inputs]
        return list(LoadedModel(self._process, model.data).run(zeros).values())


def _needed(graph: Graph, ops: Iterable[Op]) -> tuple[Op, ...]:
    """Operators that outputs and variables depend on."""
    needed, kept = set(graph.outputs), []
    for op in reversed(tuple(ops)):
        if not op.outputs or not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return tuple(reversed(kept))


def _note(ops: list[Op], what: str) -> list[str]:
    """A sentence on operators, if there are any."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(op.kind for op in ops).items()))
    return (
        [f"{len(ops)} operators are {what}: {kinds}"]
        if len(ops) > 1
        else [f"operator {op.index} ({op.kind}) is {what.replace('them', 'it')}" for op in ops]
    )


def _plain(tensors: list[Tensor], op: Op) -> Op:
    """A RESHAPE in place of an operator that hands its input on."""
    check = _UNCHANGED.get(op.kind)
    if check is None or len(op.outputs) != 1 or not op.inputs or -1 in op.inputs:
        return op
    source, target = tensors[op.inputs[0]], tensors[op.outputs[0]]
    if source.data is not None or (source.shape, source.dtype) != (target.shape, target.dtype):
        return op
    if not check(op, [tensors[index] for index in op.inputs], target):
        return op
    return Op(op.index, "RESHAPE", op.inputs[:1], op.outputs, {"new_shape": target.shape})


def _is_same_quant(op: Op, inputs: list[Tensor], target: Tensor) -> bool:
    a, b = inputs[0].quant, target.quant
    if len(inputs) != 1 or a is None or b is None or op.options.get("activation", "NONE") != "NONE":
        return False
    return a.scale.size == b.scale.size == 1 and (a.scale[0], a.zero_point[0]) == (b.scale[0], b.zero_point[0])


def _is_whole_slice(op: Op, inputs: list[Tensor], target: Tensor) -> bool:
    if op.kind == "SLICE":
        return True  # of as many elements as there are
    steps, options = inputs[3].data, op.options
    return steps is not None and bool((steps == 1).all()) and not options["new_axis_mask"] | options["shrink_axis_mask"]


def _has_no_pads(op: Op, inputs: list[Tensor], target: Tensor) -> bool:
    pads = inputs[1].data
    return pads is not None and not pads.any()


def _is_same_order(op: Op, inputs: list[Tensor], target: Tensor) -> bool:
    order = inputs[1].data
    return order is not None and [axis % order.size for axis in order.tolist()] == list(range(order.size))


_UNCHANGED = {
    **dict.fromkeys(("QUANTIZE", "CONCATENATION"), _is_same_quant),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _is_whole_slice),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _has_no_pads),
    "TRANSPOSE": _is_same_order,
    **dict.fromkeys(("TILE", "BROADCAST_TO"), lambda op, inputs, target: True),
}
"""By kind of operator: (operator, inputs, output of the first one's shape and dtype) -> are the values the same?"""
