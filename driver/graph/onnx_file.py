"""ONNX files as protobuf: read, with a shape for every input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convoy.driver.files import read_file
from convoy.driver.ort.runtime import first_line, onnx_package

from .check import printable
from .graph import GraphError, Tensor

if TYPE_CHECKING:
    import onnx

__all__ = ["dynamic_scales", "fix_shapes", "is_quantised", "load_float", "parse_file"]

MAX_FILE_BYTES = (1 << 31) - 1
"""Files of protobuf are smaller."""
_QUANTISED = "QuantizeLinear", "QLinear", "QGemm", "DynamicQuantize", "ConvInteger", "MatMulInteger"
"""How kinds of operators begin that take bytes, or make them."""


def parse_file(source: str | Path | bytes) -> onnx.ModelProto:
    """The network of a file, given by its path or its bytes.

    Raises
    ------
    GraphError
        When the package is missing, or the file cannot be read, is not an ONNX file or has no operators.
    """
    onnx = onnx_package()
    raw = source if isinstance(source, bytes) else read_file(Path(source), MAX_FILE_BYTES)
    try:
        model = onnx.load_model_from_string(raw)
        if not isinstance(source, bytes):
            onnx.external_data_helper.load_external_data_for_model(model, str(Path(source).parent))
    except Exception as error:  # whatever the parser makes of bytes that are no model
        raise GraphError(f"not an ONNX file, or damaged ({first_line(error)})") from None
    if not model.graph.node:
        raise GraphError("not an ONNX file, or one without operators")
    return model


def load_float(source: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[bytes, dict[str, Tensor]]:
    """A float ONNX file with known shapes, and its inputs by name; `shapes` as for `load_tflite`.

    Raises
    ------
    GraphError
        As from `parse_file` and `fix_shapes`, or when it is quantised already. One line.
    """
    try:
        model = parse_file(source)
        if is_quantised(model):
            raise GraphError("the network is quantised already")
        fix_shapes(model, shapes or {})
    except GraphError as error:
        raise GraphError(f"{source}: {error}") from None
    helper, inputs = onnx_package().helper, {}
    for index, value in enumerate(_inputs(model)):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        inputs[value.name] = Tensor(index, value.name, shape, dtype)
    return model.SerializeToString(), inputs


def is_quantised(model: onnx.ModelProto) -> bool:
    """Does it compute with bytes?"""
    constants = {constant.name for constant in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    return any(
        node.op_type.startswith(_QUANTISED) or (node.op_type == "DequantizeLinear" and node.input[0] not in constants)
        for node in model.graph.node
    )


def dynamic_scales(model: onnx.ModelProto) -> tuple[str, ...]:
    """What to say of a network that chooses scales while it runs."""
    number = sum(node.op_type.startswith("DynamicQuantize") for node in model.graph.node)
    if not number:
        return ()
    return (
        f"{number} operators choose scales while the network runs, for which the NPU has no form; quantise the float "
        "network statically: convoy quantize",
    )


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {constant.name for constant in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def fix_shapes(model: onnx.ModelProto, given: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Give every input a shape, by name or the one that the file has; what was assumed, in sentences.

    Raises
    ------
    GraphError
        When a shape is not known, is given otherwise than the file has it, or is that of no input.
    """
    inputs = _inputs(model)
    unknown = set(given) - {value.name for value in inputs} - ({""} if len(inputs) == 1 else set())
    if unknown:
        raise GraphError(
            f"--shape {printable(min(unknown))}: no such input; the inputs are "
            f"{', '.join(printable(value.name) for value in inputs)}"
        )
    notes = []
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        shape = given.get(value.name, given.get("") if len(inputs) == 1 else None)
        if not value.type.tensor_type.HasField("shape"):
            if shape is None:
                raise GraphError(
                    f"input {printable(value.name)}: its shape is not known; give it by "
                    f"--shape {printable(value.name)}=1x..."
                )
            dims.extend(onnx_package().TensorShapeProto.Dimension(dim_value=size) for size in shape)
        if shape is not None and len(shape) != len(dims):
            raise GraphError(f"--shape of {printable(value.name)}: {len(shape)} sizes for {len(dims)} axes")
        for axis, dim in enumerate(dims):
            known = dim.dim_value if dim.HasField("dim_value") else 0
            if shape is not None:
                if known > 0 and known != shape[axis]:
                    raise GraphError(f"--shape of {printable(value.name)}: axis {axis} is {known} in the file")
                dim.dim_value = shape[axis]
            elif known <= 0:
                if axis or len(dims) < 2:
                    raise GraphError(
                        f"input {printable(value.name)}: the size of axis {axis} is not known; give the shape by "
                        f"--shape {printable(value.name)}=1x..."
                    )
                dim.dim_value = 1
                notes.append(f"the batch of input {printable(value.name)} is not known; 1 is taken")
    del model.graph.value_info[:]
    return tuple(notes)
