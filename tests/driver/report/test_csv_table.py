"""Layers as a table for spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

import convoy.driver
from convoy.driver.report.csv_table import layers_csv

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def test_every_operator_has_a_line():
    report = convoy.driver.load(DIGITS, "S").estimate()
    rows = list(csv.DictReader(layers_csv(report).splitlines()))
    layers = {row["number"]: row for row in rows}
    assert len(rows) == len(report.layers) + len(report["host_ops"])
    assert [row["engine"] for row in rows].count("cpu") == len(report["host_ops"])
    for layer in report.layers:
        row = layers[layer["number"]]
        assert int(row["cycles"]) == layer["cycles"]
        assert {cause: float(row[f"lost_{cause}"]) for cause in layer["lost"]} == layer["lost"]
