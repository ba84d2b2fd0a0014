"""torch.onnx and onnxruntime's static quantiser: a PyTorch model becomes a QDQ file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch_nets import Recipe, trained_like

SAMPLES = 4
"""Of the random calibration."""
INPUT, OPSET = "input", 17


class _Samples(CalibrationDataReader):
    """Random inputs."""

    def __init__(self, shape: tuple[int, ...], seed: int):
        rng = np.random.default_rng(seed)
        self._samples = iter([{INPUT: rng.normal(0, 1, shape).astype(np.float32)} for _ in range(SAMPLES)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._samples, None)


def export(recipe: Recipe, path: Path, seed: int) -> None:
    """Write the file."""
    model = trained_like(recipe, seed)
    with tempfile.TemporaryDirectory() as folder:
        exported, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        torch.onnx.export(
            model, (torch.randn(recipe.shape),), exported, input_names=[INPUT], opset_version=OPSET, dynamo=False
        )
        quant_pre_process(exported, prepared)
        quantize_static(
            prepared,
            path,
            _Samples(recipe.shape, seed),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
