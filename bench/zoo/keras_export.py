"""TensorFlow's converter: a Keras model with random weights becomes a quantised TFLite file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

SAMPLES = 4
"""Of the random calibration."""


@dataclass(frozen=True)
class Recipe:
    """How one file is made."""

    build: Callable[[], keras.Model]
    batch: int | None = 1
    """None: unknown, as Keras leaves it."""
    io: str = "int8"
    """Type of inputs and outputs: int8, uint8, int16 or float32."""
    is_16x8: bool = False
    """Activations are int16."""
    is_per_tensor: bool = False
    """One scale for all channels of a layer's weights."""
    has_float: bool = False
    """Operators that have no quantised kernel stay float."""


def randomise(model: keras.Model, seed: int) -> None:
    """Kernels stay as they are initialised; what is initialised with zeros and ones becomes random."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean", "bias", "alpha"):
            variable.assign(rng.normal(0, 0.2, variable.shape))


def export(recipe: Recipe, path: Path, seed: int) -> None:
    """Write the file."""
    keras.utils.set_random_seed(seed)
    model = recipe.build()
    randomise(model, seed)
    if recipe.batch:
        inputs = [keras.Input(tensor.shape[1:], batch_size=recipe.batch) for tensor in model.inputs]
        model = keras.Model(inputs, model(inputs if len(inputs) > 1 else inputs[0]))
    shapes = [tuple(size or 1 for size in tensor.shape) for tensor in model.inputs]
    names = [tensor.name for tensor in model.inputs]
    rng = np.random.default_rng(seed)

    def samples():
        for _ in range(SAMPLES):
            values = [rng.normal(0, 1, shape).astype(np.float32) for shape in shapes]
            yield dict(zip(names, values, strict=True)) if len(names) > 1 else values

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    sets = tf.lite.OpsSet
    quantised = (
        sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        if recipe.is_16x8
        else sets.TFLITE_BUILTINS_INT8
    )
    converter.target_spec.supported_ops = [quantised, *[sets.TFLITE_BUILTINS] * recipe.has_float]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(recipe.io)
    converter._experimental_disable_per_channel = recipe.is_per_tensor
    path.write_bytes(converter.convert())
