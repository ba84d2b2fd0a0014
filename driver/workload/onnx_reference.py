"""onnxruntime as the reference of ONNX networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convoy.driver.graph.onnx_reader import OnnxModel
from convoy.driver.ort.runtime import OrtModel, onnx_package
from convoy.driver.ort.unit import to_image

__all__ = ["OnnxReference"]

_EXPECTED = " (reference)"
"""Behind the names of tensors that are computed from other values than what follows."""


class OnnxReference:
    """A network in onnxruntime, every tensor of it, with the operators that onnxruntime's optimiser makes.

    Parameters
    ----------
    doubtful
        Tensors of the graph that may differ by one. What follows them is computed from the values that were found for
        them, so that every other tensor must be equal.
    """

    def __init__(self, model: OnnxModel, doubtful: frozenset[int] = frozenset()):
        self._model = model
        self._fed = {index: model.origins[index][0] for index in sorted(doubtful) if index in model.origins}
        self._loaded = OrtModel(_with_fed(model, set(self._fed.values())), keeps_tensors=True)

    @staticmethod
    def version() -> str:
        """Name and version, as reports state them."""
        from importlib.metadata import version

        return f"onnxruntime {version('onnxruntime')}"

    def run(self, inputs: Sequence[np.ndarray], found: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Every tensor of the graph that the file has too, by index, in the graph's layout.

        Parameters
        ----------
        inputs : one for each input of the graph
        found : the network's tensors by index, at least the doubtful ones

        Raises
        ------
        OrtError
            When onnxruntime cannot run the network.
        """
        graph, origins = self._model.graph, self._model.origins
        values = {origins[index][0]: value for index, value in zip(graph.inputs, inputs, strict=True)}
        for index, name in self._fed.items():
            values[name] = self._model.in_file(index, found[index])
        results = values | self._loaded.run(values)
        expected = {}
        for index, (name, rank) in origins.items():
            if (value := results.get(name + _EXPECTED, results.get(name))) is not None:
                expected[index] = value if rank is None else to_image(value)
        return expected


def _with_fed(model: OnnxModel, names: set[str]):
    """The network with some tensors given from outside; what computes them writes under another name."""
    onnx = onnx_package()
    network = onnx.ModelProto()
    network.CopyFrom(model.network)
    for node in network.graph.node:
        for place, name in enumerate(node.output):
            if name in names:
                node.output[place] = name + _EXPECTED
    shapes = {name: model.values[name] for name in names}
    for name, (shape, dtype) in shapes.items():
        network.graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)
        )
    for output in network.graph.output:
        if output.name in names:
            output.name += _EXPECTED
    return network
