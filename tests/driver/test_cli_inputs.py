"""Input values from files, images and seeds; synthetic layers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from convoy.driver.graph.check import check_graph
from convoy.driver.graph.graph import GraphError, Quant, Tensor
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.plan.macs import dense_macs
from convoy.driver.workload.inputs import load_input, load_steps, random_inputs
from convoy.driver.workload.reference import run_reference
from convoy.driver.workload.synthetic import LayerSpec, make_layer


def tensor(shape, scale=1 / 255, zero_point=-128, dtype=np.int8) -> Tensor:
    return Tensor(
        0, "x", shape, np.dtype(dtype), Quant(np.array([scale], np.float32), np.array([zero_point], np.int64))
    )


def test_random_inputs_repeat_and_cover_the_range():
    a, b = (random_inputs([tensor((1, 64, 64, 3))], 7)[0] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert (a.min(), a.max()) == (-128, 127)
    assert not np.array_equal(a, random_inputs([tensor((1, 64, 64, 3))], 8)[0])


def test_npy_of_the_tensors_dtype_is_taken_as_it_is(tmp_path):
    values = np.arange(-6, 6, dtype=np.int8).reshape(2, 2, 3)
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(load_input(tmp_path / "x.npy", tensor((1, 2, 2, 3))), values[np.newaxis], strict=True)


def test_floats_are_quantised(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0.0, 0.2, 1.0, 7.0]]))
    np.testing.assert_array_equal(
        load_input(tmp_path / "x.npy", tensor((1, 4))), np.array([[-128, -77, 127, 127]], np.int8), strict=True
    )


@pytest.mark.parametrize(
    ("scale", "zero_point", "expected"),
    [(1 / 255, -128, [-128, 127]), (2 / 255, 0, [-128, 127]), (1.0, -128, [-128, 127])],
)
def test_pixels_are_mapped_to_what_the_tensor_represents(tmp_path, scale, zero_point, expected):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "x.png")
    values = load_input(tmp_path / "x.png", tensor((1, 1, 2, 1), scale, zero_point)).reshape(-1)
    assert np.abs(values.astype(int) - expected).max() <= 1


def test_images_are_resized_and_coloured(tmp_path):
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "x.png")
    values = load_input(tmp_path / "x.png", tensor((1, 8, 6, 3)))
    assert values.shape == (1, 8, 6, 3)
    assert (values == 127).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "cannot be read"),
        ("none.png", None, "cannot be read"),
        ("bad.npy", b"rubbish", "cannot be read as a numpy array"),
        ("bad.png", b"rubbish", "cannot be read as an image"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GraphError, match=message):
        load_input(tmp_path / name, tensor((1, 2, 2, 3)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 2, 3), np.int8), "shape"),
        (np.zeros((1, 2, 2, 3), np.int16), "dtype int16"),
        (np.full((1, 2, 2, 3), np.nan), "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(GraphError, match=message):
        load_input(tmp_path / "x.npy", tensor((1, 2, 2, 3)))


def test_one_input_is_not_a_batch(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(
        GraphError, match=r"is one image, and the input x takes 4 at once; give a \.npy file of \[4, 2,"
    ):
        load_input(tmp_path / "x.png", tensor((4, 2, 2, 3)))
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(GraphError, match=r"shape \[2, 2, 3\] does not fit the input x \[4, 2, 2, 3\]"):
        load_input(tmp_path / "x.npy", tensor((4, 2, 2, 3)))


def test_successive_inputs_lie_along_the_first_axis(tmp_path):
    values = np.arange(-12, 12, dtype=np.int8).reshape(4, 2, 3)
    np.save(tmp_path / "x.npy", values)
    for shape in ((1, 2, 3), (2, 3)):
        found = load_steps(tmp_path / "x.npy", tensor(shape), 4)
        np.testing.assert_array_equal(np.stack(found).reshape(values.shape), values)
    with pytest.raises(
        GraphError, match=r"shape \[4, 2, 3\] does not fit the input x \[1, 2, 3\]; give \[3, 1, 2, 3\]"
    ):
        load_steps(tmp_path / "x.npy", tensor((1, 2, 3)), 3)
    with pytest.raises(GraphError, match="an image is one input"):
        load_steps(tmp_path / "x.png", tensor((1, 2, 3)), 3)


SPECS = [
    LayerSpec("conv", (12, 10, 6), 7, (3, 3), (1, 1), (1, 1, 1, 1)),
    LayerSpec("conv", (12, 10, 6), 7, (5, 2), (2, 1), (0, 3, 1, 0), density=0.25, activation="relu6"),
    LayerSpec("depthwise", (9, 9, 4), 8, (3, 3), (2, 2), activation="relu"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.op)
def test_a_synthetic_layer_is_sound_and_does_not_saturate(spec):
    made = make_layer(spec, 3)
    tensors = made.graph.tensors
    x = random_inputs([tensors[0]], 1)[0]
    y = run_reference(made.reference_model, [x])[3]
    assert y.shape == tensors[3].shape == (1, *spec.output_hw, spec.num_oc)
    low, high = np.mean(y == y.min()), np.mean(y == y.max())
    assert high < 0.3
    assert low < (0.7 if spec.activation != "none" else 0.1)
    assert np.unique(y).size > 50
    weights = tensors[1].data
    assert np.count_nonzero(weights) == round(weights.size * spec.density)
    check_graph(read_tflite(made.reference_model))


def test_macs_of_synthetic_layers():
    macs = [dense_macs(made.graph, made.graph.ops[0]) for made in map(make_layer, SPECS)]
    assert macs == [12 * 10 * 7 * 9 * 6, 6 * 10 * 7 * 10 * 6, 4 * 4 * 8 * 9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "pool"}, "--op pool"),
        ({"activation": "tanh"}, "--activation tanh"),
        ({"density": 0.0}, "--density"),
        ({"density": 1.5}, "--density"),
        ({"kernel": (9, 1)}, "larger than the padded input"),
        ({"kernel": (0, 1)}, "at least 1"),
        ({"op": "depthwise", "num_oc": 3}, "multiple of its 2"),
    ],
)
def test_impossible_layers_are_refused(changes, message):
    with pytest.raises(GraphError, match=message):
        LayerSpec(**{"op": "conv", "input_hwc": (8, 8, 2), "num_oc": 4, "kernel": (3, 3)} | changes)
