"""Functions of one element that LiteRT tabulates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.expand import expand
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model

Q, SHAPE = PRESETS["Q"], (1, 5, 6, 4)


def forms(model) -> list[str]:
    """The operators that stand in the file's place."""
    return [op.kind for op in expand(load_tflite(model).graph, Q).ops]


def function(kind, zero_point=10, constant=None) -> bytes:
    builder = ModelBuilder()
    source, target = builder.tensor(SHAPE, np.int8, 0.03, zero_point), builder.tensor(SHAPE, np.int8, 0.02, 2)
    others = [] if constant is None else [builder.tensor((1,), np.int8, 0.02, 4, data=np.array([constant]))]
    builder.op(kind, [source, *others], [target])
    return builder.finish([source], [target])


@pytest.mark.parametrize(
    "model",
    [
        function("EXP"),
        function("LOG", -128),
        function("RSQRT", -128),
        function("SQUARED_DIFFERENCE", constant=77),
        function("PRELU", constant=-30),
    ],
    ids=["EXP", "LOG", "RSQRT", "SQUARED_DIFFERENCE", "PRELU"],
)
def test_functions_of_one_element(model):
    check_model(model, Q)
    assert forms(model) == ["TABLE"]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=9),
    st.integers(-128, 127),
    st.sampled_from([0.05, 0.1, 0.37]),
    st.sampled_from([np.int8, np.uint8]),
)
def test_prelu(slopes, zero_point, scale, dtype):
    offset, num_c = 128 * (dtype == np.uint8), len(slopes)
    builder = ModelBuilder()
    source = builder.tensor((1, 4, 3, num_c), dtype, 0.05, offset + 3)
    alpha = builder.tensor((1, 1, num_c), dtype, 0.01, offset + zero_point, data=np.array(slopes) + offset)
    target = builder.tensor((1, 4, 3, num_c), dtype, scale, offset - 20)
    builder.op("PRELU", [source, alpha], [target])
    model = builder.finish([source], [target])
    check_model(model, Q)
    assert forms(model)[-1] == ("TABLE" if len(set(slopes)) == 1 else "MAXIMUM")
