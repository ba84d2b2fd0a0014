"""Which layers are swapped, and how they are cut into jobs."""

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.compile.lowering import lower_graph
from convoy.driver.compile.pipeline import compile_with_costs
from convoy.driver.lower.work import Axis
from convoy.driver.plan.geometry import Geometry
from convoy.driver.plan.macs import swapped_lane_macs
from convoy.driver.plan.swap import SwappedTiling, nn_cycles, swap_obstacle, swap_work, tap_cycles
from convoy.driver.plan.tile import tile_work
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.spec.isa import MAX_SRC_PLANE_BYTES

Q = PRESETS["Q"]


def tiling(spec):
    """The tiling that the compiler takes."""
    (found,) = compile_with_costs(make_layer(spec).graph, Q).tilings.values()
    return found


@pytest.mark.parametrize(
    ("spec", "is_swapped"),
    [
        (LayerSpec("conv", (1, 1, 640), 128, (1, 1)), True),
        (LayerSpec("conv", (1, 1, 640), 128, (1, 1), density=0.05), False),
        (LayerSpec("conv", (4, 4, 64), 64, (3, 3), pads=(1,) * 4), True),
        (LayerSpec("conv", (16, 16, 16), 32, (3, 3), pads=(1,) * 4), False),
        (LayerSpec("depthwise", (4, 4, 64), 64, (3, 3), pads=(1,) * 4), False),
        (LayerSpec("conv", (9, 9, 64), 64, (3, 3), stride=(4, 4)), True),
    ],
    ids=["dense", "pruned", "few pixels", "many pixels", "depthwise", "stride 4"],
)
def test_the_cheaper_form_is_taken(spec, is_swapped):
    assert isinstance(tiling(spec), SwappedTiling) == is_swapped


def work_of(spec):
    """The lowered convolution of a layer."""
    (work,) = lower_graph(make_layer(spec).graph)
    return work


def test_what_cannot_be_swapped():
    work = work_of(LayerSpec("conv", (2, 2, 8), 8, (1, 1)))
    assert swap_work(work, Q) is not None
    wider = work.weights.astype(np.int16)
    wider[0, 0, 0, 0] = 128
    assert "do not fit 8 bits" in swap_obstacle(replace(work, weights=wider), Q)
    assert swap_obstacle(work, Q) is None
    for change in ({"weights": wider}, {"pool_size": 2}, {"is_depthwise": True}, {"is_wide": True}):
        assert swap_work(replace(work, **change), Q) is None
    rows = Axis(MAX_SRC_PLANE_BYTES // 2 + 1, 2, 1, MAX_SRC_PLANE_BYTES // 2)
    assert swap_work(replace(work, rows=rows), Q) is None


def test_the_estimate_is_that_of_the_cheaper_form():
    work = work_of(LayerSpec("conv", (4, 4, 64), 64, (3, 3), pads=(1,) * 4))
    assert nn_cycles(work, Q) == swap_work(work, Q).cost.cycles < tile_work(work, Q).cost.cycles
    pruned = replace(work, weights=work.weights * (np.arange(64) == 0))
    assert nn_cycles(pruned, Q) == tile_work(pruned, Q).cost.cycles


def test_every_output_is_made_once():
    geometry = Geometry(3, 90, Axis(20, 10, 3, 2, 1, 1), Axis(12, 12), False)
    config = Q.with_(num_acc_entries=16)
    found = swap_work(replace(work_of(LayerSpec("conv", (1, 1, 8), 8, (1, 1))), **vars_of(geometry)), config)
    made = np.zeros((90, 10, 12), int)
    for job in found.jobs:
        assert job.num_kernels(config) * job.num_vec(config) <= config.num_acc_entries
        made[
            job.first_oc : job.first_oc + job.num_oc,
            job.first_row : job.first_row + job.num_rows,
            job.first_col : job.first_col + job.num_cols,
        ] += 1
    assert (made == 1).all()


def vars_of(geometry):
    """Fields of a work with this geometry."""
    shape = geometry.num_oc, geometry.rows.kernel, geometry.cols.kernel, geometry.num_ic
    return {
        "num_ic": geometry.num_ic,
        "rows": geometry.rows,
        "cols": geometry.cols,
        "weights": np.ones(shape, np.int16),
    }


def test_tokens_of_pads_are_not_counted():
    """3 x 3 on 2 x 2: each of the four positions, one for each core, meets four pixels."""
    found = swap_work(work_of(LayerSpec("conv", (2, 2, 5), 24, (3, 3), pads=(1,) * 4)), Q)
    tokens = sum(found.num_tokens(job, Q.num_cores) for job in found.jobs) / len(found.jobs)
    assert tokens.sum(axis=0).tolist() == [4, 4, 4, 4]
    macs = swapped_lane_macs(found, Q)
    assert macs.useful == 5 * 24 * 16
    assert macs.issued == 5 * 32 * 16


def test_a_round_that_is_not_full_takes_a_cycle_more():
    assert [tap_cycles(num_pos, Q) for num_pos in (1, 4, 49)] == [2, 4, 50]


def test_zeros_behind_a_relu_are_foreseen():
    """Half of such activations is expected to be zero, which only swapped operands skip; a tensor that may be negative
    has none, and without any the form must not be much slower.
    """
    work = work_of(LayerSpec("conv", (8, 8, 64), 64, (3, 3), pads=(1,) * 4))
    signed, rectified = (swap_work(replace(work, zero_point_in=value), PRESETS["S"]) for value in (0, -128))
    dense = signed.cost.cycles
    assert signed.expected_cycles == dense
    assert rectified.expected_cycles < 0.75 * dense
    assert not signed.is_faster(dense / 1.1)
    assert rectified.is_faster(dense / 1.1)
    assert not rectified.is_faster(dense / 1.2)
