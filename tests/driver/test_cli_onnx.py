"""ONNX networks on the command line: quantised, compiled, estimated, run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from convoy.driver.cli import app
from convoy.driver.outcome import exit_code_of

from .ort.test_quantise import RNG, float_network


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A file that the command itself has quantised."""
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "float.onnx").write_bytes(float_network())
    for n in range(3):
        np.save(folder / f"{n}.npy", RNG.normal(size=(1, 3, 6, 6)).astype(np.float32))
    args = ["quantize", str(folder / "float.onnx"), "--calibration", str(folder), "-o", str(folder / "int8.onnx")]
    assert exit_code_of(lambda: app(args, standalone_mode=False)) == 0
    return folder / "int8.onnx"


def test_run_compares_with_onnxruntime(quantised, capsys):
    args = ["run", str(quantised), "--device", "golden", "--json", "-"]
    assert exit_code_of(lambda: app(args, standalone_mode=False)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bit_exact"] is True
    assert report["reference"] == "onnxruntime"
    assert {op["op"] for op in report["host_ops"]} <= {"TRANSPOSE", "RESHAPE", "QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize(
    "args", [["estimate"], ["compile"], ["operators"], ["profile", "--device", "model"], ["run", "--jobs", "1"]]
)
def test_every_command_takes_onnx(quantised, capsys, args):
    extra = ["--device", "golden"] if args[0] == "run" else []
    assert exit_code_of(lambda: app([args[0], str(quantised), *args[1:], *extra], standalone_mode=False)) == 0
    assert "CONV_2D" in capsys.readouterr().out


def test_a_float_network_and_a_wrong_folder_are_one_line(quantised, capsys):
    source = quantised.with_name("float.onnx")
    assert exit_code_of(lambda: app(["run", str(source)], standalone_mode=False)) == 2
    assert "convoy quantize MODEL --calibration FOLDER" in capsys.readouterr().err
    args = ["quantize", str(source), "--calibration", "nowhere", "-o", str(quantised.with_name("x.onnx"))]
    assert exit_code_of(lambda: app(args, standalone_mode=False)) == 2
    assert "nowhere: is no folder" in capsys.readouterr().err
