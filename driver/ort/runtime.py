"""onnxruntime, the runtime whose results those of ONNX networks are to equal. Its kernels run on one thread of the
CPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.driver.errors import GraphError

if TYPE_CHECKING:
    import onnx

__all__ = ["OrtError", "OrtModel", "first_line", "onnx_package", "optimised", "ort_package"]

_MISSING = "ONNX networks need the packages onnx and onnxruntime: pip install 'convoy-npu[onnx]'"
_INT8_ALLOWED = "session.qdqisint8allowed"
"""Keeps activations of int8 what they are; on x86 onnxruntime would make some of them uint8, and leave operators
between both kinds in float.
"""


class OrtError(GraphError):
    """onnxruntime refuses a network or cannot run it."""


def onnx_package() -> Any:
    """The package `onnx`.

    Raises
    ------
    GraphError
        When it is not installed.
    """
    return _package("onnx")


def ort_package() -> Any:
    """The package `onnxruntime`.

    Raises
    ------
    GraphError
        When it is not installed.
    """
    return _package("onnxruntime")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise GraphError(_MISSING) from None


def _session(model: bytes, level: str, optimised_path: Path | None = None) -> Any:
    ort = ort_package()
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry(_INT8_ALLOWED, "1")
    if optimised_path is not None:
        options.optimized_model_filepath = str(optimised_path)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are those of a library in C++
        raise OrtError(f"onnxruntime refuses the model: {first_line(error)}") from None


def optimised(model: bytes) -> onnx.ModelProto:
    """A network as onnxruntime executes it: constants computed, quantised operators in one piece (`QLinearConv`,
    `QLinearAdd` ...). Run without further optimisation, it gives a name to every tensor that there is.

    Raises
    ------
    OrtError
        When onnxruntime refuses the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        _session(model, "ORT_ENABLE_EXTENDED", path)
        return onnx_package().load(str(path))


class OrtModel:
    """A network that onnxruntime runs as it is, without optimisation; loaded when first needed.

    Parameters
    ----------
    keeps_tensors : `run` gives the outputs of every operator, not only those of the network
    """

    def __init__(self, model: onnx.ModelProto, *, keeps_tensors: bool = False):
        self._model = model
        self._session: Any = None
        if keeps_tensors:
            onnx = onnx_package()
            self._model = onnx.ModelProto()
            self._model.CopyFrom(model)
            known = {output.name for output in model.graph.output}
            self._model.graph.output.extend(
                onnx.ValueInfoProto(name=name)
                for node in model.graph.node
                for name in node.output
                if name and name not in known
            )

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values by name.

        Raises
        ------
        OrtError
            When onnxruntime refuses the network or cannot run it on these inputs.
        """
        if self._session is None:
            self._session = _session(self._model.SerializeToString(), "ORT_DISABLE_ALL")
        names = [output.name for output in self._session.get_outputs()]
        try:
            found = self._session.run(names, dict(inputs))
        except Exception as error:  # its classes are those of a library in C++
            raise OrtError(f"onnxruntime cannot run it: {first_line(error)}") from None
        return dict(zip(names, found, strict=True))


def first_line(error: Exception) -> str:
    """What an error says, on one line of reasonable length."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 200 else f"{text[:197]}..."
