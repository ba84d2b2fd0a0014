"""Networks on Convoy and in the estimates of Arm's compiler Vela, written to docs/speed.md and docs/images/speed.svg.

    .venv/bin/python bench/speed.py FOLDER|MODEL.tflite ...

The same figures as `convoy bench speed`; needs the extras `peer` and `plots`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import altair as alt

from convoy.driver.bench.peer import INSTALL, PEER_NAME, find_peer, peer_version
from convoy.driver.bench.speed import find_models, measure_speed
from convoy.driver.bench.speed_show import column_meanings, markdown_speeds, speed_charts, speed_notes
from convoy.driver.report.markdown import bullets, filled
from convoy.driver.report.progress import bar
from convoy.spec.config import load_config

DOCS = Path(__file__).parents[1] / "docs"
CONFIGS = ("Q", "O", "X")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    args = parser.parse_args()
    program = find_peer() or parser.error(INSTALL)
    models = find_models(args.paths)
    with bar("preparing") as progress:
        rows = measure_speed(
            models, [(name, load_config(name)) for name in CONFIGS], os.cpu_count() or 1, progress, peer_program=program
        )
    if wrong := [row for row in rows if row.bit_exact is not True]:
        raise SystemExit(f"{wrong[0].network}, {wrong[0].config}: {wrong[0].refusal or 'a tensor differs from LiteRT'}")
    alt.vconcat(*speed_charts(rows)).save(DOCS / "images" / "speed.svg")
    lines = [
        "# Comparison with Ethos-U55",
        "",
        *filled(
            "Cycles of whole networks on Convoy, and what Arm's compiler Vela estimates for an Ethos-U55 with as many "
            "multipliers. Convoy's cycles are measured: the RTL, simulated cycle by cycle on device `native`, 64-bit "
            "port, 32 cycles of memory latency; every tensor of every run equals LiteRT's. Those of the Ethos-U55 are "
            f"estimates of {PEER_NAME} {peer_version()}, not measurements."
        ),
        "",
        "Written by",
        "",
        "```",
        " \\\n    ".join(["python bench/speed.py", *(model.name for model in models)]),
        "```",
        "",
        "`convoy bench speed FOLDER|MODEL... --html FILE` shows the same for any networks and configurations.",
        "",
        "Columns of the table:",
        "",
        *bullets(column_meanings(rows)),
        "",
        *markdown_speeds(rows),
        "",
        *speed_notes(rows, has_program=True),
        "![Cycles, and MACs done per cycle, of each network](images/speed.svg)",
    ]
    (DOCS / "speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
