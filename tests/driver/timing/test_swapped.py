"""What the units do for a job with swapped operands, counted by hand."""

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.timing.swapped import core_cycles
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.spec.isa import NN

Q = PRESETS["Q"]


def job(spec):
    """The fields of the last job of a layer."""
    return NN.decode(compile_graph(make_layer(spec).graph, Q).steps[0].program.descriptors[-1])


def test_pads_cost_no_cycles_of_the_cores():
    """3 x 3 on 2 x 2: the first tap is inside for the last position only, the middle one for all."""
    fields = job(LayerSpec("conv", (2, 2, 64), 128, (3, 3), pads=(1,) * 4))
    cycles, each = core_cycles(fields, Q), fields["num_vec"]
    assert fields["is_swapped"]
    assert cycles.shape == (9, 4)
    assert cycles[0].tolist() == [1, 1, 1, each]
    assert cycles[4].tolist() == [each] * 4


def test_a_core_without_a_position_takes_its_zero_in_a_cycle():
    fields = job(LayerSpec("conv", (1, 1, 640), 32, (1, 1)))
    assert (fields["num_kernels"], fields["num_vec"]) == (1, 2)
    assert np.unique(core_cycles(fields, Q), axis=0).tolist() == [[2, 1, 1, 1]]
