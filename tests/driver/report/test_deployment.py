"""Time at a clock frequency, and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.errors import GraphError
from convoy.driver.graph.reader import read_network
from convoy.driver.report.deployment import clock_of, memory_needs, parse_clock, placed_clock, time_needs
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


@pytest.mark.parametrize(
    ("text", "hertz"), [("62MHz", 62e6), (" 1.5 ghz", 1.5e9), ("500kHz", 5e5), ("32768 Hz", 32768)]
)
def test_clocks(text, hertz):
    assert parse_clock(text).hertz == pytest.approx(hertz)


@pytest.mark.parametrize("text", ["", "62", "MHz", "-1MHz", "0MHz", "1e3MHz", "9999999GHz", "62MHz62MHz"])
def test_no_clocks(text):
    with pytest.raises(GraphError, match="give a frequency with its unit, such as 62MHz"):
        parse_clock(text)


def test_time():
    needs = time_needs(62_000, parse_clock("62MHz"))
    assert needs["milliseconds"] == pytest.approx(1)
    assert needs["inferences_per_second"] == pytest.approx(1000)
    assert set(time_needs(None, None).values()) == {None}


def test_only_presets_that_were_placed_have_a_clock():
    placed = placed_clock(PRESETS["S"])
    assert placed is not None
    assert placed.hertz > 1e6
    assert "placed and routed on" in placed.source
    assert clock_of(None, PRESETS["S"]) == placed
    other = replace(PRESETS["S"], port_bits=128)
    assert clock_of(None, other) is None
    assert clock_of("5MHz", other).hertz == 5e6


@pytest.mark.parametrize("preset", ["S", "Q"])
def test_memory_is_that_of_the_deployed_network(preset):
    graph = read_network(DIGITS)
    kept, deployed = (compile_graph(graph, PRESETS[preset], keep_tensors=keep) for keep in (True, False))
    needs = memory_needs(kept)
    assert needs == memory_needs(deployed)
    assert needs["memory_bytes"] <= deployed.memory_bytes < kept.memory_bytes
    assert needs["memory_bytes"] > 0.95 * deployed.memory_bytes  # what is left are gaps before aligned addresses
