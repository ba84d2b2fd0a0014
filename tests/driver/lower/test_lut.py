"""Tables of unary operators against LiteRT's kernels: all 256 inputs, many scales, a third of them powers of two
that force ties.
"""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convoy.driver.graph.graph import GraphError, Quant
from convoy.driver.lower.lut import LUT_KINDS, make_lut
from convoy.verif.litert import reference_table, unary_model

OPTIONS = {
    "LEAKY_RELU": [{"alpha": alpha} for alpha in (0.1, 0.25, 0.3, 0.01, 1.5, 0.0)],
    "GELU": [{"approximate": False}, {"approximate": True}],
}
FIXED = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}


def quant(scale, zero_point):
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int64))


def quantisations(kind, count):
    """Pairs (scale, zero point) of input and output, and options."""
    rng = np.random.default_rng(1)
    for n in range(count):
        scales = 2.0 ** rng.integers(-9, 2, 2) if n % 3 == 0 else np.float32(10 ** rng.uniform(-3.5, 0.5, 2))
        source, target = zip(map(float, scales), map(int, rng.integers(-128, 128, 2)), strict=True)
        yield source, FIXED.get(kind, target), OPTIONS.get(kind, [{}])[n % len(OPTIONS.get(kind, [{}]))]


@pytest.mark.parametrize("kind", sorted(LUT_KINDS - {"ELU"}))
def test_tables_equal_the_reference_kernels(kind):
    for source, target, options in quantisations(kind, 60):
        if kind == "HARD_SWISH" and source[0] / 128 >= target[0]:
            with pytest.raises(GraphError, match="more than 1/128"):
                make_lut(kind, quant(*source), quant(*target), options)
            continue
        table = make_lut(kind, quant(*source), quant(*target), options)
        np.testing.assert_array_equal(
            table, reference_table(kind, source, target, **options), err_msg=f"{source} {target} {options}"
        )


def test_elu_equals_the_builtin_kernel():
    """BUILTIN_REF has no ELU; the kernel without delegates is compared."""
    inputs = np.arange(256, dtype=np.uint8).view(np.int8)
    for source, target, _ in quantisations("ELU", 60):
        interpreter = Interpreter(
            model_content=unary_model("ELU", (256,), source, target),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(0, inputs)
        interpreter.invoke()
        np.testing.assert_array_equal(
            make_lut("ELU", quant(*source), quant(*target), {}), interpreter.get_tensor(1), err_msg=f"{source} {target}"
        )


def test_a_table_worked_out_by_hand():
    table = make_lut("RELU", quant(0.5, 0), quant(1.0, 10), {})
    assert table[[0, 1, 2, 3, 127, 255, 128]].tolist() == [10, 11, 11, 12, 74, 10, 10]
