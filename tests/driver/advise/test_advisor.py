"""Advice names what breaks a rule, and predicts what a change wins."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import convoy.driver
from convoy.driver.advise.advisor import advise, apply
from convoy.driver.cli import app
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Runtime
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimated_cycles
from convoy.spec.config import PRESETS

from .networks import offender


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("advise") / "model.tflite"
    path.write_bytes(offender())
    return convoy.driver.load(path)


@pytest.fixture(scope="module")
def graph(network):
    return network.graph


@pytest.fixture(scope="module")
def advised(network):
    return advise(network)


def cycles(graph):
    return estimated_cycles(graph, PRESETS["Q"], MemoryModel())


def test_every_offence_is_named_with_its_cost(advised):
    found = {(one.finding.rule, one.finding.name): one.finding for one in advised.advice}
    expected = {(2, "strided"), (3, "seventeen"), (5, "pool"), (6, "depthwise"), (4, "column"), (4, "wide")}
    assert expected <= found.keys()
    assert all(found[key].cost is not None for key in expected)
    assert found[3, "seventeen"].cost > 0


def test_gains_are_those_of_the_changed_network(graph, advised):
    assert advised.cycles == cycles(graph)
    assert [one.gain for one in advised.advice] == sorted((one.gain for one in advised.advice), reverse=True)
    assert advised.advice[0].gain > 0
    tried = [option for one in advised.advice for option in one.options if option.gain is not None]
    assert len(tried) > 5
    for option in tried[:3]:
        assert option.gain == advised.cycles - cycles(option.change.edit(graph))


def test_changes_are_applied(graph, advised):
    changed, done = apply(graph, advised.advice, 2)
    assert len(done) == 2
    assert cycles(changed) < advised.cycles - max(option.gain for _, option in done) / 2
    assert apply(graph, advised.advice, 0) == (graph, [])
    assert len(apply(graph, advised.advice, 1000)[1]) == sum(one.gain > 0 for one in advised.advice)


def test_zero_weights_win(advised):
    figures = list(advised.sparsity.values())
    assert figures == sorted(figures, reverse=True)
    assert figures[-1] < figures[0]


def test_the_command(advised, tmp_path, capsys):
    model, new = tmp_path / "model.tflite", tmp_path / "new.tflite"
    model.write_bytes(offender())
    app(
        ["advise", str(model), "--apply", "1", "-o", str(new), "--json", str(tmp_path / "a.json")],
        standalone_mode=False,
    )
    shown, report = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert "17 output channels on 4 cores" in shown
    assert "applied: operator" in shown
    assert report["applied"]["estimated_cycles"][1] == convoy.driver.load(new).estimate().cycles
    assert advised.cycles - report["applied"]["estimated_cycles"][1] == advised.advice[0].gain
    outputs = convoy.driver.load(new).run(device="golden", reference=True)
    assert outputs.report["bit_exact"] is True
    assert len(np.unique(outputs.value())) > 1


@pytest.mark.parametrize("args", [["--apply", "1"], ["-o", "x.tflite"], ["--measure"]])
def test_options_that_belong_together(args, tmp_path):
    (tmp_path / "model.tflite").write_bytes(offender())
    with pytest.raises(GraphError, match=r"--apply N"):
        app(["advise", str(tmp_path / "model.tflite"), *args], standalone_mode=False)


def test_networks_of_another_runtime(network, monkeypatch):
    monkeypatch.setattr(network, "graph", replace(network.graph, runtime=Runtime.ONNXRUNTIME))
    with pytest.raises(GraphError, match="advice is for TFLite networks"):
        advise(network)
