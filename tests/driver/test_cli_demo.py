"""The demo, on the golden device, and the accuracy of the network that it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.workload.inputs import quantise_real
from convoy.driver.workload.reference import Reference

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_the_demo_runs():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--device", "golden", "--images", "5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "of 5 digits recognised" in done.stdout
    assert "5 of 5 runs equal to LiteRT's reference kernels in every tensor" in done.stdout


def test_the_network_recognises_digits_it_was_not_trained_on(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from digits import MODEL_PATH, NUM_TRAIN, load_digits

    images, labels = (values[NUM_TRAIN:] for values in load_digits())
    graph, reference = read_tflite(MODEL_PATH), Reference(MODEL_PATH.read_bytes())
    inputs = quantise_real(images, graph.tensors[graph.inputs[0]])
    answers = [reference.run([value[np.newaxis]])[graph.outputs[0]].argmax() for value in inputs]
    assert np.mean(answers == labels) > 0.95
