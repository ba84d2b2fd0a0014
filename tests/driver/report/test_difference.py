"""Two reports side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import convoy.driver
from convoy.driver.cli import app
from convoy.driver.errors import GraphError
from convoy.driver.report.difference import difference, read_report

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def reports():
    return {name: convoy.driver.load(DIGITS, name, clock="62MHz").estimate() for name in ("S", "Q")}


def test_sums_of_layers_are_those_of_the_whole(reports):
    found = difference(reports["S"], reports["Q"])
    for side, name in enumerate(("S", "Q")):
        cycles = sum(layer["cycles"][side] for layer in found["layers"])
        assert cycles + reports[name]["end_cycles"] == found["total"]["cycles"][side] == reports[name].cycles
    assert found["total"]["milliseconds"][0] == pytest.approx(reports["S"].cycles / 62e3)


def test_layers_that_only_one_has(reports):
    shorter = dict(reports["S"]) | {"layers": reports["S"].layers[1:]}
    layers = {layer["number"]: layer for layer in difference(shorter, reports["S"])["layers"]}
    assert layers["0"]["cycles"] == [None, reports["S"].layers[0]["cycles"]]
    assert layers["1"]["cycles"][0] == layers["1"]["cycles"][1]


def test_the_command(reports, tmp_path, capsys):
    for name, report in reports.items():
        report.save(tmp_path / f"{name}.json")
    paths = [str(tmp_path / f"{name}.json") for name in ("S", "Q")]
    app(["compare", *paths], standalone_mode=False)
    shown = capsys.readouterr().out
    assert f"cycles: {reports['S'].cycles:,} and {reports['Q'].cycles:,}" in shown
    app(["compare", *paths, "--json", "-"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == difference(reports["S"], reports["Q"])
    app(["compare", paths[0], paths[0]], standalone_mode=False)
    assert f"{len(reports['S'].layers)} layers are the same in both" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "{}", '{"layers": 1}', '{"layers": [1]}', '{"layers": [{"number": 1}]}', "[" * 100_000, "\x00"],
)
def test_what_is_no_report(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(GraphError, match=r"a\.json: is not "):
        read_report(tmp_path / "a.json")


def test_a_report_that_is_not_there(tmp_path):
    with pytest.raises(GraphError, match=r"a\.json: cannot be read: No such file") as caught:
        read_report(tmp_path / "a.json")
    assert "JSON" not in str(caught.value)
