"""`Graph` -> TFLite file: what makes LiteRT the reference of networks that no file holds yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, GraphError, Op, Tensor
from .tflite_repair import pack

__all__ = ["SCHEMA_VERSION", "known_code", "operator_record", "tensor_record", "write_tflite"]

SCHEMA_VERSION = 3
"""Of TFLite files."""
_OP_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "SUB": 2,
    "MUL": 2,
    "MAXIMUM": 2,
    "MINIMUM": 2,
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
    "SOFTMAX": 2,
    "QUANTIZE": 2,
    "RELU": 2,
    "RELU6": 2,
    "LOGISTIC": 2,
    "TANH": 2,
    "LEAKY_RELU": 2,
    "GATHER": 2,
    "GELU": 2,
    "PAD": 2,
    "SLICE": 2,
    "STRIDED_SLICE": 2,
    "CONCATENATION": 2,
    "SPLIT": 2,
    "SPLIT_V": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "RESIZE_BILINEAR": 3,
    "MEAN": 2,
    "SUM": 2,
    "REDUCE_MIN": 2,
    "REDUCE_MAX": 2,
    "TRANSPOSE": 2,
    "TRANSPOSE_CONV": 3,
    "PACK": 2,
}
_TYPES = {
    np.dtype(dtype): code
    for dtype, code in (
        (np.float16, schema.TensorType.FLOAT16),
        (np.float32, schema.TensorType.FLOAT32),
        (np.float64, schema.TensorType.FLOAT64),
        (np.int8, schema.TensorType.INT8),
        (np.int16, schema.TensorType.INT16),
        (np.int32, schema.TensorType.INT32),
        (np.int64, schema.TensorType.INT64),
        (np.uint8, schema.TensorType.UINT8),
        (np.uint16, schema.TensorType.UINT16),
        (np.uint32, schema.TensorType.UINT32),
        (np.uint64, schema.TensorType.UINT64),
        (np.bool_, schema.TensorType.BOOL),
        (np.complex64, schema.TensorType.COMPLEX64),
        (np.complex128, schema.TensorType.COMPLEX128),
    )
}


def write_tflite(graph: Graph) -> bytes:
    """The bytes of a TFLite file that `read_tflite` reads back as the same graph; with variables its operators come
    behind their declarations.

    Raises
    ------
    GraphError
        When an operator or a dtype cannot be written (`_OPTIONS` and `_TYPES` list what can).
    """
    model = schema.ModelT()
    model.version = SCHEMA_VERSION
    model.description = graph.name
    model.buffers = [schema.BufferT()]
    first = len(graph.tensors)
    declarations = (
        [Op(0, "CALL_ONCE", (), (), {"init_subgraph": 1}), *_handles(graph, first)] if graph.variables else []
    )
    kinds = sorted(
        {op.kind for op in (*declarations, *graph.ops)} | ({"ASSIGN_VARIABLE"} if graph.variables else set())
    )
    model.operatorCodes = [known_code(kind) for kind in kinds]
    ops = [*declarations, *(_with_handle(op, first) for op in graph.ops)]
    model.subgraphs = [
        _subgraph("main", [tensor_record(tensor, model.buffers) for tensor in graph.tensors], graph, ops, kinds)
    ]
    model.subgraphs[0].inputs, model.subgraphs[0].outputs = list(graph.inputs), list(graph.outputs)
    if graph.variables:
        constants = [
            tensor_record(
                Tensor(0, variable.name, variable.shape, variable.dtype, None, variable.initial), model.buffers
            )
            for variable in graph.variables
        ]
        assigns = [
            Op(0, "ASSIGN_VARIABLE", (len(constants) + n, n), ())
            for n, variable in enumerate(graph.variables)
            if variable.initial is not None
        ]
        model.subgraphs.append(
            _subgraph("initialisation", constants, graph, [*_handles(graph, len(constants)), *assigns], kinds)
        )
    return pack(model)


def _subgraph(
    name: str, tensors: list[schema.TensorT], graph: Graph, ops: list[Op], kinds: list[str]
) -> schema.SubGraphT:
    """Tensors, then a handle for each variable, and operators."""
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.inputs, subgraph.outputs = name, [], []
    subgraph.tensors = [*tensors, *(_handle(variable.name) for variable in graph.variables)]
    subgraph.operators = [operator_record(op, kinds.index(op.kind), subgraph.tensors) for op in ops]
    return subgraph


def _handle(name: str) -> schema.TensorT:
    record = schema.TensorT()
    record.name, record.shape, record.type, record.buffer = name, [], schema.TensorType.RESOURCE, 0
    return record


def _handles(graph: Graph, first: int) -> list[Op]:
    """The operators that make the handles of all variables, tensors `first` and up."""
    return [
        Op(0, "VAR_HANDLE", (), (first + number,), {"name": variable.name})
        for number, variable in enumerate(graph.variables)
    ]


def _with_handle(op: Op, first: int) -> Op:
    """An operator as the file has it: reads and assignments take the handle of their variable."""
    return replace(op, inputs=(first + op.options["variable"], *op.inputs)) if "variable" in op.options else op


def known_code(kind: str) -> schema.OperatorCodeT:
    """The operator code of a kind that can be written; `GraphError` for others."""
    if kind not in _OPTIONS:
        raise GraphError(f"{kind} cannot be written to a TFLite file")
    return _code(kind, _OP_VERSIONS.get(kind, 1))


def _code(kind: str, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    code.version = version
    return code


def tensor_record(tensor: Tensor, buffers: list[schema.BufferT]) -> schema.TensorT:
    """A tensor as a file has it; the values of a constant are added to `buffers`.

    Raises
    ------
    GraphError
        When its dtype cannot be written.
    """
    if tensor.dtype not in _TYPES:
        raise GraphError(f"tensor {tensor.index}: {tensor.dtype} cannot be written to a TFLite file")
    record = schema.TensorT()
    record.name, record.shape, record.type, record.buffer = tensor.name, list(tensor.shape), _TYPES[tensor.dtype], 0
    record.isVariable = tensor.is_variable
    record.shapeSignature = [-1] * len(tensor.shape) if tensor.is_dynamic else None
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        record.buffer = len(buffers)
        buffers.append(buffer)
    if tensor.quant is not None:
        record.quantization = schema.QuantizationParametersT()
        record.quantization.scale = np.asarray(tensor.quant.scale, np.float32)
        record.quantization.zeroPoint = np.asarray(tensor.quant.zero_point, np.int64)
        record.quantization.quantizedDimension = tensor.quant.axis
    return record


def operator_record(op: Op, code: int, tensors: list[schema.TensorT]) -> schema.OperatorT:
    """An operator of `_OPTIONS` as a file has it.

    Parameters
    ----------
    code : the number of its operator code
    tensors : of its subgraph

    Raises
    ------
    GraphError
        When it lacks an option.
    """
    record = schema.OperatorT()
    record.opcodeIndex = code
    record.inputs, record.outputs = list(op.inputs), list(op.outputs)
    cls, fill = _OPTIONS[op.kind]
    if cls is not None and fill is not None:
        options = cls()
        try:
            fill(op, options)
        except KeyError as missing:
            raise GraphError(f"{op.kind} has no option {missing}, without which no file can hold it") from None
        if op.kind in ("CONV_2D", "FULLY_CONNECTED") and (
            bias_type := op.options.get("quantized_bias_type", _bias_type(op, tensors))
        ):
            options.quantizedBiasType = getattr(schema.TensorType, bias_type)
        record.builtinOptions = options
        record.builtinOptionsType = getattr(schema.BuiltinOptions, cls.__name__.removesuffix("T"))
    return record


def _bias_type(op: Op, tensors: list[schema.TensorT]) -> str | None:
    """A bias of 32 bits beside int16 activations must be announced; LiteRT takes it for one of 64 bits otherwise."""
    is_narrow = len(op.inputs) > 2 and op.inputs[2] >= 0 and tensors[op.inputs[2]].type == schema.TensorType.INT32
    return "INT32" if is_narrow and tensors[op.inputs[0]].type == schema.TensorType.INT16 else None


def _fill_activation(op: Op, options) -> None:
    options.fusedActivationFunction = getattr(schema.ActivationFunctionType, op.options.get("activation", "NONE"))


def _fill_sum(op: Op, options) -> None:
    _fill_activation(op, options)
    options.potScaleInt16 = op.options.get("has_pot_scales", False)


def _fill_window(op: Op, options) -> None:
    _fill_activation(op, options)
    options.padding = getattr(schema.Padding, op.options["padding"])
    options.strideH, options.strideW = op.options["stride_h"], op.options["stride_w"]


def _fill_conv(op: Op, options) -> None:
    _fill_window(op, options)
    options.dilationHFactor, options.dilationWFactor = op.options.get("dilation_h", 1), op.options.get("dilation_w", 1)


def _fill_pack(op: Op, options) -> None:
    options.valuesCount, options.axis = len(op.inputs), op.options["axis"]


def _fill_depthwise(op: Op, options) -> None:
    _fill_conv(op, options)
    options.depthMultiplier = op.options["depth_multiplier"]


def _fill_pool(op: Op, options) -> None:
    _fill_window(op, options)
    options.filterHeight, options.filterWidth = op.options["filter_h"], op.options["filter_w"]


def _fill_fully_connected(op: Op, options) -> None:
    _fill_activation(op, options)
    options.keepNumDims = op.options.get("keep_num_dims", False)


def _fill_reshape(op: Op, options) -> None:
    if "new_shape" in op.options:
        options.newShape = list(op.options["new_shape"])


def _fill_softmax(op: Op, options) -> None:
    options.beta = op.options.get("beta", 1.0)


def _fill_leaky_relu(op: Op, options) -> None:
    options.alpha = op.options["alpha"]


def _fill_concatenation(op: Op, options) -> None:
    _fill_activation(op, options)
    options.axis = op.options["axis"]


def _fill_gather(op: Op, options) -> None:
    options.axis, options.batchDims = op.options["axis"], op.options["batch_dims"]


def _fill_strided_slice(op: Op, options) -> None:
    options.beginMask, options.endMask = op.options["begin_mask"], op.options["end_mask"]
    options.ellipsisMask, options.newAxisMask = op.options["ellipsis_mask"], op.options["new_axis_mask"]
    options.shrinkAxisMask, options.offset = op.options["shrink_axis_mask"], op.options.get("is_offset", False)


def _fill_resize(op: Op, options) -> None:
    options.alignCorners, options.halfPixelCenters = op.options["align_corners"], op.options["half_pixel_centers"]


def _fill_reduce(op: Op, options) -> None:
    options.keepDims = op.options.get("keep_dims", False)


def _fill_var_handle(op: Op, options) -> None:
    options.container, options.sharedName = "", op.options["name"]


def _fill_call_once(op: Op, options) -> None:
    options.initSubgraphIndex = op.options["init_subgraph"]


def _fill_split(op: Op, options) -> None:
    options.numSplits = len(op.outputs)


def _fill_space_to_depth(op: Op, options) -> None:
    options.blockSize = op.options["block_size"]


def _fill_gelu(op: Op, options) -> None:
    options.approximate = op.options["approximate"]


_OPTIONS: dict[str, tuple[type | None, Callable | None]] = {
    "CONV_2D": (schema.Conv2DOptionsT, _fill_conv),
    "DEPTHWISE_CONV_2D": (schema.DepthwiseConv2DOptionsT, _fill_depthwise),
    "AVERAGE_POOL_2D": (schema.Pool2DOptionsT, _fill_pool),
    "MAX_POOL_2D": (schema.Pool2DOptionsT, _fill_pool),
    "FULLY_CONNECTED": (schema.FullyConnectedOptionsT, _fill_fully_connected),
    "ADD": (schema.AddOptionsT, _fill_sum),
    "SUB": (schema.SubOptionsT, _fill_sum),
    "MUL": (schema.MulOptionsT, _fill_activation),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), (schema.MaximumMinimumOptionsT, lambda op, options: None)),
    "RESHAPE": (schema.ReshapeOptionsT, _fill_reshape),
    "SOFTMAX": (schema.SoftmaxOptionsT, _fill_softmax),
    "PAD": (schema.PadOptionsT, lambda op, options: None),
    "SLICE": (schema.SliceOptionsT, lambda op, options: None),
    "STRIDED_SLICE": (schema.StridedSliceOptionsT, _fill_strided_slice),
    "CONCATENATION": (schema.ConcatenationOptionsT, _fill_concatenation),
    "GATHER": (schema.GatherOptionsT, _fill_gather),
    "SPLIT": (schema.SplitOptionsT, _fill_split),
    "SPLIT_V": (schema.SplitVOptionsT, _fill_split),
    "SPACE_TO_DEPTH": (schema.SpaceToDepthOptionsT, _fill_space_to_depth),
    "DEPTH_TO_SPACE": (schema.DepthToSpaceOptionsT, _fill_space_to_depth),
    "TRANSPOSE": (schema.TransposeOptionsT, lambda op, options: None),
    "TRANSPOSE_CONV": (schema.TransposeConvOptionsT, _fill_window),
    "PACK": (schema.PackOptionsT, _fill_pack),
    "RESIZE_NEAREST_NEIGHBOR": (schema.ResizeNearestNeighborOptionsT, _fill_resize),
    "RESIZE_BILINEAR": (schema.ResizeBilinearOptionsT, _fill_resize),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), (schema.ReducerOptionsT, _fill_reduce)),
    "VAR_HANDLE": (schema.VarHandleOptionsT, _fill_var_handle),
    "CALL_ONCE": (schema.CallOnceOptionsT, _fill_call_once),
    **dict.fromkeys(("READ_VARIABLE", "ASSIGN_VARIABLE"), (None, None)),
    **dict.fromkeys(("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "ELU"), (None, None)),
    "HARD_SWISH": (schema.HardSwishOptionsT, lambda op, options: None),
    "LEAKY_RELU": (schema.LeakyReluOptionsT, _fill_leaky_relu),
    "GELU": (schema.GeluOptionsT, _fill_gelu),
    "DEQUANTIZE": (None, None),
    "SPACE_TO_BATCH_ND": (schema.SpaceToBatchNDOptionsT, lambda op, options: None),
    "BATCH_TO_SPACE_ND": (schema.BatchToSpaceNDOptionsT, lambda op, options: None),
}
