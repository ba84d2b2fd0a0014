"""The list of ONNX operators says what the reader does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from convoy.driver.graph.onnx_bytes import HANDLERS
from convoy.driver.graph.onnx_float import CORES, ELEMENTWISE
from convoy.driver.report.onnx_catalogue import onnx_catalogue
from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, qdq_model

ENTRIES = {entry.kind: entry for entry in onnx_catalogue()}
OPSETS = {"Gelu": 20, "Mish": 18, "Swish": 24}
"""Of operators that newer ones brought; 17 has the others."""
BINARY = "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"
FUNCTIONS = sorted(
    name for name in ELEMENTWISE if not name.startswith("ms.") and name not in ("DequantizeLinear", "QuantizeLinear")
)


def test_every_operator_of_the_reader_is_listed():
    names = {name.removeprefix("ms.") for name in {*HANDLERS, *CORES, *ELEMENTWISE}}
    assert names - {"DequantizeLinear", "QuantizeLinear"} == set(ENTRIES)
    assert all(entry.forms and entry.becomes and entry.engines for entry in ENTRIES.values())
    made = {kind: (entry.becomes, entry.engines) for kind, entry in ENTRIES.items()}
    assert made["QLinearAdd"] == (("TABLE", "ADD"), ("TP", "table"))  # a table if it adds a tensor to itself
    assert made["Conv"][1] == ("NN",)
    assert made["Reshape"] == (("RESHAPE",), ("view",))
    assert made["Tanh"] == (("TABLE",), ("table",))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_one_element_are_the_npus(kind):
    constants = {"c": np.float32([0.5])} if kind in BINARY else {}
    attrs = {"to": TensorProto.FLOAT} if kind == "Cast" else {}
    node = helper.make_node(kind, ["x0_d", *constants], ["y"], **attrs)
    model = qdq_model([(1, 3, 4, 5)], lambda x: ([node], constants), opset=OPSETS.get(kind, 17))
    assert check_onnx(model, PRESETS["Q"])[1] == set()


def test_the_list_needs_no_package_of_onnx():
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None\n"
        "from convoy.driver.cli import main; sys.argv[1:] = ['operators']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "QLinearGlobalAveragePool" in done.stdout
