"""Layers simulated independently: where a network may be cut, and that the number and kind of workers change
nothing.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from convoy.driver import cli
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.parallel import parts_of, run_parts
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker, evaluate

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"
CONV = {"padding": "SAME", "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "activation": "NONE"}


def _residual_graph():
    """Convolution, convolution, table, sum with the first result: the last three become one."""
    maker = GraphMaker(5)
    shape = 1, 12, 12, 8

    def conv(source):
        weights = maker.weights((8, 3, 3, 8), 8, 0)
        return maker.op(
            "CONV_2D", (source, weights, maker.tensor((8,), np.int32, np.zeros(8, np.int32))), shape, **CONV
        )

    source = maker.tensor(shape)
    first = conv(source)
    last = maker.op("LEAKY_RELU", (conv(first),), shape, alpha=0.1)
    return maker.graph([source], [maker.op("ADD", (last, first), shape, activation="NONE")])


def test_what_was_fused_stays_together():
    graph = _residual_graph()
    fused = compile_graph(graph, PRESETS["Q"], keep_tensors=True)
    assert [op.kind for op in graph.ops] == ["CONV_2D", "CONV_2D", "LEAKY_RELU", "ADD"]
    assert {index for index, note in fused.notes.items() if note.startswith("fused into")} == {2, 3}
    assert parts_of(fused) == [range(0, 1), range(1, 4)]
    assert parts_of(compile_graph(graph, PRESETS["Q"], keep_tensors=True, is_fusing=False)) == [
        range(n, n + 1) for n in range(4)
    ]


def test_parts_give_the_tensors_of_the_whole():
    graph = _residual_graph()
    tensors = evaluate(graph, random_inputs([graph.tensors[graph.inputs[0]]], 0))
    parts, done = parts_of(compile_graph(graph, PRESETS["S"], keep_tensors=True)), []
    with ThreadPoolExecutor(2) as executor:
        plan, execution = run_parts(graph, PRESETS["S"], parts, tensors, "golden", MemoryModel(), executor, done.append)
    assert sorted(done, key=lambda part: part.start) == parts
    assert [index for step in plan.steps for index in step.layers] == [0, 1, 2, 3]
    for index in (graph.ops[0].outputs[0], graph.outputs[0]):
        np.testing.assert_array_equal(execution.tensors[index], tensors[index])


def _run(monkeypatch, capsys, *options: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["convoy", "run", str(DIGITS), "--config", "S", "--json", "-", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    unexpected = [
        line for line in captured.err.splitlines() if "compiling the RTL" not in line
    ]  # said while the cache is cold
    assert (caught.value.code, unexpected) == (0, [])
    report = json.loads(captured.out)
    return {name: value for name, value in report.items() if not name.startswith("simulat")}


def test_reports_do_not_depend_on_the_workers(monkeypatch, capsys):
    from distributed import LocalCluster

    one, two = (_run(monkeypatch, capsys, "--jobs", count) for count in "12")
    assert one == two
    assert one["bit_exact"] is True
    assert one["cycles"] > 0
    assert {layer["bit_exact"] for layer in one["layers"]} <= {True, None}
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False) as cluster:
        assert _run(monkeypatch, capsys, "--scheduler", cluster.scheduler_address) == one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "--jobs and --scheduler exclude each other"),
        (["--device", "native", "--jobs", "2", "--waves", "w.vcd"], "--waves needs one device for all layers"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_refusals(monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["convoy", "run", str(DIGITS), "--device", "golden", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
