"""Random layers, memories and configurations, every tensor against LiteRT's reference kernels: on the golden model,
and on the compiled NPU.

A small part of what `make campaign` runs. `CONVOY_EXAMPLES` sets the number of examples per test, `CONVOY_SEED` another
starting point.
"""

import os

import pytest

from convoy.verif.campaign import RTL_CONFIGS, campaign

EXAMPLES, SEED = (
    int(os.environ.get(name, default)) for name, default in (("CONVOY_EXAMPLES", "30"), ("CONVOY_SEED", "1"))
)


@pytest.mark.parametrize("name", RTL_CONFIGS)
def test_random_layers(name):
    assert campaign("native", EXAMPLES, SEED, [name]).num_examples >= EXAMPLES


def test_random_layers_on_the_golden_model():
    coverage = campaign("golden", EXAMPLES, SEED)
    assert coverage.num_examples >= EXAMPLES
    assert "operator: CONV_2D" in coverage.counts
