"""The handwritten digits of scikit-learn, split by writer: what the example network learns from and is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["MODEL_PATH", "NUM_TRAIN", "load_digits"]

MODEL_PATH = Path(__file__).with_name("digits_int8.tflite")
"""The trained, quantised network."""
NUM_TRAIN = 1347
"""The images before this one are for training; the 450 after it, by other writers, are for judging."""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 images, float32 (1797, 8, 8, 1) in 0..1, and their labels, int64 (1797,)."""
    from sklearn.datasets import load_digits as load

    digits = load()
    return (digits.images.astype(np.float32) / 16)[..., np.newaxis], digits.target.astype(np.int64)
