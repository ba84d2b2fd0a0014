"""Float ONNX networks -> quantised ones, by onnxruntime's static quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .runtime import OrtError, first_line, ort_package

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
