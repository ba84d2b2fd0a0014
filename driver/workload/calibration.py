"""Typical inputs of a network, from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from convoy.driver.files import open_file
from convoy.driver.graph.graph import GraphError, Tensor

from .inputs import load_input

__all__ = ["load_samples"]

SUFFIXES = (".npy", ".npz", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


def load_samples(folder: Path, inputs: Mapping[str, Tensor], limit: int) -> list[dict[str, np.ndarray]]:
    """One sample for each file of a folder, by name in the order of their names: arrays (`.npz` with one for each
    input, by name), or images and `.npy` arrays for the only input, as `load_input` takes them.

    Parameters
    ----------
    inputs : the network's inputs, by name
    limit : at most so many samples

    Raises
    ------
    GraphError
        When there is no such folder, nothing in it, or a file does not fit; names it.
    """
    if not folder.is_dir():
        raise GraphError(f"--calibration {folder}: is no folder; give one with typical inputs: .npz, .npy or images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise GraphError(f"--calibration {folder}: holds no inputs; put some .npz, .npy or image files there")
    return [_sample(path, inputs) for path in paths]


def _sample(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    if path.suffix.lower() == ".npz":
        return _archive(path, inputs)
    if len(inputs) != 1:
        raise GraphError(f"{path}: the network has {len(inputs)} inputs; give .npz files with all of them by name")
    ((name, tensor),) = inputs.items()
    return {name: load_input(path, tensor)}


def _archive(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            if missing := sorted(set(inputs) - set(archive.files)):
                raise GraphError(f"{path}: has no array for the input {missing[0]}; it has {', '.join(archive.files)}")
            found = {name: archive[name] for name in inputs}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise GraphError(f"{path}: cannot be read as an archive of arrays: {text}") from None
    for name, tensor in inputs.items():
        if found[name].shape != tensor.shape:
            raise GraphError(f"{path}: {name} is {list(found[name].shape)}; the input is {list(tensor.shape)}")
    return {name: found[name].astype(tensor.dtype) for name, tensor in inputs.items()}
