"""The commands `convoy bench ...`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convoy.driver.graph import GraphError
from convoy.driver.progress import bar
from convoy.spec.config import load_config

__all__ = ["bench_app"]

bench_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help="Measure the RTL against what is promised.")


@bench_app.callback()
def _bench() -> None:
    """Measure the RTL against what is promised."""


@bench_app.command()
def contract(
    config: Annotated[str, typer.Option("--config", metavar="S|D|Q|O|X|FILE.toml", help="A preset or a TOML file of parameters.")] = "Q",
    rules: Annotated[str, typer.Option("--rules", metavar="N,N...", help="Only these rules.", show_default="all")] = "",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, max=256, help="Processes that simulate.", show_default="number of cores")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows to this file; - for stdout.")] = None,
    html_path: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write table and plots as one page.")] = None,
) -> int:
    """Measure every rule of the contract on the compiled RTL. Exit code 1: a limit is missed, or a result differs from LiteRT's."""
    from .case import judge
    from .contract import RULES, contract_cases
    from .measure import measure_all
    from .show import print_rows

    npu = load_config(config)
    if html_path is not None:
        from .plots import write_html
    cases = contract_cases(npu, _parse_rules(rules, tuple(RULES)))
    with bar("compiling") as progress:
        measured = measure_all((setup for case in cases for setup in case.setups), jobs or os.cpu_count() or 1, progress)
    rows = judge(cases, measured)
    text = json.dumps({"config": config, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n"
    if json_path is not None and str(json_path) == "-":
        typer.echo(text, nl=False)
    else:
        print_rows(rows, Console())
        if json_path is not None:
            json_path.write_text(text)
    if html_path is not None:
        write_html(rows, config, html_path)
    return 0 if all(row.ok and row.is_exact for row in rows) else 1


def _parse_rules(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers separated by commas."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) in known for part in parts):
        raise GraphError(f"--rules {text}: give numbers out of {', '.join(map(str, known))}, separated by commas")
    return tuple(int(part) for part in parts)
