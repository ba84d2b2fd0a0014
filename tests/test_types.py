"""What the type checker sees: a call with wrong arguments, in each room that it checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_TYPES = {"convoy.hw.*": ["valid-type"]}
"""What is not checked for good: `x: In(8)` declares a member of a component and is no type."""
PENDING = {
    "convoy.driver.compile.*",
    "convoy.driver.lower.fuse",
    "convoy.driver.plan.geometry",
    "convoy.driver.plan.phases",
    "convoy.driver.plan.schedule",
    "convoy.driver.plan.tile",
}
"""Still to be cleaned."""

CALLS = """\
from convoy.driver.lower.quantise import mean_multiplier
from convoy.golden.quant import quantize_multiplier
from convoy.hw.lib.queue import Queue
from convoy.spec.isa import TP, Opcode, Rounding

mean_multiplier(0.5, 3), quantize_multiplier(0.5), Queue(8, depth=2), TP.encode(op=0), Rounding(Opcode.NN.value)
mean_multiplier(0.5)  # call-arg
mean_multiplier("half", 3)  # arg-type
quantize_multiplier(0.5, 3)  # call-arg
Queue(8, width=2)  # call-arg
Queue(8, "two")  # arg-type
TP.encode(op="COPY")  # arg-type
Opcode.PAD  # attr-defined
"""
"""Lines with the code of the error that each must give; the others give none."""


def test_wrong_calls_are_found(tmp_path):
    calls, link = tmp_path / "calls.py", ROOT / "build/typing/convoy"
    calls.write_text(CALLS)
    if not link.exists():  # as `make setup` does
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../..")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(calls)],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(link.parent)},
        capture_output=True,
        text=True,
    )
    found = {(int(line), code) for line, code in re.findall(r"calls\.py:(\d+): error: .*\[([a-z-]+)\]", run.stdout)}
    lines = enumerate(CALLS.splitlines(), 1)
    expected = {(number, line.split("  # ")[1]) for number, line in lines if "  # " in line}
    assert found == expected, run.stdout + run.stderr


def test_no_error_code_is_disabled():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert "disable_error_code" not in settings
    disabled = {
        module: override["disable_error_code"]
        for override in settings["overrides"]
        for module in override["module"]
        if "disable_error_code" in override and module not in PENDING
    }
    assert disabled == NO_TYPES
