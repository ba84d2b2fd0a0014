"""`convoy bench speed`: networks, and a peer's estimates beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from convoy.driver import cli
from convoy.driver.bench import peer as peer_module
from convoy.driver.bench.peer import Peer, accelerator_of, find_peer, run_peer
from convoy.driver.bench.speed import Speed, find_models, measure_speed
from convoy.driver.bench.speed_show import speed_notes
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimate
from convoy.spec.config import PRESETS
from convoy.verif.campaign import RTL_CONFIGS
from convoy.verif.litert import softmax_model, unary_model

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
Q = PRESETS["Q"]
FAKE = """#!{python}
import sys, pathlib
arguments = sys.argv[1:]
options = [name for name in arguments if name.startswith("--") and name != "--verbose-performance"]
value = {{name: arguments[arguments.index(name) + 1] for name in options}}
pathlib.Path({seen!r}).write_text(repr(value) + pathlib.Path(value["--config"]).read_text())
out = pathlib.Path(value["--output-dir"])
out.mkdir()
(out / "x_summary_y.csv").write_text({summary!r})
rows = "Original Operator,NNG Operator,Op Cycles", "Conv2D,Conv2D,900", "Softmax,Sub,70", "Softmax,LUT,30"
(out / "x_per-layer.csv").write_text("\\n".join(rows) + "\\n")
print("some warning", file=sys.stderr)
print("RuntimeError: no such thing", file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def vela(tmp_path, monkeypatch):
    """Puts a program in the place of Vela: (summary, exit code) -> file that holds what it was given."""

    def make(summary="network,cycles_total\nx,1000.0\n", code=0):
        program, seen = tmp_path / "vela", tmp_path / "seen"
        program.write_text(FAKE.format(python=sys.executable, seen=str(seen), summary=summary, code=code))
        program.chmod(0o755)
        monkeypatch.setattr(peer_module, "which", lambda name, path=None: str(program))
        return seen

    return make


@pytest.fixture
def bench(monkeypatch, capsys):
    """Runs `convoy bench speed`: (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convoy", "bench", "speed", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return call


def test_cycles_beside_those_of_a_peer(bench, vela, tmp_path):
    seen = vela()
    code, out, err = bench(
        DIGITS,
        "--device",
        "model",
        "--config",
        "Q",
        "--jobs",
        1,
        "--json",
        tmp_path / "x.json",
        "--html",
        tmp_path / "x.html",
    )
    assert (code, err) == (0, "")
    assert "U55 / Convoy" in out
    report = json.loads((tmp_path / "x.json").read_text())
    (row,) = report["rows"]
    cycles = estimate(compile_graph(read_tflite(DIGITS), Q, keep_tensors=True), MemoryModel()).cycles
    assert (report["device"], report["memory_latency_cycles"], report["peer"]["name"]) == ("model", 32, "ethos-u-vela")
    assert (row["network"], row["macs_per_cycle"], row["cycles"], row["bit_exact"], row["host_ops"]) == (
        "digits_int8",
        64,
        cycles,
        None,
        ["SOFTMAX"],
    )
    assert (row["utilisation"], row["effective_macs_per_cycle"]) == (row["macs"] / cycles / 64, row["macs"] / cycles)
    assert row["peer"] == {
        "accelerator": "ethos-u55-64",
        "cycles": 900,
        "host_cycles": 100,
        "utilisation": row["macs"] / 900 / 64,
        "effective_macs_per_cycle": row["macs"] / 900,
        "refusal": None,
    }
    assert row["ratio"] == 900 / cycles
    given = seen.read_text()
    assert "'--accelerator-config': 'ethos-u55-64'" in given
    settings = (
        "clock_scale=1.0",
        "ports_used=1",
        "burst_length=32",
        "read_latency=32",
        "write_latency=32",
        "max_reads=8",
    )
    assert "".join(f"Sram_{setting}\n" for setting in settings) in given
    assert (tmp_path / "x.html").read_text().count('id="chart-') == 2


def test_the_rtl_is_exact_and_a_peer_of_its_size_does_not_exist(bench, vela, tmp_path):
    vela()
    config = tmp_path / "small.toml"
    config.write_text(RTL_CONFIGS["small"].to_toml())
    code, out, _ = bench(DIGITS, "--config", config, "--jobs", 1, "--json", "-")
    (row,) = json.loads(out)["rows"]
    assert (code, row["bit_exact"], row["peer"], row["ratio"]) == (0, True, None, None)


def test_without_a_peer_one_line_says_how_to_get_it(bench, monkeypatch):
    monkeypatch.setattr(peer_module, "which", lambda name, path=None: None)
    code, out, err = bench(DIGITS, "--device", "model", "--jobs", 1)
    assert (code, err, out.count("digits_int8")) == (0, "", 3)
    assert "U55 cycles" not in out
    assert (
        out.splitlines()[-1]
        == "no comparison with Ethos-U55: ethos-u-vela is not installed; run: pip install 'convoy-npu[peer]'"
    )


def test_what_a_peer_refuses_is_said(bench, vela):
    vela(code=1)
    code, out, _ = bench(DIGITS, "--device", "model", "--jobs", 1, "--config", "X")
    assert code == 0
    assert out.splitlines()[-1] == "digits_int8, X: ethos-u-vela: RuntimeError: no such thing"


def test_what_convoy_refuses_is_said(bench, vela, tmp_path):
    vela()
    (tmp_path / "bad.tflite").write_bytes(b"not a network")
    code, out, _ = bench(tmp_path, "--device", "model", "--jobs", 1, "--config", "Q", "--json", "-")
    (row,) = json.loads(out)["rows"]
    assert (code, row["cycles"], row["peer"]) == (0, None, None)
    assert "TFLite" in row["refusal"]


@pytest.mark.parametrize("summary", ["network\nx\n", "network,cycles_total\nx,many\n", "network,cycles_total\n"])
def test_other_tables_are_an_error(vela, summary):
    vela(summary)
    with pytest.raises(
        GraphError, match=r"the tables of ethos-u-vela are not as expected \(.*\); this was written for version 5"
    ):
        run_peer(find_peer(), DIGITS, Q, MemoryModel(), ())


def test_a_wider_port_and_a_later_memory(vela):
    seen = vela()
    assert run_peer(
        find_peer(), DIGITS, Q.with_(port_bits=128), MemoryModel(latency_cycles=100), ("SOFT_MAX",)
    ) == Peer("ethos-u55-64", 1000, 100)
    assert "Sram_clock_scale=2.0" in seen.read_text()
    assert "Sram_read_latency=100" in seen.read_text()


def test_sizes():
    assert {name: accelerator_of(npu) for name, npu in PRESETS.items()} == {
        "S": None,
        "D": "ethos-u55-32",
        "Q": "ethos-u55-64",
        "O": "ethos-u55-128",
        "X": "ethos-u55-256",
    }


def test_a_row_by_hand():
    row = Speed("x", "Q", 64, macs=6400, cycles=200, peer=Peer("ethos-u55-64", 420, 20))
    assert (
        row.ratio,
        row.utilisation(row.cycles),
        row.effective_macs(row.cycles),
        row.utilisation(row.peer_cycles),
    ) == (2.0, 0.5, 32.0, 0.25)
    assert Speed("x", "Q", 64, macs=6400, cycles=200).ratio is None


def test_folders_and_files(tmp_path):
    for name in ("b.tflite", "a.tflite", "c.txt"):
        (tmp_path / name).touch()
    assert find_models([tmp_path, tmp_path / "a.tflite"]) == [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphError, match=r"empty: no \*\.tflite in this folder"):
        find_models([tmp_path / "empty"])
    with pytest.raises(GraphError, match="none: there is no such file or folder"):
        find_models([tmp_path / "none"])


@pytest.mark.skipif(find_peer() is None, reason="ethos-u-vela is not installed")
def test_the_peer_itself():
    found = [run_peer(find_peer(), DIGITS, PRESETS[name], MemoryModel(), ("SOFTMAX",)) for name in "QOX"]
    assert [peer.refusal for peer in found] == [""] * 3
    assert found[0].cycles > found[1].cycles > found[2].cycles > 0
    assert all(0 < peer.host_cycles < peer.cycles for peer in found)


def test_a_row_without_a_reference_and_one_whose_process_dies(tmp_path):
    """LiteRT aborts on 600 equal inputs of a SOFTMAX; the peer kills the process that calls it for the network
    "killer".
    """
    for name, shape in (("flat", (1, 600)), ("fine", (1, 8)), ("killer", (1, 8))):
        (tmp_path / f"{name}.tflite").write_bytes(softmax_model(shape, (1e-4, 5)))
    (tmp_path / "refused.tflite").write_bytes(
        unary_model("SOFTMAX", (1, 4), (1.0, 0), (1.0, 0), (np.int16, np.int16), beta=1.0)
    )
    program = tmp_path / "vela"
    program.write_text(
        f"#!{sys.executable}\n"
        + (
            "import os, sys\nif any('killer' in argument for argument in sys.argv):\n    os.kill(os.getppid(), "
            "9)\nsys.exit('no')\n"
        )
    )
    program.chmod(0o755)
    rows = measure_speed(find_models([tmp_path]), [("Q", Q)], 2, lambda *_: None, "golden", str(program))
    found = {row.network: (row.bit_exact, row.refusal, row.reference_note) for row in rows}
    assert list(found) == ["fine", "flat", "killer", "refused"]
    assert found["fine"] == (True, "", "")
    note = "the reference (LiteRT) cannot run the model: it aborts (its process ended without an answer)"
    assert found["flat"] == (None, "", note)
    assert found["killer"] == (None, "its process died, as when memory runs out", "")
    assert "LiteRT cannot execute it on the CPU" in found["refused"][1]
    assert {row["network"]: row["reference_note"] for row in (row.to_dict() for row in rows)} == {
        "fine": None,
        "flat": note,
        "killer": None,
        "refused": None,
    }
    assert speed_notes(rows, has_program=True)[2] == f"flat, Q: not compared; {note}"
