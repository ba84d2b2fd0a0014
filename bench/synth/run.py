"""Area and clock frequency of one unit, or of the whole NPU.

    make synth UNIT=post.requant CONFIG=S SEEDS=1
    make synth

With `--unit` one unit is mapped to an ECP5 out of its context, and placed and routed once per seed; its figures and
critical path are printed. A wrong name lists the units. Without, the presets are mapped and placed, and
`docs/synthesis.md` is written.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ecp5 import DEVICE, PART, figures
from tools import BUILD, CLOCK_PIN, PACKAGE, ROOT, map_unit, place_unit, versions
from units import WHOLE, find_unit

from convoy.driver.report.markdown import filled
from convoy.spec.config import load_config

UNIT_MHZ, WHOLE_MHZ = 110, 60
"""Clock constraints."""


@dataclass(frozen=True)
class Result:
    """One NPU: cells by type (Yosys), and per seed of nextpnr the frequency in MHz and the critical path."""

    cells: dict[str, int]
    fmax_mhz: list[float]
    critical_path: list[str]


def synthesise(unit: str, config_name: str, seeds: int, mhz: int, workers: int) -> Result:
    """Map a unit and place it once per seed; prints its figures."""
    begin = time.monotonic()
    label = f"{Path(config_name).stem}-{unit}"
    netlist = map_unit(find_unit(load_config(config_name), unit), re.sub(r"\W", "_", label))
    table = "  ".join(f"{column} {count:,}" for column, count in figures(netlist.cells).items())
    print(f"{config_name} {unit}: {table}  ({time.monotonic() - begin:.0f} s)", flush=True)
    if not seeds:
        return Result(netlist.cells, [], [])
    placements = place_unit(netlist, seeds, mhz, workers)
    fmax = [placement.mhz for placement in placements]
    print("\n".join(placements[0].critical_path))
    seen = f"median {statistics.median(fmax):.1f} MHz of {', '.join(f'{value:.1f}' for value in fmax)}"
    print(f"{config_name} {unit}: {seen}, constraint {mhz} MHz  ({time.monotonic() - begin:.0f} s)", flush=True)
    return Result(netlist.cells, fmax, placements[0].critical_path)


def frequency(statistic: Callable[[list[float]], float], result: Result) -> str:
    """A statistic of the frequencies, or that there are none."""
    return f"{statistic(result.fmax_mhz):.1f} MHz" if result.fmax_mhz else "not placed"


def report(results: dict[str, Result], mhz: int) -> str:
    """`docs/synthesis.md`."""
    placements = ", ".join(f"{name} {len(result.fmax_mhz)}" for name, result in results.items())
    lines = [
        "# Area and clock frequency",
        "",
        "Written by `make synth` (`bench/synth`); do not edit.",
        "",
        *filled(
            f"Device: {PART}. The whole NPU, flattened. Package {PACKAGE}, clock at pin {CLOCK_PIN}, constraint {mhz} "
            f"MHz; placements: {placements}. Tools: {versions()}."
        ),
        "",
        (
            f"| preset | LUT4 | of {DEVICE['sites']:,} | FF | carry (CCU2C) | distributed RAM (DPR16X4) | MULT18X18D | "
            f"of {DEVICE['MULT18X18D']} | DP16KD | of {DEVICE['DP16KD']} | Fmax median | Fmax minimum |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        cells = figures(result.cells)
        share = {column: f"{cells[column] / number:.0%}" for column, number in DEVICE.items()}
        lines.append(
            f"| {name} | {cells['LUT4']:,} | {share['sites']} | {cells['FF']:,} | {cells['CCU2C']:,} | "
            f"{cells['DPR16X4']:,} | {cells['MULT18X18D']} | {share['MULT18X18D']} | {cells['DP16KD']} | "
            f"{share['DP16KD']} | {frequency(statistics.median, result)} | {frequency(min, result)} |"
        )
    lines += [
        "",
        *filled(
            "Columns: cells of each type and their share of the device. FF are flip-flops, MULT18X18D multipliers of "
            "18 bits, DP16KD block memories of 16 Kbit; Fmax is the highest clock frequency of the placements. The "
            "share of LUTs counts every site used: one per LUT4, two per carry cell, six per 16x4 distributed RAM."
        ),
        "",
    ]
    for name, result in results.items():
        if not result.critical_path:
            continue
        lines += [f"Critical path of {name}, first seed:", "", "```", *result.critical_path, "```", ""]
    return "\n".join(lines)


def placed(results: dict[str, Result]) -> str:
    """`driver/report/placed.toml`: the clock of each preset that was placed, by which reports give milliseconds."""
    lines = ["# Clock frequencies that presets have reached, placed and routed. Written by `make synth`; do not edit."]
    for name, result in results.items():
        if result.fmax_mhz:
            median = statistics.median(result.fmax_mhz)
            lines += ["", f"[{name}]", f"mhz = {median:.1f}", f'device = "{PART}"', f"seeds = {len(result.fmax_mhz)}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", action="append", help="preset or TOML file; may be repeated (default: S and Q)")
    parser.add_argument("--unit", help="only this unit, such as nn.window; nothing is written (default: the NPU)")
    parser.add_argument("--seeds", type=int, help="placements; 0: area only (default: 3, of a unit 0)")
    parser.add_argument("--mhz", type=int, help=f"clock constraint (default: {WHOLE_MHZ}, of a unit {UNIT_MHZ})")
    parser.add_argument("--workers", type=int, default=2, help="placements side by side")
    args = parser.parse_args()
    if args.unit:
        for config_name in args.config or ["Q"]:
            synthesise(args.unit, config_name, args.seeds or 0, args.mhz or UNIT_MHZ, args.workers)
        return
    results_file = BUILD / "results.json"
    mhz = args.mhz or WHOLE_MHZ
    for config_name in args.config or ["S", "Q"]:
        result = synthesise(WHOLE, config_name, 3 if args.seeds is None else args.seeds, mhz, args.workers)
        results = json.loads(results_file.read_text()) if results_file.is_file() else {}
        results[config_name] = asdict(result)
        results_file.write_text(json.dumps(results, indent=1))
        known = {name: Result(**values) for name, values in sorted(results.items())}
        (ROOT / "docs" / "synthesis.md").write_text(report(known, mhz))
        (ROOT / "driver" / "report" / "placed.toml").write_text(placed(known))


if __name__ == "__main__":
    main()
