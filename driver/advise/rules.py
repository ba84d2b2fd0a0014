"""The rules of the contract, asked of each operator of a network: what breaks one, what that costs, what to change.

The tips are those of `docs/rules`; the costs are of twins of the layer, which keep the rule, from the timing model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Graph, Op
from convoy.driver.workload.synthetic import LayerSpec
from convoy.spec.config import NpuConfig

from . import edits
from .edits import CONVOLUTIONS, Edit, kernel_of

__all__ = ["Change", "Finding", "find"]

NATIVE_STRIDES = 1, 2
BEST_KERNEL = 3
MANY_TAPS = 9
_ACTIVATIONS = {"NONE": "none", "RELU": "relu", "RELU6": "relu6"}

TwinCycles = Callable[[LayerSpec], float | None]
"""Cycles of a layer by itself; None where the compiler refuses it."""


@dataclass(frozen=True)
class Change:
    """Something to do about a finding."""

    text: str
    edit: Edit | None
    """None: only its owner can do it."""
    keeps_function: bool = False
    """The changed network computes the same; otherwise its weights are to be trained again."""


@dataclass(frozen=True)
class Finding:
    """An operator that breaks a rule."""

    rule: int
    """Of the contract, 1 to 8; 0: none of them."""
    title: str
    number: str
    op: str
    name: str
    problem: str
    cost: float | None
    """Cycles that a layer which keeps the rule does not need; None if no twin says."""
    changes: tuple[Change, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def find(graph: Graph, report: Mapping[str, Any], config: NpuConfig, twin: TwinCycles) -> Iterator[Finding]:
    """All findings, operator by operator; `report` is the network's estimate."""
    layers = {layer["number"]: layer for layer in report["layers"]}
    for op in graph.ops:
        layer = layers.get(str(op.index))
        for rule in (_padding, _strides, _channels, _kernels, _pools, _activations, _depthwise, _dtypes, _bytes):
            yield from rule(_Place(graph, op, layer, config, twin))
    for host in report["host_ops"]:
        yield Finding(
            0,
            "on the CPU",
            host["number"],
            host["op"],
            host["name"],
            f"runs on the CPU: {host['reason']}",
            None,
            (Change(host["remedy"], None),) if host["remedy"] else (),
        )


@dataclass(frozen=True)
class _Place:
    """An operator, and its entry in the report if the NPU has it under its own number."""

    graph: Graph
    op: Op
    layer: Mapping[str, Any] | None
    config: NpuConfig
    twin: TwinCycles

    @property
    def name(self) -> str:
        return self.graph.name_of(self.op)

    @property
    def cycles(self) -> int:
        return self.layer["cycles"] if self.layer else 0

    @property
    def spec(self) -> LayerSpec | None:
        """The layer by itself, with weights as dense as its own; None if it is no plain convolution."""
        op, tensors = self.op, self.graph.tensors
        if op.kind not in CONVOLUTIONS:
            return None
        weights, source = tensors[op.inputs[1]], tensors[op.inputs[0]]
        output = tensors[op.outputs[0]]
        if weights.data is None or weights.quant is None or len(source.shape) != 4 or source.dtype.kind not in "iu":
            return None
        kernel = kernel_of(self.graph, op)
        strides = (op.options["stride_h"], op.options["stride_w"])
        dilation = (op.options.get("dilation_h", 1), op.options.get("dilation_w", 1))
        is_padded = op.options["padding"] == "SAME"
        sizes, made = source.shape[1:3], output.shape[1:3]
        pads = _pads(sizes, made, kernel, strides, dilation) if is_padded else (0, 0, 0, 0)
        zero = int(weights.quant.zero_point[0])
        try:
            return LayerSpec(
                "depthwise" if op.kind == "DEPTHWISE_CONV_2D" else "conv",
                (source.shape[1], source.shape[2], source.shape[3]),
                output.shape[3],
                kernel,
                strides,
                pads,
                max(float(np.mean(weights.data != zero)), 1 / weights.data.size),
                _ACTIVATIONS.get(op.options.get("activation", "NONE"), "relu"),
                dilation,
                str(source.dtype),
            )
        except GraphError:
            return None

    def finding(self, rule: int, title: str, problem: str, cost: float | None, *changes: Change, **details) -> Finding:
        kept = cost if cost is None else max(0.0, cost)
        return Finding(rule, title, str(self.op.index), self.op.kind, self.name, problem, kept, changes, details)

    def over(self, *specs: LayerSpec, factor: float = 1.0) -> float | None:
        """Cycles of this layer by itself beyond those of twins, times `factor`."""
        own = self.twin(self.spec) if self.spec else None
        others = [self.twin(spec) for spec in specs]
        if own is None or None in others:
            return None
        return own - factor * sum(cycles for cycles in others if cycles is not None)


def _padding(at: _Place) -> Iterator[Finding]:
    if at.op.kind in ("PAD", "MIRROR_PAD") and at.cycles:
        yield at.finding(
            1,
            "padding by an operator",
            "a pad of its own is a copy of the image; pads of a convolution are free",
            at.cycles,
            Change("pad in the convolution (padding='same'), with the zero point", None),
        )


def _strides(at: _Place) -> Iterator[Finding]:
    spec = at.spec
    if spec is None or all(step in NATIVE_STRIDES for step in spec.stride):
        return
    rows, cols = (
        (out - 1) + (taps - 1) * gap + 1
        for out, taps, gap in zip(spec.output_hw, spec.kernel, spec.dilation, strict=True)
    )
    native = replace(spec, input_hwc=(rows, cols, spec.input_hwc[2]), stride=(1, 1), pads=(0, 0, 0, 0))
    window = "x".join(map(str, spec.stride))
    yield at.finding(
        2,
        "stride beyond 2",
        f"stride {window} is not native: the tensor processor reorders the image first",
        at.over(native),
        Change(f"a {window} maximum pool first, then stride 1", edits.with_pool_before(at.name)),
        Change(f"stride 1, then a {window} maximum pool", edits.with_pool_behind(at.name)),
    )


def _channels(at: _Place) -> Iterator[Finding]:
    spec, cores = at.spec, at.config.num_cores
    if at.op.kind != "CONV_2D" or spec is None or not (extra := spec.num_oc % cores):
        return
    low, high = spec.num_oc - extra, spec.num_oc + cores - extra
    changes = [Change(f"{high} channels: the next multiple of {cores}", edits.with_channels(at.name, high))]
    if low:
        changes.insert(0, Change(f"{low} channels", edits.with_channels(at.name, low)))
    reference = replace(spec, num_oc=low or cores)
    more = at.over(replace(spec, num_oc=high))
    yield at.finding(
        3,
        "output channels",
        f"{spec.num_oc} output channels on {cores} cores: the last {extra} keep {cores - extra} of them idle; "
        + (
            f"{high} would take {-more:+,.0f} cycles"
            if more is not None
            else f"{high} are as fast where channels bound it"
        ),
        at.over(reference, factor=spec.num_oc / reference.num_oc),
        *changes,
    )


def _kernels(at: _Place) -> Iterator[Finding]:
    spec = at.spec
    if spec is None:
        return
    rows, cols = spec.kernel
    taps = rows * cols
    if (rows, cols) in ((1, 1), (BEST_KERNEL, BEST_KERNEL)) or max(spec.stride) > max(NATIVE_STRIDES):
        return
    square = (BEST_KERNEL, BEST_KERNEL)
    pads = _pads(spec.input_hwc[:2], spec.output_hw, square, spec.stride, spec.dilation)
    best = replace(spec, kernel=square, pads=pads)
    cost = at.over(best, factor=taps / BEST_KERNEL**2)
    changes = []
    if rows != cols:
        changes.append(Change(f"a {cols}x{rows} kernel", edits.with_kernel(at.name, (cols, rows))))
    if taps > MANY_TAPS:
        if rows == cols == 5:
            changes.append(Change("two 3x3 kernels, which reach as far", edits.with_stacked_kernels(at.name)))
        changes.append(Change("a 3x3 kernel", edits.with_kernel(at.name, (BEST_KERNEL, BEST_KERNEL))))
    yield at.finding(
        4,
        "kernel shape",
        f"a {rows}x{cols} kernel takes a cycle for each of its {taps} taps and vector, as any shape does; 3x3 is "
        "the shape that the memories are made for",
        cost,
        *changes,
    )


def _pads(
    sizes: Sequence[int], made: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """Pads with which an image of such `sizes` gives outputs of the sizes `made`, as TFLite's SAME has them."""
    missing = [
        max(0, (out - 1) * step + (taps - 1) * gap + 1 - size)
        for size, out, taps, step, gap in zip(sizes, made, kernel, strides, dilation, strict=True)
    ]
    (top, left), (bottom, right) = [each // 2 for each in missing], [each - each // 2 for each in missing]
    return top, bottom, left, right


def _pools(at: _Place) -> Iterator[Finding]:
    if at.op.kind not in ("MAX_POOL_2D", "AVERAGE_POOL_2D") or not at.cycles:
        return
    options = at.op.options
    window, stride = (options["filter_h"], options["filter_w"]), (options["stride_h"], options["stride_w"])
    if at.op.kind == "AVERAGE_POOL_2D" and at.graph.tensors[at.op.outputs[0]].shape[1:3] == (1, 1):
        return
    why = (at.layer or {}).get("note", "only maximum pools of stride 2 are fused").removeprefix("not fused: ")
    changes = [
        Change("2x2 maximum pools one after another", edits.with_pools_in_steps(at.name), keeps_function=True),
        Change("a 2x2 maximum pool of stride 2, which is fused", edits.with_pool_window(at.name, 2)),
        Change("a 3x3 maximum pool of stride 2, which is fused", edits.with_pool_window(at.name, 3)),
        Change("stride 2 in the convolution instead of the pool", edits.pooled_by_stride(at.name)),
    ]
    yield at.finding(
        5,
        "pool of its own",
        f"{window[0]}x{window[1]} pool of stride {stride[0]}x{stride[1]} is not fused: {why}",
        at.cycles,
        *changes,
    )


def _activations(at: _Place) -> Iterator[Finding]:
    op = at.op
    if op.kind not in CONVOLUTIONS or op.options.get("activation") != "RELU6":
        return
    output = at.graph.tensors[op.outputs[0]]
    if output.quant is None or output.quant.scale.size != 1 or output.dtype.kind not in "iu":
        return
    limit = np.iinfo(output.dtype).max
    six = round(6 / float(output.quant.scale[0])) + int(output.quant.zero_point[0])
    is_same = six >= limit
    problem = "ReLU6 costs no cycle"
    if op.kind == "DEPTHWISE_CONV_2D":
        problem += ", but behind a depthwise layer it clips channels whose ranges differ much, which one scale holds"
    yield at.finding(
        6 if op.kind == "DEPTHWISE_CONV_2D" else 5,
        "ReLU6",
        problem + ("; here its limit is the end of the range: ReLU computes the same" if is_same else ""),
        0,
        Change("ReLU, and no activation behind depthwise layers", edits.with_activation(at.name, "RELU"), is_same),
        **_spread(at),
    )


def _spread(at: _Place) -> dict[str, Any]:
    """Ranges of a layer's weights over its channels, and bits that the one with the smallest range is left with."""
    weights = at.graph.tensors[at.op.inputs[1]]
    if weights.data is None or weights.quant is None:
        return {}
    axis = 3 if at.op.kind == "DEPTHWISE_CONV_2D" else 0
    others = tuple(number for number in range(weights.data.ndim) if number != axis)
    levels = np.abs(weights.data.astype(np.int64) - int(weights.quant.zero_point[0])).max(others)
    ranges = levels * (weights.quant.scale if weights.quant.scale.size > 1 else weights.quant.scale[0])
    ranges = ranges[ranges > 0]
    if not ranges.size:
        return {}
    return {
        "weight_range_ratio": float(ranges.max() / ranges.min()),
        "has_channel_scales": weights.quant.scale.size > 1,
        "least_weight_bits": float(np.log2(max(1, levels[levels > 0].min())) + 1),
    }


def _depthwise(at: _Place) -> Iterator[Finding]:
    spec = at.spec
    if at.op.kind != "DEPTHWISE_CONV_2D" or spec is None:
        return
    spread = _spread(at)
    if not spread.get("has_channel_scales", True) and spread["weight_range_ratio"] > 4:
        bits = spread["least_weight_bits"]
        yield at.finding(
            6,
            "ranges of depthwise weights",
            f"one scale for channels whose ranges differ by {spread['weight_range_ratio']:.0f} times: the smallest "
            f"has {bits:.1f} of 8 bits, an error of {100 / 2**bits:.0f} % of its largest weight",
            0,
            Change("scales per channel, or L2 regularisation and no batch norm behind the layer", None),
            **spread,
        )
    if spec.input_hwc[2] <= 2 * at.config.num_cores:
        dense = replace(spec, op="conv")
        yield at.finding(
            6,
            "depthwise with few channels",
            f"a depthwise layer of {spec.input_hwc[2]} channels keeps few multipliers busy",
            at.over(dense),
            Change("a 2D convolution", edits.as_dense(at.name)),
        )


def _dtypes(at: _Place) -> Iterator[Finding]:
    spec = at.spec
    if spec is None or spec.dtype != "int16":
        return
    yield at.finding(
        8,
        "16 bits",
        "activations of int16 take two passes over each weight and twice the bytes",
        at.over(replace(spec, dtype="int8")),
        Change("activations of int8, where accuracy allows it", None),
    )


def _bytes(at: _Place) -> Iterator[Finding]:
    layer, config = at.layer, at.config
    if layer is None or not layer["macs"] or not layer["floor_cycles"]:
        return
    multipliers = layer["macs"] / config.macs_per_cycle
    if layer["floor_cycles"] > 1.2 * multipliers and layer["cycles"] > 1000:
        yield at.finding(
            0,
            "bound by bytes",
            f"its bytes take {layer['floor_cycles']:,} cycles of the port, its multiplications {multipliers:,.0f}",
            layer["floor_cycles"] - multipliers,
            Change("a wider port (port_bits), fewer channels, or weights with zeros", None),
        )
