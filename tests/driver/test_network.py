"""Networks in Python: the same results and figures as the commands, and one clear error for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convoy.driver
from convoy.driver.cli import app
from convoy.driver.errors import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.workload.reference import run_reference

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def network():
    return convoy.driver.load(DIGITS, "S", clock="62 MHz")


def test_outputs_are_those_of_the_reference(network):
    graph = read_tflite(DIGITS)
    image = np.random.default_rng(3).integers(-128, 128, graph.tensors[graph.inputs[0]].shape, np.int8)
    expected = run_reference(DIGITS.read_bytes(), [image])[graph.outputs[0]]
    outputs = network.run(image, device="golden", reference=True)
    assert np.array_equal(outputs.value(), expected)
    assert outputs.report["bit_exact"] is True
    assert outputs.mismatches == ()
    assert outputs.real().sum() == pytest.approx(1, abs=0.05)  # probabilities


def test_real_numbers_are_quantised(network):
    (info,) = network.inputs
    real = np.random.default_rng(1).uniform(0, 1, info.shape[1:])
    quantised = np.clip(np.rint(real / info.scale) + info.zero_point, -128, 127).astype(np.int8)
    found, expected = (network.run(x, device="golden").value() for x in (real, {info.name: quantised}))
    assert np.array_equal(found, expected)


def test_figures_are_those_of_the_command(network, tmp_path):
    app(["estimate", str(DIGITS), "--config", "S", "--json", str(tmp_path / "report.json")], standalone_mode=False)
    report, expected = network.estimate(), json.loads((tmp_path / "report.json").read_text())
    assert report.cycles == expected["cycles"] > 0
    assert report.layers == expected["layers"]
    assert report.milliseconds == pytest.approx(report.cycles / 62e3)


def test_reports_are_shown_and_saved(network, tmp_path):
    report = network.estimate()
    assert f"{report.cycles:,} cycles" in str(report)
    assert f"<td>{report.cycles:,}</td>" in report._repr_html_()
    for name in ("report.json", "report.csv"):
        report.save(tmp_path / name)
    assert json.loads((tmp_path / "report.json").read_text()) == dict(report)
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + len(report.layers) + len(report["host_ops"])
    with pytest.raises(GraphError, match=r"report\.txt: a report is written as \.json or \.csv"):
        report.save(tmp_path / "report.txt")


def test_a_profile_writes_its_timeline(network, tmp_path):
    report = network.profile(trace=tmp_path / "trace", device="model")
    assert report.cycles == network.estimate().cycles
    assert (tmp_path / "trace").stat().st_size > 0


def test_an_image_is_taken_as_its_file_is(network, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "x.png")
    given, read = (network.run(value, device="golden").value() for value in (image, tmp_path / "x.png"))
    np.testing.assert_array_equal(given, read)
    with pytest.raises(GraphError, match="the image: has more than 8 bits"):
        network.run(Image.fromarray(pixels.astype(np.int32)), device="golden")


def test_axes_of_1_may_be_left_out(network, tmp_path):
    real = np.random.default_rng(2).uniform(0, 1, (8, 8))
    expected = network.run(real.reshape(1, 8, 8, 1), device="golden").value()
    np.save(tmp_path / "real.npy", real)
    for value in (real, tmp_path / "real.npy", real.tolist()):
        np.testing.assert_array_equal(network.run(value, device="golden").value(), expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((1, 8, 8, 3)), "shape"),
        (np.full((8, 8, 1), 200), "beyond int8"),
        (np.full((8, 8, 1), np.nan), "not finite"),
        (np.full((8, 8, 1), "x"), "neither int8 nor real numbers"),
        ({"other": np.zeros((8, 8, 1))}, "values are given for other"),
    ],
)
def test_values_that_do_not_fit(network, value, message):
    with pytest.raises(GraphError, match=message):
        network.run(value, device="golden")


def test_what_is_not_there(network):
    with pytest.raises(GraphError, match="no device 'silicon'"):
        network.run(device="silicon")
    with pytest.raises(GraphError, match="no output 'x'; it has"):
        network.run(device="golden").real("x")
    assert convoy.driver.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="no attribute nothing"):
        convoy.driver.nothing  # noqa: B018
