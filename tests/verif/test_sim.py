"""`make sim`: a short run of all cocotb tests, its report, and that it finds what is wrong."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import verilog

from convoy.hw.emit import TOP
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.copier import Copier
from convoy.verif.sim.run import SELFTEST, build_model, main, read_results, run_tests

CONFIG = NpuConfig(
    num_cores=1,
    num_lanes=8,
    num_acc_entries=16,
    post_lanes=2,
    stripe_bytes=4096,
    window_words=16,
    weight_fifo_beats=32,
    tp_buffer_bytes=1024,
)
SEED = 1
ONE_TEST = "registers_while_busy"
"""A short one with a program on both engines."""


@pytest.fixture
def simulate(tmp_path, monkeypatch, capsys):
    """Run the command; its exit code, what it printed, and the digests of its tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG.to_toml())

    def run(*arguments):
        code = main(["--config", "small.toml", "--seed", str(SEED), *arguments])
        text = capsys.readouterr().out
        return code, text, dict(re.findall(r"^(\w+) +(?:passed|failed) +[\d,]+ +([0-9a-f]{16})", text, re.MULTILINE))

    return run


def test_all_pass_and_can_be_replayed(simulate):
    code, text, digests = simulate()
    assert code == 0, text
    assert text.startswith(f"seed {SEED} ")
    assert ONE_TEST in digests
    folder = Path("build/sim/verilator-small")
    assert (folder / "coverage.xml").is_file()
    assert (folder / "coverage.yml").is_file()
    assert simulate("--test", ONE_TEST)[2] == {ONE_TEST: digests[ONE_TEST]}
    assert simulate("--test", ONE_TEST, "--seed", str(SEED + 1))[2][ONE_TEST] != digests[ONE_TEST]


@pytest.mark.icarus
def test_icarus_does_the_same_and_a_failure_leaves_waves_and_its_seed(simulate):
    """Cycle by cycle the same on all ten channels as Verilator."""
    _, _, digests = simulate("--test", ONE_TEST)
    code, text, again = simulate("--test", f"{ONE_TEST},wrong_expectation", "--sim", "icarus")
    assert code == 1
    assert again[ONE_TEST] == digests[ONE_TEST]
    assert f"wrong_expectation failed with seed {SEED}: memory differs from the golden machine's in 1 bytes" in text
    command = f"make sim SIM=icarus CONFIG=small.toml SEED={SEED} ROUNDS=1 TEST=wrong_expectation"
    assert f"{command} WAVES=1" in text
    assert "not replayable" not in text
    failed = Path("build/sim/icarus-small/failed")
    assert (failed / "waves.fst").stat().st_size > 10_000
    assert (failed / "replay").read_text() == f"{command}\n"


@pytest.mark.icarus
def test_the_environment_finds_flaws(tmp_path):
    config = PRESETS["S"]
    model = build_model("icarus", verilog.convert(Copier(config), name=TOP, strip_internal_attrs=True))
    names = ["copier", "copier_unstable", "copier_last", "copier_outside"]
    results = run_tests("icarus", model, tmp_path, config, SEED, modules=[SELFTEST], names=names)
    assert results.missing == []
    assert results.failures.keys() == {"copier_unstable", "copier_last", "copier_outside"}
    assert "m_axi.aw changed before READY" in results.failures["copier_unstable"]
    assert "WLAST = 1" in results.failures["copier_last"]
    assert "outside the memory windows" in results.failures["copier_outside"]


def test_a_skipped_test_is_missing(tmp_path):
    (tmp_path / "results.xml").write_text(
        '<testsuites><testsuite><testcase name="a.one"/><testcase name="a.two"><skipped/></testcase>'
        '<testcase name="a.three"><failure message="wrong"/></testcase></testsuite></testsuites>'
    )
    assert read_results(tmp_path / "results.xml", ["one", "two", "three", "four"]) == (
        {"three": "wrong"},
        ["two", "four"],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test", "none_such"], "there is no test 'none_such'. registers: registers_after_reset, "),
        (["--config", "none.toml"], "config none.toml is neither a preset"),
        (["--sim", "icarus"], "run: apt-get install iverilog"),
        ([], "run: apt-get install g++"),
    ],
)
def test_what_cannot_run_says_why(arguments, message, monkeypatch, capsys):
    if not arguments or "icarus" in arguments:
        monkeypatch.setattr(shutil, "which", lambda command: None)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(("is_ci", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_ci_does_not_skip_simulators(is_ci, outcome, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            f"{__file__}::{test_the_environment_finds_flaws.__name__}",
        ],
        env=os.environ | {"PATH": str(tmp_path), "CONVOY_CI": is_ci},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout, done.stdout + done.stderr
