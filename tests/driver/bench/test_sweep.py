"""A network on many configurations."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import convoy.driver
from convoy.driver.bench.area import area_model, estimate_area
from convoy.driver.bench.sweep import Point, configurations, mark_best, sweep, write_sweep_page
from convoy.driver.cli import app
from convoy.driver.errors import GraphError
from convoy.driver.graph.reader import read_network
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def point(cycles, sites, block_rams):
    return Point({}, 16, 1024, cycles, None, 0, 0.5, sites, sites, block_rams, 16)


def test_every_combination_is_estimated_as_by_itself():
    choices = configurations(PRESETS["S"], ["num_cores=1,2", "post_lanes=2,64"])
    with ThreadPoolExecutor(1) as executor:
        points = sweep(read_network(DIGITS), choices, MemoryModel(), None, executor)
    assert [point.parameters for point in points] == [
        {"num_cores": cores, "post_lanes": lanes} for cores in (1, 2) for lanes in (2, 64)
    ]
    for point in points:
        if point.parameters["post_lanes"] == 64:
            assert "post_lanes = 64 is not legal" in point.refusal
        else:
            config = PRESETS["S"].with_(**point.parameters)
            plan = convoy.driver.load(DIGITS, config).estimate()
            assert point.cycles == pytest.approx(plan.cycles, rel=0.02)  # deployed, tensors share memory
            assert point.multipliers == config.macs_per_cycle
            assert point.sites == estimate_area(config).sites


def test_features_are_true_or_false():
    choices = configurations(PRESETS["Q"], ["has_int16=true,false", "num_cores=1"])
    assert [config.has_int16 for _, config in choices] == [True, False]
    assert "use true or false" in configurations(PRESETS["Q"], ["has_int16=1"])[0][1]


def test_best_points():
    points = mark_best([point(100, 16, 10), point(90, 32, 10), point(95, 32, 9), point(90, 64, 10), point(None, 1, 1)])
    assert [each.is_best for each in points] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "no configurations"),
        (["num_cores"], "give PARAMETER=VALUE"),
        (["num_cores=1,,2"], "give PARAMETER=VALUE"),
        (["num_cores=-1"], "give PARAMETER=VALUE"),
        (["has_lut=yes"], "has_int16=true,false"),
        (["cores=1"], "'cores' is no parameter; there are num_cores"),
        (["num_cores=1", "num_cores=2"], "'num_cores' is given twice"),
        (["max_reads=" + ",".join(map(str, range(1001)))], "1001 configurations"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(GraphError, match=message):
        configurations(PRESETS["Q"], settings)


def test_nothing_to_compare():
    choices = configurations(PRESETS["S"], ["num_cores=3"])
    with ThreadPoolExecutor(1) as executor, pytest.raises(GraphError, match="nothing to compare: num_cores = 3 is not"):
        sweep(read_network(DIGITS), choices, MemoryModel(), None, executor)


def test_the_page_says_what_was_refused(tmp_path):
    pytest.importorskip("altair", reason="needs the extra plots")
    refused = Point({"num_cores": 3}, 0, 0, None, None, None, None, refusal="num_cores = 3 is not legal")
    ran = Point({"num_cores": 4}, 64, 129024, 7407, 0.5, 38158, 0.486)
    write_sweep_page(tmp_path / "page.html", "folder/model.tflite", mark_best([ran, refused]))
    page = (tmp_path / "page.html").read_text()
    assert "<h1>model.tflite on 2 configurations</h1>" in page
    assert "num_cores = 3 is not legal</td>" in page
    assert ">7,407</td><td>0.500</td>" in page


def test_the_command(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.json", "a.csv")]
    command = ["sweep", str(DIGITS), "--set", "num_cores=1,4", "--jobs", "1", "--clock", "1MHz"]
    app([*command, "--json", files[0], "--csv", files[1]], standalone_mode=False)
    points = json.loads(Path(files[0]).read_text())["points"]
    rows = list(csv.DictReader(Path(files[1]).read_text().splitlines()))
    assert [int(row["num_cores"]) for row in rows] == [1, 4]
    assert [int(row["cycles"]) for row in rows] == [point["cycles"] for point in points]
    assert points[0]["milliseconds"] == pytest.approx(points[0]["cycles"] / 1000)
    assert [int(row["lut4"]) for row in rows] == [point["lut4"] for point in points]
    printed = capsys.readouterr().out
    assert f"{points[0]['cycles']:,}" in printed
    assert f"{points[0]['sites']:,}" in printed
    assert f"LUT4 {area_model()['LUT4'].mean_error:.1%} on average" in printed
