"""Networks of any format that there is a reader for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from convoy.driver.files import open_file

from .graph import Graph
from .onnx_reader import OnnxModel, load_onnx
from .tflite_reader import TfliteModel, load_tflite

__all__ = ["load_network", "read_network"]


def load_network(source: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> TfliteModel | OnnxModel:
    """Read a TFLite file (with its mark at byte 4), or an ONNX file (by its suffix, for it has no mark).

    Parameters
    ----------
    shapes
        As for `load_tflite`.

    Raises
    ------
    GraphError
        As from `load_tflite` and `load_onnx`.
    """
    if source.suffix.lower() == ".onnx":
        with open_file(source) as file:
            is_tflite = file.read(8)[4:] == b"TFL3"
        if not is_tflite:
            return load_onnx(source, shapes)
    return load_tflite(source, shapes)


def read_network(source: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """`load_network(source, shapes).graph`."""
    return load_network(source, shapes).graph
