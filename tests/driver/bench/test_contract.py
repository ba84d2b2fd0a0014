"""`convoy bench contract`: what it measures, how it judges, what it writes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from convoy.driver import cli
from convoy.driver.bench import case as case_module
from convoy.driver.bench import contract, plots, show
from convoy.driver.bench.case import (
    CYCLES,
    EXTRA_READ,
    FETCHED,
    REFUSED,
    ROOFLINE,
    UTILISATION,
    Case,
    Measurement,
    Setup,
    judge,
)
from convoy.driver.bench.measure import measure_all
from convoy.driver.workload.synthetic import LayerSpec
from convoy.spec.config import PRESETS, NpuConfig

CONFIG = NpuConfig(
    num_cores=1,
    num_lanes=8,
    num_acc_entries=16,
    post_lanes=2,
    stripe_bytes=4096,
    window_words=16,
    weight_fifo_beats=32,
    tp_buffer_bytes=1024,
)
"""Small, so that it is compiled quickly."""
PADDED = LayerSpec("conv", (6, 6, 4), 4, (3, 3), pads=(1, 1, 1, 1))
WHOLE = LayerSpec("conv", (8, 8, 4), 4, (3, 3))
TOO_LARGE = LayerSpec("conv", (40, 40, 600), 1, (1, 1))
ROW_KEYS = {
    "rule",
    "group",
    "name",
    "config",
    "layer",
    "cycles",
    "tp_cycles",
    "read_bytes",
    "write_bytes",
    "weight_bytes",
    "utilisation",
    "engines",
    "twin",
    "metric",
    "value",
    "limit",
    "relation",
    "ok",
    "bit_exact",
    "refusal",
}


def small_cases(npu):
    padded, whole = Setup(PADDED, npu), Setup(WHOLE, npu)
    yield Case(1, "pads", "pads 1,1,1,1", padded, CYCLES, 1.05, whole)
    yield Case(1, "pads", "pads 1,1,1,1", padded, EXTRA_READ, 0, whole)
    yield Case(1, "refusals", "600 channels", Setup(TOO_LARGE, npu), REFUSED, 1)


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Runs `convoy bench contract` with few small cases: (exit code, stdout, stderr)."""
    config = tmp_path / "small.toml"
    config.write_text(CONFIG.to_toml())
    for module in (contract, show, plots):
        monkeypatch.setattr(module, "RULES", {1: contract.Rule("Few cases", small_cases)})

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convoy", "bench", "contract", "--config", str(config), *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return call


def test_table_json_and_page(bench, tmp_path):
    code, out, err = bench("--jobs", 1, "--json", tmp_path / "1.json", "--html", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "Rule 1: Few cases" in out
    assert "3 rows, 3 with a limit: 0 missed; 0 not bit-exact" in out
    report = json.loads((tmp_path / "1.json").read_text())
    assert list(report) == ["config", "rows"]
    assert [set(row) for row in report["rows"]] == [ROW_KEYS] * 3
    cycles, extra, refused = report["rows"]
    assert cycles["layer"]["pads"] == [1, 1, 1, 1]
    assert cycles["twin"]["layer"]["input_hwc"] == [8, 8, 4]
    assert cycles["value"] == cycles["cycles"] / cycles["twin"]["cycles"]
    assert cycles["utilisation"] == 6 * 6 * 4 * 9 * 4 / (cycles["cycles"] * 8)
    assert cycles["read_bytes"] < extra["twin"]["read_bytes"]
    assert (extra["value"], cycles["bit_exact"], extra["ok"]) == (0, True, True)
    assert (refused["cycles"], refused["bit_exact"], refused["ok"]) == (None, None, True)
    assert "exceed the stripe memory of 4096 bytes" in refused["refusal"]
    page = (tmp_path / "page.html").read_text()
    assert page.count('vegaEmbed("#chart-1-1"') == 1
    code, out, _ = bench("--jobs", 2, "--json", "-")
    assert (code, json.loads(out)) == (0, report)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--rules", "1,9"), "--rules 1,9: give numbers out of 1"),
        (("--jobs", "0"), "--jobs"),
        (("--config", "Z"), "neither a preset"),
    ],
)
def test_wrong_options(bench, args, message):
    code, out, err = bench(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_layer_that_is_refused_misses_its_limit():
    setup = Setup(TOO_LARGE, CONFIG)
    cases = [
        Case(4, "kernels", "11x11", setup, UTILISATION, 0.5),
        Case(4, "kernels", "11x11", setup, CYCLES, 1.0, Setup(PADDED, CONFIG)),
    ]
    measured = measure_all([setup], 1, device_name="golden") | {Setup(PADDED, CONFIG): Measurement(cycles=10)}
    assert [(row.value, row.ok, row.to_dict()["cycles"]) for row in judge(cases, measured)] == [(None, False, None)] * 2


def test_a_difference_is_not_exact_even_in_the_twin():
    setup, twin = Setup(PADDED, CONFIG), Setup(WHOLE, CONFIG)
    (row,) = judge(
        [Case(1, "pads", "x", setup, CYCLES, 1.0, twin)],
        {setup: Measurement(cycles=10, bit_exact=True), twin: Measurement(cycles=10, bit_exact=False)},
    )
    assert (row.ok, row.is_exact, row.to_dict()["bit_exact"]) == (True, False, False)


def test_limits_are_on_the_right_side():
    setup = Setup(PADDED, CONFIG)
    for metric, found, limit, ok in (
        (UTILISATION, 4608 // 8, 1.0, True),
        (UTILISATION, 4608 // 8 + 1, 1.0, False),
        (CYCLES, 99, 1.0, True),
        (CYCLES, 100, 1.0, True),
        (CYCLES, 101, 1.0, False),
    ):
        measured = {
            setup: Measurement(cycles=found, macs=4608, num_weights=1, num_nonzero=1),
            Setup(WHOLE, CONFIG): Measurement(cycles=100),
        }
        (row,) = judge([Case(1, "pads", "x", setup, metric, limit, Setup(WHOLE, CONFIG))], measured)
        assert row.ok is ok, (metric.name, found)


def test_weight_bytes_by_hand():
    """Half of 16 weights, read twice; the dense layer reads them once."""
    dense = Measurement(weight_bytes=16, num_weights=16, num_nonzero=16)
    found = Measurement(weight_bytes=40, num_weights=16, num_nonzero=8)
    assert FETCHED.value(Setup(PADDED, CONFIG), found, dense) == 40 / 8


def test_limits_of_weight_bytes():
    """A bit for each place, half of them with 8 bits of a value: 10 bits for each value."""
    limits = {
        case.setup.layer.density: case.limit
        for case in contract.RULES[7].cases(PRESETS["Q"])
        if case.metric is FETCHED and case.group == "sparse 3x3"
    }
    assert limits[1.0] == contract.SPARE_BYTES
    assert limits[0.5] == pytest.approx(contract.SPARE_BYTES * 10 / 8)
    assert limits[0.1] is None


def test_roofline_by_hand():
    """6x6x4 bytes and 144 weights in, 6x6x4 bytes out, 8 bytes a cycle; 9216 multiplications by 8 lanes, or 1/100 of
    them.
    """
    dense = Measurement(cycles=2000, macs=9216, num_weights=144, num_nonzero=144)
    assert ROOFLINE.value(Setup(PADDED, CONFIG), dense, dense) == 1152 / 2000
    sparse = replace(dense, macs=92, cycles=64)
    assert ROOFLINE.value(Setup(PADDED, CONFIG), sparse, sparse) == (36 * 4 + 144) / 8 / 64


def test_markdown_and_images(tmp_path):
    """A chart of each group that has one, above the group's table; a layer that was refused, and one that misses its
    limit.
    """
    padded, whole = Setup(PADDED, CONFIG), Setup(WHOLE, CONFIG)
    found = {
        padded: Measurement(cycles=106, macs=4608, bit_exact=True),
        whole: Measurement(cycles=100, macs=4608, bit_exact=True),
        Setup(TOO_LARGE, CONFIG): Measurement(refusal="too large"),
    }
    rows = judge(list(small_cases(CONFIG)), found)
    images = plots.write_images(rows, tmp_path)
    assert images == {"pads": tmp_path / "contract-pads.svg"}
    assert images["pads"].read_text().startswith("<svg")
    lines = show.markdown(rows, {"pads": "pads.svg"})
    assert [line for line in lines if line.startswith(("#", "!"))] == [
        "## Rule 1: Padding costs nothing",
        "### Pads",
        "![pads](pads.svg)",
        "### Refusals",
    ]
    assert [line.split(" | ")[-2:] for line in lines if line.startswith("| ") and not line.startswith("| layer")] == [
        ["NO", "yes |"],
        ["yes", "yes |"],
        ["yes", "- |"],
    ]


def test_the_rules_cover_the_contract():
    cases = contract.contract_cases(PRESETS["Q"])
    layers = {case.setup.layer for case in cases}
    assert {case.rule for case in cases} == set(contract.RULES)
    assert {layer.stride for layer in layers} >= {(step, step) for step in range(1, 9)} | {(1, 2), (3, 1)}
    assert {layer.pads for layer in layers} >= {(7, 7, 7, 7)}
    assert {layer.kernel for layer in layers} >= {(size, size) for size in range(1, 11)} | {(1, 7), (7, 1), (21, 21)}
    assert {layer.num_oc for layer in layers} >= set(range(1, 18))
    assert {case.setup.npu.num_cores for case in cases if case.group == "scaling"} == {2, 4, 8, 16}
    assert all(
        case.twin is not None
        for case in cases
        if case.metric in (CYCLES, EXTRA_READ, case_module.EXTRA_CYCLES, case_module.SPEEDUP)
    )
    assert all(case.twin.layer.output_hw == case.setup.layer.output_hw for case in cases if case.rule == 1)
