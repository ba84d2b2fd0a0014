"""LiteRT as the independent reference: build TFLite models without TensorFlow, and run them on the reference kernels.

The reference is `OpResolverType.BUILTIN_REF` of ai-edge-litert 2.3.0. The default resolver is XNNPACK, which rounds
differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

__all__ = [
    "ModelBuilder",
    "Quantisation",
    "add_model",
    "conv_model",
    "depthwise_model",
    "fully_connected_model",
    "pool_model",
    "reference_table",
    "run_reference",
    "softmax_model",
    "unary_model",
]

Quantisation = tuple[float, int]
"""Scale and zero point of a tensor."""

_TYPES = {
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FLOAT16",
    "float32": "FLOAT32",
    "bool": "BOOL",
}

_OPERATORS = {
    "CONV_2D": ("Conv2DOptions", 3),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 4),
    "ADD": ("AddOptions", 2),
    "MAX_POOL_2D": ("Pool2DOptions", 2),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 2),
    "SOFTMAX": ("SoftmaxOptions", 2),
    "RESHAPE": ("ReshapeOptions", 1),
    "MEAN": ("ReducerOptions", 2),
    "PAD": ("PadOptions", 2),
    "QUANTIZE": ("QuantizeOptions", 2),
    "DEQUANTIZE": ("DequantizeOptions", 2),
    "CONCATENATION": ("ConcatenationOptions", 2),
    "MUL": ("MulOptions", 2),
    "SUB": ("SubOptions", 2),
    "MAXIMUM": ("MaximumMinimumOptions", 2),
    "MINIMUM": ("MaximumMinimumOptions", 2),
    "SPLIT": ("SplitOptions", 2),
    "SPLIT_V": ("SplitVOptions", 2),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", 1),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", 1),
    "TRANSPOSE_CONV": ("TransposeConvOptions", 3),
    "TRANSPOSE": ("TransposeOptions", 2),
    "PACK": ("PackOptions", 2),
    "UNPACK": ("UnpackOptions", 2),
    "GATHER": ("GatherOptions", 2),
    "TILE": ("TileOptions", 1),
    "MIRROR_PAD": ("MirrorPadOptions", 2),
    "BROADCAST_TO": (None, 2),
    "SQUEEZE": ("SqueezeOptions", 1),
    "EXPAND_DIMS": ("ExpandDimsOptions", 1),
    "PADV2": ("PadV2Options", 2),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3),
    "REDUCE_MAX": ("ReducerOptions", 2),
    "REDUCE_MIN": ("ReducerOptions", 2),
    "SUM": ("ReducerOptions", 2),
    "SLICE": ("SliceOptions", 2),
    "STRIDED_SLICE": ("StridedSliceOptions", 2),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", 2),
    "RELU": (None, 2),
    "RELU6": (None, 2),
    "RELU_N1_TO_1": (None, 1),
    "LOGISTIC": (None, 2),
    "TANH": (None, 2),
    "ARG_MAX": ("ArgMaxOptions", 2),
    "SHAPE": ("ShapeOptions", 1),
    "FILL": ("FillOptions", 3),
    "DENSIFY": (None, 1),
    "PRELU": (None, 1),
    "ABS": ("AbsOptions", 2),
    "LESS": ("LessOptions", 1),
    "GREATER": ("GreaterOptions", 1),
    "SELECT_V2": ("SelectV2Options", 1),
    "WHERE": ("WhereOptions", 1),
    "SVDF": ("SVDFOptions", 1),
    "FLOOR_DIV": ("FloorDivOptions", 2),
    "WHILE": ("WhileOptions", 1),
    "RANDOM_UNIFORM": ("RandomOptions", 1),
    "HARD_SWISH": ("HardSwishOptions", 1),
    "EXP": ("ExpOptions", 2),
    "LOG": (None, 2),
    "RSQRT": (None, 2),
    "SQUARED_DIFFERENCE": ("SquaredDifferenceOptions", 2),
    "LEAKY_RELU": ("LeakyReluOptions", 2),
    "ELU": (None, 1),
    "GELU": ("GeluOptions", 2),
    **{kind: (None, 1) for kind in ("CEIL", "COS", "FLOOR", "NEG", "RELU_0_TO_1", "ROUND", "SIGN", "SIN", "SQRT")},
    "SQUARE": (None, 1),
    "DIV": ("DivOptions", 2),
    "FLOOR_MOD": (None, 2),
    "POW": (None, 1),
    "SPACE_TO_BATCH_ND": (None, 3),
    "BATCH_TO_SPACE_ND": (None, 3),
}
"""Options table of the schema (None: it has none) and operator version that supports int8."""


class ModelBuilder:
    """A TFLite file with one subgraph, put together tensor by tensor and operator by operator; `finish` gives its
    bytes.
    """

    def __init__(self, name: str = "model"):
        self.name = name
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]
        self._codes: list[schema.OperatorCodeT] = []
        self._operators: list[schema.OperatorT] = []

    def tensor(
        self,
        shape: Sequence[int],
        dtype: Any = np.int8,
        scale: float | Sequence[float] | None = None,
        zero_point: int | Sequence[int] = 0,
        axis: int = 0,
        data: np.ndarray | None = None,
        name: str | None = None,
    ) -> int:
        """Add a tensor and return its index.

        Parameters
        ----------
        scale, zero_point : one value, or one for each slice along `axis`; no quantisation if `scale` is None
        data : values of a constant, converted to `dtype`
        """
        tensor = schema.TensorT()
        tensor.shape = [int(extent) for extent in shape]
        tensor.type = getattr(schema.TensorType, _TYPES[np.dtype(dtype).name])
        tensor.name = name or f"tensor_{len(self._tensors)}"
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            quant = schema.QuantizationParametersT()
            quant.scale = scales
            quant.zeroPoint = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            quant.quantizedDimension = axis
            tensor.quantization = quant
        if data is not None:
            buffer = schema.BufferT()
            values = np.ascontiguousarray(np.asarray(data).astype(dtype))
            if values.size != int(np.prod(tensor.shape)):
                raise ValueError(f"tensor {tensor.name}: {values.size} values for the shape {tuple(shape)}")
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def op(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], version: int | None = None, **options: Any
    ) -> None:
        """Add an operator, named as in the schema (`CONV_2D`), with the options' members named as in the object API
        (`strideW`).

        Raises
        ------
        ValueError
            When the builder does not know the operator, or the operator has no such option.
        """
        if kind not in _OPERATORS:
            raise ValueError(f"operator {kind} is unknown; known are {', '.join(sorted(_OPERATORS))}")
        table, default_version = _OPERATORS[kind]
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(kind, version or default_version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if table is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in options.items():
            if not hasattr(operator.builtinOptions, name):
                raise ValueError(f"operator {kind} has no option {name}")
            setattr(operator.builtinOptions, name, value)
        self._operators.append(operator)

    def _code(self, kind: str, version: int) -> int:
        builtin = getattr(schema.BuiltinOperator, kind)
        for index, code in enumerate(self._codes):
            if (code.builtinCode, code.version) == (builtin, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        self._codes.append(code)
        return len(self._codes) - 1

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        graph = schema.SubGraphT()
        graph.name = self.name
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version = 3
        model.description = self.name
        model.subgraphs, model.buffers, model.operatorCodes = [graph], self._buffers, self._codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run_reference(model: bytes, inputs: np.ndarray | Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Run a model on LiteRT's reference kernels.

    Parameters
    ----------
    inputs : one array for each input of the model, in its shape and dtype

    Returns
    -------
    dict
        Every tensor that holds values, intermediate ones too, by index
    """
    interpreter = Interpreter(
        model_content=model,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    arrays = [inputs] if isinstance(inputs, np.ndarray) else inputs
    for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    tensors = {}
    for detail in interpreter.get_tensor_details():
        try:
            tensors[detail["index"]] = interpreter.get_tensor(detail["index"])
        except ValueError:
            continue
    return tensors


@lru_cache
def reference_table(
    kind: str,
    input_quant: Quantisation,
    output_quant: Quantisation,
    dtypes: tuple[Any, Any] = (np.int8, np.int8),
    **options: Any,
) -> np.ndarray:
    """What a unary operator on 8 bits makes of every input: (256,), entry `x & 255` for the input x."""
    inputs = np.arange(256, dtype=np.uint8).view(dtypes[0])
    return run_reference(unary_model(kind, (256,), input_quant, output_quant, dtypes, **options), inputs)[1]


def _padding(padding: str) -> int:
    return getattr(schema.Padding, padding)


def _activation(activation: str) -> int:
    return getattr(schema.ActivationFunctionType, activation)


def _filter_inputs(
    builder: ModelBuilder,
    input_shape: Sequence[int],
    weights: np.ndarray,
    bias: np.ndarray | None,
    axis: int,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    dtype: Any,
    weight_zero_point: int,
) -> list[int]:
    """Input, weights and bias of a convolution-like operator; weights and bias in their own dtypes."""
    scales = np.atleast_1d(np.asarray(weight_scale, np.float32))
    indices = [
        builder.tensor(input_shape, dtype, *input_quant, name="input"),
        builder.tensor(weights.shape, weights.dtype, scales, weight_zero_point, axis, weights, name="weights"),
    ]
    if bias is not None:
        bias_scale = (np.float32(input_quant[0]) * scales).astype(np.float32)
        indices.append(builder.tensor(bias.shape, bias.dtype, bias_scale, 0, 0, bias, name="bias"))
    return indices


def _bias_type(bias: np.ndarray | None, dtype: Any) -> dict[str, int]:
    """The option by which a file says that 16-bit activations meet a bias of 32 bits."""
    is_narrow = np.dtype(dtype) == np.int16 and bias is not None and bias.dtype == np.int32
    return {"quantizedBiasType": schema.TensorType.INT32} if is_narrow else {}


def _pool_extent(extent: int, kernel: int, stride: int, padding: str) -> int:
    return -(-extent // stride) if padding == "SAME" else (extent - kernel) // stride + 1


def conv_model(
    input_shape: Sequence[int],
    weights: np.ndarray,
    bias: np.ndarray,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    activation: str = "NONE",
    dtype: Any = np.int8,
    weight_zero_point: int = 0,
) -> bytes:
    """One CONV_2D on activations of `dtype`; weights (OC, KH, KW, IC), one weight scale or one per output channel;
    pairs are (vertical, horizontal).
    """
    builder = ModelBuilder("conv")
    inputs = _filter_inputs(builder, input_shape, weights, bias, 0, input_quant, weight_scale, dtype, weight_zero_point)
    shape = _conv_shape(input_shape, weights.shape[1:3], stride, dilation, padding)
    output = builder.tensor((*shape, weights.shape[0]), dtype, *output_quant, name="output")
    builder.op(
        "CONV_2D",
        inputs,
        [output],
        padding=_padding(padding),
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=_activation(activation),
        **_bias_type(bias, dtype),
    )
    return builder.finish(inputs[:1], [output])


def depthwise_model(
    input_shape: Sequence[int],
    weights: np.ndarray,
    bias: np.ndarray | None,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    activation: str = "NONE",
    dtype: Any = np.int8,
    weight_zero_point: int = 0,
) -> bytes:
    """One DEPTHWISE_CONV_2D on activations of `dtype`; weights (1, KH, KW, IC * depth multiplier)."""
    builder = ModelBuilder("depthwise")
    inputs = _filter_inputs(builder, input_shape, weights, bias, 3, input_quant, weight_scale, dtype, weight_zero_point)
    shape = _conv_shape(input_shape, weights.shape[1:3], stride, dilation, padding)
    output = builder.tensor((*shape, weights.shape[3]), dtype, *output_quant, name="output")
    builder.op(
        "DEPTHWISE_CONV_2D",
        inputs,
        [output],
        padding=_padding(padding),
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        depthMultiplier=weights.shape[3] // input_shape[3],
        fusedActivationFunction=_activation(activation),
    )
    return builder.finish(inputs[:1], [output])


def _conv_shape(
    input_shape: Sequence[int], kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int], padding: str
) -> tuple[int, ...]:
    spans = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    return (
        input_shape[0],
        *(_pool_extent(input_shape[1 + axis], spans[axis], stride[axis], padding) for axis in (0, 1)),
    )


def fully_connected_model(
    input_shape: Sequence[int],
    weights: np.ndarray,
    bias: np.ndarray | None,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    activation: str = "NONE",
    dtype: Any = np.int8,
    weight_zero_point: int = 0,
) -> bytes:
    """One FULLY_CONNECTED on activations of `dtype`; input (N, IC), weights (OC, IC)."""
    builder = ModelBuilder("fully_connected")
    inputs = _filter_inputs(builder, input_shape, weights, bias, 0, input_quant, weight_scale, dtype, weight_zero_point)
    output = builder.tensor((input_shape[0], weights.shape[0]), dtype, *output_quant, name="output")
    builder.op(
        "FULLY_CONNECTED", inputs, [output], fusedActivationFunction=_activation(activation), **_bias_type(bias, dtype)
    )
    return builder.finish(inputs[:1], [output])


def add_model(
    shape: Sequence[int],
    a_quant: Quantisation,
    b_quant: Quantisation,
    output_quant: Quantisation,
    activation: str = "NONE",
    b_shape: Sequence[int] | None = None,
    dtype: Any = np.int8,
    kind: str = "ADD",
    has_pot_scales: bool = False,
) -> bytes:
    """One ADD, SUB or MUL of two inputs of `dtype`."""
    builder = ModelBuilder("add")
    inputs = [
        builder.tensor(shape, dtype, *a_quant, name="a"),
        builder.tensor(b_shape or shape, dtype, *b_quant, name="b"),
    ]
    output = builder.tensor(shape, dtype, *output_quant, name="output")
    options = {} if kind == "MUL" else {"potScaleInt16": has_pot_scales}
    builder.op(kind, inputs, [output], fusedActivationFunction=_activation(activation), **options)
    return builder.finish(inputs, [output])


def pool_model(
    kind: str,
    shape: Sequence[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    quant: Quantisation,
    padding: str = "VALID",
    activation: str = "NONE",
    dtype: Any = np.int8,
) -> bytes:
    """One `MAX_POOL_2D` or `AVERAGE_POOL_2D`; input and output have the same quantisation."""
    builder = ModelBuilder("pool")
    source = builder.tensor(shape, dtype, *quant, name="input")
    output = builder.tensor(
        (*_conv_shape(shape, kernel, stride, (1, 1), padding), shape[3]), dtype, *quant, name="output"
    )
    builder.op(
        kind,
        [source],
        [output],
        padding=_padding(padding),
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=_activation(activation),
    )
    return builder.finish([source], [output])


def softmax_model(shape: Sequence[int], quant: Quantisation, beta: float = 1.0) -> bytes:
    """One int8 SOFTMAX over the last axis; the output has scale 1/256 and zero point -128, as LiteRT demands."""
    return unary_model("SOFTMAX", shape, quant, (1 / 256, -128), beta=beta)


def unary_model(
    kind: str,
    shape: Sequence[int],
    input_quant: Quantisation,
    output_quant: Quantisation,
    dtypes: tuple[Any, Any] = (np.int8, np.int8),
    **options: Any,
) -> bytes:
    """One operator with one input and one output of the same shape: RELU, RELU6, QUANTIZE, DEQUANTIZE ..."""
    builder = ModelBuilder(kind.lower())
    quants = [
        quant if np.dtype(dtype) != np.float32 else (None, 0)
        for quant, dtype in zip((input_quant, output_quant), dtypes, strict=True)
    ]
    source = builder.tensor(shape, dtypes[0], *quants[0], name="input")
    output = builder.tensor(shape, dtypes[1], *quants[1], name="output")
    builder.op(kind, [source], [output], **options)
    return builder.finish([source], [output])
