"""Float ONNX networks -> quantised ones, by onnxruntime's static quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .runtime import OrtError, first_line, onnx_package, ort_package

if TYPE_CHECKING:
    import onnx

__all__ = ["quantise_network"]


def quantise_network(
    model: bytes,
    samples: Sequence[dict[str, np.ndarray]],
    *,
    is_unsigned: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> bytes:
    """A network with QuantizeLinear and DequantizeLinear around its operators: weights of int8 with a scale per
    channel, activations of int8 or uint8.

    Means over all rows and columns become GlobalAveragePool, which onnxruntime computes on integers.

    Parameters
    ----------
    model : a float network
    samples : typical inputs by name, at least one, from which the ranges of activations are taken
    is_unsigned : activations of uint8
    progress : called with the number of samples read so far

    Raises
    ------
    OrtError
        When onnxruntime cannot quantise the network.
    """
    ort_package()
    onnx = onnx_package()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """The samples, one after another."""

        def __init__(self) -> None:
            self._samples: Iterator[tuple[int, dict[str, np.ndarray]]] = iter(enumerate(samples))

        def get_next(self) -> dict[str, np.ndarray] | None:
            number, sample = next(self._samples, (0, None))
            if sample is not None:
                progress(number + 1)
            return sample

    # The quantiser's advice for other devices.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "quantised"))
            source.write_bytes(model)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            onnx.save(_pooled(onnx.load(prepared)), prepared)
            quantize_static(
                prepared,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8 if is_unsigned else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
            return target.read_bytes()
    except Exception as error:  # whatever the quantiser makes of a network that it does not know
        raise OrtError(f"onnxruntime cannot quantise it: {first_line(error)}") from None
    finally:
        logging.disable(level)


def _pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A network of known shapes with a GlobalAveragePool for each ReduceMean over all axes behind the channels."""
    onnx = onnx_package()
    constants = {constant.name: constant for constant in model.graph.initializer}
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.input)
        if value.type.tensor_type.HasField("shape")
    }
    nodes, axes_names = [], set[str]()
    for node in model.graph.node:
        attrs = {attr.name: onnx.helper.get_attribute_value(attr) for attr in node.attribute}
        axes = attrs.get("axes", [])
        if len(node.input) > 1 and node.input[1] in constants:
            axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        rank = ranks.get(node.input[0], 0) if node.op_type == "ReduceMean" else 0
        if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
            nodes.append(node)
            continue
        axes_names |= constants.keys() & set(node.input[1:])
        is_kept = attrs.get("keepdims", 1)
        pooled = node.output[0] if is_kept else f"{node.output[0]} (with all axes)"
        nodes.append(onnx.helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name))
        if not is_kept:
            nodes.append(onnx.helper.make_node("Flatten", [pooled], node.output, f"{node.name} (flat)"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for name in axes_names - read:
        model.graph.initializer.remove(constants[name])
    return model
