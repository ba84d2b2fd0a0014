"""`make formal` proves the cases; here is only that each can be set up, for they name signals inside the units."""

import pytest
from amaranth.hdl import Fragment

from convoy.verif.formal.__main__ import CASES
from convoy.verif.formal.bench import Bench


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_set_up_and_every_property_has_a_fault(case):
    bench = Bench()
    case.unit(bench, case.config)
    assert set(bench.properties) == {name for fault in bench.faults for name in fault.breaks}
    assert bench.covers
    Fragment.get(bench.m, None)
