"""Pools that read pixels where they are, behind slices and pads."""

from __future__ import annotations

import numpy as np

from convoy.driver.graph.graph import Op
from convoy.spec.config import NpuConfig

from .operands import nhwc
from .operators import window_axis
from .origins import Origin, origins
from .parts import Expansion, Parts
from .work import NATIVE_STRIDES, Axis

__all__ = ["POOL_EXPANSIONS"]


def _unmoved(parts: Parts) -> bool:
    """A pool of what pads and slices make of an image is one of the image, where the NPU has one whose windows have the
    pixels of these pads.
    """
    op = parts.op
    if op.index in parts.narrow:
        return False
    sizes_in, sizes_out = (nhwc(parts[index].shape)[1:3] for index in (op.inputs[0], op.outputs[0]))
    rows, cols = (
        window_axis(op, name, size_in, size_out, op.options[f"filter_{name}"])
        for name, size_in, size_out in zip("hw", sizes_in, sizes_out, strict=True)
    )
    for origin in reversed([*origins(parts, op.inputs[0])]):
        axes = origin.axes(parts, rows, cols)
        if axes is None or any(axis.dilation > 1 or not 0 <= axis.pad < axis.kernel > axis.end for axis in axes):
            continue
        dtype = parts[op.inputs[0]].dtype
        is_least = origin.fill is None or (op.kind == "MAX_POOL_2D" and origin.fill == np.iinfo(dtype).min)
        if not is_least and not _has_filled(op, origin, (rows, cols), axes, dtype, parts.config):
            continue
        options = {name: value for name, value in op.options.items() if name != "padding"}
        options |= {f"stride_{name}": axis.stride for name, axis in zip("hw", axes, strict=True)}
        options["pads"] = tuple(pad for axis in axes for pad in (axis.pad, axis.end))
        if not is_least:
            options["fill"] = (origin.fill or 0) - 128 * (dtype == np.uint8)
        parts.unread |= {other.index for other in origin.ops}
        parts.add(op.kind, (origin.source,), op.outputs, **options)
        parts.note(origin.note)
        return True
    return False


def _has_filled(
    op: Op, origin: Origin, own: tuple[Axis, Axis], axes: tuple[Axis, Axis], dtype: np.dtype, config: NpuConfig
) -> bool:
    """Has the NN engine the pool with pads of a value, which its windows count?"""
    has_own_pads = any(axis.pad > 0 or axis.end > 0 for axis in own)
    if has_own_pads or origin.fill is None or any(axis.stride not in NATIVE_STRIDES for axis in axes):
        return False
    if op.kind == "AVERAGE_POOL_2D":
        return dtype != np.int16
    return config.has_fused_pool and all(axis.stride == 2 and axis.kernel == axes[0].kernel in (2, 3) for axis in axes)


POOL_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {"MAX_POOL_2D": (_unmoved,), "AVERAGE_POOL_2D": (_unmoved,)}
"""By kind of operator."""
