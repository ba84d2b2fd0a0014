"""What a classifier answers: its outputs with the largest values, by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoy.driver.errors import GraphError
from convoy.driver.files import read_file
from convoy.driver.graph.graph import Tensor

__all__ = ["NUM_ANSWERS", "Answer", "answers", "load_labels", "real_values"]

NUM_ANSWERS = 5
"""That are shown."""
MAX_BYTES = 1 << 24
"""Of a file of labels."""


@dataclass(frozen=True)
class Answer:
    """A class: its number from 0, its label if there are labels, and its output as a real number."""

    index: int
    label: str | None
    value: float

    def __str__(self) -> str:
        return f"{self.label if self.label is not None else f'class {self.index}'}: {self.value:.4g}"


def load_labels(path: Path) -> list[str]:
    """One label per line, in the order of the network's classes.

    Raises
    ------
    GraphError
        When the file cannot be read or is no text.
    """
    try:
        lines = read_file(path, MAX_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise GraphError(f"{path}: is not a text of labels; give one label per line, in UTF-8") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def real_values(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """What quantised integers stand for, float32: `scale * (value - zero_point)`; real numbers as they are."""
    quant = tensor.quant
    if quant is None or values.dtype.kind == "f":
        return values.astype(np.float32)
    return ((values.astype(np.float64) - quant.zero_point) * quant.scale).astype(np.float32)


def answers(values: np.ndarray, labels: Sequence[str] | None = None, number: int = NUM_ANSWERS) -> list[Answer] | None:
    """The largest of a vector of classes, the largest first and of equal ones the first; None if `values` is not one
    vector of at least two.

    Raises
    ------
    GraphError
        When there are not as many labels as classes.
    """
    if values.ndim == 0 or values.shape[-1] < 2 or values.size != values.shape[-1]:
        return None
    vector = values.reshape(-1)
    if labels is not None and len(labels) != vector.size:
        raise GraphError(f"{len(labels)} labels for {vector.size} classes; give a label for each, one per line")
    order = np.argsort(-vector.astype(np.float64), kind="stable")[:number]
    return [Answer(int(index), labels[index] if labels else None, float(vector[index])) for index in order]
