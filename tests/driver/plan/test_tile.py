"""How output channels are dealt to the cores, and that a tiling keeps the deal."""

import numpy as np
import pytest

from convoy.driver.lower.work import Axis
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
