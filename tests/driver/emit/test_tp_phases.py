"""Phase planes: what is left out of the choice of blocks is not cheaper."""

import pytest

from convoy.driver.emit import tp_phases
from convoy.driver.emit.tp_phases import split_blocks
from convoy.driver.plan.cost import block_cycles
from convoy.driver.plan.phases import AxisPhases, PhaseSplit
from convoy.spec.config import PRESETS

Q = PRESETS["Q"]


def split(height, width, stride, num_ic):
    rows, cols = (AxisPhases(size, stride, tuple(range(stride))) for size in (height, width))
    return PhaseSplit(num_ic, rows, cols, 0)


def test_pixels_of_a_column_are_not_moved_one_by_one(monkeypatch):
    monkeypatch.delattr(tp_phases._Blocks, "lines")
    planes = split(8000, 1, 4, 1)
    assert len(split_blocks(planes, range(1), range(planes.rows.size), 0, 0, Q)) < 20


@pytest.mark.parametrize(("height", "width", "num_ic"), [(9, 9, 2), (1, 40, 3), (40, 1, 16), (3, 24, 40), (30, 70, 8)])
def test_what_is_left_out_is_not_cheaper(height, width, num_ic):
    planes = split(height, width, 3, num_ic)
    work = range(num_ic), range(planes.rows.size), 0, 0, Q
    found = split_blocks(planes, *work)
    lines = tp_phases._Blocks(planes, *work).lines()
    assert sum(block_cycles(block, Q) for block in found) <= sum(block_cycles(block, Q) for block in lines)
