"""How many units blocks of the tensor processor have."""

import pytest

from convoy.driver.plan.blocks import block_sizes


@pytest.mark.parametrize("num_units", [1, 7, 100, 8192, 20000])
@pytest.mark.parametrize(("load", "walk", "step"), [(0.125, 0.25, 8), (0.25, 0.25, 8), (8.0, 8.0, 1)])
def test_block_sizes_cover_all_units(num_units, load, walk, step):
    sizes = block_sizes(num_units, 8192, load, walk, 60.0, step)
    assert sum(sizes) == num_units
    assert max(sizes) <= 8192
    assert all(size % step == 0 or size == min(num_units, 8192) for size in sizes[:-1])


def test_the_first_block_is_short_where_all_wait_for_its_load():
    assert block_sizes(8192, 8192, 0.125, 0.25, 60.0)[0] < 2048
    assert block_sizes(100, 8192, 0.125, 0.25, 60.0) == (100,)
    assert block_sizes(8192, 8192, 0.125, 0.25, 2000.0) == (8192,)
    few, many = (len(block_sizes(1 << 20, 8192, 0.125, 0.25, overhead)) for overhead in (1000.0, 60.0))
    assert 128 == few < many < 140
