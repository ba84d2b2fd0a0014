"""Bytes over the memory port, counted from descriptors."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import DESCRIPTOR_BYTES, LUT_BYTES, PARAM, STREAM, TAP_BYTES

from .pack import LayerStreams

__all__ = ["nn_traffic", "tp_traffic"]


def nn_traffic(d: dict[str, int], streams: LayerStreams, config: NpuConfig) -> tuple[int, int, int]:
    """Bytes read, written and read of weight streams by an NN descriptor."""
    outer = np.arange(d["num_act_outer"], dtype=np.int64)[:, None] * d["act_pitch_outer_bytes"]
    inner = np.arange(d["num_act_inner"], dtype=np.int64)[None, :] * d["act_pitch_inner_bytes"]
    acts = _beats(d["act_addr"] + outer + inner, d["act_run_bytes"], config)
    tables = _beats(d["tap_addr"], d["num_taps"] * TAP_BYTES, config) + _beats(d["stream_addr"], len(streams.counts) * STREAM.num_bytes, config)
    weights = d["num_groups"] * sum(stream.num_beats for stream in streams.counts)
    kernels = ((d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"]) * config.num_cores
    params = d["num_groups"] * -(-kernels * PARAM.num_bytes // config.port_bytes)
    written = streams.num_oc * (1 + d["is_wide"]) * (_pooled(d) if d["pool_size"] else (d["num_groups"] - 1) * _outputs(d, "") + _outputs(d, "_last"))
    residual = -(-written // config.port_bytes) if d["has_residual"] else 0
    beats = acts + tables + weights + params + residual + (LUT_BYTES * d["has_lut"]) // config.port_bytes
    return beats * config.port_bytes + DESCRIPTOR_BYTES, written, weights * config.port_bytes


def tp_traffic(d: dict[str, int], config: NpuConfig) -> tuple[int, int, int]:
    """The same of a TP descriptor."""
    beats = LUT_BYTES * d["has_lut"] // config.port_bytes
    for name in "ab":
        if d[f"{name}_run_bytes"]:
            starts = d[f"{name}_addr"] + np.arange(d[f"num_{name}_runs"], dtype=np.int64) * d[f"{name}_pitch_bytes"]
            beats += _beats(starts, d[f"{name}_run_bytes"], config)
    return beats * config.port_bytes + DESCRIPTOR_BYTES, d["num_0"] * d["num_1"] * d["num_2"], 0


def _beats(starts: np.ndarray | int, num_bytes: int, config: NpuConfig) -> int:
    """Beats that runs of `num_bytes` touch."""
    return int(np.sum((np.asarray(starts) % config.port_bytes + num_bytes - 1) // config.port_bytes + 1))


def _outputs(d: dict[str, int], suffix: str) -> int:
    """Outputs of a channel in a group."""
    rows = -(-d["num_pos" + suffix] // d["drain_pitch"])
    return (rows - 1) * d["tile_ow"] + min(d["tile_ow"], d["num_pos" + suffix] - (rows - 1) * d["drain_pitch"])


def _pooled(d: dict[str, int]) -> int:
    """Results of a channel, pooled; with `pool_continues` a 3x3 window begins in the descriptor before."""
    rows = (d["num_groups"] - 1) * d["pool_rows"] + d["pool_rows_last"]
    return (rows + d["pool_continues"] - (d["pool_size"] - 2)) // 2 * ((d["tile_ow"] - d["pool_size"]) // 2 + 1)
