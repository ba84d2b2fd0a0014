"""How output channels are dealt to the cores, and that a tiling keeps the deal."""

import numpy as np
import pytest

from convoy.driver.lower.work import Axis
from convoy.driver.plan import tile
from convoy.driver.plan.cost import tiling_cost
from convoy.driver.plan.geometry import Geometry
from convoy.driver.plan.tile import deal_channels, tile_conv
from convoy.spec.config import PRESETS


def geometry(num_ic, num_oc, *, is_depthwise=False):
    return Geometry(num_ic, num_oc, Axis(8, 8, 3, 1, 1, 1), Axis(8, 8, 3, 1, 1, 1), is_depthwise)


@pytest.mark.parametrize(("num_ic", "num_oc", "is_depthwise"), [(4, 13, False), (6, 12, True), (3, 2, False)])
def test_every_channel_is_dealt_once(num_ic, num_oc, is_depthwise):
    nnz = np.arange(num_oc) * 7 % 11 + 1
    dealt = deal_channels(geometry(num_ic, num_oc, is_depthwise=is_depthwise), nnz, 4)
    assert dealt.shape[1] == 4
    assert sorted(dealt[dealt >= 0].tolist()) == list(range(num_oc))


def test_cores_get_about_the_same_work():
    """Of kernels with 1 to 16 weights each of four cores gets 34."""
    nnz = np.arange(1, 17)
    dealt = deal_channels(geometry(4, 16), nnz, 4)
    assert nnz[dealt].sum(axis=0).tolist() == [34, 34, 34, 34]


def test_a_tiling_keeps_the_deal():
    shape, nnz, config = geometry(4, 16), np.arange(1, 17), PRESETS["Q"]
    dealt = deal_channels(shape, nnz, config.num_cores)
    np.testing.assert_array_equal(tile_conv(shape, nnz, dealt, config).dealt, dealt)


@pytest.mark.parametrize("config", ["S", "Q"])
@pytest.mark.parametrize(
    "shape",
    [
        Geometry(16, 24, Axis(30, 15, 3, 2, 1, 1), Axis(45, 23, 3, 2, 1, 1), False),
        Geometry(24, 24, Axis(17, 17, 3, 1, 1, 1), Axis(33, 33, 3, 1, 1, 1), True),
        Geometry(64, 10, Axis(9, 9), Axis(11, 11), False, has_residual=True),
        Geometry(2, 8, Axis(1, 1), Axis(260, 260, 9, 1, 1, 4), False, value_bytes=2),
    ],
)
def test_what_is_left_out_is_not_cheaper(monkeypatch, config, shape):
    nnz, npu = np.arange(shape.num_oc) % 9 + 1, PRESETS[config]
    dealt = deal_channels(shape, nnz, npu.num_cores)
    found = tile_conv(shape, nnz, dealt, npu)
    monkeypatch.setattr(tile, "least_cycles", lambda shape, cols, groups, *_: np.zeros(len(groups)))
    assert tile_conv(shape, nnz, dealt, npu) == found


def test_a_long_row_is_tiled_with_few_trials(monkeypatch):
    """Of 16,000 columns there are 31,000 ways to make stripes, of up to 1,000 stripes each."""
    costed = []
    monkeypatch.setattr(tile, "tiling_cost", lambda *args: costed.append(len(args[2])) or tiling_cost(*args))
    shape = Geometry(1, 16, Axis(1, 1), Axis(16000, 15961, 40), False)
    nnz = np.full(16, 40)
    tile_conv(shape, nnz, deal_channels(shape, nnz, 4), PRESETS["Q"])
    assert sum(costed) < 60_000


def test_a_stripe_of_pads_only_has_room_for_the_pixel_that_it_loads():
    shape = Geometry(7, 2, Axis(9, 6, 5), Axis(5, 420, 5, pad=226), False)
    nnz = np.full(2, 175)
    tiling = tile_conv(shape, nnz, deal_channels(shape, nnz, 8), PRESETS["O"])
    assert len(tiling.stripes) > 1
    assert all(stripe.tile_cols <= tiling.group.pitch_row for stripe in tiling.stripes)
