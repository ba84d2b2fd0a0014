"""Constants that a TFLite file stores without their zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.litert.process import LiteRT, LoadedModel

from .tflite_repair import pack

__all__ = ["densified"]


def densified(record: Any, data: np.ndarray) -> np.ndarray:
    """The values of a sparse constant, as LiteRT's DENSIFY makes them.

    Parameters
    ----------
    record : the tensor in the file
    data : the bytes of its buffer

    Raises
    ------
    LiteRTError
        When LiteRT does not take it.
    """
    source, target = schema.TensorT.InitFromObj(record), schema.TensorT()
    source.buffer, target.buffer, source.name, target.name = 1, 0, "sparse", "dense"
    target.type, target.shape = source.type, source.shape
    operator, code, buffer = schema.OperatorT(), schema.OperatorCodeT(), schema.BufferT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version, buffer.data = 1, data
    subgraph, model = schema.SubGraphT(), schema.ModelT()
    subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = [source, target], [operator], [], [1]
    model.version, model.buffers = 3, [schema.BufferT(), buffer]
    model.operatorCodes, model.subgraphs = [code], [subgraph]
    (values,) = LoadedModel(LiteRT(), pack(model)).run([]).values()
    return values
