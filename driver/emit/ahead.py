"""Which blocks of a task of the tensor processor each stripe of the convolution behind it has to wait for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoy.driver.lower.work import ConvWork
from convoy.driver.plan.tile import Tiling

from .descriptors import nn_fields

__all__ = ["blocks_ahead"]


def blocks_ahead(
    blocks: Sequence[dict[str, int]], made: range, work: ConvWork, tiling: Tiling, in_addr: int
) -> list[list[dict[str, int]]]:
    """For each stripe of a convolution the blocks to do just before it: in their order, up to the last one that makes
    a byte which the stripe reads; the rest before the last stripe.

    Parameters
    ----------
    blocks : fields of TP descriptors
    made : the addresses that they write
    in_addr : where the input of the convolution begins
    """
    makers = np.full(len(made), -1)
    for number, block in enumerate(blocks):
        num_bytes = block["num_0"] * block["num_1"] * block["num_2"]
        starts = (
            block["out_addr"]
            - made.start
            + np.arange(0, num_bytes, block["out_run_bytes"]) // block["out_run_bytes"] * block["out_pitch_bytes"]
        )
        makers[starts[:, None] + np.arange(block["out_run_bytes"])] = number
    found, done = [], 0
    for stripe in tiling.stripes:
        d = nn_fields(work, tiling, stripe, in_addr, 0)
        outer = np.arange(d["num_act_outer"])[:, None] * d["act_pitch_outer_bytes"]
        starts = outer + np.arange(d["num_act_inner"]) * d["act_pitch_inner_bytes"] + d["act_addr"] - made.start
        read = makers[starts.reshape(-1, 1) + np.arange(d["act_run_bytes"])]
        end = len(blocks) if stripe is tiling.stripes[-1] else max(done, int(read.max()) + 1)
        found.append(list(blocks[done:end]))
        done = end
    return found
