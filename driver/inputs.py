"""Values for the inputs of a network: from a file, an image or a seed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .graph import GraphError, Tensor

__all__ = ["load_input", "load_steps", "quantise_real", "random_inputs"]

_IMAGE_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


def random_inputs(tensors: Iterable[Tensor], seed: int) -> dict[int, np.ndarray]:
    """A value for each tensor, by index: integers over the whole range of the dtype, floats in -1..1."""
    rng = np.random.default_rng(seed)
    values: dict[int, np.ndarray] = {}
    for tensor in tensors:
        if tensor.dtype.kind in "iu":
            info = np.iinfo(tensor.dtype)
            values[tensor.index] = rng.integers(info.min, info.max, tensor.shape, tensor.dtype, endpoint=True)
        else:
            values[tensor.index] = rng.uniform(-1, 1, tensor.shape).astype(tensor.dtype)
    return values


def quantise_real(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Real numbers in the dtype and quantisation of `tensor`, rounded to even and clamped.

    Raises
    ------
    GraphError
        When the tensor has no single scale.
    """
    if tensor.dtype == np.float32:
        return values.astype(np.float32)
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.quant.scale[0] <= 0:
        raise GraphError(f"input {tensor.name}: it has no scale to quantise real numbers with")
    info = np.iinfo(tensor.dtype)
    scaled = np.rint(values / float(tensor.quant.scale[0])) + int(tensor.quant.zero_point[0])
    return np.clip(scaled, info.min, info.max).astype(tensor.dtype)


def load_input(path: Path, tensor: Tensor) -> np.ndarray:
    """The value of `tensor` from a file.

    `.npy`: values of the tensor's dtype are taken as they are, floats are quantised; the batch axis may be left out. Anything else is an image, resized
    to the tensor's rows and columns; its pixels are mapped to 0..1, -1..1 or 0..255, whichever is nearest to what the tensor can represent.

    Raises
    ------
    GraphError
        When the file cannot be read or does not fit; the message names it.
    """
    return _load_array(path, tensor, (tensor.shape, tensor.shape[1:])).reshape(tensor.shape) if path.suffix == ".npy" else _load_image(path, tensor)


def load_steps(path: Path, tensor: Tensor, num_steps: int) -> list[np.ndarray]:
    """Successive values of `tensor` from a `.npy` file with `num_steps` of them along its first axis; otherwise as `load_input`.

    Raises
    ------
    GraphError
        When the file cannot be read or does not fit; the message names it.
    """
    if path.suffix != ".npy":
        raise GraphError(f"{path}: an image is one input; give a .npy file with {num_steps} inputs along its first axis")
    values = _load_array(path, tensor, ((num_steps, *tensor.shape), (num_steps, *tensor.shape[1:])))
    return list(values.reshape((num_steps, *tensor.shape)))


def _load_array(path: Path, tensor: Tensor, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """The array in a file, which has one of the `shapes`, in the dtype of `tensor`."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise GraphError(f"{path}: cannot be read as a numpy array: {' '.join(str(error).split())}") from None
    if not isinstance(values, np.ndarray):
        raise GraphError(f"{path}: is an archive, not one numpy array")
    if values.shape not in shapes:
        raise GraphError(f"{path}: shape {list(values.shape)} does not fit the input {tensor.name} {list(tensor.shape)}; give {list(shapes[0])}")
    if values.dtype == tensor.dtype:
        return np.ascontiguousarray(values)
    if values.dtype.kind != "f":
        raise GraphError(f"{path}: dtype {values.dtype} is neither {tensor.dtype} nor a float that can be quantised")
    if not np.isfinite(values).all():
        raise GraphError(f"{path}: holds a number that is not finite")
    return quantise_real(values, tensor)


def _load_image(path: Path, tensor: Tensor) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if len(tensor.shape) != 4 or tensor.shape[3] not in (1, 3):
        raise GraphError(f"{path}: the input {tensor.name} {list(tensor.shape)} is not an image of 1 or 3 channels; give a .npy file")
    _, height, width, channels = tensor.shape
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((width, height)), np.float64)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise GraphError(f"{path}: cannot be read as an image: {' '.join(str(error).split())}") from None
    low, high = _image_range(tensor)
    return quantise_real(pixels.reshape(tensor.shape) / 255 * (high - low) + low, tensor)


def _image_range(tensor: Tensor) -> tuple[float, float]:
    """The usual range of pixels that is nearest to what the tensor can represent."""
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.dtype.kind not in "iu":
        return _IMAGE_RANGES[0]
    info, scale, zero_point = np.iinfo(tensor.dtype), float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])
    low, high = (info.min - zero_point) * scale, (info.max - zero_point) * scale
    return min(_IMAGE_RANGES, key=lambda real: abs(real[0] - low) + abs(real[1] - high))
