"""One synthetic layer with random weights, and the TFLite file that lets LiteRT judge it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Quant, Tensor
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.lower.lut import LUT_KINDS

__all__ = ["LayerSpec", "SyntheticLayer", "make_layer"]

_KINDS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D"}
_ACTIVATIONS = {"none": "NONE", "relu": "RELU", "relu6": "RELU6"}
_DTYPES = ("int8", "uint8", "int16")
_POOLS = {"2x2": 2, "3x3": 3}
_LUTS = {kind.lower(): kind for kind in sorted(LUT_KINDS)}
_LUT_OPTIONS = {"LEAKY_RELU": {"alpha": 0.1}, "GELU": {"approximate": False}}
_LUT_OUTPUTS = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
"""Scale and int8 zero point where LiteRT fixes them."""


MAX_EXTENT = 1 << 20
"""Of any number in a layer's options."""
MAX_ELEMENTS = 1 << 25
"""Of input, weights and output each: they are made, compiled and simulated in memory."""


def _short(value: int) -> str:
    """A number that may have any number of digits."""
    return f"{value:,}" if abs(value) < 10**15 else "a number of more than 15 digits"


@dataclass(frozen=True)
class LayerSpec:
    """What to make. Pads are (top, bottom, left, right).

    Raises
    ------
    GraphError
        When a value makes no layer; the message names the option.
    """

    op: str
    input_hwc: tuple[int, int, int]
    num_oc: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    density: float = 1.0
    activation: str = "none"
    dilation: tuple[int, int] = (1, 1)
    dtype: str = "int8"
    """Of activations: int8 with int8 weights, uint8 with uint8 weights, or int16 with int8 weights."""
    lut: str = "none"
    """An operator on the layer's outputs that the NPU does by a table."""
    pool: str = "none"
    """Window of a maximum pool of stride 2 without pads on the outputs, last of all."""

    def __post_init__(self) -> None:
        if self.op not in _KINDS:
            raise GraphError(f"--op {self.op}: use conv or depthwise")
        if self.activation not in _ACTIVATIONS:
            raise GraphError(f"--activation {self.activation}: use none, relu or relu6")
        if self.dtype not in _DTYPES:
            raise GraphError(f"--dtype {self.dtype}: use {', '.join(_DTYPES)}")
        if self.dtype == "int16" and self.lut != "none":
            raise GraphError(f"--lut {self.lut}: a table takes int8 or uint8")
        if self.lut not in ("none", *_LUTS):
            raise GraphError(f"--lut {self.lut}: use none, {', '.join(_LUTS)}")
        if self.pool not in ("none", *_POOLS):
            raise GraphError(f"--pool {self.pool}: use none, {' or '.join(_POOLS)}")
        sizes = {
            "--input": self.input_hwc,
            "--oc": (self.num_oc,),
            "--kernel": self.kernel,
            "--stride": self.stride,
            "--dilation": self.dilation,
            "--pad": self.pads,
        }
        for option, values in sizes.items():
            least = 0 if option == "--pad" else 1
            if wrong := [value for value in values if not least <= value <= MAX_EXTENT]:
                raise GraphError(f"{option}: {_short(wrong[0])} must be at least {least} and at most {MAX_EXTENT:,}")
        if not 0 < self.density <= 1:
            raise GraphError(f"--density {self.density}: use a number above 0, at most 1")
        if self.op == "depthwise" and self.num_oc % self.input_hwc[2]:
            raise GraphError(
                f"--oc {self.num_oc}: a depthwise layer needs a multiple of its {self.input_hwc[2]} input channels"
            )
        if min(self.output_hw) < 1:
            raise GraphError(f"kernel {self.kernel[0]}x{self.kernel[1]} is larger than the padded input")
        if min(self.output_hw) < _POOLS.get(self.pool, 1):
            raise GraphError(f"--pool {self.pool}: the layer has only {self.output_hw[0]}x{self.output_hw[1]} outputs")
        height, width, num_ic = self.input_hwc
        depth = 1 if self.op == "depthwise" else num_ic
        rows, cols = height + sum(self.pads[:2]), width + sum(self.pads[2:])
        for name, extents in (
            ("input with its pads", (rows, cols, num_ic)),
            ("weights", (*self.kernel, depth, self.num_oc)),
            ("output", (*self.output_hw, self.num_oc)),
        ):
            if prod(extents) > MAX_ELEMENTS:
                raise GraphError(
                    f"the {name} would have {'x'.join(map(str, extents))} = {prod(extents):,} elements; at most "
                    f"{MAX_ELEMENTS:,}: make the layer smaller"
                )

    @property
    def output_hw(self) -> tuple[int, int]:
        """Output rows and columns."""
        (h, w, _), (top, bottom, left, right) = self.input_hwc, self.pads
        span_h, span_w = ((taps - 1) * step + 1 for taps, step in zip(self.kernel, self.dilation, strict=True))
        return (h + top + bottom - span_h) // self.stride[0] + 1, (w + left + right - span_w) // self.stride[1] + 1


@dataclass(frozen=True)
class SyntheticLayer:
    """A network of one operator, or more with a table or a pool, and its reference."""

    graph: Graph
    """A layer with explicit pads, and the operators on its outputs if there are any."""
    reference_model: bytes
    """TFLite file with the same arithmetic: a PAD operator, if there are pads, before an unpadded layer. Its tensors
    keep their indices.
    """


def make_layer(spec: LayerSpec, seed: int = 0) -> SyntheticLayer:
    """The layer: weights uniform over the range of their dtype, `density` of them other than the zero point, and
    scales that keep the outputs within a few standard deviations of the range; int8 weights have zero point 0 and a
    scale per output channel, uint8 weights one of each. int16 has zero point 0 and a bias of int64.
    """
    rng = np.random.default_rng(seed)
    tensors = _tensors(spec, rng)
    options = {
        "stride_h": spec.stride[0],
        "stride_w": spec.stride[1],
        "dilation_h": spec.dilation[0],
        "dilation_w": spec.dilation[1],
        "activation": _ACTIVATIONS[spec.activation],
    }
    if spec.op == "depthwise":
        options["depth_multiplier"] = spec.num_oc // spec.input_hwc[2]
    ops = [Op(0, _KINDS[spec.op], (0, 1, 2), (3,), {**options, "pads": spec.pads})]
    if spec.lut != "none":
        kind = _LUTS[spec.lut]
        scale, zero_point = _LUT_OUTPUTS.get(kind, (0.02, int(rng.integers(-100, 20))))
        quant = Quant(np.array([scale], np.float32), np.array([zero_point + _offset(spec)]))
        tensors = (*tensors, replace(tensors[3], index=4, name=spec.lut, quant=quant))
        ops.append(Op(1, kind, (3,), (4,), _LUT_OPTIONS.get(kind, {})))
    if spec.pool != "none":
        size, source = _POOLS[spec.pool], tensors[-1]
        shape = (1, *((extent - size) // 2 + 1 for extent in spec.output_hw), spec.num_oc)
        tensors = (*tensors, replace(source, index=source.index + 1, name="pool", shape=shape))
        pool_options = {
            "padding": "VALID",
            "filter_h": size,
            "filter_w": size,
            "stride_h": 2,
            "stride_w": 2,
            "activation": "NONE",
        }
        ops.append(Op(len(ops), "MAX_POOL_2D", (source.index,), (source.index + 1,), pool_options))
    name = f"{spec.op}_{'x'.join(map(str, spec.input_hwc))}_{spec.num_oc}_{spec.kernel[0]}x{spec.kernel[1]}"
    graph = Graph(name, tensors, tuple(ops), (0,), ops[-1].outputs)
    return SyntheticLayer(graph, write_tflite(_reference_graph(graph, spec)))


def _offset(spec: LayerSpec) -> int:
    """What zero points of int8 become."""
    return 128 if spec.dtype == "uint8" else 0


def _weights(spec: LayerSpec, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Weights and their zero point."""
    (kh, kw), num_oc, is_unsigned = spec.kernel, spec.num_oc, spec.dtype == "uint8"
    shape = (1, kh, kw, num_oc) if spec.op == "depthwise" else (num_oc, kh, kw, spec.input_hwc[2])
    weights, zero_point = (rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)).astype(np.int8), 0
    if is_unsigned:
        zero_point = int(rng.integers(64, 192))
        weights = ((zero_point + rng.integers(1, 256, shape)) % 256).astype(np.uint8)
    num_zeros = weights.size - max(1, round(weights.size * spec.density))
    weights.reshape(-1)[rng.permutation(weights.size)[:num_zeros]] = zero_point
    return weights, zero_point


def _tensors(spec: LayerSpec, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Input 0, weights 1, bias 2, output 3."""
    (h, w, num_ic), (kh, kw), num_oc = spec.input_hwc, spec.kernel, spec.num_oc
    is_depthwise = spec.op == "depthwise"
    weights, zero_point = _weights(spec, rng)
    taps = kh * kw * (1 if is_depthwise else num_ic)
    acc_std = 74.0 * 73.0 * max(1.0, taps * spec.density) ** 0.5  # of uniform inputs and weights
    is_wide = spec.dtype == "int16"
    scale_in, scale_out = np.float32(0.05), np.float32(0.025)
    if is_wide:
        acc_std, scale_in, scale_out = 256 * acc_std, scale_in / 256, scale_out / 256
    num_scales = 1 if spec.dtype == "uint8" else num_oc
    factor = (256 if is_wide else 1) * 50.0 / acc_std * rng.uniform(0.5, 1.5, num_scales)
    scale_wgt = (factor * scale_out / scale_in).astype(np.float32)
    bias = np.rint(rng.normal(0, acc_std / 2, num_oc)).astype(np.int64 if is_wide else np.int32)
    zero = np.zeros(num_scales, np.int64)
    axis = (3 if is_depthwise else 0) if num_scales > 1 else 0

    def act(index: int, name: str, extents: tuple[int, ...], scale: np.float32, low: int, high: int) -> Tensor:
        return Tensor(
            index,
            name,
            (1, *extents),
            np.dtype(spec.dtype),
            Quant(np.array([scale]), (rng.integers(low, high, 1) + _offset(spec)) * (not is_wide)),
        )

    is_clamped = spec.activation != "none"
    return (
        act(0, "input", (h, w, num_ic), scale_in, -20, 20),
        Tensor(1, "weights", weights.shape, weights.dtype, Quant(scale_wgt, zero + zero_point, axis), weights),
        Tensor(2, "bias", (num_oc,), bias.dtype, Quant(scale_in * scale_wgt, zero), bias),
        act(3, "output", (*spec.output_hw, num_oc), scale_out, -128 if is_clamped else -20, -127 if is_clamped else 20),
    )


def _reference_graph(graph: Graph, spec: LayerSpec) -> Graph:
    """The same layer as TFLite can say it: pads by an operator of their own."""
    tensors, op, rest = graph.tensors, graph.ops[0], graph.ops[1:]
    layer = replace(
        op, options={key: value for key, value in op.options.items() if key != "pads"} | {"padding": "VALID"}
    )
    if not any(spec.pads):
        return replace(graph, ops=(layer, *rest))
    (h, w, num_ic), (top, bottom, left, right) = spec.input_hwc, spec.pads
    pads = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    first = len(tensors)
    padded = replace(tensors[0], index=first + 1, name="padded", shape=(1, h + top + bottom, w + left + right, num_ic))
    ops = Op(0, "PAD", (0, first), (first + 1,)), replace(layer, inputs=(first + 1, *op.inputs[1:])), *rest
    return replace(
        graph,
        tensors=(*tensors, Tensor(first, "pads", (4, 2), np.dtype(np.int32), None, pads), padded),
        ops=tuple(replace(op, index=index) for index, op in enumerate(ops)),
    )
