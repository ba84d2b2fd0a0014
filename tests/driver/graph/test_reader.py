"""The reader of a file is chosen by what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.driver.graph.graph import GraphError, Runtime
from convoy.driver.graph.reader import load_network, read_network
from convoy.driver.graph.tflite_reader import TfliteModel
from convoy.verif.onnx_models import plain, qdq_model

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def test_the_mark_and_the_suffix_decide(tmp_path):
    onnx, renamed = tmp_path / "a.ONNX", tmp_path / "b.onnx"
    onnx.write_bytes(qdq_model([(1, 4)], lambda x: plain("Relu", x)))
    renamed.write_bytes(DIGITS.read_bytes())
    assert read_network(onnx).runtime == Runtime.ONNXRUNTIME
    assert isinstance(load_network(renamed), TfliteModel)
    assert read_network(DIGITS).runtime == Runtime.LITERT


def test_what_is_neither_is_one_line(tmp_path):
    other = tmp_path / "a.txt"
    other.write_text("no network")
    with pytest.raises(GraphError, match="not a TFLite file"):
        load_network(other)
