"""The C runtime on the compiled RTL: the example, and what only hardware does."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.c.layout import layout_of
from convoy.driver.c.offload import find_offload
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import Variable
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import run_reference
from convoy.spec.config import PRESETS
from convoy.verif.c_host import CHost
from convoy.verif.graphs import GraphMaker

pytestmark = pytest.mark.c_compiler
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits_int8.tflite"
Q = PRESETS["Q"]
BASE = 0x100000
CONSTANTS = 0x8000


def make(folder, *arguments):
    """What a target of the example prints."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "-C", ROOT / "examples" / "c", *arguments, f"BUILD={folder}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits(tmp_path):
    printed = make(tmp_path, "run")
    assert "10 of 10 results equal LiteRT's" in printed
    assert "with a limit of 1000 cycles: TIMEOUT; without: a 3 is taken for a 3; scores equal" in printed


def test_any_network(tmp_path):
    """One that keeps a variable."""
    maker = GraphMaker(1)
    shape = 1, 3, 4, 5
    source = maker.tensor(shape, zero_point=2)
    total = maker.op("ADD", (maker.read(0, shape, zero_point=2), source), shape, activation="NONE")
    maker.assign(0, total)
    initial = np.random.default_rng(1).integers(-40, 40, shape).astype(np.int8)
    variables = (Variable("total", shape, initial.dtype, initial),)
    path = tmp_path / "network.tflite"
    path.write_bytes(write_tflite(replace(maker.graph([source], [total]), variables=variables)))
    printed = make(tmp_path, "check", f"MODEL={path}", "STEPS=3")
    assert printed.count("60 bytes equal") == 3
    assert "all outputs are equal" in printed


def test_faults_and_windows(tmp_path):
    """Constants in place, so that all four windows lie apart; a bus that refuses; a memory that stops answering."""
    plan = compile_graph(read_tflite(DIGITS), Q)
    found = find_offload(plan)
    CHost.build(tmp_path, {"digits": plan})
    device = open_device("native", Q)
    host = CHost(tmp_path, device, BASE)
    device.write_memory(CONSTANTS, layout_of([step.program for step in found.steps]).constants)
    assert host.call("open", 1) == 0
    assert host.load(0, "digits", constants_addr=CONSTANTS) == 0
    (image,) = random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], 1).values()
    expected = run_reference(DIGITS.read_bytes(), [image])[found.outputs[0]]

    def check():
        host.write(0, image)
        assert host.call("run", 0) == 0
        assert np.array_equal(host.read(0, expected), expected)

    check()
    device.inject_fault(CONSTANTS, 64)
    assert host.error_name(host.call("run", 0)) == "BUS_READ"
    assert CONSTANTS <= host.call("error_addr") < CONSTANTS + 64
    device.inject_fault(0, 0)
    check()
    device.silence("R")
    host.call("limits", 0, 20_000, 0)
    assert host.error_name(host.call("run", 0)) == "CONVOY_STUCK"
    assert host.error_name(host.call("error")) == "WATCHDOG"
    assert host.error_name(host.call("reset")) == "CONVOY_STUCK"
    device.silence()
    assert host.call("reset") == 0
    check()
    device.close()
