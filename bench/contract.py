"""Every rule of the contract measured on the RTL, written to docs/contract.md with its charts in docs/images, and a
summary to the pages of docs/rules.

    .venv/bin/python bench/contract.py [--config Q] [--jobs N]

The figures are those of `convoy bench contract`; cycles are exact, the same on every machine. The exit code is 0 even
if a limit is missed: the page lists what is. It is 1 if a result differs from LiteRT's.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from convoy.driver.bench.case import Row, judge
from convoy.driver.bench.contract import contract_cases
from convoy.driver.bench.measure import measure_all
from convoy.driver.bench.plots import write_images
from convoy.driver.bench.rule_pages import filled_page, rule_figures
from convoy.driver.bench.show import COLUMN_MEANINGS, markdown, plain, verdict
from convoy.driver.report.markdown import bullets, filled
from convoy.driver.report.progress import bar
from convoy.spec.config import load_config

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "contract.md"
IMAGES = ROOT / "docs" / "images"
RULES_FOLDER = ROOT / "docs" / "rules"
METRICS = {
    "utilisation": "multiply-accumulates, as if no weight were zero, / (cycles x multipliers)",
    "share of the roofline": (
        "least possible cycles / cycles; nothing can be faster than every multiplier busy with weights that are not "
        "zero, nor than inputs and weights once over the read channel and outputs once over the write channel"
    ),
    "ideal cycles / cycles": "ideal: every multiplier busy with weights that are not zero",
    "weight bytes / (density x twin's)": (
        "weights read, over those of the dense layer (the twin) times the share of weights that are not zero; the "
        "limit is 1.1 times what 8 bits for each of these and the entropy of their places take"
    ),
    "cycles waiting for TP": "share of the cycles that ended with a job of the tensor processor (TP)",
    "refused by name": "1: the compiler says what the limit is, and compiles nothing",
}
"""What the names in the column *metric* mean that do not say it themselves."""


def head(config: str) -> list[str]:
    """The page up to its figures."""
    return [
        "# The contract, measured",
        "",
        *filled(
            f"Written by `make contract` from runs of the RTL on preset {config}: device `native`, 64-bit port, 32 "
            "cycles of memory latency. Each layer is simulated as in the middle of a network, inputs in the layout of "
            "the NPU, and every tensor compared with LiteRT's reference kernels. [The rules](rules/index.md) says what "
            "each rule means, and how to design a network for it."
        ),
        "",
        "Columns of the tables:",
        "",
        *bullets(COLUMN_MEANINGS),
        "",
        "Metrics:",
        "",
        *bullets(METRICS),
        "",
    ]


def write_rules(page: list[str]) -> None:
    """Bring the figures in docs/rules up to date, from the lines of `docs/contract.md`."""
    for number, figures in rule_figures(page).items():
        (path,) = RULES_FOLDER.glob(f"{number}-*.md")
        path.write_text(filled_page(path.read_text(), figures))


def missed(rows: list[Row]) -> list[str]:
    """A line for each row that misses its limit or is not exact."""
    found = [row for row in rows if not (row.ok and row.is_exact)]
    lines = [
        f"* rule {row.case.rule}: {plain(row.case.name)}: {plain(row.case.metric.name)} {row.value_text}, "
        f"limit {row.limit_text}"
        f"{'' if row.is_exact else '; not bit-exact'}"
        for row in found
    ]
    return ["", "Missed:", "", *lines] if lines else ["", "No limit is missed."]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="Q")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    cases = contract_cases(load_config(options.config))
    with bar("compiling") as progress:
        measured = measure_all((setup for case in cases for setup in case.setups), options.jobs, progress)
    rows = judge(cases, measured)
    IMAGES.mkdir(exist_ok=True)
    images = {group: path.relative_to(TARGET.parent).as_posix() for group, path in write_images(rows, IMAGES).items()}
    text = [*head(options.config), f"**{verdict(rows)}.**", *missed(rows), *markdown(rows, images)]
    TARGET.write_text("\n".join(text) + "\n")
    write_rules(TARGET.read_text().splitlines())
    print(f"{verdict(rows)}\nwrote {TARGET.relative_to(ROOT)}")
    return 0 if all(row.is_exact for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
