"""What a network needs where it is deployed: time at a clock frequency, and memory."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from convoy.driver.emit.program import NpuStep, Plan
from convoy.driver.errors import GraphError
from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION

__all__ = ["Clock", "clock_of", "memory_needs", "parse_clock", "placed_clock", "time_needs"]

PLACED = Path(__file__).with_name("placed.toml")
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_CLOCK = re.compile(r"(\d+(?:\.\d*)?)\s*(k|m|g|)hz", re.IGNORECASE)
MAX_HERTZ = 1e12


@dataclass(frozen=True)
class Clock:
    """A frequency in hertz, and where it comes from."""

    hertz: float
    source: str


def parse_clock(text: str) -> Clock:
    """A frequency as a user writes it: 62MHz, 1.2 GHz, 500000 Hz.

    Raises
    ------
    GraphError
        When it is none, or out of the question.
    """
    found = _CLOCK.fullmatch(text.strip())
    hertz = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    if not 0 < hertz <= MAX_HERTZ:
        raise GraphError(f"--clock {text}: give a frequency with its unit, such as 62MHz")
    return Clock(hertz, "as given")


@cache
def _placed() -> dict[str, Any]:
    return tomllib.loads(PLACED.read_text())


def placed_clock(config: NpuConfig) -> Clock | None:
    """What a preset reached when it was last placed and routed (`make synth`); None of one that was not."""
    if (found := _placed().get(config.name)) is None:
        return None
    return Clock(found["mhz"] * 1e6, f"placed and routed on {found['device']}, median of {found['seeds']} seeds")


def clock_of(text: str | None, config: NpuConfig) -> Clock | None:
    """The clock that a user gave, or the placed one of a preset."""
    return placed_clock(config) if text is None else parse_clock(text)


def time_needs(cycles: int | None, clock: Clock | None) -> dict[str, Any]:
    """`clock_mhz`, `clock_source`, `milliseconds` and `inferences_per_second`, of the NPU alone; None where a clock
    or cycles are missing.
    """
    seconds = cycles / clock.hertz if clock and cycles else None
    return {
        "clock_mhz": clock and clock.hertz / 1e6,
        "clock_source": clock and clock.source,
        "milliseconds": seconds and seconds * 1e3,
        "inferences_per_second": seconds and 1 / seconds,
    }


def memory_needs(plan: Plan) -> dict[str, int]:
    """Bytes of memory that a deployed network takes: `activation_bytes`, the most that is alive at a time, with
    inputs, outputs and variables; `constant_bytes`, weights, parameters and tables; `program_bytes`, descriptors and
    their completion records; `memory_bytes`, the three together.
    """
    programs = [step.program for step in plan.steps if isinstance(step, NpuStep) and step.program.descriptors]
    program = constant = 0
    for each in programs:
        *constants, descriptors = each.image
        program += len(descriptors[1]) + COMPLETION.num_bytes * len(each.descriptors)
        constant += sum(len(data) for _, data in constants)
    return {
        "activation_bytes": plan.activation_bytes,
        "constant_bytes": constant,
        "program_bytes": program,
        "memory_bytes": plan.activation_bytes + constant + program,
    }
