"""The reference: what LiteRT refuses, what it aborts on, and operator versions that its registry does not know."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.workload.reference import Compared, Reference, ReferenceFailed
from convoy.verif.litert import ModelBuilder, run_reference, softmax_model

FLAT, PEAK = np.zeros((1, 600), np.int8), np.eye(1, 600, dtype=np.int8) * 100


def depth_to_space(*versions: int) -> bytes:
    """One image for each version, interleaved."""
    builder = ModelBuilder()
    source = builder.tensor((1, 3, 5, 8), np.int8, 0.1, 3)
    outputs = [builder.tensor((1, 6, 10, 2), np.int8, 0.1, 3) for _ in versions]
    for version, output in zip(versions, outputs, strict=True):
        builder.op("DEPTH_TO_SPACE", [source], [output], version=version, blockSize=2)
    return builder.finish([source], outputs)


def test_later_versions_are_compared_as_the_last_one_known():
    values = np.arange(120, dtype=np.int8).reshape(1, 3, 5, 8)
    reference = Reference(depth_to_space(1, 2))
    assert reference.remark == (
        "compared with DEPTH_TO_SPACE of version 2 as version 1: same kernel, but LiteRT's reference registry ends "
        "there"
    )
    found, expected = reference.run([values]), run_reference(depth_to_space(1), values)[1]
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[2], expected)
    assert Reference(depth_to_space(1)).remark is None


def test_versions_that_no_registry_knows_are_refused():
    with pytest.raises(
        ReferenceFailed,
        match=r"^the reference \(LiteRT\) refuses the model: it has no kernel for DEPTH_TO_SPACE of version 99$",
    ):
        Reference(depth_to_space(99))
    assert (
        Compared(depth_to_space(99)).note
        == "the reference (LiteRT) refuses the model: it has no kernel for DEPTH_TO_SPACE of version 99"
    )


def test_an_abort_is_an_error_for_good_and_nobody_elses():
    model = softmax_model((1, 600), (0.1, 5))
    reference, other = Reference(model), Reference(model)
    message = r"^the reference \(LiteRT\) cannot run the model: it aborts \(its process ended without an answer\)$"
    with pytest.raises(ReferenceFailed, match=message):
        reference.run([FLAT])
    with pytest.raises(ReferenceFailed, match=message):  # its variables would be lost
        reference.run([PEAK])
    np.testing.assert_array_equal(other.run([PEAK])[1], run_reference(model, PEAK)[1])


def test_wrong_inputs_are_an_error():
    with pytest.raises(ReferenceFailed, match="Dimension mismatch"):
        Reference(softmax_model((1, 600), (0.1, 5))).run([FLAT[:, :5]])
    with pytest.raises(ReferenceFailed, match="shorter"):
        Reference(softmax_model((1, 600), (0.1, 5))).run([])


def test_a_run_goes_on_without_its_reference():
    compared = Compared(softmax_model((1, 600), (0.1, 5)))
    assert (compared.run([PEAK]) is not None, compared.note) == (True, None)
    assert compared.run([FLAT]) is None
    assert (
        compared.note == "the reference (LiteRT) cannot run the model: it aborts (its process ended without an answer)"
    )
    assert compared.run([PEAK]) is None
