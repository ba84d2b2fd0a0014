"""The contract as layers to measure: for each rule what shows it, and the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isqrt, log2, prod
from typing import Any

from convoy.driver.workload.synthetic import LayerSpec
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import MAX_SRC_PLANE_BYTES

from .case import (
    CYCLES,
    EXTRA_CYCLES,
    EXTRA_READ,
    FETCHED,
    IDEAL_CYCLES,
    POOL_ALONE,
    POOL_FUSED,
    REFUSED,
    ROOFLINE,
    SPEEDUP,
    TP_SHARE,
    UTILISATION,
    WRITTEN,
    Case,
    Setup,
)

__all__ = ["RULES", "Rule", "contract_cases"]

REACH = 11
"""Kernels of at most REACH * stride - 1 rows and columns have windows that fit in any image."""


@dataclass(frozen=True)
class Rule:
    """A rule of the contract: what it promises, and its cases for an NPU."""

    title: str
    cases: Callable[[NpuConfig], Iterator[Case]]


def contract_cases(npu: NpuConfig, rules: tuple[int, ...] = ()) -> list[Case]:
    """The cases of these rules, of all if none is given."""
    return [case for number, rule in RULES.items() if not rules or number in rules for case in rule.cases(npu)]


def _layer(
    out_hw: tuple[int, int],
    num_ic: int,
    num_oc: int,
    kernel: tuple[int, int] = (3, 3),
    op: str = "conv",
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    **rest: Any,
) -> LayerSpec:
    """A layer with these output rows and columns."""
    height, width = ((out - 1) * step + taps for out, step, taps in zip(out_hw, stride, kernel, strict=True))
    return LayerSpec(
        op, (height - pads[0] - pads[1], width - pads[2] - pads[3], num_ic), num_oc, kernel, stride, pads, **rest
    )


def _same_pads(kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pads around the kernel's centre, as far as they are legal."""
    (top, left), (bottom, right) = (((taps - 1) // 2 for taps in kernel), (taps // 2 for taps in kernel))
    return min(top, 7), min(bottom, 7), min(left, 7), min(right, 7)


def _by(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))


PADS = (
    (1, 1, 1, 1),
    (0, 1, 0, 1),
    (1, 0, 0, 0),
    (0, 2, 0, 0),
    (0, 0, 3, 0),
    (0, 0, 0, 4),
    (2, 5, 3, 6),
    (7, 0, 0, 7),
    (0, 7, 7, 0),
    (7, 7, 7, 7),
)


def _pads(npu: NpuConfig) -> Iterator[Case]:
    layers = [(pads, _layer((24, 24), 32, 32, pads=pads)) for pads in PADS]
    layers += [
        ((3, 3, 3, 3), _layer((24, 24), 16, 16, (7, 7), pads=(3, 3, 3, 3))),
        ((0, 1, 0, 1), _layer((16, 16), 32, 32, stride=(2, 2), pads=(0, 1, 0, 1))),
    ]
    for pads, layer in layers:
        height, width, num_ic = layer.input_hwc
        twin = replace(
            layer, input_hwc=(height + pads[0] + pads[1], width + pads[2] + pads[3], num_ic), pads=(0, 0, 0, 0)
        )
        name = f"{_by(layer.kernel)}, stride {_by(layer.stride)}, pads {','.join(map(str, pads))}"
        for metric, limit in ((CYCLES, 1.01), (EXTRA_READ, 0)):
            yield Case(1, "pads", name, Setup(layer, npu), metric, limit, Setup(twin, npu))


STRIDES = (
    *((step, step) for step in range(1, 9)),
    (1, 2),
    (2, 1),
    (1, 3),
    (3, 1),
    (2, 3),
    (3, 2),
    (1, 8),
    (8, 1),
    (4, 6),
    (7, 5),
)


OVER_TWIN = 1.3
"""Cycles of a layer whose stride is not native, over those of its twin of stride 1."""
OVER_FLOOR = 1.2
"""The same over the cycles that its bytes take, where these are more."""


def _strides(npu: NpuConfig) -> Iterator[Case]:
    def setup(stride: tuple[int, int]) -> Setup:
        return Setup(_layer((16, 16), 32, 32, stride=stride), npu)

    twin = setup((1, 1))
    for stride in STRIDES:
        is_native, name, layer = max(stride) <= 2, f"stride {_by(stride)}, to 16x16", setup(stride).layer
        yield Case(2, "strides", name, setup(stride), TP_SHARE, 0 if is_native else None)
        num_macs = prod(twin.layer.output_hw) * prod(twin.layer.kernel) * twin.layer.num_oc * twin.layer.input_hwc[2]
        limit = 1.02 if is_native else OVER_TWIN
        is_more = prod(layer.input_hwc) / npu.port_bytes * OVER_FLOOR > num_macs / npu.macs_per_cycle * limit
        if is_more:  # the bytes of the larger input take longer
            yield Case(2, "strides", name, setup(stride), ROOFLINE, 1 / OVER_FLOOR)
        yield Case(2, "strides", name, setup(stride), CYCLES, None if is_more else limit, twin)


def _channels(npu: NpuConfig) -> Iterator[Case]:
    def setup(num_oc: int) -> Setup:
        return Setup(_layer((16, 16), 32, num_oc, pads=(1, 1, 1, 1)), npu)

    cores = npu.num_cores
    for num_oc in range(1, 4 * cores + 2):
        full = -(-num_oc // cores) * cores
        if num_oc == full:
            yield Case(3, "channels", f"{num_oc} output channels", setup(num_oc), UTILISATION)
        else:
            yield Case(
                3, "channels", f"{num_oc} output channels; twin {full}", setup(num_oc), CYCLES, 1.01, setup(full)
            )
    yield from _scaling()


def _scaling() -> Iterator[Case]:
    layer = _layer((16, 16), 128, 128, pads=(1, 1, 1, 1))
    single = Setup(layer, PRESETS["S"])
    for letter, npu in PRESETS.items():
        if npu != single.npu:
            name = f"preset {letter}, {npu.num_cores} cores; twin S"
            yield Case(3, "scaling", name, Setup(layer, npu), SPEEDUP, npu.num_cores * 14 / 16, single)


SQUARE = tuple((size, size) for size in range(1, REACH))
OBLONG = ((1, 3), (3, 1), (1, 7), (7, 1), (3, 5), (5, 3), (1, 10), (10, 1), (2, 9))
STRIDE_2 = ((2, 2), (3, 3), (5, 5), (7, 7), (11, 11), (15, 15), (2 * REACH - 1,) * 2, (1, 2 * REACH - 1))
WIDTHS = ((8, 8), (16, 16), (16, 24), (32, 32), (8, 56))


def _kernels(npu: NpuConfig) -> Iterator[Case]:
    for hw in WIDTHS:
        layer = _layer(hw, 64, 64, pads=(1, 1, 1, 1))
        yield Case(4, "widths", f"3x3, 64 to 64 channels, to {_by(hw)}", Setup(layer, npu), UTILISATION, 0.95)
    for kernel in (*SQUARE, *OBLONG):
        layer = _layer((16, 16), 32, 32, kernel, pads=_same_pads(kernel))
        yield Case(4, "kernels", f"kernel {_by(kernel)}", Setup(layer, npu), UTILISATION)
    for kernel in STRIDE_2:
        layer = _layer((16, 16), 16, 16, kernel, stride=(2, 2), pads=_same_pads(kernel))
        yield Case(4, "kernels of stride 2", f"kernel {_by(kernel)}, stride 2x2", Setup(layer, npu), UTILISATION)
    many, side = npu.stripe_words + 1, isqrt(MAX_SRC_PLANE_BYTES) + 1  # too large for swapped operands
    yield Case(4, "refusals", f"{many:,} channels", Setup(_layer((side, side), many, 4, (1, 1)), npu), REFUSED, 1)


def _fused(npu: NpuConfig) -> Iterator[Case]:
    for name, layer in (
        ("3x3", _layer((16, 16), 32, 32, pads=(1, 1, 1, 1))),
        ("1x1", _layer((16, 16), 64, 64, (1, 1))),
        ("depthwise 3x3", _layer((28, 28), 32, 32, op="depthwise", pads=(1, 1, 1, 1))),
    ):
        for activation in ("relu", "relu6"):
            yield Case(
                5,
                "activations",
                f"{name}, {activation}",
                Setup(replace(layer, activation=activation), npu),
                EXTRA_CYCLES,
                0,
                Setup(layer, npu),
            )


POOLS = (
    ("2x2", (16, 16), True),
    ("2x2", (15, 16), True),
    ("2x2", (16, 15), True),
    ("2x2", (8, 66), True),
    ("3x3", (9, 61), True),
    ("3x3", (9, 62), True),
    ("3x3", (9, 63), True),
    ("3x3", (9, 64), True),
    ("3x3", (9, 65), False),
    ("3x3", (3, 3), True),
    ("3x3", (8, 9), True),
)
"""Window, outputs of the convolution, whether the rule allows to fuse them."""
WIDE_POOLS = (
    ("2x2", (8, 66), True),
    ("3x3", (9, 29), True),
    ("3x3", (9, 30), True),
    ("3x3", (9, 31), True),
    ("3x3", (9, 32), True),
    ("3x3", (9, 33), False),
)
"""The same of int16."""


def _fused_and_pools(npu: NpuConfig) -> Iterator[Case]:
    yield from _fused(npu)
    for dtype, pools in (("int8", POOLS), ("int16", WIDE_POOLS)):
        for window, hw, is_legal in pools:
            setup = Setup(_layer(hw, 16, 16, pads=(1, 1, 1, 1), pool=window, dtype=dtype), npu)
            yield Case(
                5,
                "pools at the limits",
                f"{dtype}, {window} pool of {_by(hw)}",
                setup,
                POOL_FUSED if is_legal else POOL_ALONE,
                1,
            )
    for window, hw, dtype in (
        ("2x2", (32, 32), "int8"),
        ("3x3", (31, 31), "int8"),
        ("2x2", (32, 32), "int16"),
        ("3x3", (31, 31), "int16"),
    ):
        layer = _layer(hw, 64, 64, pads=(1, 1, 1, 1), dtype=dtype)
        setup, twin = Setup(replace(layer, pool=window), npu), Setup(layer, npu)
        yield Case(5, "pools", f"3x3, {dtype}, {window} pool of {_by(hw)}; twin without", setup, CYCLES, 1.03, twin)
        yield Case(5, "pools", f"3x3, {dtype}, {window} pool of {_by(hw)}; twin without", setup, WRITTEN, 0.5, twin)


def _dtypes(npu: NpuConfig) -> Iterator[Case]:
    for name, layer in (
        ("3x3", _layer((16, 16), 64, 64, pads=(1, 1, 1, 1))),
        ("1x1", _layer((16, 16), 64, 64, (1, 1))),
        ("depthwise 3x3", _layer((28, 28), 64, 64, op="depthwise", pads=(1, 1, 1, 1))),
    ):
        for dtype, limit in (("uint8", 1.01), ("int16", 2.1)):
            yield Case(
                8,
                "dtypes",
                f"{name}, {dtype}; twin int8",
                Setup(replace(layer, dtype=dtype), npu),
                CYCLES,
                limit,
                Setup(layer, npu),
            )
    layer = _layer((16, 16), 32, 32, stride=(3, 3))
    yield Case(
        8,
        "dtypes",
        "3x3, stride 3x3, int16; twin int8",
        Setup(replace(layer, dtype="int16"), npu),
        CYCLES,
        2.1,
        Setup(layer, npu),
    )


def _depthwise(npu: NpuConfig) -> Iterator[Case]:
    for name, layer, metric, limit in (
        ("3x3", _layer((28, 28), 128, 128, op="depthwise", pads=(1, 1, 1, 1)), UTILISATION, 0.6),
        (
            "3x3, stride 2x2",
            _layer((14, 14), 128, 128, op="depthwise", stride=(2, 2), pads=(0, 1, 0, 1)),
            ROOFLINE,
            0.85,
        ),
        (
            "3x3, stride 1x2",
            _layer((28, 14), 128, 128, op="depthwise", stride=(1, 2), pads=(1, 1, 0, 1)),
            ROOFLINE,
            None,
        ),
        ("3x3, stride 3x3", _layer((10, 10), 32, 32, op="depthwise", stride=(3, 3)), ROOFLINE, None),
        ("3x3, multiplier 2", _layer((28, 28), 64, 128, op="depthwise", pads=(1, 1, 1, 1)), UTILISATION, 0.6),
        (
            "3x3, multiplier 2, stride 2x2",
            _layer((14, 14), 64, 128, op="depthwise", stride=(2, 2), pads=(0, 1, 0, 1)),
            ROOFLINE,
            None,
        ),
        ("5x5", _layer((28, 28), 128, 128, (5, 5), op="depthwise", pads=(2, 2, 2, 2)), UTILISATION, None),
        ("7x7", _layer((14, 14), 128, 128, (7, 7), op="depthwise", pads=(3, 3, 3, 3)), UTILISATION, None),
    ):
        yield Case(
            6,
            "depthwise",
            f"{name}, {layer.num_oc} channels, to {_by(layer.output_hw)}",
            Setup(layer, npu),
            metric,
            limit,
        )


DENSITIES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05)
SPARE_BYTES = 1.1
"""Weight bytes over the least that random weights of a density can be said with."""


def _least_share(density: float) -> float:
    """Least bytes of a weight that is not zero where places and values are random: 8 bits for the value, and its share
    of the entropy of the places.
    """
    places = sum(-share * log2(share) for share in (density, 1 - density) if share)
    return 1 + places / (8 * density)


def _sparse(npu: NpuConfig) -> Iterator[Case]:
    """The bytes of a layer have a limit down to the density at which reading them more often than the dense layer's
    begins to be faster.
    """
    for group, layer, limit, least_density in (
        ("sparse 3x3", _layer((32, 32), 64, 64, pads=(1, 1, 1, 1)), 0.9, 0.5),
        ("sparse 1x1", _layer((16, 16), 256, 256, (1, 1)), 0.85, 0.75),
    ):
        dense = Setup(layer, npu)
        for density in DENSITIES:
            setup, name = Setup(replace(layer, density=density), npu), f"{_by(layer.kernel)}, density {density}"
            yield Case(7, group, name, setup, IDEAL_CYCLES, limit if density >= 0.1 else None)
            bytes_limit = SPARE_BYTES * _least_share(density) if density >= least_density else None
            yield Case(7, group, name, setup, FETCHED, bytes_limit, dense)


RULES = {
    1: Rule("Padding costs nothing", _pads),
    2: Rule("Strides 1 and 2 are native; others go through TP", _strides),
    3: Rule("Output channels are dealt to cores", _channels),
    4: Rule("Any kernel of up to 11 * stride - 1 rows and columns", _kernels),
    5: Rule("Activations are fused, and maximum pools where that is legal", _fused_and_pools),
    6: Rule("Depthwise", _depthwise),
    7: Rule("Zero weights are neither computed nor fetched", _sparse),
    8: Rule("8 and 16 bits", _dtypes),
}
