"""What NPUs of many configurations take on an ECP5, written to driver/bench/mapped.csv for `convoy sweep`.

    make survey
    make survey FIRST=12

With a number it maps so many of its list and leaves out the rest, which takes hours. The units of each configuration
are mapped alone, each different unit once. The presets are mapped as a whole too; what that changes is applied to the
others.
"""

import argparse
import csv
import statistics
from pathlib import Path

from by_unit import by_unit, total
from technologies import ECP5
from tools import ROOT, map_unit
from units import WHOLE, find_unit

from convoy.driver.report.progress import bar
from convoy.spec.config import FEATURES, LEAN_PRESETS, PRESETS, NpuConfig

TARGET = ROOT / "driver" / "bench" / "mapped.csv"
WHOLES = [PRESETS[name] for name in "SQ"]
SMALL = PRESETS["S"]
VARIED = [
    SMALL.with_(post_lanes=8),
    SMALL.with_(num_lanes=8),
    SMALL.with_(num_cores=4),
    SMALL.with_(tp_lanes=1),
    *(SMALL.with_(**{name: False}) for name in FEATURES),
    SMALL.with_(port_bits=128),
    SMALL.with_(window_words=16),
    SMALL.with_(num_lanes=32),
    LEAN_PRESETS["QL"],
    SMALL.with_(post_lanes=1),
    SMALL.with_(window_words=256),
    SMALL.with_(port_bits=32),
    SMALL.with_(num_cores=2, num_lanes=8, post_lanes=4),
    SMALL.with_(num_cores=2, num_lanes=32),
    SMALL.with_(num_acc_entries=256, weight_fifo_beats=1024),
    SMALL.with_(stripe_bytes=16384, tp_buffer_bytes=4096, pool_channels=16, pool_line_bytes=32),
    SMALL.with_(max_burst_beats=64, max_reads=2),
    SMALL.with_(tp_lanes=2, num_cores=2),
    *(PRESETS["Q"].with_(**{name: False}) for name in FEATURES),
    *(preset for name, preset in LEAN_PRESETS.items() if name != "QL"),
]
"""S with each of its parameters varied, several cores with more and fewer lanes, and lean presets; those first that say
most.
"""


def rows_of(sums: list[dict[str, float]], wholes: list[dict[str, float]]) -> list[dict[str, int]]:
    """Cells of each configuration, of the sums of its units: those of the first ones are known as a whole, and the
    others change by the median of what these do.
    """
    ratios = {
        column: statistics.median(
            whole[column] / known[column] if known[column] else 1.0 for known, whole in zip(sums, wholes, strict=False)
        )
        for column in sums[0]
    }
    others = [{column: value * ratios[column] for column, value in cells.items()} for cells in sums[len(wholes) :]]
    return [{column: round(value) for column, value in cells.items()} for cells in (*wholes, *others)]


def write(path: Path, configs: list[NpuConfig], rows: list[dict[str, int]]) -> None:
    """A line for each configuration: its parameters, then its cells."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*configs[0].to_dict(), *rows[0]], lineterminator="\n")
        writer.writeheader()
        for config, cells in zip(configs, rows, strict=True):
            writer.writerow({name: int(value) for name, value in config.to_dict().items()} | cells)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="units mapped side by side")
    parser.add_argument("--first", type=int, metavar="N", help="only so many configurations beside the presets")
    args = parser.parse_args()
    configs = WHOLES + VARIED[: args.first]
    with bar("mapping units") as show:
        sums = []
        for config in configs:
            show("mapping units", len(sums), len(configs))
            sums.append(total(by_unit(config, ECP5, args.workers)))
        wholes = []
        for config in WHOLES:
            show(f"mapping {config.name} as a whole", len(wholes), len(WHOLES))
            netlist = map_unit(find_unit(config, WHOLE), f"{config.name}_{WHOLE}", ECP5)
            wholes.append(ECP5.figures(netlist.cells))
    write(TARGET, configs, rows_of(sums, wholes))


if __name__ == "__main__":
    main()
