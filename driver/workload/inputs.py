"""Values for the inputs of a network: from a file, an image or a seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

from convoy.driver.files import open_file
from convoy.driver.graph.graph import GraphError, Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["fits", "image_value", "load_input", "load_steps", "quantise_real", "random_inputs"]

MAX_PIXELS = 1 << 26
"""Images of more pixels are refused."""
_ARRAY_SUFFIXES = (".npy", ".npz")
_NPY_MAGIC = npy.MAGIC_PREFIX
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Decoders that run no other program and fetch no other file."""
_IMAGE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of 8 bits a sample and less; Pillow saturates others."""
_SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM")
"""First bytes of files of sounds."""
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
        When the tensor has no single scale, or a number is beyond its dtype if that is float32.
    """
    if tensor.dtype == np.float32:
        with np.errstate(over="ignore"):
            converted = values.astype(np.float32)
        if not np.isfinite(converted).all():
            raise GraphError(f"input {tensor.name}: a number is beyond the range of float32")
        return converted
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.quant.scale[0] <= 0:
        raise GraphError(f"input {tensor.name}: it has no scale to quantise real numbers with")
    info = np.iinfo(tensor.dtype)
    with np.errstate(over="ignore"):
        scaled = np.rint(values.astype(np.float64) / float(tensor.quant.scale[0])) + int(tensor.quant.zero_point[0])
    return np.clip(scaled, info.min, info.max).astype(tensor.dtype)


def load_input(path: Path, tensor: Tensor) -> np.ndarray:
    """The value of `tensor` from a file.

    `.npy`: values of the tensor's dtype are taken as they are, floats are quantised; axes of 1 may be left out.
    Anything else is an image, channels first if the tensor has them so, resized to its rows and columns; its pixels are
    mapped to 0..1, -1..1 or 0..255, whichever is nearest to what the tensor can represent.

    Raises
    ------
    GraphError
        When the file cannot be read or does not fit; the message names it.
    """
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return _load_array(path, tensor, tensor.shape)
    return _load_image(path, tensor)


def load_steps(path: Path, tensor: Tensor, num_steps: int) -> list[np.ndarray]:
    """Successive values of `tensor` from a `.npy` file with `num_steps` of them along its first axis; otherwise as
    `load_input`.

    Raises
    ------
    GraphError
        When the file cannot be read or does not fit; the message names it.
    """
    if path.suffix.lower() not in _ARRAY_SUFFIXES:
        raise GraphError(
            f"{path}: an image is one input; give a .npy file with {num_steps} inputs along its first axis"
        )
    return list(_load_array(path, tensor, (num_steps, *tensor.shape)))


def fits(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Are the shapes the same but for axes of 1, so that values keep their order?"""
    return [size for size in given if size != 1] == [size for size in wanted if size != 1]


def _load_array(path: Path, tensor: Tensor, wanted: tuple[int, ...]) -> np.ndarray:
    """The array in a file in the shape `wanted`, which it has but for axes of 1, and in the dtype of `tensor`.

    Its header is judged before memory is taken for its values.
    """
    with open_file(path) as file:
        magic = file.read(len(_NPY_MAGIC))
        if magic[:2] == b"PK":
            raise GraphError(f"{path}: is an archive, not one numpy array; save one array with numpy.save")
        if magic != _NPY_MAGIC:
            raise GraphError(
                f"{path}: cannot be read as a numpy array: it does not begin like one; write it with numpy.save"
            )
        try:
            read_header = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}[file.read(2)[0]]
            shape, _, dtype = read_header(file)
        except Exception as error:  # whatever the parser makes of bytes that are not a header
            raise GraphError(
                f"{path}: cannot be read as a numpy array: damaged header ({_first_line(error)})"
            ) from None
        if not fits(shape, wanted):
            raise GraphError(
                f"{path}: shape {_shape_text(shape)} does not fit the input {tensor.name} {list(tensor.shape)}; give "
                f"{list(wanted)}"
            )
        if dtype != tensor.dtype and dtype.kind != "f":
            raise GraphError(
                f"{path}: dtype {_short(dtype)} is neither {tensor.dtype} nor a float that can be quantised"
            )
        file.seek(0)
        try:
            values = npy.read_array(file, allow_pickle=False).reshape(wanted)
        except (OSError, ValueError, EOFError) as error:
            raise GraphError(f"{path}: cannot be read as a numpy array: {_first_line(error)}") from None
    if dtype == tensor.dtype:
        return np.ascontiguousarray(values.astype(tensor.dtype, copy=False))
    if not np.isfinite(values).all():
        raise GraphError(f"{path}: holds a number that is not finite")
    return quantise_real(values, tensor)


def _load_image(path: Path, tensor: Tensor) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    with open_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return image_value(Image.open(file, formats=_IMAGE_FORMATS), tensor, str(path))
        except Image.DecompressionBombError:
            raise GraphError(
                f"{path}: has more than the {MAX_PIXELS:,} pixels that are taken; make it smaller"
            ) from None
        except UnidentifiedImageError:
            file.seek(0)
            if (head := file.read(12)).startswith(_SOUNDS) and head[8:12] != b"WEBP":
                raise GraphError(
                    f"{path}: is a sound; the network takes {tensor.dtype} {list(tensor.shape)}: make its features "
                    "as in training, and give them as a .npy file"
                ) from None
            raise GraphError(f"{path}: cannot be read as an image: it is none of {', '.join(_IMAGE_FORMATS)}") from None
        except GraphError:
            raise
        except Exception as error:  # whatever the decoders make of bytes that are not an image
            raise GraphError(f"{path}: cannot be read as an image: {_first_line(error)}") from None


def image_value(image: Image, tensor: Tensor, name: str) -> np.ndarray:
    """The value of `tensor` from an open image of Pillow, as `load_input` makes it.

    Raises
    ------
    GraphError
        When the tensor takes no image or not this one; the message begins with `name`.
    """
    if len(tensor.shape) == 4 and tensor.shape[3] not in (1, 3) and tensor.shape[1] in (1, 3):
        batch, channels, height, width = tensor.shape
        values = image_value(image, replace(tensor, shape=(batch, height, width, channels)), name)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if len(tensor.shape) != 4 or tensor.shape[3] not in (1, 3):
        raise GraphError(
            f"{name}: the input {tensor.name} {list(tensor.shape)} is not an image of 1 or 3 channels; give a .npy file"
        )
    batch, height, width, channels = tensor.shape
    num_columns, num_rows = image.size
    if num_columns * num_rows > MAX_PIXELS:
        raise GraphError(
            f"{name}: has {num_columns:,} x {num_rows:,} pixels; at most {MAX_PIXELS:,} are taken, make it smaller"
        )
    if image.mode not in _IMAGE_MODES:
        raise GraphError(f"{name}: has more than 8 bits a sample ({image.mode}); save it with 8, or give a .npy file")
    if batch != 1:
        raise GraphError(
            f"{name}: is one image, and the input {tensor.name} takes {batch} at once; give a .npy file of "
            f"{list(tensor.shape)}"
        )
    try:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((width, height)), np.float64)
    except Exception as error:  # whatever the decoders make of bytes that are not an image
        raise GraphError(f"{name}: cannot be read as an image: {_first_line(error)}") from None
    low, high = _image_range(tensor)
    return quantise_real(pixels.reshape(tensor.shape) / 255 * (high - low) + low, tensor)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _shape_text(shape: tuple[int, ...]) -> str:
    return _short(list(shape))


def _image_range(tensor: Tensor) -> tuple[float, float]:
    """The usual range of pixels that is nearest to what the tensor can represent."""
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.dtype.kind not in "iu":
        return _IMAGE_RANGES[0]
    info, scale, zero_point = np.iinfo(tensor.dtype), float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])
    low, high = (info.min - zero_point) * scale, (info.max - zero_point) * scale
    return min(_IMAGE_RANGES, key=lambda real: abs(real[0] - low) + abs(real[1] - high))
