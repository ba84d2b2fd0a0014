"""Operators as networks of their own, in the layout of the graph; tables of all their results."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from convoy.driver.ort.runtime import OrtError
from convoy.driver.ort.unit import OnnxUnit, Port, from_image, to_image


def _unit(kind, constants, inputs, outputs, domain=""):
    names = [*inputs, *constants]
    node = onnx.helper.make_node(kind, names, list(outputs), domain=domain)
    ports = [
        tuple(Port(name, place, *form) for place, (name, form) in enumerate(forms.items()))
        for forms in (inputs, outputs)
    ]
    return OnnxUnit((node.SerializeToString(),), constants, *ports, (("", 17), ("com.microsoft", 1)))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4)])
def test_images_have_channels_last_and_four_axes(shape):
    values = np.arange(np.prod(shape)).reshape(shape)
    image = to_image(values)
    assert image.shape == (2, *((1, 4) if len(shape) == 3 else (4, 5)), 3)
    np.testing.assert_array_equal(from_image(image, len(shape)), values)


def test_inputs_and_outputs_are_in_the_layout_of_the_graph():
    shape, dtype = (1, 2, 3, 3), np.dtype(np.float32)
    unit = _unit("GlobalMaxPool", {}, {"x": (shape, dtype, True)}, {"y": ((1, 2, 1, 1), dtype, False)})
    values = np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2)
    (found,) = unit.run(unit.load(), [values])
    assert found.reshape(-1).tolist() == [16, 17]
    wrong = _unit("GlobalMaxPool", {}, {"x": (shape, dtype, True)}, {"y": ((1, 9, 1, 1), dtype, False)})
    with pytest.raises(OrtError, match=r"float32 \[1, 2, 1, 1\] for 'y', not float32 \[1, 9, 1, 1\]"):
        wrong.run(wrong.load(), [values])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_table_has_the_result_for_each_byte(dtype):
    form = ((1, 4), np.dtype(dtype), False)
    limits = {"low": np.array(9, dtype), "high": np.array(99, dtype)}
    table = _unit("Clip", limits, {"x": form}, {"y": form}).table()
    shift = 128 if dtype is np.uint8 else 0
    for x in (-128, -1, 0, 50, 127):
        assert table[x & 255] == min(max(x, 9 - shift), 99 - shift)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_pairs_have_the_result_for_each_two_bytes(dtype):
    form, shift = ((4,), np.dtype(dtype), False), 128 if dtype is np.uint8 else 0
    pairs = _unit("Max", {}, {"a": form, "b": form}, {"y": form}).pairs()
    for a, b in ((-128, 3), (100, -100), (127, 127)):
        assert pairs[a + 128, b + 128] == max(a, b)
    assert shift in (0, 128)
