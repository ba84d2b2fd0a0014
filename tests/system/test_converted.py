"""Small networks as real converters write them (`make zoo` makes them and many more): golden model against LiteRT, and
what the NPU does of them.
"""

from pathlib import Path

import pytest

from convoy.driver.bench import network
from convoy.spec.config import PRESETS

NETWORKS = sorted((Path(__file__).parent / "networks").glob("*.tflite"))
MIN_SHARE = 0.99
"""Of the multiply-accumulates, done by the NPU; products of two activations are the host's."""
LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
MAX_FILE_BYTES, MAX_TOTAL_BYTES = 60_000, 1_500_000


def test_files_are_small():
    sizes = [path.stat().st_size for path in NETWORKS]
    assert 0 < max(sizes) <= MAX_FILE_BYTES
    assert sum(sizes) <= MAX_TOTAL_BYTES


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_every_tensor_is_exact_and_the_npu_does_the_work(path, monkeypatch):
    monkeypatch.setattr(network, "find_peer", lambda: None)
    row = network.examine(path, PRESETS["Q"])
    assert row["refusal"] is None
    assert row["bit_exact"], row["mismatches"] or row["note"]
    kinds = {entry["op"] for entry in row["host_ops"]}
    assert row["macs"] >= MIN_SHARE * (row["macs"] + row["host_macs"]) or "BATCH_MATMUL" in kinds
    assert kinds.isdisjoint(LAYERS)
    assert 0 <= row["floor_cycles"] <= row["cycles"]
