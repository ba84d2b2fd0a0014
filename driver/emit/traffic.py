"""Bytes over the memory port that belong to a descriptor, whenever they are moved: weights and parameters are read
ahead, while another one is in work.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import DESCRIPTOR_BYTES, HEADER, LUT_BYTES, NN, PARAM, STREAM, TAP_BYTES, TP, Opcode

from .pack import LayerStreams
from .program import Program

__all__ = ["Traffic", "descriptor_traffic"]


@dataclass(frozen=True)
class Traffic:
    """Bytes of whole beats read, bytes written, and those of the bytes read that are weight streams, as the NPU counts
    them. Records are no part of it.
    """

    read_bytes: int = 0
    write_bytes: int = 0
    weight_bytes: int = 0
    image_bytes: int = field(default=0, compare=False)
    """Of the bytes read, weights that are an image; the NPU does not tell them from pixels."""

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.read_bytes + other.read_bytes,
            self.write_bytes + other.write_bytes,
            self.weight_bytes + other.weight_bytes,
            self.image_bytes + other.image_bytes,
        )


def descriptor_traffic(program: Program, index: int, config: NpuConfig) -> Traffic:
    """What the descriptor number `index` of a program moves, itself included.

    The sum over a program is exactly what the NPU counts.
    """
    raw = program.descriptors[index]
    if HEADER.decode(raw[: HEADER.num_bytes])["opcode"] == Opcode.TP:
        return _tp_traffic(TP.decode(raw), config)
    fields = NN.decode(raw)
    if fields["is_swapped"]:
        return _swapped_traffic(fields, program, config)
    return _nn_traffic(fields, program.streams[fields["stream_addr"]], program, config)


def _nn_traffic(d: dict[str, int], streams: LayerStreams, program: Program, config: NpuConfig) -> Traffic:
    outer = np.arange(d["num_act_outer"], dtype=np.int64)[:, None] * d["act_pitch_outer_bytes"]
    inner = np.arange(d["num_act_inner"], dtype=np.int64)[None, :] * d["act_pitch_inner_bytes"]
    acts = _beats(d["act_addr"] + outer + inner, d["act_run_bytes"], config)
    tap_bytes = (
        -(-d["num_taps"] * TAP_BYTES // STREAM.num_bytes) * STREAM.num_bytes
    )  # read in pieces as large as an entry of the directory
    tables = _beats(d["tap_addr"], tap_bytes, config) + _beats(
        d["stream_addr"], len(streams.counts) * STREAM.num_bytes, config
    )
    weights = d["num_groups"] * sum(stream.num_beats for stream in streams.counts)
    run_bytes, last_bytes = (
        d[name] * config.num_cores * PARAM.num_bytes for name in ("num_kernels", "num_kernels_last")
    )
    last_addr = d["param_addr"] + (d["num_sb"] - 1) * run_bytes
    params = _beats(np.arange(d["param_addr"], last_addr, run_bytes), run_bytes, config) + _beats(
        last_addr, last_bytes, config
    )
    written = (
        streams.num_oc
        * (1 + d["is_wide"])
        * (_pooled(d) if d["pool_size"] else (d["num_groups"] - 1) * _outputs(d, "") + _outputs(d, "_last"))
    )
    residual = _residual_beats(d, program, config) if d["has_residual"] else 0
    beats = (
        acts + tables + weights + d["num_groups"] * params + residual + (LUT_BYTES * d["has_lut"]) // config.port_bytes
    )
    return Traffic(beats * config.port_bytes + DESCRIPTOR_BYTES, written, weights * config.port_bytes)


def _swapped_traffic(d: dict[str, int], program: Program, config: NpuConfig) -> Traffic:
    """Weights are the image, of one run."""
    image = _beats(d["act_addr"], d["act_run_bytes"], config)
    beats = (
        image
        + _beats(d["tap_addr"], STREAM.num_bytes, config)
        + _beats(d["src_addr"], d["src_bytes"], config)
        + _beats(d["param_addr"], d["tile_iw"] * PARAM.num_bytes, config)
        + (LUT_BYTES * d["has_lut"]) // config.port_bytes
    )
    beats += _residual_beats(d, program, config) if d["has_residual"] else 0
    num_read, num_image = beats * config.port_bytes + DESCRIPTOR_BYTES, image * config.port_bytes
    return Traffic(num_read, d["tile_iw"] * d["num_pos"], image_bytes=num_image)


def _tp_traffic(d: dict[str, int], config: NpuConfig) -> Traffic:
    beats = LUT_BYTES * d["has_lut"] // config.port_bytes
    for name in "ab":
        if d[f"{name}_run_bytes"]:
            starts = d[f"{name}_addr"] + np.arange(d[f"num_{name}_runs"], dtype=np.int64) * d[f"{name}_pitch_bytes"]
            beats += _beats(starts, d[f"{name}_run_bytes"], config)
    return Traffic(beats * config.port_bytes + DESCRIPTOR_BYTES, d["num_0"] * d["num_1"] * d["num_2"])


def _residual_beats(d: dict[str, int], program: Program, config: NpuConfig) -> int:
    """Of the second operands: runs of each channel in each group."""
    num_kernels = (d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"]
    num_records = d["tile_iw"] if d["is_swapped"] else num_kernels * config.num_cores
    first, piece = next((addr, piece) for addr, piece in program.image if addr <= d["param_addr"] < addr + len(piece))
    start = d["param_addr"] - first
    records = [
        PARAM.decode(piece[at : at + PARAM.num_bytes])
        for at in range(start, start + num_records * PARAM.num_bytes, PARAM.num_bytes)
    ]
    channels = d["res_addr"] + np.array(
        [record["out_offset_bytes"] for record in records if record["is_valid"]], np.int64
    )
    beats = 0
    for groups, suffix in ((np.arange(d["num_groups"] - 1), ""), (np.array([d["num_groups"] - 1]), "_last")):
        runs = np.arange(d[f"num_res_runs{suffix}"], dtype=np.int64) * d["out_pitch_row_bytes"]
        starts = channels[:, None, None] + groups[:, None] * d["out_group_step_bytes"] + runs
        beats += _beats(starts, d[f"res_run_bytes{suffix}"], config)
    return beats


def _beats(starts: np.ndarray | int, num_bytes: int, config: NpuConfig) -> int:
    """Beats that runs of `num_bytes` touch."""
    return int(np.sum((np.asarray(starts, np.int64) % config.port_bytes + num_bytes - 1) // config.port_bytes + 1))


def _outputs(d: dict[str, int], suffix: str) -> int:
    """Outputs of a channel in a group."""
    rows = -(-d["num_pos" + suffix] // d["drain_pitch"])
    return (rows - 1) * d["tile_ow"] + min(d["tile_ow"], d["num_pos" + suffix] - (rows - 1) * d["drain_pitch"])


def _pooled(d: dict[str, int]) -> int:
    """Results of a channel, pooled; with `pool_continues` a 3x3 window begins with the last two rows of the
    descriptor before.
    """
    rows = (d["num_groups"] - 1) * d["pool_rows"] + d["pool_rows_last"]
    return (rows + 2 * d["pool_continues"] - (d["pool_size"] - 2)) // 2 * ((d["tile_ow"] - d["pool_size"]) // 2 + 1)
