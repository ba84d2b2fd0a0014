"""Files whose shapes are not all known -> files that say them: from the user, from a batch of 1, and computed by
LiteRT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.litert.process import LiteRT, LiteRTError

from .check import printable
from .graph import GraphError
from .tflite_repair import pack, vector

__all__ = ["Shapes", "parse_shapes", "with_known_shapes"]

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the name of an input; the empty name is that of the only input."""
MAX_ELEMENTS = 1 << 28
"""Numbers of an input whose shape is given: more do not fit the NPU's memory together with what is computed of them."""


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes from texts like `input=1x96x96x3`, or `1x96x96x3` for the only input.

    Raises
    ------
    GraphError
        When a text is something else, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, extents = text.rpartition("=")
        parts = extents.lower().split("x")
        if not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
            raise GraphError(
                f"--shape {printable(text)}: give positive sizes separated by x, perhaps after the input's name, as in "
                "input=1x96x96x3"
            )
        if name in shapes:
            raise GraphError(f"--shape {printable(text)}: the shape of this input is given twice")
        shapes[name] = tuple(map(int, parts))
    return shapes


def with_known_shapes(raw: bytes, given: Shapes) -> tuple[bytes, tuple[str, ...]]:
    """A TFLite file whose main subgraph has concrete shapes only, and what was assumed for it, in sentences.

    An unknown batch (the first of several dimensions of an input) is 1. What else is unknown of an input comes from
    `given`; the shapes of results are computed by LiteRT in a process of its own. A file without anything unknown is
    returned as it is.

    Raises
    ------
    GraphError
        When an input's shape stays unknown, `given` names no input or contradicts what is known, or LiteRT cannot
        compute the shapes.
    struct.error and others
        When the file is damaged.
    """
    model = schema.Model.GetRootAs(raw, 0)
    if not 0 < 4 * model.SubgraphsLength() <= len(raw) or 4 * model.Subgraphs(0).TensorsLength() > len(raw):
        return raw, ()  # damaged, as the reader will say
    subgraph = model.Subgraphs(0)
    inputs = [int(index) for index in vector(subgraph.InputsAsNumpy()) if 0 <= index < subgraph.TensorsLength()]
    named = _named(subgraph, inputs, given)
    shapes, notes = {}, []
    for index in inputs:
        shapes[index], note = _input_shape(subgraph.Tensors(index), index, named.get(index))
        notes += [note] if note else []
    made = [
        int(index)
        for number in range(subgraph.OperatorsLength())
        for index in vector(subgraph.Operators(number).OutputsAsNumpy())
        if 0 <= index < subgraph.TensorsLength()
    ]
    unknown = [index for index in made if _is_unknown(subgraph.Tensors(index))]
    changed = [
        index
        for index, shape in shapes.items()
        if shape != tuple(vector(subgraph.Tensors(index).ShapeAsNumpy()).tolist())
    ]
    if not unknown and not changed:
        return raw, tuple(notes)
    packed: Any = schema.ModelT.InitFromPackedBuf(raw, 0)
    _set_shapes(packed, shapes)
    try:
        found, varying, problem = LiteRT().request("shapes", pack(packed))
    except LiteRTError as error:
        found, varying, problem = {}, set(), str(error)
    has_open = any(index not in found and _is_unknown(subgraph.Tensors(index), from_axis=1) for index in made)
    if problem and (has_open or (changed and not found)):
        raise GraphError(f"the shapes of the network cannot be computed; LiteRT says: {problem}")
    as_in_file = {index: tuple(vector(subgraph.Tensors(index).ShapeAsNumpy()).tolist()) for index in unknown}
    _set_shapes(packed, as_in_file | {index: found[index] for index in made if index in found})
    for index in varying.intersection(made):
        tensor = packed.subgraphs[0].tensors[index]
        tensor.shapeSignature = np.full(len(tensor.shape), -1, np.int32)
    return pack(packed), tuple(notes)


def _name(record: Any, index: int) -> str:
    return (record.Name() or f"tensor_{index}".encode()).decode("utf-8", "replace")


def _extents(record: Any) -> list[int | None]:
    """The shape of a tensor, None where it is unknown."""
    shape, signature = (vector(values).tolist() for values in (record.ShapeAsNumpy(), record.ShapeSignatureAsNumpy()))
    signature = signature if len(signature) == len(shape) else shape
    return [None if extent < 1 or known == -1 else extent for extent, known in zip(shape, signature, strict=True)]


def _is_unknown(record: Any, from_axis: int = 0) -> bool:
    """Is an extent of a result unknown, or the number of its axes?"""
    extents = _extents(record)
    return None in extents[from_axis:] or (
        not extents and not record.HasRank() and record.Type() != schema.TensorType.RESOURCE
    )


def _text(extents: list[int | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in extents)


def _named(subgraph: Any, inputs: list[int], given: Shapes) -> dict[int, tuple[int, ...]]:
    """The given shapes by tensor index."""
    found: dict[int, tuple[int, ...]] = {}
    names = {index: _name(subgraph.Tensors(index), index) for index in inputs}
    for name, shape in given.items():
        indices = [index for index in inputs if not name or names[index] == name]
        if len(indices) != 1:
            known = ", ".join(
                f"{printable(names[index])}={_text(_extents(subgraph.Tensors(index)))}" for index in inputs
            )
            problem = (
                f"{len(indices)} inputs are called {printable(name)}"
                if name
                else f"it names no input, and the network has {len(inputs)}"
            )
            raise GraphError(
                f"--shape {printable(name)}{'=' * bool(name)}{_text(list(shape))}: {problem}; they are {known}"
            )
        if found.setdefault(indices[0], shape) != shape:
            raise GraphError(
                f"--shape {_text(list(shape))}: the shape of {printable(names[indices[0]])} is given twice"
            )
    return found


def _input_shape(record: Any, index: int, given: tuple[int, ...] | None) -> tuple[tuple[int, ...], str | None]:
    """The shape of an input, and what had to be assumed."""
    name, extents = printable(_name(record, index)), _extents(record)
    if given is not None:
        fits = len(given) == len(extents) and all(
            known in (None, extent) for known, extent in zip(extents, given, strict=True)
        )
        if not fits:
            raise GraphError(
                f"--shape {name}={_text(list(given))}: this input is {_text(extents)}; only what is unknown (?) can be "
                "given"
            )
        if prod(given) > MAX_ELEMENTS:
            raise GraphError(
                f"--shape {name}={_text(list(given))}: {prod(given):,} numbers; the limit is {MAX_ELEMENTS:,}"
            )
        return given, None
    is_batch_unknown = len(extents) > 1 and extents[0] is None
    if None in extents[is_batch_unknown:]:
        example = _text([1, *extents[1:]] if is_batch_unknown else extents)
        raise GraphError(
            f"input {name} is {_text(extents)}, of unknown (?) size; give its shape: --shape {name}={example} with "
            "numbers for ?"
        )
    note = f"the batch of input {name} is unknown: it is taken as 1" if is_batch_unknown else None
    return tuple(1 if extent is None else extent for extent in extents), note


def _set_shapes(packed: Any, shapes: Mapping[int, tuple[int, ...]]) -> None:
    for index, shape in shapes.items():
        tensor = packed.subgraphs[0].tensors[index]
        tensor.shape, tensor.shapeSignature, tensor.hasRank = np.array(shape, np.int32), None, True
