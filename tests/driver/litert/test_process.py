"""LiteRT's processes: deaths, forks and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.litert import process as litert_process
from convoy.driver.litert.process import SECONDS, LiteRT, LiteRTError, LiteRTTimeout, LoadedModel
from convoy.driver.lower.host_ops import HostGroup
from convoy.verif.litert import ModelBuilder, softmax_model

MODEL = softmax_model((1, 600), (0.1, 5))
FLAT, PEAK = np.zeros((1, 600), np.int8), np.eye(1, 600, dtype=np.int8) * 100
PROGRAM = """
import multiprocessing, os, signal, sys
import numpy as np
from convoy.driver.litert.process import LiteRT, LoadedModel, start_server
from convoy.verif.litert import softmax_model

model, values = LoadedModel(LiteRT(), softmax_model((1, 9), (0.1, 5))), [np.zeros((1, 9), np.int8)]
expected = model.run(values)[1]

def child():
    found = [model.run(values)[1] for _ in range(3)]
    sys.exit(not all((value == expected).all() for value in found))

print(start_server().process.pid, flush=True)
if sys.argv[1] == "fork":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode
    assert (model.run(values)[1] == expected).all()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_models_survive_the_death_of_another_in_their_process():
    process = LiteRT()
    good, bad = LoadedModel(process, softmax_model((1, 9), (0.1, 5))), LoadedModel(process, MODEL)
    before = good.run([FLAT[:, :9]])
    with pytest.raises(LiteRTError, match="aborts"):
        bad.run([FLAT])
    np.testing.assert_array_equal(good.run([FLAT[:, :9]])[1], before[1])
    assert bad.run([PEAK])[1].max() > 0


def test_kernels_that_differ():
    """The ordinary ones do not abort, and a model that is no longer needed is forgotten."""
    process = LiteRT()
    model = LoadedModel(process, MODEL, "ordinary")
    assert (model.run([FLAT])[1] == -128).all()
    number = process.request("load", MODEL, "ordinary", False)[0]
    del model
    assert len(process.dropped) == 1
    assert process.request("load", MODEL, "ordinary", False)[0] == number + 1
    assert process.dropped == []


def test_a_server_that_ended_is_replaced():
    """And so is the process of a model, which ended with it."""
    model = LoadedModel(LiteRT(), MODEL)
    model.load()
    server = litert_process.start_server()
    server.stop()
    assert LoadedModel(LiteRT(), MODEL).run([PEAK])[1].max() > 0
    assert model.run([PEAK])[1].max() > 0
    assert litert_process.start_server() is not server


def test_a_server_that_cannot_start_is_one_line(monkeypatch):
    monkeypatch.setattr(litert_process, "_servers", {})
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(LiteRTError, match="its process cannot be started: No such file or directory"):
        LoadedModel(LiteRT(), MODEL).load()


def endless_model() -> bytes:
    """A convolution of floats, 200 thousand million multiplications: minutes."""
    builder = ModelBuilder()
    source, output = builder.tensor((1, 512, 512, 64), np.float32), builder.tensor((1, 512, 512, 256), np.float32)
    weights, bias = (
        builder.tensor((256, 7, 7, 64), np.float32, data=np.zeros((256, 7, 7, 64))),
        builder.tensor((256,), np.float32, data=np.zeros(256)),
    )
    builder.op("CONV_2D", [source, weights, bias], [output], strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    return builder.finish([source], [output])


def test_what_takes_too_long_is_ended(monkeypatch):
    """Once, not for each kind of kernel and input; other models go on."""
    monkeypatch.setenv(SECONDS, "2")
    process, graph, started = LiteRT(), read_tflite(endless_model()), time.monotonic()
    with pytest.raises(LiteRTTimeout, match="it gave no answer within 2 s; set CONVOY_LITERT_SECONDS to wait longer"):
        LoadedModel(process, endless_model()).run([np.zeros(graph.tensors[0].shape, np.float32)])
    assert (
        HostGroup(graph, graph.ops).refusal()
        == "it gave no answer within 2 s; set CONVOY_LITERT_SECONDS to wait longer"
    )
    assert time.monotonic() - started < 60
    assert LoadedModel(process, MODEL).run([PEAK])[1].max() > 0


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "a", " ", "٣", "9" * 5000, "10000001"])
def test_times_that_are_none(monkeypatch, text):
    monkeypatch.setenv(SECONDS, text)
    with pytest.raises(GraphError, match=r"CONVOY_LITERT_SECONDS=.*: give whole seconds, 1 to 10,000,000"):
        LoadedModel(LiteRT(), MODEL).load()


@pytest.mark.parametrize("how", ["end", "kill", "fork"])
def test_nothing_is_left_running(how):
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=120)
    assert ended.stderr == ""
    assert ended.returncode == (-9 if how == "kill" else 0)
    group, started = int(ended.stdout), time.monotonic()
    while _is_alive(group):
        assert time.monotonic() < started + 60
        time.sleep(0.01)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
