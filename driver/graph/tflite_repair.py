"""What nobody reads but LiteRT stumbles over: the scales of a bias along an axis that it has not, for one, for which
it refuses the whole file.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .check import printable

__all__ = ["pack", "vector", "without_unread"]

_UNREAD = (schema.TensorType.INT32, schema.TensorType.INT64)
"""Types of biases, shapes and axes."""
_VALUELESS = (schema.TensorType.STRING, schema.TensorType.RESOURCE, schema.TensorType.VARIANT)
"""Types of tensors that LiteRT crashes on when it is asked for a value that they have not."""


def without_unread(raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A TFLite file that LiteRT does not refuse for what no kernel reads, and what was left out, in sentences.

    The axis of a single scale becomes 0. Scales of integers of 32 and 64 bits, and of tensors that no operator names,
    are left out where their number or axis is not as LiteRT demands. Strings and handles that no operator names become
    a number. A file without such tensors is returned as it is.

    Raises
    ------
    struct.error and others
        When the file is damaged.
    """
    model = schema.Model.GetRootAs(raw, 0)
    if not 0 < 4 * model.SubgraphsLength() <= len(raw) or 4 * max(
        model.Subgraphs(0).TensorsLength(), model.Subgraphs(0).OperatorsLength()
    ) > len(raw):
        return raw, ()  # damaged, as the reader will say
    subgraph = model.Subgraphs(0)
    records = [subgraph.Tensors(index) for index in range(subgraph.TensorsLength())]
    suspects = [
        index for index, record in enumerate(records) if record.Type() in _VALUELESS or not _is_accepted(record)
    ]
    if not suspects:
        return raw, ()
    operators = [subgraph.Operators(number) for number in range(subgraph.OperatorsLength())]
    named = {
        *vector(subgraph.InputsAsNumpy()).tolist(),
        *vector(subgraph.OutputsAsNumpy()).tolist(),
        *(
            index
            for op in operators
            for values in (op.InputsAsNumpy(), op.OutputsAsNumpy())
            for index in vector(values).tolist()
        ),
    }
    suspects = [index for index in suspects if records[index].Type() not in _VALUELESS or index not in named]
    if not suspects:
        return raw, ()
    packed: Any = schema.ModelT.InitFromPackedBuf(raw, 0)
    notes = []
    for index in suspects:
        tensor = packed.subgraphs[0].tensors[index]
        if tensor.type in _VALUELESS:
            tensor.type, tensor.shape, tensor.buffer, tensor.quantization = schema.TensorType.FLOAT32, [1], 0, None
        elif (
            len(tensor.quantization.scale) == 1
            and tensor.quantization.zeroPoint is not None
            and len(tensor.quantization.zeroPoint) == 1
        ):
            tensor.quantization.quantizedDimension = 0
        elif tensor.type in _UNREAD or index not in named:
            tensor.quantization = None
            name = printable((tensor.name or b"").decode("utf-8", "replace"))
            notes.append(
                f"tensor {index} ({name}) has scales that LiteRT refuses and nobody reads; the reference runs without "
                "them"
            )
    return pack(packed), tuple(notes)


def _is_accepted(record: Any) -> bool:
    """Does LiteRT load a tensor with this quantisation?"""
    params = record.Quantization()
    if params is None or params.ScaleLength() == 0:
        return True
    shape, axis = vector(record.ShapeAsNumpy()), params.QuantizedDimension()
    num_scales = params.ScaleLength()
    is_axis_right = axis == 0 if shape.size == 0 else 0 <= axis < shape.size
    return (
        params.ZeroPointLength() == num_scales
        and is_axis_right
        and (num_scales == 1 or (shape.size > 0 and shape[axis] == num_scales))
    )


def vector(values: Any) -> np.ndarray:
    """A numpy vector of the schema library; an absent one (the number 0) is empty."""
    return np.zeros(0, np.int32) if isinstance(values, int) else values


def pack(packed: Any) -> bytes:
    """The bytes of a file in the schema library's object API."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(packed.Pack(builder), b"TFL3")
    return bytes(builder.Output())
