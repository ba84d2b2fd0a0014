"""The commands `convoy bench ...`."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convoy.driver.graph import GraphError
from convoy.driver.progress import bar
from convoy.driver.tables import stdout_console
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
        print_rows(rows, stdout_console())
        if json_path is not None:
            json_path.write_text(text)
    if html_path is not None:
        write_html(rows, config, html_path)
    return 0 if all(row.ok and row.is_exact for row in rows) else 1


class SpeedSource(StrEnum):
    """Where Convoy's cycles come from."""

    NATIVE = "native"
    MODEL = "model"


SOURCES = {SpeedSource.NATIVE: "Convoy: RTL simulated cycle by cycle.", SpeedSource.MODEL: "Convoy: estimates of its timing model."}


@bench_app.command()
def speed(
    paths: Annotated[list[Path], typer.Argument(metavar="FOLDER|MODEL...", help="TFLite files, or folders of them.", show_default=False)],
    configs: Annotated[str, typer.Option("--config", metavar="NAME,NAME...", help="Presets or TOML files of parameters.")] = "Q,O,X",
    source: Annotated[SpeedSource, typer.Option("--device", help="The compiled RTL, or the timing model.")] = SpeedSource.NATIVE,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, max=256, help="Processes that simulate.", show_default="number of cores")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows to this file; - for stdout.")] = None,
    html_path: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write table and plots as one page.")] = None,
) -> int:
    """Run networks, and compare their cycles with what a peer's compiler estimates at as many MACs per cycle. Exit code 1: a result differs from LiteRT's."""
    from convoy.driver.device import MemoryModel

    from .peer import PEER_NAME, find_peer, peer_version
    from .speed import find_models, measure_speed
    from .speed_show import print_speeds, speed_notes, write_speed_page

    named = [(name, load_config(name)) for name in configs.split(",")]
    models, program = find_models(paths), find_peer()
    with bar("compiling") as progress:
        rows = measure_speed(models, named, jobs or os.cpu_count() or 1, progress, str(source), program)
    notes = speed_notes(rows, program is not None)
    report = {"device": str(source), "memory_latency_cycles": MemoryModel().latency_cycles,
              "peer": {"name": PEER_NAME, "version": peer_version()} if program else None, "rows": [row.to_dict() for row in rows]}
    text = json.dumps(report, indent=2) + "\n"
    if json_path is not None and str(json_path) == "-":
        typer.echo(text, nl=False)
    else:
        print_speeds(rows, stdout_console())
        for line in notes:
            typer.echo(line)
        if json_path is not None:
            json_path.write_text(text)
    if html_path is not None:
        write_speed_page(rows, SOURCES[source], notes, html_path)
    return 0 if all(row.bit_exact is not False for row in rows) else 1


def _parse_rules(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers separated by commas."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) in known for part in parts):
        raise GraphError(f"--rules {text}: give numbers out of {', '.join(map(str, known))}, separated by commas")
    return tuple(int(part) for part in parts)
