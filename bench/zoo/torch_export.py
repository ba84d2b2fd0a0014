"""litert-torch: a PyTorch model, quantised by PyTorch's exporter, becomes a TFLite file."""

from __future__ import annotations

from pathlib import Path

import litert_torch
import torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torch_nets import Recipe, trained_like
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

SAMPLES = 4
"""Of the random calibration."""


def export(recipe: Recipe, path: Path, seed: int) -> None:
    """Write the file."""
    model = trained_like(recipe, seed)
    inputs = (torch.randn(recipe.shape),)
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False))
    prepared = prepare_pt2e(torch.export.export(model, inputs).module(), quantizer)
    for _ in range(SAMPLES):
        prepared(torch.randn(recipe.shape))
    quantised = convert_pt2e(prepared, fold_quantize=False)
    made = litert_torch.convert(quantised, inputs, quant_config=QuantConfig(pt2e_quantizer=quantizer))
    made.export(str(path))
