"""Proves all of it and prints a table: `python -m convoy.verif.formal [--only NAME] [--folder build/formal]`; exit
code 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from convoy.spec.config import PRESETS, NpuConfig

from . import clients, guard, weights
from .bench import Bench
from .engine import Netlist, ToolError

__all__ = ["CASES", "Case", "Verdict", "main", "prove"]

SMALL = PRESETS["S"].with_(max_burst_beats=4, weight_fifo_beats=32)
WIDE = PRESETS["S"].with_(port_bits=256, max_burst_beats=8, weight_fifo_beats=32)
LONG = PRESETS["S"].with_(num_cores=2, port_bits=32, max_burst_beats=32, weight_fifo_beats=32)
REACH_CYCLES = 24
"""Cycles in which a fault must do harm and a cover be reached."""


@dataclass(frozen=True)
class Case:
    """A unit in a configuration; `depth` is that of the induction."""

    unit: Callable[[Bench, NpuConfig], None]
    config: NpuConfig
    depth: int = 2

    @property
    def name(self) -> str:
        """Unit, cores, port and longest burst."""
        config = self.config
        return f"{self.unit.__name__}_{config.num_cores}x{config.port_bits}x{config.max_burst_beats}"


CASES = [
    *(Case(unit, config) for unit in (guard.guard, guard.read_mux, guard.write_mux) for config in (SMALL, WIDE)),
    *(
        Case(unit, config)
        for unit in (clients.burst_splitter, clients.burst_builder, clients.run_reader, clients.descriptor_fetch)
        for config in (SMALL, WIDE)
    ),
    *(Case(weights.weight_streams, config, 4) for config in (LONG, WIDE.with_(max_burst_beats=16))),
]


@dataclass(frozen=True)
class Verdict:
    """What was found of one case.

    `problems` is empty if all properties are proved, all faults found and all covers reached.
    """

    case: Case
    bench: Bench
    seconds: float
    problems: tuple[str, ...]


def prove(case: Case, folder: Path) -> Verdict:
    """Base case, induction, covers and faults.

    Raises
    ------
    ToolError
        When Yosys or the solver is missing or fails.
    """
    started, problems, bench = time.monotonic(), [], Bench()
    case.unit(bench, case.config)
    if unguarded := set(bench.properties) - {name for fault in bench.faults for name in fault.breaks}:
        problems.append(f"no fault breaks {', '.join(sorted(unguarded))}")
    netlist = Netlist(bench, folder, case.name)
    if not netlist.holds(case.depth)[0]:
        problems.append(f"the first {case.depth} cycles: a property or an invariant does not hold")
    if not netlist.is_inductive(case.depth)[0]:
        problems.append(f"not inductive over {case.depth} cycles")
    if not netlist.reaches(REACH_CYCLES)[0]:
        problems.append(f"not reached: one of {', '.join(bench.covers)}")
    for number, fault in enumerate(bench.faults, 1):
        problems += [
            f"{name!r} holds although {fault.text}"
            for name in fault.breaks
            if netlist.holds(REACH_CYCLES, fault=number, focus=bench.properties.index(name) + 1)[0]
        ]
    return Verdict(case, bench, time.monotonic() - started, tuple(problems))


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="formal", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds this")
    parser.add_argument("--folder", type=Path, default=Path("build/formal"), help="for netlists and counterexamples")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if options.only in case.name]
    if not cases:
        parser.error(f"no case holds {options.only!r}; they are {', '.join(case.name for case in CASES)}")
    table = Table(title="Proofs: unbounded, by induction", title_justify="left")
    for title in ("unit", "cores", "port", "burst", "properties", "faults found", "seconds", "verdict"):
        table.add_column(title, overflow="fold")
    has_failed, assumptions = False, {}
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
        try:
            verdict = prove(case, options.folder)
        except ToolError as error:
            print(f"formal: {error}", file=sys.stderr)
            return 2
        bench, config = verdict.bench, case.config
        has_failed |= bool(verdict.problems)
        assumptions |= dict.fromkeys(bench.assumptions)
        table.add_row(
            case.unit.__name__,
            str(config.num_cores),
            str(config.port_bits),
            str(config.max_burst_beats),
            ", ".join(bench.properties),
            str(sum(len(fault.breaks) for fault in bench.faults)),
            f"{verdict.seconds:.1f}",
            "; ".join(verdict.problems) or "proved",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for text in assumptions:
        print(f"assumed: {text}")
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
