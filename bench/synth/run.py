"""Area and clock frequency of one unit, or of the whole NPU.

    make synth UNIT=post.requant CONFIG=S SEEDS=1
    make synth

With `--unit` one unit is mapped to an ECP5 out of its context, and placed and routed once per seed; its figures and
critical path are printed. A wrong name lists the units. Without, NPUs are mapped and placed on an ECP5; their units,
each alone, are mapped to an ECP5, and placed there, to Xilinx' series 7 and to a library for chips; and
`docs/synthesis.md` is written, of this and of what is known (`bench/synth/results`). That takes hours; a
nextpnr built for the machine takes fewer: `NEXTPNR=/path/to/nextpnr-ecp5 make synth`.
"""

import argparse
import re
import statistics
import sys
import time
from pathlib import Path

from by_unit import Row, by_unit, clocks, memory_bits, scaled
from page import page, placed
from results import Result, hardware_of, keep, known
from technologies import ECP5, XC7, Technology, chip
from tools import MINUTES, ROOT, Placement, map_unit, place_unit, placing
from units import WHOLE, find_unit

from convoy.driver import load
from convoy.driver.errors import GraphError
from convoy.spec.config import load_config

DIGITS = ROOT / "examples" / "digits_int8.tflite"
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
"""Of Debian's package qflow-tech-osu018."""

UNIT_MHZ, WHOLE_MHZ = 110, 100
"""Clock constraints."""


def synthesise(
    unit: str, config_name: str, technology: Technology, seeds: int, mhz: int, workers: int, minutes: int
) -> tuple[dict[str, float], list[Placement]]:
    """Map a unit and place it once per seed; prints and returns its figures."""
    begin = time.monotonic()
    label = f"{Path(config_name).stem}-{unit}"
    netlist = map_unit(
        find_unit(load_config(config_name), unit), re.sub(r"\W", "_", label), technology, is_placed=seeds > 0
    )
    figures = technology.figures(netlist.cells)
    table = "  ".join(f"{column} {count:,}" for column, count in figures.items())
    print(f"{config_name} {unit}: {table}  ({time.monotonic() - begin:.0f} s)", flush=True)
    placements = place_unit(netlist, seeds, mhz, workers, minutes) if seeds else []
    if not placements:
        return figures, []
    fmax = [placement.mhz for placement in placements]
    print("\n".join(placements[0].critical_path))
    seen = f"median {statistics.median(fmax):.1f} MHz of {', '.join(f'{value:.1f}' for value in fmax)}"
    if not placements[0].is_routed:
        seen += f", not routed ({placements[0].num_left:,} of {placements[0].num_arcs:,} connections left)"
    print(f"{config_name} {unit}: {seen}, constraint {mhz} MHz  ({time.monotonic() - begin:.0f} s)", flush=True)
    return figures, placements


def print_units(name: str, rows: list[Row], whole: dict[str, float]) -> None:
    """A line for each unit, those with most sites first."""
    for row in sorted(scaled(rows, whole), key=lambda row: -row.count * row.figures["sites"]):
        sites = row.count * row.figures["sites"]
        cells = "  ".join(f"{column} {row.count * value:,.0f}" for column, value in row.figures.items())
        print(f"{name} {row.count:3} x {row.name:<20} {sites / whole['sites']:6.1%}  {cells}", flush=True)


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", action="append", help="preset or TOML file; may be repeated (default: S, D, Q and QL)"
    )
    parser.add_argument("--unit", help="only this unit, such as nn.window; nothing is written (default: the NPU)")
    parser.add_argument("--seeds", type=int, help="placements; 0: area only (default: 3, of a unit 0)")
    parser.add_argument("--mhz", type=int, help=f"clock constraint (default: {WHOLE_MHZ}, of a unit {UNIT_MHZ})")
    parser.add_argument(
        "--minutes",
        type=int,
        default=MINUTES,
        help=f"to place and route once, then it is only placed (default: {MINUTES})",
    )
    parser.add_argument("--workers", type=int, default=2, help="tools side by side")
    parser.add_argument("--model", action="append", default=[], type=Path, help="network to give milliseconds of")
    parser.add_argument("--ecp5", action="store_true", help="leave the other technologies out")
    parser.add_argument("--liberty", type=Path, help=f"library for chips (default: {LIBERTY}, if it is there)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises
    ------
    ValueError, GraphError
        When there is no such unit, configuration, library or network.
    """
    if args.unit:
        for config_name in args.config or ["Q"]:
            synthesise(args.unit, config_name, ECP5, args.seeds or 0, args.mhz or UNIT_MHZ, args.workers, args.minutes)
        return
    if args.liberty and not args.liberty.is_file():
        raise ValueError(f"--liberty {args.liberty}: no such file")
    liberty = args.liberty or (LIBERTY if LIBERTY.is_file() else None)
    technologies = [ECP5]
    if not args.ecp5:
        technologies += [XC7, *([chip(liberty)] if liberty else [])]
        if liberty is None:
            print("no library for chips: apt-get install qflow-tech-osu018, or --liberty FILE", file=sys.stderr)
    for config_name in args.config or ["S", "D", "Q", "QL"]:
        name, config = Path(config_name).stem, load_config(config_name)
        seeds = 3 if args.seeds is None else args.seeds
        mhz = args.mhz or WHOLE_MHZ
        whole, placements = synthesise(WHOLE, config_name, ECP5, seeds, mhz, args.workers, args.minutes)
        units = {each.name: by_unit(config, each, args.workers) for each in technologies}
        print_units(name, units[ECP5.name], whole)
        keep(
            name,
            Result(
                config.to_dict(),
                hardware_of(config),
                memory_bits(config),
                whole,
                placements,
                placing(int(whole["FF"])) if placements else "",
                mhz if placements else 0,
                {model.stem: load(model, config).estimate().cycles for model in (DIGITS, *args.model)},
                units,
                clocks(config, UNIT_MHZ, args.workers) if seeds else {},
            ),
        )
        results = known()
        (ROOT / "docs" / "synthesis.md").write_text(page(results))
        if seeds:
            (ROOT / "driver" / "report" / "placed.toml").write_text(placed(results))


if __name__ == "__main__":
    parser = arguments()
    try:
        main(parser.parse_args())
    except (ValueError, GraphError) as error:
        parser.error(str(error))
