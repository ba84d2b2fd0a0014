"""Convolutions on the golden machine: what is rare in random networks."""

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.workload.reference import run_reference
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.isa import DESCRIPTOR_BYTES, NN
from convoy.verif.campaign import RTL_CONFIGS
from convoy.verif.graphs import random_values, run_plan


def test_a_pool_of_two_rows_leaves_them_to_the_next_descriptor():
    """A first stripe of two rows completes no 3x3 window; found by a campaign of hostile jobs."""
    layer = make_layer(
        LayerSpec("depthwise", (26, 61, 9), 27, (1, 1), stride=(2, 2), dtype="int16", pool="3x3", activation="relu")
    )
    plan = compile_graph(layer.graph, RTL_CONFIGS["wide"], keep_tensors=True)
    descriptors = [NN.decode(descriptor[:DESCRIPTOR_BYTES]) for descriptor in plan.steps[0].program.descriptors]
    assert any((d["pool_rows"], d["pool_continues"], d["num_groups"]) == (2, 0, 1) for d in descriptors)
    values = random_values(layer.graph, 0)
    got, expected = run_plan(plan, dict(values)), run_reference(layer.reference_model, list(values.values()))
    (output,) = layer.graph.outputs
    np.testing.assert_array_equal(got[output], expected[output])
