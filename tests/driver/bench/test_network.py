"""A network's row: what runs, what is refused, and whether the reference refuses it too."""

from pathlib import Path

from convoy.driver.bench import network as network_module
from convoy.driver.bench.network import examine
from convoy.driver.bench.peer import Peer
from convoy.driver.graph.graph import GraphError
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
Q = PRESETS["Q"]


def test_what_runs(monkeypatch):
    asked = []

    def peer(program, model, npu, memory, kinds):
        asked.append((program, model, npu, memory, kinds))
        return Peer("x", 1000, 10)

    monkeypatch.setattr(network_module, "find_peer", lambda: "vela")
    monkeypatch.setattr(network_module, "run_peer", peer)
    row = examine(DIGITS, Q)
    assert row["bit_exact"] is True
    assert (row["refusal"], row["device"], row["mismatches"]) == (None, "golden", [])
    assert 0 < row["floor_cycles"] < row["cycles"] == row["estimated_cycles"]
    assert row["host_macs"] == 0 < row["macs"]
    assert row["host_ops"] == [{"op": "SOFTMAX", "reason": "SOFTMAX is not supported by the NPU", "number": 1}]
    assert asked == [("vela", DIGITS, Q, MemoryModel(), ["SOFTMAX"])]
    assert row["peer_cycles"] == 990
    assert row["worst"][0]["cycles"] >= row["worst"][-1]["cycles"]


def test_what_the_reference_runs_is_told_apart(tmp_path, monkeypatch):
    def refuse(graph, npu, **options):
        raise GraphError("too new")

    monkeypatch.setattr(network_module, "compile_graph", refuse)
    assert examine(DIGITS, Q) == {"refusal": "too new", "reference_refusal": None}
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no network at all")
    row = examine(broken, Q)
    assert "not a TFLite file" in row["refusal"]
    assert row["reference_refusal"] == row["refusal"]
