"""All long campaigns, one after another, and a page of what they found: `make nightly`.

A campaign that fails does not stop the others. The page and the output of each campaign are in build/nightly.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

__all__ = ["Campaign", "Result", "campaigns", "render", "run", "run_all"]

ROOT = Path(__file__).parents[1]
PAGE_WIDTH = 160
MAX_FIGURES = 6
"""Lines of a campaign's output that the page shows, at most."""


@dataclass(frozen=True)
class Campaign:
    """A command with the lines of its output (a regular expression) that hold its figures."""

    name: str
    command: tuple[str, ...]
    figures: str


@dataclass(frozen=True)
class Result:
    """What a campaign gave."""

    campaign: Campaign
    exit_code: int
    seconds: float
    figures: tuple[str, ...]
    log: Path


def campaigns(seed: int, workers: int) -> list[Campaign]:
    """Those of `make nightly`."""

    def make(target: str, figures: str, *options: str) -> Campaign:
        return Campaign(target, ("make", target, f"SEED={seed}", f"WORKERS={workers}", *options), figures)

    return [
        make("campaign", r"^\d+ examples in |^never hit", "EXAMPLES=20000", "RTL_EXAMPLES=3000"),
        make("hostile", r"^[\d,]+ hostile jobs on [\d,]+ programs|^never seen", "JOBS=20000"),
        make("formal", r"proved|holds although|not inductive"),
        make("sim", r"^seed |cycles in \d+ s|failed|never hit", "ROUNDS=20"),
    ]


def run(campaign: Campaign, folder: Path) -> Result:
    """Run a campaign to its end; its output goes to a file in `folder` and to standard output."""
    log, started, figures = folder / f"{campaign.name}.log", time.monotonic(), []
    try:
        with (
            log.open("w") as file,
            subprocess.Popen(campaign.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        ):
            for line in process.stdout:
                file.write(line)
                file.flush()
                print(line, end="", flush=True)
                if re.search(campaign.figures, line):
                    figures.append(line.strip())
            exit_code = process.wait()
    except OSError as error:
        exit_code, figures = 127, [str(error)]
    return Result(campaign, exit_code, time.monotonic() - started, tuple(figures[-MAX_FIGURES:]), log)


def render(results: Iterable[Result]) -> Table:
    """One row per campaign."""
    table = Table(title="Nightly campaigns", title_justify="left", show_lines=True)
    for name in ("campaign", "command", "figures", "verdict", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for result in results:
        verdict = (
            "[green]passed[/]" if result.exit_code == 0 else f"[bold red]failed with exit code {result.exit_code}[/]"
        )
        name = f"[link={result.log.name}]{result.campaign.name}[/link]"
        table.add_row(
            name,
            escape(shlex.join(result.campaign.command)),
            escape("\n".join(result.figures) or "-"),
            verdict,
            f"{result.seconds:.0f}",
        )
    return table


def run_all(chosen: list[Campaign], folder: Path) -> bool:
    """Run campaigns and write the page, again after each of them; whether all passed."""
    folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for campaign in chosen:
        results.append(run(campaign, folder))
        page = Console(record=True, width=PAGE_WIDTH, file=io.StringIO())
        page.print(render(results))
        page.save_html(str(folder / "index.html"), theme=DEFAULT_TERMINAL_THEME)
    Console(width=PAGE_WIDTH).print(render(results))
    return all(result.exit_code == 0 for result in results)


def main() -> int:
    """The command; exit code 1 when a campaign failed."""
    parser = argparse.ArgumentParser(prog="nightly", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seed", type=int, default=int(time.strftime("%Y%m%d")), help="of all campaigns; by default today's date"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("--folder", type=Path, default=Path("build/nightly"), help="for the page and the output")
    parser.add_argument(
        "--only", nargs="+", choices=[campaign.name for campaign in campaigns(0, 0)], help="not all campaigns"
    )
    options = parser.parse_args()
    chosen = [
        campaign
        for campaign in campaigns(options.seed, options.workers)
        if not options.only or campaign.name in options.only
    ]
    is_good = run_all(chosen, options.folder)
    print(f"page: {options.folder / 'index.html'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
