"""The command `convoy`: output, JSON and exit codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoy.driver import cli
from convoy.driver.graph.graph import Variable
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.verif.graphs import GraphMaker
from convoy.verif.litert import softmax_model
from convoy.verif.models import one_op

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"
REPORT_KEYS = [
    "model",
    "config",
    "device",
    "cores",
    "lanes",
    "port_bits",
    "memory_latency_cycles",
    "cycles",
    "end_cycles",
    "busy_cycles",
    "edge_cycles",
    "lost",
    "clock_mhz",
    "clock_source",
    "milliseconds",
    "inferences_per_second",
    "activation_bytes",
    "constant_bytes",
    "program_bytes",
    "memory_bytes",
    "floor_cycles",
    "floor_bytes",
    "macs",
    "read_bytes",
    "write_bytes",
    "weight_bytes",
    "bytes_per_inference",
    "host_macs",
    "utilisation",
    "bit_exact",
    "reference",
    "reference_note",
    "simulation_seconds",
    "simulated_cycles_per_second",
    "notes",
    "npu_macs_percent",
    "npu_ops_percent",
    "host_round_trips",
    "host_groups",
    "host_ops",
    "layers",
]
LAYER_KEYS = [
    "index",
    "name",
    "number",
    "op",
    "engine",
    "cycles",
    "tp_cycles",
    "busy_cycles",
    "edge_cycles",
    "lost",
    "floor_cycles",
    "floor_bytes",
    "macs",
    "utilisation",
    "read_bytes",
    "write_bytes",
    "weight_bytes",
    "bit_exact",
    "max_abs_diff",
]
CONV = "layer --op conv --input 10x9x6 --oc 10 --kernel 3x3"


@pytest.fixture
def convoy(monkeypatch, capsys):
    """Runs the command: (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convoy", *(word for arg in args for word in str(arg).split())])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return call


def test_operators(convoy, tmp_path):
    code, out, err = convoy("operators", DIGITS, "--json", tmp_path / "o.json")
    assert (code, err) == (0, "")
    rows = json.loads((tmp_path / "o.json").read_text())["operators"]
    assert [(row["op"], row["count"]) for row in rows if row["engine"] == "host"] == [("SOFTMAX", 1)]
    assert "SOFTMAX is not supported" in out
    code, out, err = convoy("operators")
    assert (code, err) == (0, "")
    assert all(kind in out for kind in ("CONV_2D", "TRANSPOSE_CONV", "SOFTMAX"))


def test_run_writes_the_report(convoy, tmp_path):
    code, out, err = convoy("run", DIGITS, "--device golden --seed 3 --json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (code, err) == (0, "")
    assert list(report) == REPORT_KEYS
    assert all(list(layer) == [*LAYER_KEYS, *["note"] * ("note" in layer)] for layer in report["layers"])
    assert report["bit_exact"] is True
    assert (report["model"], report["config"], report["device"], report["reference"]) == (
        str(DIGITS),
        "Q",
        "golden",
        "litert",
    )
    assert (report["cores"], report["lanes"], report["port_bits"], report["macs"]) == (4, 16, 64, 331648)
    assert [list(entry) for entry in report["host_ops"]] == [
        ["index", "name", "number", "op", "group", "reason", "remedy", "macs", "bit_exact", "max_abs_diff"]
    ]
    assert report["host_ops"][0]["bit_exact"] is True
    assert len(report["layers"]) == 8  # a flattened image is read as it is
    fused = [layer for layer in report["layers"] if "is not stored" in layer.get("note", "")]
    assert all(
        layer["bit_exact"] is True and layer["max_abs_diff"] == 0 for layer in report["layers"] if layer not in fused
    )
    assert "DEPTHWISE_CONV_2D" in out
    assert "every tensor equals the reference" in out


def test_estimate_has_the_form_of_a_run(convoy):
    code, out, err = convoy("estimate", DIGITS, "--config D --json -")
    report = json.loads(out)
    assert (code, err, list(report), report["device"]) == (0, "", REPORT_KEYS, "estimate")
    assert all(list(layer) == [*LAYER_KEYS, *["note"] * ("note" in layer)] for layer in report["layers"])
    assert 0 < report["cycles"] < 10 * report["macs"]


def test_profile_of_the_model(convoy, tmp_path):
    code, out, err = convoy("profile", DIGITS, "--device model --trace", tmp_path / "t.pftrace")
    assert (code, err) == (0, "")
    assert "estimated in" in out
    assert b"core 3" in (tmp_path / "t.pftrace").read_bytes()


def test_json_on_stdout_is_alone_there(convoy):
    code, out, _ = convoy("run", DIGITS, "--device golden --json -")
    assert code == 0
    assert json.loads(out)["bit_exact"] is True


def test_a_network_on_which_the_reference_aborts_runs(convoy, tmp_path):
    """600 inputs that are nearly equal: their exponentials sum up to more than 512, where LiteRT's SOFTMAX aborts
    its process.
    """
    path = tmp_path / "flat.tflite"
    path.write_bytes(softmax_model((1, 600), (1e-4, 5)))
    note = "the reference (LiteRT) cannot run the model: it aborts (its process ended without an answer)"
    code, out, err = convoy("run", path, "--device golden --steps 2 --json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (code, err, report["bit_exact"], report["reference_note"]) == (
        0,
        f"convoy: not compared: {note}\n",
        None,
        note,
    )
    assert out.splitlines()[-1] == f"reference litert: not compared; {note}"
    assert report["host_ops"][0]["reason"].endswith("its ordinary kernel ran")


def test_an_operator_version_that_the_reference_lacks(convoy, tmp_path):
    path = tmp_path / "blocks.tflite"
    path.write_bytes(one_op("DEPTH_TO_SPACE", (1, 4, 4, 8), (1, 8, 8, 2), [], version=2, blockSize=2))
    code, out, err = convoy("run", path, "--device golden")
    assert (code, err) == (0, "")
    assert (
        "every tensor equals the reference; compared with DEPTH_TO_SPACE of version 2 as version 1"
        in out.splitlines()[-1]
    )


@pytest.mark.parametrize("config", ["S", "O"])
def test_other_configurations(convoy, config):
    code, out, _ = convoy("run", DIGITS, "--device golden --json - --config", config)
    assert code == 0
    assert json.loads(out)["config"] == config


def test_run_of_some_layers(convoy):
    code, out, _ = convoy("run", DIGITS, "--device golden --layers 2:4 --json -")
    report = json.loads(out)
    assert code == 0
    assert [layer["index"] for layer in report["layers"]] == [2, 3]
    assert report["bit_exact"] is True


def test_a_difference_gives_exit_code_1(convoy, monkeypatch):
    from convoy.driver.workload import reference

    genuine = reference.Reference.run

    def shifted(self, inputs):
        tensors = genuine(self, inputs)
        tensors[22] = tensors[22] + np.int8(1)
        return tensors

    monkeypatch.setattr(reference.Reference, "run", shifted)
    code, out, err = convoy("run", DIGITS, "--device golden --seed 1")
    assert code == 1
    assert "convoy: layer 8: tensor 22 (logits) differs in 10 of 10 elements" in err
    assert "at least one tensor differs" in out


def test_save_and_input_files(convoy, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(64, dtype=np.int8).reshape(8, 8, 1))
    code, _, _ = convoy(
        "run", DIGITS, "--device golden --reference none --input", tmp_path / "x.npy", "--save", tmp_path / "out"
    )
    assert code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "000_input.npy").reshape(-1), np.arange(64))
    assert np.load(tmp_path / "out" / "023_probabilities.npy").shape == (1, 10)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bit_exact"] is None


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--pad 1,1,1,1",
        "--stride 2x1 --pad 0,1,2,0 --density 0.3 --activation relu6",
        "--activation relu --config S",
        "--stride 3x1 --dilation 1x2 --pad 2,0,1,4",
        "--stride 4x7",
        "--dtype uint8 --pad 1,1,1,1 --density 0.3",
        "--dtype int16 --pad 1,0,2,1 --stride 2x1",
    ],
)
def test_layer(convoy, options):
    code, out, err = convoy(CONV, options, "--device golden --json -")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert list(report) == REPORT_KEYS
    assert len(report["layers"]) == 1
    assert list(report["layers"][0]) == LAYER_KEYS
    assert report["layers"][0]["engine"] == (
        "nn+tp" if "--stride 3x1" in options else "swapped" if "--stride 4x7" in options else "nn"
    )
    assert report["bit_exact"] is True


@pytest.mark.parametrize(
    "options", ["--lut tanh --pad 1,0,2,1", "--lut hard_swish", "--lut leaky_relu --activation relu"]
)
def test_layer_with_a_table(convoy, options):
    code, out, err = convoy(CONV, options, "--device golden --json -")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert [(layer["engine"], layer["bit_exact"]) for layer in report["layers"]] == [("nn", None), ("fused", True)]
    assert report["layers"][1]["note"] == "fused into operator 0 CONV_2D"
    assert report["bit_exact"] is True


def test_unknown_table_is_refused(convoy):
    code, _, err = convoy(CONV, "--lut sine --device golden")
    assert (code, "--lut sine: use none, elu, gelu" in err) == (2, True)


def test_depthwise_layer_with_multiplier(convoy):
    code, out, _ = convoy(
        "layer --op depthwise --input 7x7x4 --oc 8 --kernel 3x3 --pad 1,1,1,1 --device golden --json -"
    )
    assert code == 0
    assert json.loads(out)["macs"] == 7 * 7 * 8 * 9


def test_layer_seeds_differ_and_repeat(convoy, tmp_path):
    outputs = []
    for i, seed in enumerate((1, 2, 1)):
        assert convoy(CONV, "--device golden --seed", seed, "--save", tmp_path / str(i))[0] == 0
        outputs.append(np.load(tmp_path / str(i) / "003_output.npy"))
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[1])


def test_compile(convoy, tmp_path):
    code, out, _ = convoy("compile", DIGITS, "--save", tmp_path, "--json -")
    report = json.loads(out)
    assert code == 0
    assert [op["op"] for op in report["ops"]][-2:] == ["FULLY_CONNECTED", "SOFTMAX"]
    assert report["ops"][-1]["engine"] == "host"
    assert (tmp_path / "memory.bin").stat().st_size == report["memory_bytes"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["programs"][0]["program_count"] == report["descriptors"]
    assert [window["control"] for window in plan["programs"][0]["windows"]] == [3, 1, 2]
    assert [place["name"] for place in plan["placements"] if place["tensor"] in plan["inputs"]] == ["input"]


def test_compile_for_another_address(convoy, tmp_path):
    for name, options in (("low", ""), ("high", "--base 0x80000000")):
        assert convoy("compile", DIGITS, options, "--save", tmp_path / name)[0] == 0
    low, high = (json.loads((tmp_path / name / "plan.json").read_text()) for name in ("low", "high"))
    assert (low["base"], high["base"]) == (0, 0x80000000)
    assert high["programs"][0]["program_addr"] - low["programs"][0]["program_addr"] == 0x80000000
    assert high["programs"][0]["windows"][0]["base"] == 0x80000000
    memories = [np.fromfile(tmp_path / name / "memory.bin", np.uint8) for name in ("low", "high")]
    assert len(memories[0]) == len(memories[1])
    program = low["programs"][0]
    descriptors = slice(program["program_addr"], program["record_addr"])
    assert not np.array_equal(memories[0][descriptors], memories[1][descriptors])
    memories[0][descriptors] = memories[1][descriptors] = 0
    assert np.array_equal(*memories)


def test_compile_to_c(convoy, tmp_path):
    code, out, _ = convoy("compile", DIGITS, "--c-array", tmp_path / "digits.c")
    assert code == 0
    assert "left to the application, behind the NPU's: operator 9 SOFTMAX" in out
    assert "convoy_network digits_network = {" in (tmp_path / "digits.c").read_text()
    code, out, _ = convoy("compile", DIGITS, "--c-array", tmp_path / "one.h", "--json -")
    assert code == 0
    assert len(json.loads(out)["left_to_application"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.c", "digits.h", "one.h"]
    code, _, _ = convoy("compile", DIGITS, "--c-array", tmp_path / "small.c", "--constants", tmp_path / "w.bin")
    assert code == 0
    assert ".constants = NULL," in (tmp_path / "small.c").read_text()
    assert f".constant_bytes = {(tmp_path / 'w.bin').stat().st_size}u" in (tmp_path / "small.c").read_text()
    code, out, _ = convoy("c-runtime", tmp_path / "npu")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "npu").iterdir()) == ["convoy.c", "convoy.h", "convoy_regs.h"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--c-array net.txt", "name a file that ends in .c"),
        ("--c-array convoy.c", "are the runtime's; give another one"),
        ("--constants w.bin", "--constants is a part of what --c-array writes"),
        ("--c-array net.c --constants net.c", "would overwrite the output of"),
        ("--base 4096", "--base is the address of what --save writes"),
        ("--base x --save out", "give an address such as 0x80000000"),
        ("--base 100 --save out", "base 0x64: give a multiple of 4096"),
        ("--c-array none/net.c", "is not a folder; create it first"),
    ],
)
def test_compile_refuses(convoy, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = convoy("compile", DIGITS, options)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_compile_prints_a_table(convoy):
    code, out, _ = convoy("compile", DIGITS)
    assert code == 0
    assert "MAX_POOL_2D" in out


def test_info(convoy):
    code, out, _ = convoy("info --config S --json -")
    report = json.loads(out)
    assert code == 0
    assert (report["config"]["name"], report["derived"]["macs_per_cycle"]) == ("S", 16)
    code, out, _ = convoy("info")
    assert code == 0
    assert "num_cores            4" in out


def test_a_config_file(convoy, tmp_path):
    (tmp_path / "wide.toml").write_text("num_cores = 2\nport_bits = 128\npost_lanes = 4\n")
    code, out, _ = convoy("info --json - --config", tmp_path / "wide.toml")
    assert code == 0
    assert json.loads(out)["derived"]["port_bytes"] == 16


def running_sum(path) -> None:
    """A file with a network that adds its input to a variable."""
    maker = GraphMaker()
    source, before = maker.tensor((1, 2), scale=1.0, zero_point=0), maker.read(0, (1, 2), scale=1.0, zero_point=0)
    total = maker.op("ADD", (before, source), (1, 2), activation="NONE")
    maker.tensors[total] = replace(maker.tensors[total], quant=maker.tensors[source].quant)
    maker.assign(0, total)
    graph = maker.graph([source], [total])
    path.write_bytes(
        write_tflite(
            replace(graph, variables=(Variable("total", (1, 2), np.dtype(np.int8), np.zeros((1, 2), np.int8)),))
        )
    )


def test_steps_of_a_network_with_state(convoy, tmp_path):
    model = tmp_path / "sum.tflite"
    running_sum(model)
    np.save(tmp_path / "x.npy", np.array([[1, 2], [30, -3], [-4, 0]], np.int8))
    code, out, err = convoy(
        "run", model, "--device golden --steps 3 --json - --save", tmp_path / "out", "--input", tmp_path / "x.npy"
    )
    report = json.loads(out)
    assert (code, err, report["bit_exact"]) == (0, "", True)
    assert [step["bit_exact"] for step in report["steps"]] == [True] * 3
    assert [(layer["op"], layer["name"]) for layer in report["layers"]] == [
        ("READ_VARIABLE", "t1"),
        ("ADD", "t2"),
        ("ASSIGN_VARIABLE", "total"),
    ]
    assert np.load(tmp_path / "out" / "002_t2.npy").tolist() == [[27, -1]]
    code, out, _ = convoy("run", model, "--device golden --steps 2")
    assert code == 0
    assert "every tensor equals the reference in each of 2 steps" in out
    code, out, _ = convoy("run", model, "--device golden --layers 3:4 --json -")
    assert (code, [layer["op"] for layer in json.loads(out)["layers"]]) == (0, ["ADD"])
    assert convoy("run", model, "--device golden --layers 0:1")[0] == 2
    assert convoy("compile", model)[0] == 0


def test_the_step_that_differs_is_named(convoy, tmp_path, monkeypatch):
    from convoy.driver.runtime.session import Session

    running_sum(tmp_path / "sum.tflite")
    genuine = Session.run

    def forgetful(self, inputs):
        self.reset_state()
        return genuine(self, inputs)

    monkeypatch.setattr(Session, "run", forgetful)
    code, out, err = convoy("run", tmp_path / "sum.tflite", "--device golden --steps 2")
    assert code == 1
    assert err.startswith("convoy: step 1: layer 2: tensor 1 (t1) differs in")
    assert "at least one tensor differs" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (f"run {DIGITS} --layers 1:2 --steps 2", "exclude each other"),
        (f"run {DIGITS} --steps 0", "--steps"),
        ("run nowhere.tflite", "nowhere.tflite: cannot be read"),
        (f"run {__file__}", "not a TFLite file"),
        (f"run {DIGITS} --config Z", "neither a preset"),
        (f"run {DIGITS} --device abacus", "abacus"),
        (f"run {DIGITS} --layers 5:99", "--layers 5:99"),
        (f"run {DIGITS} --layers 5:5", "--layers 5:5"),
        (f"run {DIGITS} --layers x", "--layers x"),
        (f"run {DIGITS} --input nowhere.npy", "nowhere.npy"),
        (f"run {DIGITS} --input {__file__} --seed 1", "exclude each other"),
        (f"run {DIGITS} --device golden --waves x.vcd", "golden makes no waveforms"),
        (f"run {DIGITS} --device golden --json /nowhere/x.json", "/nowhere/x.json"),
        ("layer --op conv --input 8x8 --oc 4 --kernel 3x3", "--input 8x8"),
        ("layer --op conv --input 8x8x4 --oc 4 --kernel 9x9", "larger than the padded input"),
        ("layer --op pool --input 8x8x4 --oc 4 --kernel 3x3", "--op pool"),
        ("layer --op conv --input 8x8x4 --oc 4 --kernel 3x3 --density 2", "--density"),
        ("frobnicate", "frobnicate"),
        ("run", "MODEL"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(convoy, args, message):
    code, out, err = convoy(args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("convoy: ")
    assert err.count("\n") == 1


def test_damaged_models(convoy, tmp_path):
    raw = DIGITS.read_bytes()
    for name, damaged in (
        ("short", raw[:20000]),
        ("header", raw[:8]),
        ("empty", b""),
        ("rubbish", bytes(range(256)) * 20),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(damaged)
        code, out, err = convoy("run --device golden", path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert name in err


def test_prune_writes_a_file_that_runs(convoy, tmp_path):
    code, out, err = convoy("prune", DIGITS, "--share 0.9 -o", tmp_path / "p.tflite")
    assert (code, err) == (0, "")
    assert "90.0%" in out or "90.1%" in out
    code, _, err = convoy("run", tmp_path / "p.tflite", "--device golden")
    assert (code, err) == (0, "")
    code, _, err = convoy("prune", DIGITS, "--share 2 -o", tmp_path / "q.tflite")
    assert (code, err) == (2, "convoy: a share of 2 zero weights; use 0 .. 1\n")
