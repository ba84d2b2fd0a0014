"""Some operators of a network as a TFLite file of their own, with the subgraphs that they call: what LiteRT runs for
the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, GraphError, Op
from .tflite_repair import pack
from .tflite_writer import SCHEMA_VERSION, known_code, operator_record, tensor_record

__all__ = ["GroupModel", "RawFile", "RawOp", "called_ops", "called_subgraphs", "group_model", "kept_inside"]


class RawFile:
    """A TFLite file, unpacked when a subgraph of it is needed."""

    def __init__(self, data: bytes):
        self._data = data

    @cached_property
    def model(self) -> schema.ModelT:
        """The whole file in the schema library's object API."""
        return schema.ModelT.InitFromPackedBuf(self._data, 0)


@dataclass(frozen=True)
class RawOp:
    """An operator as its file has it: all options, known here or not. Its tensors are those of the file."""

    kind: str
    code: schema.OperatorCodeT
    record: schema.OperatorT
    file: RawFile


@dataclass(frozen=True)
class GroupModel:
    """A file of some operators."""

    data: bytes
    inputs: tuple[int, ...]
    """Activations of the graph that it takes, in order."""
    places: dict[int, int]
    """By tensor of the graph: its index in the file."""


def group_model(graph: Graph, ops: Sequence[Op], outputs: Sequence[int]) -> GroupModel:
    """A TFLite file of operators of a graph, in their order, with their constants; its outputs are the tensors
    `outputs`.

    Codes and options are those of the file that an operator comes from, if any; else a RESHAPE gets the shape of its
    output.

    Raises
    ------
    GraphError
        When an operator comes from no file and cannot be written, or a dtype cannot.
    """
    builder = _Builder(graph, ops)
    made = {index for op in ops for index in op.outputs}
    inputs = tuple(
        index
        for index in dict.fromkeys(index for op in ops for index in op.inputs if index >= 0)
        if index not in made and graph.tensors[index].is_activation
    )
    main = builder.model.subgraphs[0]
    main.inputs, main.outputs = [builder.places[i] for i in inputs], [builder.places[i] for i in outputs]
    return GroupModel(pack(builder.model), inputs, builder.places)


def called_ops(op: Op) -> Iterator[tuple[str, schema.OperatorT]]:
    """The operators of all subgraphs that an operator calls, directly or not, and the kind of each."""
    if op.raw is None:
        return
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    waiting, seen = called_subgraphs(op.raw.record), set[int]()
    while waiting:
        model, number = op.raw.file.model, waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        for record in _subgraph(model, number).operators or ():
            yield names.get(_builtin(model.operatorCodes[record.opcodeIndex]), "CUSTOM"), record
            waiting += called_subgraphs(record)


class _Builder:
    def __init__(self, graph: Graph, ops: Sequence[Op]):
        self.model = model = schema.ModelT()
        model.version, model.description, model.buffers = SCHEMA_VERSION, graph.name, [schema.BufferT()]
        model.operatorCodes = []
        self._codes: dict[tuple, int] = {}
        self._subgraphs: dict[int, int] = {}
        """By number in the file of the operators: the number here."""
        self._buffers: dict[int, int] = {}
        indices = list(
            dict.fromkeys(index for op in ops for index in (*op.inputs, *op.outputs, *_between(op)) if index >= 0)
        )
        self.places = {index: place for place, index in enumerate(indices)}
        main = schema.SubGraphT()
        model.subgraphs = [main]
        main.name, main.tensors = "main", [tensor_record(graph.tensors[index], model.buffers) for index in indices]
        main.operators = [self._op(graph, op) for op in ops]

    def _op(self, graph: Graph, op: Op) -> schema.OperatorT:
        places = self.places | {-1: -1}
        moved = replace(op, inputs=tuple(places[i] for i in op.inputs), outputs=tuple(places[i] for i in op.outputs))
        if op.raw is not None and op.raw.kind == op.kind:
            record = self._with_subgraphs(copy(op.raw.record), op.raw.file)
            record.opcodeIndex = self._code(op.raw.code)
            record.intermediates = [places[index] for index in _between(op)] or None
        else:
            if op.kind == "RESHAPE" and len(op.inputs) == 1:
                moved = replace(moved, options={"new_shape": graph.tensors[op.outputs[0]].shape} | op.options)
            record = operator_record(moved, self._code(known_code(op.kind)), self.model.subgraphs[0].tensors)
        record.inputs, record.outputs = list(moved.inputs), list(moved.outputs)
        return record

    def _code(self, code: schema.OperatorCodeT) -> int:
        key = _builtin(code), code.version, code.customCode
        if key not in self._codes:
            self._codes[key] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        return self._codes[key]

    def _with_subgraphs(self, record: schema.OperatorT, file: RawFile) -> schema.OperatorT:
        """The operator with the numbers that the subgraphs which it calls have here."""
        for field in ("builtinOptions", "builtinOptions2"):
            options = getattr(record, field)
            if names := _subgraph_fields(options):
                options = copy(options)
                for name in names:
                    value = getattr(options, name)
                    found = [self._copied(int(number), file) for number in np.atleast_1d(value)]
                    setattr(options, name, found[0] if np.ndim(value) == 0 else found)
                setattr(record, field, options)
        return record

    def _copied(self, number: int, file: RawFile) -> int:
        """The number here of a subgraph of the file; negative ones stand for none."""
        if number < 0:
            return number
        if number not in self._subgraphs:
            self._subgraphs[number] = len(self.model.subgraphs)
            made = copy(_subgraph(file.model, number))
            self.model.subgraphs.append(made)
            made.tensors = [self._copied_tensor(tensor, file.model) for tensor in made.tensors]
            operators = []
            for old in made.operators or ():
                record = self._with_subgraphs(copy(old), file)
                record.opcodeIndex = self._code(file.model.operatorCodes[old.opcodeIndex])
                operators.append(record)
            made.operators = operators
        return self._subgraphs[number]

    def _copied_tensor(self, tensor: schema.TensorT, model: schema.ModelT) -> schema.TensorT:
        made = copy(tensor)
        if tensor.buffer not in self._buffers:
            self._buffers[tensor.buffer] = len(self.model.buffers) if tensor.buffer else 0
            self.model.buffers += [model.buffers[tensor.buffer]] if tensor.buffer else []
        made.buffer = self._buffers[tensor.buffer]
        return made


def kept_inside(record: schema.OperatorT) -> list[int]:
    """The tensors that say how an operator quantises what it keeps to itself, as LSTM does."""
    return [] if record.intermediates is None else [int(index) for index in record.intermediates]


def _between(op: Op) -> list[int]:
    return kept_inside(op.raw.record) if op.raw is not None else []


def _builtin(code: schema.OperatorCodeT) -> int:
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _subgraph(model: schema.ModelT, number: int) -> schema.SubGraphT:
    if number >= len(model.subgraphs):
        raise GraphError(f"it calls subgraph {number}; the file has {len(model.subgraphs)}")
    return model.subgraphs[number]


def _subgraph_fields(options: Any) -> list[str]:
    """The options of an operator that are numbers of subgraphs."""
    return [
        name
        for name, value in (vars(options) if options is not None else {}).items()
        if "subgraph" in name.lower() and value is not None
    ]


def called_subgraphs(record: schema.OperatorT) -> list[int]:
    """The numbers of the subgraphs that an operator calls."""
    return [
        int(number)
        for options in (record.builtinOptions, record.builtinOptions2)
        for name in _subgraph_fields(options)
        for number in np.atleast_1d(getattr(options, name))
        if number >= 0
    ]
