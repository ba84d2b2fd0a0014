"""One operator of a graph as onnxruntime runs it: the nodes of the ONNX file that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .runtime import OrtError, OrtModel, onnx_package

__all__ = ["OnnxUnit", "Port", "from_image", "to_image"]


def to_image(values: np.ndarray) -> np.ndarray:
    """(N, C, H, W) or (N, C, L) as (N, H, W, C), with H = 1 for the latter."""
    if values.ndim == 3:
        values = values[:, :, None]
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def from_image(values: np.ndarray, rank: int) -> np.ndarray:
    """The inverse of `to_image` for arrays of `rank` axes."""
    channels_first = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return channels_first[:, :, 0] if rank == 3 else channels_first


@dataclass(frozen=True)
class Port:
    """An activation that nodes read or write: under which name, and how the graph holds it."""

    name: str
    place: int
    """Position among the operator's inputs or outputs."""
    shape: tuple[int, ...]
    """In the ONNX file."""
    dtype: np.dtype
    is_image: bool
    """In the graph it is as from `to_image`."""


@dataclass(frozen=True)
class OnnxUnit:
    """Nodes with their constants, as a network of their own."""

    nodes: tuple[bytes, ...]
    """Serialised, in order."""
    constants: Mapping[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opsets: tuple[tuple[str, int], ...]

    def load(self, shapes: Sequence[tuple[int, ...]] | None = None) -> OrtModel:
        """The network, ready to run; `shapes` of the inputs instead of their own."""
        onnx = onnx_package()
        helper, numpy_helper = onnx.helper, onnx.numpy_helper
        nodes = [onnx.NodeProto.FromString(node) for node in self.nodes]
        read = {name for node in nodes for name in node.input}

        def info(port: Port, shape: Sequence[int] | None):
            return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), shape)

        graph = helper.make_graph(
            nodes,
            "unit",
            [info(port, port.shape if shapes is None else shapes[number]) for number, port in enumerate(self.inputs)],
            [info(port, None) for port in self.outputs],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items() if name in read],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets]
        return OrtModel(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION))

    def run(self, loaded: OrtModel, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs by place for inputs by place, both in the layout of the graph.

        Raises
        ------
        OrtError
            When onnxruntime cannot run it.
        """
        values = {
            port.name: from_image(inputs[port.place], len(port.shape)) if port.is_image else inputs[port.place]
            for port in self.inputs
        }
        found = loaded.run(values)
        results = []
        for port in sorted(self.outputs, key=lambda port: port.place):
            value = found[port.name]
            if value.shape != port.shape or value.dtype != port.dtype:
                raise OrtError(
                    f"onnxruntime gives {value.dtype} {list(value.shape)} for {port.name!r}, not {port.dtype} "
                    f"{list(port.shape)}"
                )
            results.append(to_image(value) if port.is_image else value)
        return results

    def table(self) -> np.ndarray:
        """What it makes of each of the 256 values of its only input: int8 (256,), entry `x & 255` for x seen as int8
        (uint8 less 128), and so are the results.

        Raises
        ------
        OrtError
            When onnxruntime cannot run it.
        """
        (source,), (target,) = self.inputs, self.outputs
        raw = np.arange(256, dtype=np.uint8)
        found = self.load([(256,)]).run({source.name: raw ^ 0x80 if source.dtype == np.uint8 else raw.view(np.int8)})
        values = found[target.name].reshape(-1)
        return (values ^ 0x80).view(np.int8) if values.dtype == np.uint8 else values

    def pairs(self) -> np.ndarray:
        """What it makes of each pair of values of its two inputs: int8 (256, 256), both from -128 (uint8 less 128),
        and so are the results.

        Raises
        ------
        OrtError
            When onnxruntime cannot run it.
        """
        axes = (axis.reshape(-1) for axis in np.indices((256, 256)).astype(np.uint8))
        values = {
            port.name: axis if port.dtype == np.uint8 else (axis ^ 0x80).view(np.int8)
            for port, axis in zip(sorted(self.inputs, key=lambda port: port.place), axes, strict=True)
        }
        found = self.load([(1 << 16,)] * 2).run(values)[self.outputs[0].name].reshape(256, 256)
        return (found ^ 0x80).view(np.int8) if found.dtype == np.uint8 else found


_IR_VERSION = 8
"""Of the files written here: as old as their opsets allow, so that older versions of onnxruntime read them."""
