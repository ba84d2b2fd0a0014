"""Descriptors and constants of convolutions with swapped operands."""

from __future__ import annotations

import numpy as np

from convoy.driver.lower.work import ConvWork
from convoy.driver.plan.swap import SwappedJob, SwappedTiling
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, PARAM

__all__ = ["pack_image", "plain_bias", "swapped_fields"]


def pack_image(work: ConvWork, tiling: SwappedTiling) -> bytes:
    """Weights as images, one of each part of the output channels: a plane of a row for each input channel and tap, a
    pixel for each output channel.
    """
    taps = work.weights[:, _slice(tiling.row_taps), _slice(tiling.col_taps)]
    planes = taps.transpose(3, 1, 2, 0).reshape(tiling.num_z, work.num_oc).astype(np.int8)
    parts = sorted({(job.first_oc, job.num_oc) for job in tiling.jobs})
    return b"".join(planes[:, first : first + count].tobytes() for first, count in parts)


def _slice(taps: range) -> slice:
    return slice(taps.start, taps.stop)


def plain_bias(work: ConvWork) -> np.ndarray:
    """int64 (OC,): the bias without the zero point of the input, which the tokens are less."""
    folded = work.bias + work.zero_point_in * work.weights.reshape(work.num_oc, -1).sum(axis=1, dtype=np.int64)
    return folded.astype(np.int32).astype(np.int64)


def swapped_fields(
    work: ConvWork,
    tiling: SwappedTiling,
    job: SwappedJob,
    in_addr: int,
    image_addr: int,
    param_addr: int,
    out_addr: int,
    res_addr: int,
    config: NpuConfig,
) -> dict[str, int]:
    """The fields of an NN descriptor, without header, tap table, lookup table, and the place in the stripe memory; the
    addresses are those of the whole layer.
    """
    geometry = tiling.geometry
    rows, cols = geometry.rows, geometry.cols
    num_vec, num_kernels = job.num_vec(config), job.num_kernels(config)
    first_pos = job.first_row * cols.size_out + job.first_col
    start_y = job.first_row * rows.stride - rows.pad + tiling.row_taps.start * rows.dilation
    start_x = job.first_col * cols.stride - cols.pad + tiling.col_taps.start * cols.dilation
    unused = [name for name in NN.fields if name.startswith(("pool_", "res_", "num_res_"))]
    fields = dict.fromkeys((*unused, "has_residual"), 0)
    fields |= {
        "is_swapped": 1,
        "src_addr": in_addr,
        "src_bytes": geometry.num_ic * rows.size_in * cols.size_in,
        "num_src_planes": geometry.num_ic,
        "src_plane_bytes": rows.size_in * cols.size_in,
        "src_ih": rows.size_in,
        "src_iw": cols.size_in,
        "src_kernel_h": len(tiling.row_taps),
        "src_kernel_w": len(tiling.col_taps),
        "src_stride_h": rows.stride,
        "src_stride_w": cols.stride,
        "src_dilation_h": rows.dilation,
        "src_dilation_w": cols.dilation,
        "src_oh": job.num_rows,
        "src_ow": job.num_cols,
        "src_start_y": start_y,
        "src_start_x": start_x,
        "src_start_bytes": start_y * cols.size_in + start_x,
        "src_step_row_bytes": rows.stride * cols.size_in,
        "src_step_tap_bytes": rows.dilation * cols.size_in,
        "wgt_zero_point": work.zero_point_in,
    }
    fields |= {
        "stream_addr": 0,
        "wgt_addr": 0,
        "run_bits": 0,
        "param_addr": param_addr + job.first_oc * PARAM.num_bytes,
        "act_addr": image_addr + job.first_oc * tiling.num_z,
        "act_run_bytes": job.num_oc * tiling.num_z,
        "act_pitch_inner_bytes": 0,
        "act_pitch_outer_bytes": 0,
        "num_act_inner": 1,
        "num_act_outer": 1,
        "num_ic": tiling.num_z,
        "tile_ih": 1,
        "tile_iw": job.num_oc,
        "pad_top": 0,
        "pad_left": 0,
        "stride_h_log2": 0,
        "stride_w_log2": 0,
        "phase_mask": 1,
        "zero_point_in": 0,
        "tile_rows": 1,
        "tile_cols": job.num_oc,
        "pitch_row": job.num_oc,
        "phase_words": num_vec,
        "channel_words": num_vec,
        "is_wide": 0,
        "is_depthwise": 0,
        "num_sb": 1,
        "num_groups": 1,
        "num_z": tiling.num_z,
        "num_z_last": tiling.num_z,
        "group_step": 0,
        "num_phases": 1,
        "seg_words": num_vec,
        "num_slots": config.window_words // num_vec,
        "num_vec": num_vec,
        "num_vec_last": num_vec,
        "num_vec_x": num_vec,
        "step_vec_x": config.num_lanes,
        "step_vec_y": 0,
        "split_log2": 0,
        "split_words": 0,
        "num_kernels": num_kernels,
        "num_kernels_last": num_kernels,
        "kernels_per_z": num_kernels,
        "kernels_per_z_last": num_kernels,
        "num_taps": 1,
        "out_addr": out_addr + first_pos,
        "out_high_bytes": 0,
        "out_group_step_bytes": 0,
        "out_pitch_row_bytes": 0,
        "drain_pitch": job.num_pos,
        "tile_ow": job.num_pos,
        "num_pos": job.num_pos,
        "num_pos_last": job.num_pos,
        "is_flat": 1,
        "zero_point_out": work.zero_point_out,
        "act_min": work.act_min,
        "act_max": work.act_max,
        "rounding": work.rounding,
    }
    if work.residual is not None:
        fields |= {f"res_{name}": value for name, value in work.residual.fields.items()}
        fields |= {"has_residual": 1, "res_addr": res_addr + first_pos}
        for suffix in ("", "_last"):
            fields |= {f"num_res_runs{suffix}": 1, f"res_run_bytes{suffix}": job.num_pos}
    return fields
