"""Float nodes of ONNX between DequantizeLinear and QuantizeLinear that the NPU computes on bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .graph import Quant
from .onnx_builder import DTYPES_8_BIT, Node, OnnxBuilder, suits
from .onnx_layers import convolution, emit_average, scaled, turned, weights_constant
from .onnx_moves import emit_over_image

__all__ = ["CORES", "ELEMENTWISE", "PAIRS", "Island", "Limits", "clip_limits", "source_quant"]

ELEMENTWISE = {
    "Abs", "Acos", "Asin", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "ms.QuickGelu",
    "ms.Gelu", "ms.FastGelu", "ms.BiasGelu", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu",
    "DequantizeLinear", "QuantizeLinear",
}  # fmt: skip
"""Functions of single elements when all but one of their operands are constants of one element."""
PAIRS = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
"""Float nodes on two activations, and the operators that they become."""
Limits = tuple[float, float]
"""Between which an activation function holds a result."""
_NO_LIMITS = -np.inf, np.inf


@dataclass
class Island:
    """Float nodes between quantised activations and a QuantizeLinear."""

    nodes: list[Node]
    """All, in order: DequantizeLinear first, QuantizeLinear last."""
    sources: list[str]
    """Quantised activations that they read."""

    @property
    def core(self) -> list[Node]:
        """Without DequantizeLinear and QuantizeLinear."""
        return [node for node in self.nodes if node.kind not in ("DequantizeLinear", "QuantizeLinear")]


def source_quant(builder: OnnxBuilder, name: str, island: Island) -> Quant:
    """How an island sees an activation."""
    return next(
        builder.quants(node, 1)[0]
        for node in island.nodes
        if node.kind == "DequantizeLinear" and node.inputs[0] == name
    )


def _float_constant(builder: OnnxBuilder, name: str) -> tuple[np.ndarray, Quant] | None:
    """Weights that a DequantizeLinear makes of constants: as they are stored, and their quantisation."""
    maker = builder.makers.get(name)
    if maker is None or maker.kind != "DequantizeLinear" or maker.inputs[0] not in builder.constants:
        return None
    quant = builder.quant(maker.name(1), maker.name(2), maker.attrs.get("axis", 1))
    return None if quant is None else (builder.constants[maker.inputs[0]], quant)


def clip_limits(builder: OnnxBuilder, node: Node) -> Limits:
    """Those of a Clip. Raises `Unsuited` when they are no constants."""
    found = []
    for place, attr, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        name = node.name(place)
        suits(not name or name in builder.constants)
        found.append(float(builder.constants[name].item() if name else node.attrs.get(attr, default)))
    return found[0], found[1]


def _float_conv(builder: OnnxBuilder, node: Node, island: Island, limits: Limits) -> None:
    """A convolution that onnxruntime computes in float32, because of what follows it."""
    x, y = island.sources[0], island.nodes[-1].outputs[0]
    weights, quant, source, target = _float_weights(builder, node, island, 0)
    shape, bias = builder.values[x][0], node.name(2)
    suits(len(node.inputs) <= 3)
    kind, options, stored, quant = convolution(node, shape, weights, quant)
    inputs = [builder.act(x, True, source), weights_constant(builder, node.inputs[1], quant, stored)]
    if bias:
        inputs.append(_float_bias(builder, bias, source, quant, weights.shape[0]))
    outputs = [builder.new(y, True, target)]
    builder.emit(kind, island.nodes, inputs, outputs, **options, is_float=True, clip=limits)


def _float_gemm(builder: OnnxBuilder, node: Node, island: Island, limits: Limits) -> None:
    """A product with a matrix of weights that onnxruntime computes in float32."""
    if node.attrs.get("transA", 0):
        x = island.sources[0]
        nodes = turned(builder, island.nodes, x, source_quant(builder, x, island))
        island = Island(nodes, [next(made.inputs[0] for made in nodes if made.outputs[0] == node.inputs[0])])
        node = island.core[0]
    x, y, is_matmul = island.sources[0], island.nodes[-1].outputs[0], node.kind == "MatMul"
    is_transposed = bool(node.attrs.get("transB", 0))
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    weights, quant, source, target = _float_weights(builder, node, island, 0 if is_transposed else 1)
    suits(weights.ndim == 2 and alpha > 0)
    source = scaled(source, alpha)
    weights, bias = weights if is_transposed else weights.T, "" if is_matmul or beta == 0 else node.name(2)
    inputs = [
        builder.act(x, False, source),
        weights_constant(builder, node.inputs[1], replace(quant, axis=0), weights),
        *([_float_bias(builder, bias, source, quant, weights.shape[0], beta)] if bias else []),
    ]
    outputs = [builder.new(y, False, target)]
    options = {"activation": "NONE", "keep_num_dims": True, "is_float": True, "clip": limits}
    builder.emit("FULLY_CONNECTED", island.nodes, inputs, outputs, **options)


def _transposed_conv(builder: OnnxBuilder, node: Node, island: Island, limits: Limits) -> None:
    """Kernels with dilation get zeros between their taps, those of groups zeros for the other groups' channels."""
    x, y = island.sources[0], island.nodes[-1].outputs[0]
    shape, out_shape = builder.values[x][0], builder.values[y][0]
    group, rank = node.attrs.get("group", 1), len(shape) - 2
    weights, quant, source, target = _float_weights(builder, node, island, 1)
    suits(rank in (1, 2))
    if quant.scale.size > 1:
        quant = replace(quant, scale=np.tile(quant.scale, group), zero_point=np.tile(quant.zero_point, group))
    dilations = node.attrs.get("dilations", [1] * rank)
    extents = [(size - 1) * step + 1 for size, step in zip(weights.shape[2:], dilations, strict=True)]
    num_ic, num_oc = weights.shape[:2]
    dense = np.full((num_ic, group, num_oc, *extents), quant.zero_point[0], weights.dtype)
    owners = np.arange(num_ic) // (num_ic // group)
    taps = tuple(slice(None, None, step) for step in dilations)
    dense[(np.arange(num_ic), owners, slice(None), *taps)] = weights
    dense = dense.reshape(num_ic, group * num_oc, *([1] * (2 - rank)), *extents)
    strides, pads = list(node.attrs.get("strides", [1] * rank)), list(node.attrs.get("pads", [0] * 2 * rank))
    auto_pad = node.attrs.get("auto_pad", b"NOTSET")
    if auto_pad != b"NOTSET" or "output_shape" in node.attrs:
        more = node.attrs.get("output_padding", [0] * rank)
        for axis in range(rank):
            whole = (shape[2 + axis] - 1) * strides[axis] + more[axis] + extents[axis]
            total = whole - out_shape[2 + axis]
            pads[axis] = total // 2 if auto_pad == b"SAME_UPPER" else total - total // 2
    suits(min(pads[:rank]) >= 0)
    if rank == 1:
        strides, pads = [1, *strides], [0, pads[0], 0, 0]
    options = {"stride_h": strides[0], "stride_w": strides[1], "pads": (pads[0], 0, pads[1], 0), "activation": "NONE"}
    outputs = [builder.new(y, True, target)]
    inputs = [
        builder.constant("shape", np.array(builder.tensors[outputs[0]].shape, np.int32)),
        weights_constant(builder, node.inputs[1], replace(quant, axis=0), dense.transpose(1, 2, 3, 0)),
        builder.act(x, True, source),
    ]
    if name := node.name(2):
        inputs.append(_float_bias(builder, name, source, quant, group * num_oc))
    macs = int(np.prod(shape)) * int(np.prod(weights.shape[1:]))
    builder.emit("TRANSPOSE_CONV", island.nodes, inputs, outputs, **options, macs=macs, is_float=True, clip=limits)


def _float_average_pool(builder: OnnxBuilder, node: Node, island: Island, limits: Limits) -> None:
    suits(limits == _NO_LIMITS)
    last, x = island.nodes[-1], island.sources[0]
    suits(len(builder.values[x][0]) in (3, 4))
    quant = source_quant(builder, x, island)
    emit_average(builder, island.nodes, node, (x, quant), (last.outputs[0], builder.quants(last, 1)[0]))


def _float_mean(builder: OnnxBuilder, node: Node, island: Island, limits: Limits) -> None:
    """The mean of each channel over the whole image."""
    last, x = island.nodes[-1], island.sources[0]
    rank, y = len(builder.values[x][0]), last.outputs[0]
    suits(limits == _NO_LIMITS and rank in (3, 4))
    if node.kind == "ReduceMean":
        axes = builder.integers(node, 1, "axes")
        suits(axes is not None and sorted(axis % rank for axis in axes) == list(range(2, rank)))
    keeps_axes = len(builder.values[y][0]) == rank
    source, target = (x, source_quant(builder, x, island)), (y, builder.quants(last, 1)[0])
    emit_over_image(builder, "MEAN", island.nodes, source, target, keep_dims=keeps_axes, is_float=True)


def _float_weights(
    builder: OnnxBuilder, node: Node, island: Island, axis: int
) -> tuple[np.ndarray, Quant, Quant, Quant]:
    """Stored weights with their quantisation, per tensor or along `axis`, and the activations' before and behind."""
    found = _float_constant(builder, node.inputs[1])
    suits(found is not None and node.inputs[0] in builder.makers)
    weights, quant = found or _NOTHING
    suits(weights.dtype in DTYPES_8_BIT and len(set(quant.zero_point.tolist())) == 1)
    suits(quant.scale.size == 1 or quant.axis % weights.ndim == axis)
    source, target = source_quant(builder, island.sources[0], island), builder.quants(island.nodes[-1], 1)[0]
    return weights, quant, source, target


_NOTHING = np.zeros(0, np.int8), Quant(np.ones(1, np.float32), np.zeros(1, np.int64))


def _float_bias(
    builder: OnnxBuilder, name: str, source: Quant, weights: Quant, num_oc: int, factor: float = 1.0
) -> int:
    """A bias in float32, times a factor, as the sums of integers that it is nearest to."""
    constant = _float_constant(builder, name)
    if constant is not None:
        values = (constant[0].astype(np.float64) - constant[1].zero_point) * constant[1].scale
    else:
        suits(name in builder.constants)
        values = builder.constants[name].astype(np.float64)
    suits(values.shape[-1:] in ((), (1,), (num_oc,)) and all(size == 1 for size in values.shape[:-1]))
    values = np.broadcast_to(values.reshape(-1) * factor, (num_oc,))
    scales = float(source.scale[0]) * np.broadcast_to(weights.scale.astype(np.float64), (num_oc,))
    limits = np.iinfo(np.int32)
    return builder.constant(name, np.clip(np.rint(values / scales), limits.min, limits.max).astype(np.int32))


CORES: dict[str, Callable[[OnnxBuilder, Node, Island, Limits], None]] = {
    **dict.fromkeys(("Conv", "ms.FusedConv"), _float_conv),
    **dict.fromkeys(("Gemm", "ms.FusedGemm", "MatMul"), _float_gemm),
    "AveragePool": _float_average_pool,
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _float_mean),
    "ConvTranspose": _transposed_conv,
}
"""Float nodes that the NPU computes on bytes."""
