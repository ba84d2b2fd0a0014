"""Typical inputs from a folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from convoy.driver.graph.graph import GraphError, Tensor
from convoy.driver.workload.calibration import load_samples

INPUTS = {"x": Tensor(0, "x", (1, 3, 4, 5), np.dtype(np.float32))}


def test_arrays_archives_and_images_in_the_order_of_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.full((1, 3, 4, 5), 2.0))
    np.save(tmp_path / "b.npy", np.full((3, 4, 5), 3.0, np.float32))
    Image.new("RGB", (10, 8), (255, 0, 0)).save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("no input")
    found = load_samples(tmp_path, INPUTS, 9)
    assert [sample["x"].shape for sample in found] == [(1, 3, 4, 5)] * 3
    assert [sample["x"][0, :, 0, 0].tolist() for sample in found] == [[2, 2, 2], [3, 3, 3], [1, 0, 0]]
    assert len(load_samples(tmp_path, INPUTS, 2)) == 2


def test_errors_name_the_file(tmp_path):
    with pytest.raises(GraphError, match="is no folder"):
        load_samples(tmp_path / "none", INPUTS, 9)
    with pytest.raises(GraphError, match="holds no inputs"):
        load_samples(tmp_path, INPUTS, 9)
    np.savez(tmp_path / "a.npz", z=np.zeros(3))
    with pytest.raises(GraphError, match=r"a\.npz: has no array for the input x; it has z"):
        load_samples(tmp_path, INPUTS, 9)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(GraphError, match=r"a\.npz: x is \[3\]; the input is \[1, 3, 4, 5\]"):
        load_samples(tmp_path, INPUTS, 9)
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    with pytest.raises(GraphError, match=r"a\.npz: cannot be read"):
        load_samples(tmp_path, INPUTS, 9)
    (tmp_path / "a.npz").unlink()
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 5), np.float32))
    with pytest.raises(GraphError, match="the network has 2 inputs"):
        load_samples(tmp_path, INPUTS | {"y": INPUTS["x"]}, 9)
