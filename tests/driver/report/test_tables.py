"""Tables: a figure is never cut, whatever the width; without a terminal nothing is left out."""

from __future__ import annotations

import io
import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from convoy.driver.bench import show as bench_show
from convoy.driver.bench import speed_show
from convoy.driver.bench.case import Measurement, judge
from convoy.driver.bench.contract import contract_cases
from convoy.driver.bench.peer import Peer
from convoy.driver.bench.show import print_rows
from convoy.driver.bench.speed import Speed
from convoy.driver.bench.speed_show import print_speeds
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report import plan_report
from convoy.driver.report import report as report_module
from convoy.driver.report.plan_report import print_plan
from convoy.driver.report.report import build_report, print_report
from convoy.driver.report.tables import meanings_text, print_table, short_name, stdout_console
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import Estimator, estimate
from convoy.driver.workload.prune import PrunedLayer, print_pruned
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
BIG = 12_345_678_901
"""Larger than any figure of a real report."""
NAME = "a_name_of_an_operator_that_is_long/and has [blanks], [/tags] and [bold]brackets"


class Screen(io.StringIO):
    """A terminal, or not."""

    def __init__(self, is_terminal: bool):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@lru_cache
def digits_report() -> dict:
    """Of a real network, with large figures."""
    plan, memory = compile_graph(read_tflite(DIGITS), PRESETS["S"], keep_tensors=True), MemoryModel()
    report, _ = build_report(
        plan,
        Estimator(memory),
        estimate(plan, memory),
        model="m",
        config="S",
        device_name="estimate",
        reference="none",
        expected=None,
    )
    for layer in report["layers"]:
        layer |= {name: BIG for name in ("cycles", "macs", "read_bytes", "write_bytes", "weight_bytes")}
    return report


def report_table(console):
    print_report(digits_report(), console)


def plan_table(console):
    row = {
        "number": "123",
        "op": "DEPTHWISE_CONV_2D",
        "engine": "host",
        "descriptors": BIG,
        "macs": BIG,
        "stored_weight_bytes": BIG,
        "reason": NAME,
    }
    totals = {"descriptors": BIG, "image_bytes": BIG, "memory_bytes": BIG}
    print_plan({"ops": [row], "notes": [NAME], "host_groups": [], **totals}, console)


def pruned_table(console):
    print_pruned([PrunedLayer(123, NAME, BIG, BIG // 2, BIG)], console)


def speed_table(console):
    print_speeds([Speed(NAME, "Q", 64, BIG, BIG, True, (), peer=Peer("ethos-u55-64", BIG, 5))], console)


def contract_table(console):
    cases = contract_cases(PRESETS["S"], (1,))[:4]
    found = Measurement(
        cycles=BIG,
        read_bytes=BIG,
        write_bytes=BIG,
        weight_bytes=BIG,
        macs=BIG,
        bit_exact=True,
        num_weights=5,
        num_nonzero=5,
    )
    print_rows(judge(cases, {setup: found for case in cases for setup in case.setups}), console)


TABLES = [report_table, plan_table, pruned_table, speed_table, contract_table]


def printed(monkeypatch, show, width: int, is_terminal: bool) -> str:
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    show(stdout_console())
    return screen.getvalue()


def figures(text: str) -> set[str]:
    return set(re.findall(r"[\d,.%]+", text))


@pytest.mark.parametrize("show", TABLES)
@pytest.mark.parametrize("width", [10, 40, 80, 120])
def test_no_command_cuts_a_figure(monkeypatch, show, width):
    whole, narrow = printed(monkeypatch, show, width, False), printed(monkeypatch, show, width, True)
    assert f"{BIG:,}" in whole
    assert "no room for" not in whole
    assert figures(narrow) <= figures(whole)
    assert "…" not in whole + narrow
    if width >= 80:
        assert max(map(len, narrow.split("\n\n")[0].splitlines()[:3])) <= width
        assert f"{BIG:,}" in narrow


@pytest.mark.parametrize(
    ("show", "titles", "meanings"),
    [
        (report_table, report_module._COLUMNS, report_module.COLUMN_MEANINGS),
        (plan_table, plan_report._COLUMNS, plan_report._COLUMN_MEANINGS),
        (speed_table, speed_show.COLUMNS + speed_show.PEER_COLUMNS, speed_show._MEANINGS | speed_show._PEER_MEANINGS),
        (contract_table, bench_show.COLUMNS, bench_show.COLUMN_MEANINGS),
    ],
)
def test_a_line_explains_columns_of_the_table(monkeypatch, show, titles, meanings):
    assert printed(monkeypatch, show, 80, False).splitlines().count(meanings_text(meanings)) == 1
    for explained in ", ".join(meanings).split(", "):
        assert any(explained in title for title in titles)


@pytest.mark.parametrize("show", [plan_table, pruned_table])
def test_names_are_literal(monkeypatch, show):
    assert NAME in printed(monkeypatch, show, 80, False)


def test_columns_are_left_out_in_their_order_and_named():
    def show(width: int) -> list[str]:
        screen = Screen(True)
        print_table(
            Console(file=screen, width=width, color_system=None, force_terminal=True),
            {"#": "right", "one": "right", "two": "right"},
            [["1", "1,000,000", "2,000,000"], ["2", "1", Text("2")]],
            ("one", "two"),
        )
        return screen.getvalue().splitlines()

    assert show(23) == ["#        one        two", "1  1,000,000  2,000,000", "2          1          2"]
    assert show(22) == ["#        two", "1  2,000,000", "2          2", "no room for one"]
    assert show(11) == ["#", "1", "2", "no room for one, two"]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model/activation_1/Relu;model/batch_norm_1/FusedBatchNormV3;model/conv2d_1/Conv2D", "conv2d_1"),
        ("model/dense/MatMul;model/dense/BiasAdd/ReadVariableOp", "dense"),
        ("output", "output"),
        ("/conv1/Conv_output_0", "conv1"),
        ("", ""),
        (";/", ";/"),
    ],
)
def test_short_names(name, short):
    assert short_name(name) == short
