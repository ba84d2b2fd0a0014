"""TFLite files -> `Graph`. The file is read through LiteRT's schema library; nothing in it is trusted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.files import read_file

from .check import check_graph, printable
from .graph import Graph, GraphError, Op, Quant, Tensor
from .tflite_group import RawFile, RawOp, called_subgraphs, kept_inside
from .tflite_repair import without_unread
from .tflite_shapes import Shapes, with_known_shapes
from .tflite_variables import HANDLE_DTYPE, resolve_variables

__all__ = ["TfliteModel", "load_tflite", "read_tflite"]

SCHEMA_VERSION = 3
MAX_RANK = 8
"""More dimensions than this are taken for damage."""
MAX_FILE_BYTES = (1 << 31) - 1
"""Offsets in a flatbuffer have 31 bits."""
MAX_TENSOR_BYTES = 1 << 31
"""Tensors of this size or more are taken for damage."""

_DTYPES: dict[int, type[np.generic]] = {
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT64: np.float64,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.UINT16: np.uint16,
    schema.TensorType.UINT32: np.uint32,
    schema.TensorType.UINT64: np.uint64,
    schema.TensorType.BOOL: np.bool_,
    schema.TensorType.COMPLEX64: np.complex64,
    schema.TensorType.COMPLEX128: np.complex128,
    schema.TensorType.RESOURCE: HANDLE_DTYPE.type,
}
_PACKED_BITS = {schema.TensorType.INT4: 4, schema.TensorType.INT2: 2}
"""Constants of these types are read as int8, which is what kernels unpack them to."""
_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPE_NAMES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_ACTIVATIONS = {code: name for name, code in vars(schema.ActivationFunctionType).items() if not name.startswith("_")}
_PADDINGS = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
# What the flatbuffers library raises when an offset points outside the file or at something else.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, KeyError, MemoryError)


@dataclass(frozen=True)
class TfliteModel:
    """A TFLite file that has been read."""

    graph: Graph
    data: bytes
    """The file, or one that differs in this: all shapes are concrete, and it can be run by LiteRT."""


def load_tflite(source: str | Path | bytes, shapes: Shapes | None = None) -> TfliteModel:
    """Read a TFLite file.

    Parameters
    ----------
    source
        The path of the file, or its bytes.
    shapes
        Of inputs whose sizes the file does not know, by name; the empty name is that of the only input. An unknown
        batch is 1 if it is not given.

    Returns
    -------
    TfliteModel
        With the main subgraph as a graph: shapes are concrete, every operator reads constants, inputs of the network or
        results of earlier operators, and the shapes of the operators that the NPU knows agree with one another.
        Operators without a reader of their options have none. Handles of variables and the subgraphs that initialise
        them have become `variables`; operators keep their positions in the file as `index`.

    Raises
    ------
    GraphError
        When the file cannot be read, is not a TFLite file, is damaged, or uses what a `Graph` cannot say:
        initialisations that do more than assign constants, unknown sizes that are not given, sparse tensors, scales of
        blocks, strings, buffers outside the file. One line, naming the operator and its position, or the tensor.
    """
    if isinstance(source, bytes):
        label, name, raw = "model", "model", source
    else:
        label, name, raw = str(source), Path(source).stem, read_file(Path(source), MAX_FILE_BYTES)
    if len(raw) < 8 or raw[4:8] != b"TFL3":
        raise GraphError(f"{label}: not a TFLite file (no TFL3 mark at byte 4)")
    try:
        readable, dropped = without_unread(raw)
        data, assumed = with_known_shapes(readable, shapes or {})
        graph = _Reader(name, data).graph()
    except GraphError as error:
        raise GraphError(f"{label}: {error}") from None
    except _DAMAGE as error:
        raise GraphError(
            f"{label}: corrupt or truncated TFLite file ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no detail'})"
        ) from None
    return TfliteModel(replace(graph, notes=(*assumed, *graph.notes, *dropped)), data)


def read_tflite(source: str | Path | bytes, shapes: Shapes | None = None) -> Graph:
    """`load_tflite(source, shapes).graph`."""
    return load_tflite(source, shapes).graph


class _Reader:
    """One file; `name` for the graph, `raw` its bytes."""

    def __init__(self, name: str, raw: bytes):
        self.name, self.raw = name, raw
        self.model = schema.Model.GetRootAs(raw, 0)
        self.file = RawFile(raw)

    def graph(self) -> Graph:
        """The whole file, checked."""
        self.num_subgraphs = self.count("subgraphs", self.model.SubgraphsLength())
        if self.num_subgraphs == 0:
            raise GraphError("the file has 0 subgraphs; it needs one")
        self.num_buffers = self.count("buffers", self.model.BuffersLength())
        self.num_codes = self.count("operator codes", self.model.OperatorCodesLength())
        if self.model.Version() != SCHEMA_VERSION:
            raise GraphError(f"schema version {self.model.Version()}; only version {SCHEMA_VERSION} is known")
        inputs = self.indices("the network's inputs", self.model.Subgraphs(0).InputsAsNumpy(), self.num_tensors(0))
        outputs = self.indices("the network's outputs", self.model.Subgraphs(0).OutputsAsNumpy(), self.num_tensors(0))
        tensors, ops = self.subgraph(0, (*inputs, *outputs))
        if not ops:
            raise GraphError("the network has no operators")
        ops_in_file = ops
        ops, variables = resolve_variables(tensors, ops, self.subgraph)
        graph = Graph(
            self.name, self.with_states(tensors, inputs, ops), ops, inputs, outputs, variables, self.notes(ops_in_file)
        )
        check_graph(graph)
        return graph

    def notes(self, ops: tuple[Op, ...]) -> tuple[str, ...]:
        """What there is to say about the file's other subgraphs."""
        known = {0, *(number for op in ops for number in called_subgraphs(op.raw.record))}
        num_others = self.num_subgraphs - len(known)
        return (
            (
                f"the file has {self.num_subgraphs} subgraphs: the first one is run, without {num_others} that it does "
                "not call",
            )
            if num_others > 0
            else ()
        )

    def num_tensors(self, index: int) -> int:
        """The number of tensors of a subgraph."""
        if not 0 <= index < self.num_subgraphs:
            raise GraphError(f"subgraph {index} does not exist (the file has {self.num_subgraphs})")
        return self.count("tensors", self.model.Subgraphs(index).TensorsLength())

    def subgraph(self, index: int, used: tuple[int, ...] = ()) -> tuple[tuple[Tensor, ...], tuple[Op, ...]]:
        """Tensors and operators of a subgraph.

        Tensors that neither an operator nor `used` names may be anything: nobody reads them.
        """
        num_tensors, subgraph = self.num_tensors(index), self.model.Subgraphs(index)
        num_ops = self.count("operators", subgraph.OperatorsLength())
        ops = tuple(self.op(i, subgraph.Operators(i), num_tensors) for i in range(num_ops))
        kept = {tensor for op in ops for tensor in kept_inside(op.raw.record)}
        named = {*used, *kept, *(tensor for op in ops for tensor in (*op.inputs, *op.outputs))}
        found = (
            self.tensor(i, subgraph.Tensors(i), may_be_empty=i in kept) if i in named else _unused(i)
            for i in range(num_tensors)
        )
        return tuple(found), ops

    def with_states(
        self, tensors: tuple[Tensor, ...], inputs: tuple[int, ...], ops: tuple[Op, ...]
    ) -> tuple[Tensor, ...]:
        """The tensors, with those marked that keep values from run to run.

        Those that are written in every run do not, whatever the file says.
        """
        written = {*inputs, *(index for op in ops for index in op.outputs)}
        read = {index for op in ops for index in op.inputs if index >= 0} - written
        return tuple(
            replace(tensor, is_variable=True)
            if tensor.index in read
            and tensor.data is None
            and self.model.Subgraphs(0).Tensors(tensor.index).IsVariable()
            else tensor
            for tensor in tensors
        )

    # Vectors

    def count(self, what: str, length: int) -> int:
        """`length` of a vector of references, if the file is long enough to hold it."""
        if not 0 <= 4 * length <= len(self.raw):
            raise GraphError(f"corrupt file: {length} {what} in {len(self.raw)} bytes")
        return length

    def vector(self, what: str, values: Any, dtype: type[np.generic]) -> np.ndarray:
        """A numpy vector of the schema library; an absent one (the number 0) is empty."""
        if isinstance(values, int):
            return np.zeros(0, dtype)
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype != dtype:
            raise GraphError(f"corrupt file: {what} is not a vector of {np.dtype(dtype).name}")
        return array

    def indices(self, what: str, values: Any, num_tensors: int, has_optional: bool = False) -> tuple[int, ...]:
        """A vector of tensor indices, each in range; -1 too if `has_optional`."""
        found = tuple(int(value) for value in self.vector(what, values, np.int32))
        for value in found:
            if not (-1 if has_optional else 0) <= value < num_tensors:
                raise GraphError(f"{what}: tensor {value} does not exist (the network has {num_tensors})")
        return found

    # Tensors

    def tensor(self, index: int, record: Any, *, may_be_empty: bool = False) -> Tensor:
        """Tensor number `index`."""
        raw_name = record.Name()
        name = raw_name.decode("utf-8", "replace") if raw_name else f"tensor_{index}"
        where = f"tensor {index} ({printable(name)})"
        kind = record.Type()
        bits = _PACKED_BITS.get(kind, 0)
        if kind not in _DTYPES and not bits:
            raise GraphError(f"{where}: type {_TYPE_NAMES.get(kind, kind)} is not supported")
        dtype = np.dtype(_DTYPES.get(kind, np.int8))
        shape = tuple(int(extent) for extent in self.vector(f"{where}: shape", record.ShapeAsNumpy(), np.int32))
        if len(shape) > MAX_RANK:
            raise GraphError(f"{where}: {len(shape)} dimensions; at most {MAX_RANK} are supported")
        is_dynamic = -1 in self.vector(f"{where}: shape signature", record.ShapeSignatureAsNumpy(), np.int32)
        if any(extent < (not (is_dynamic or may_be_empty)) for extent in shape):
            raise GraphError(f"{where}: shape {list(shape)} has an empty dimension; every size is at least 1")
        if prod(shape) * dtype.itemsize >= MAX_TENSOR_BYTES:
            raise GraphError(f"{where}: shape {list(shape)} is larger than {MAX_TENSOR_BYTES} bytes")
        data = self.data(where, record, shape, dtype, bits or 8 * dtype.itemsize)
        if bits and data is None:
            raise GraphError(f"{where}: {_TYPE_NAMES[kind]} is supported for constants only")
        return Tensor(index, name, shape, dtype, self.quant(where, record), data, is_dynamic=is_dynamic)

    def data(self, where: str, record: Any, shape: tuple[int, ...], dtype: np.dtype, bits: int) -> np.ndarray | None:
        """The values of a constant, stored in so many bits each; None for an activation (its buffer is empty)."""
        index = record.Buffer()
        if not 0 <= index < self.num_buffers:
            raise GraphError(f"{where}: buffer {index} does not exist (the file has {self.num_buffers})")
        buffer = self.model.Buffers(index)
        if buffer.Offset() > 1 or buffer.Size() > 1 or record.ExternalBuffer():
            raise GraphError(f"{where}: its data lie outside the model's tables, which is not supported")
        data = self.vector(f"{where}: buffer", buffer.DataAsNumpy(), np.uint8)
        if data.size == 0 or index == 0:
            return None
        if record.Sparsity() is not None:
            raise GraphError(
                f"{where}: sparse storage is not supported; store the weights densely, zeros are skipped all the same"
            )
        num_bytes = -(-prod(shape) * bits // 8)
        if data.size != num_bytes:
            raise GraphError(
                f"{where}: its buffer has {data.size} bytes, but {dtype.name} {list(shape)} needs {num_bytes}"
            )
        if bits < 8:
            return _unpacked(data, bits)[: prod(shape)].reshape(shape)
        return np.frombuffer(data.tobytes(), dtype).reshape(shape)

    def quant(self, where: str, record: Any) -> Quant | None:
        """The quantisation of a tensor as it is, which the operators that need it check; None if it has no scale."""
        params = record.Quantization()
        if params is None:
            return None
        if params.DetailsType() != schema.QuantizationDetails.NONE:
            raise GraphError(f"{where}: scales of blocks are not supported; quantise per channel")
        scale = self.vector(f"{where}: scale", params.ScaleAsNumpy(), np.float32)
        if scale.size == 0:
            return None
        zero_point = self.vector(f"{where}: zero point", params.ZeroPointAsNumpy(), np.int64)
        if zero_point.size in (0, 1):
            zero_point = np.full(scale.size, zero_point[0] if zero_point.size else 0, np.int64)
        return Quant(scale.copy(), zero_point.copy(), int(params.QuantizedDimension()) if scale.size > 1 else 0)

    # Operators

    def op(self, index: int, record: Any, num_tensors: int) -> Op:
        """Operator number `index`."""
        code_index = record.OpcodeIndex()
        if not 0 <= code_index < self.num_codes:
            raise GraphError(
                f"operator {index}: operator code {code_index} does not exist (the file has {self.num_codes})"
            )
        code = self.model.OperatorCodes(code_index)
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin not in _KINDS:
            raise GraphError(f"operator {index}: builtin operator {builtin} is unknown")
        kind = _KINDS[builtin]
        if builtin == schema.BuiltinOperator.CUSTOM:
            kind += f" {printable((code.CustomCode() or b'?').decode('utf-8', 'replace'))}"
        where = f"operator {index} ({kind})"
        inputs = self.indices(f"{where}: inputs", record.InputsAsNumpy(), num_tensors, has_optional=True)
        outputs = self.indices(f"{where}: outputs", record.OutputsAsNumpy(), num_tensors)
        raw = RawOp(kind, schema.OperatorCodeT.InitFromObj(code), schema.OperatorT.InitFromObj(record), self.file)
        for number in called_subgraphs(raw.record):
            self.num_tensors(number)
        for tensor in kept_inside(raw.record):
            if not 0 <= tensor < num_tensors:
                raise GraphError(f"{where}: tensor {tensor} does not exist (the network has {num_tensors})")
        return Op(index, kind, inputs, outputs, self.options(where, kind, record), raw)

    def options(self, where: str, kind: str, record: Any) -> dict[str, Any]:
        """The options of a known operator under the names of `Op`; empty for the others."""
        if kind not in _OPTIONS:
            return {}
        cls, is_required, read = _OPTIONS[kind]
        table = record.BuiltinOptions()
        if table is None or record.BuiltinOptionsType() != getattr(schema.BuiltinOptions, cls.__name__):
            if is_required:
                raise GraphError(f"{where}: its {cls.__name__} are missing")
            table = _NO_OPTIONS
        options = cls()
        options.Init(table.Bytes, table.Pos)
        return read(where, options)


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Signed numbers of so few bits, the lowest ones of each byte first; int8."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = data[:, None] >> shifts << np.uint8(8 - bits)
    return fields.reshape(-1).view(np.int8) >> np.int8(8 - bits)


def _unused(index: int) -> Tensor:
    """What stands for a tensor that nobody reads."""
    return Tensor(index, f"tensor_{index}", (), np.dtype(np.float32))


_NO_OPTIONS = flatbuffers.table.Table(struct.pack("<HHi", 4, 4, 4), 4)
"""A table without fields: every option has its default."""


def _positive(where: str, **values: int) -> dict[str, Any]:
    for name, value in values.items():
        if value < 1:
            raise GraphError(f"{where}: {name} = {value} is less than 1")
    return dict(values)


def _activation(where: str, code: int) -> str:
    if code not in _ACTIVATIONS:
        raise GraphError(f"{where}: fused activation {code} is unknown")
    return _ACTIVATIONS[code]


def _padding(where: str, code: int) -> str:
    if code not in _PADDINGS:
        raise GraphError(f"{where}: padding scheme {code} is unknown")
    return _PADDINGS[code]


def _read_conv(where: str, options: Any) -> dict[str, Any]:
    return (
        _positive(
            where,
            stride_h=options.StrideH(),
            stride_w=options.StrideW(),
            dilation_h=options.DilationHFactor(),
            dilation_w=options.DilationWFactor(),
        )
        | {
            "padding": _padding(where, options.Padding()),
            "activation": _activation(where, options.FusedActivationFunction()),
        }
        | _read_bias_type(options)
    )


def _read_bias_type(options: Any) -> dict[str, Any]:
    """The type of a bias beside int16 activations, where it is given."""
    code = options.QuantizedBiasType() if hasattr(options, "QuantizedBiasType") else 0
    return {"quantized_bias_type": _TYPE_NAMES.get(code, str(code))} if code else {}


def _read_transpose_conv(where: str, options: Any) -> dict[str, Any]:
    return _positive(where, stride_h=options.StrideH(), stride_w=options.StrideW()) | {
        "padding": _padding(where, options.Padding()),
        "activation": _activation(where, options.FusedActivationFunction()),
    }


def _read_pack(where: str, options: Any) -> dict[str, Any]:
    return {"axis": options.Axis()}


def _read_depthwise(where: str, options: Any) -> dict[str, Any]:
    return _read_conv(where, options) | {"depth_multiplier": options.DepthMultiplier()}


def _read_pool(where: str, options: Any) -> dict[str, Any]:
    return _positive(
        where,
        stride_h=options.StrideH(),
        stride_w=options.StrideW(),
        filter_h=options.FilterHeight(),
        filter_w=options.FilterWidth(),
    ) | {
        "padding": _padding(where, options.Padding()),
        "activation": _activation(where, options.FusedActivationFunction()),
    }


def _read_fully_connected(where: str, options: Any) -> dict[str, Any]:
    is_shuffled = options.WeightsFormat() != schema.FullyConnectedOptionsWeightsFormat.DEFAULT
    return (
        ({"is_shuffled": True} if is_shuffled else {})
        | {
            "activation": _activation(where, options.FusedActivationFunction()),
            "keep_num_dims": bool(options.KeepNumDims()),
        }
        | _read_bias_type(options)
    )


def _read_activation(where: str, options: Any) -> dict[str, Any]:
    return {"activation": _activation(where, options.FusedActivationFunction())}


def _read_sum(where: str, options: Any) -> dict[str, Any]:
    return _read_activation(where, options) | {"has_pot_scales": bool(options.PotScaleInt16())}


def _read_concatenation(where: str, options: Any) -> dict[str, Any]:
    return {"activation": _activation(where, options.FusedActivationFunction()), "axis": options.Axis()}


def _read_reshape(where: str, options: Any) -> dict[str, Any]:
    shape = options.NewShapeAsNumpy()
    return {} if isinstance(shape, int) else {"new_shape": tuple(int(extent) for extent in shape)}


def _read_squeeze(where: str, options: Any) -> dict[str, Any]:
    dims = options.SqueezeDimsAsNumpy()
    return {"squeeze_dims": () if isinstance(dims, int) else tuple(int(axis) for axis in dims)}


def _read_softmax(where: str, options: Any) -> dict[str, Any]:
    beta = float(options.Beta())
    if not 0 < beta < float("inf"):
        raise GraphError(f"{where}: beta = {beta} is not a positive number")
    return {"beta": beta}


def _read_strided_slice(where: str, options: Any) -> dict[str, Any]:
    return {
        "begin_mask": options.BeginMask(),
        "end_mask": options.EndMask(),
        "ellipsis_mask": options.EllipsisMask(),
        "new_axis_mask": options.NewAxisMask(),
        "shrink_axis_mask": options.ShrinkAxisMask(),
        "is_offset": bool(options.Offset()),
    }


def _read_space_to_depth(where: str, options: Any) -> dict[str, Any]:
    return _positive(where, block_size=options.BlockSize())


def _read_resize(where: str, options: Any) -> dict[str, Any]:
    return {"align_corners": bool(options.AlignCorners()), "half_pixel_centers": bool(options.HalfPixelCenters())}


def _read_leaky_relu(where: str, options: Any) -> dict[str, Any]:
    alpha = float(options.Alpha())
    if not abs(alpha) < float("inf"):
        raise GraphError(f"{where}: alpha = {alpha} is not a number")
    return {"alpha": alpha}


def _read_gelu(where: str, options: Any) -> dict[str, Any]:
    return {"approximate": bool(options.Approximate())}


def _read_var_handle(where: str, options: Any) -> dict[str, Any]:
    container, name = ((text or b"").decode("utf-8", "replace") for text in (options.Container(), options.SharedName()))
    return {"name": f"{container}/{name}" if container else name}


def _read_call_once(where: str, options: Any) -> dict[str, Any]:
    return {"init_subgraph": options.InitSubgraphIndex()}


def _read_reduce(where: str, options: Any) -> dict[str, Any]:
    return {"keep_dims": bool(options.KeepDims())}


_OPTIONS: dict[str, tuple[type, bool, Callable[[str, Any], dict[str, Any]]]] = {
    "CONV_2D": (schema.Conv2DOptions, True, _read_conv),
    "DEPTHWISE_CONV_2D": (schema.DepthwiseConv2DOptions, True, _read_depthwise),
    "AVERAGE_POOL_2D": (schema.Pool2DOptions, True, _read_pool),
    "MAX_POOL_2D": (schema.Pool2DOptions, True, _read_pool),
    "FULLY_CONNECTED": (schema.FullyConnectedOptions, False, _read_fully_connected),
    "ADD": (schema.AddOptions, False, _read_sum),
    "SUB": (schema.SubOptions, False, _read_sum),
    "MUL": (schema.MulOptions, False, _read_activation),
    "CONCATENATION": (schema.ConcatenationOptions, False, _read_concatenation),
    "SQUEEZE": (schema.SqueezeOptions, False, _read_squeeze),
    "RESHAPE": (schema.ReshapeOptions, False, _read_reshape),
    "SOFTMAX": (schema.SoftmaxOptions, True, _read_softmax),
    "LEAKY_RELU": (schema.LeakyReluOptions, False, _read_leaky_relu),
    "GELU": (schema.GeluOptions, False, _read_gelu),
    "MEAN": (schema.ReducerOptions, False, _read_reduce),
    "SPACE_TO_DEPTH": (schema.SpaceToDepthOptions, True, _read_space_to_depth),
    "DEPTH_TO_SPACE": (schema.DepthToSpaceOptions, True, _read_space_to_depth),
    "TRANSPOSE_CONV": (schema.TransposeConvOptions, True, _read_transpose_conv),
    "PACK": (schema.PackOptions, True, _read_pack),
    "RESIZE_BILINEAR": (schema.ResizeBilinearOptions, False, _read_resize),
    "REDUCE_MAX": (schema.ReducerOptions, False, _read_reduce),
    "STRIDED_SLICE": (schema.StridedSliceOptions, False, _read_strided_slice),
    "RESIZE_NEAREST_NEIGHBOR": (schema.ResizeNearestNeighborOptions, False, _read_resize),
    "VAR_HANDLE": (schema.VarHandleOptions, True, _read_var_handle),
    "CALL_ONCE": (schema.CallOnceOptions, True, _read_call_once),
}
"""For each operator whose options are read: the table, whether it must be there, and the reader."""
