"""Small TFLite files, compiled and run on the golden machine, against LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import NpuStep, Plan
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.spec.config import NpuConfig

from .graphs import random_values, run_plan
from .litert import ModelBuilder, Quantisation, run_reference

__all__ = ["QUANT", "check_model", "one_op"]

QUANT: Quantisation = (0.05, 3)


def check_model(model: bytes, config: NpuConfig, num_host_steps: int = 0) -> Plan:
    """Compile a file and run it on the golden machine, with random inputs, tensors kept and not kept; the plan that
    keeps them.

    Raises
    ------
    AssertionError
        When a tensor is not LiteRT's, or another number of steps is left to the host; operators that hand their input
        on do not count.
    """
    loaded = load_tflite(model)
    graph, model = loaded.graph, loaded.data
    plan = compile_graph(graph, config, keep_tensors=True)
    inputs = random_values(graph, 0)
    expected, got = run_reference(model, list(inputs.values())), run_plan(plan, dict(inputs))
    for op in graph.ops:
        for output in op.outputs:
            if output not in got:
                kept = {made.index for made in plan.graph.ops}
                assert op.index not in kept or "is not stored" in plan.notes[op.index]
                continue
            np.testing.assert_array_equal(got[output], expected[output], err_msg=f"{op.index} {op.kind}")
    host_steps = [step for step in plan.steps if not isinstance(step, NpuStep)]
    assert sum(any(op.raw is not None for op in step.ops) for step in host_steps) == num_host_steps
    # dead tensors overwritten
    packed = run_plan(compile_graph(graph, config), dict(inputs))
    for index in graph.outputs:
        np.testing.assert_array_equal(packed[index], expected[index])
    return plan


def _constant(builder: ModelBuilder, values: Any) -> int:
    values = np.array(values, np.int32)
    return builder.tensor(values.shape, np.int32, data=values)


def one_op(
    kind: str,
    shape: Sequence[int],
    out_shape: Sequence[int],
    constants: Sequence[Any],
    quant: Quantisation = QUANT,
    out_quant: Quantisation = QUANT,
    dtype: type = np.int8,
    **options: Any,
) -> bytes:
    """A file of one operator on one activation of `dtype` and int32 constants."""
    builder = ModelBuilder(kind)
    source = builder.tensor(shape, dtype, *quant)
    inputs = [source, *(_constant(builder, values) for values in constants)]
    target = builder.tensor(out_shape, dtype, *out_quant)
    builder.op(kind, inputs, [target], **options)
    return builder.finish([source], [target])
