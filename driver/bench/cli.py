"""The commands `convoy bench ...`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convoy.driver.complete import complete_config, complete_files, config_help
from convoy.driver.errors import GraphError
from convoy.driver.files import check_outputs, write_file
from convoy.driver.report.progress import bar
from convoy.spec.config import load_config

__all__ = ["bench_app"]

bench_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@bench_app.callback(invoke_without_command=True)
def _bench(context: typer.Context) -> int:
    """Measure the rules of the contract, or compare with Ethos-U55."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0


@bench_app.command()
def contract(
    config: Annotated[
        str, typer.Option("--config", metavar="S|D|Q|O|X|FILE.toml", help=config_help(), autocompletion=complete_config)
    ] = "Q",
    rules: Annotated[
        str, typer.Option("--rules", metavar="N,N...", help="Only these rules, by number.", show_default="all")
    ] = "",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=256, help="Simulations at the same time.", show_default="number of cores"),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the rows to this file; - for stdout.", autocompletion=complete_files
        ),
    ] = None,
    html_path: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write table and plots as one HTML page (extra plots).",
            autocompletion=complete_files,
        ),
    ] = None,
) -> int:
    """Measure each rule of the contract on the RTL.

    docs/rules has the rules: on pads, strides, kernels, channels, fused operators, zero weights and data types. Each
    row is a layer; many have a limit, or a baseline, the layer that this one is compared with.

    Exit code 1: a limit is missed, or a result differs from LiteRT's.
    """
    from .case import judge
    from .contract import RULES, contract_cases
    from .measure import measure_all
    from .show import print_rows

    _check("native", (Path(config),), json_path, html_path)
    npu = load_config(config)
    if html_path is not None:
        from .plots import write_html
    cases = contract_cases(npu, _parse_rules(rules, tuple(RULES)))
    with bar("compiling") as progress:
        measured = measure_all(
            (setup for case in cases for setup in case.setups), jobs or os.cpu_count() or 1, progress
        )
    rows = judge(cases, measured)
    text = json.dumps({"config": config, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n"
    if json_path is not None and str(json_path) == "-":
        typer.echo(text, nl=False)
    else:
        from convoy.driver.report.tables import stdout_console

        print_rows(rows, stdout_console())
        if json_path is not None:
            write_file(json_path, text)
    if html_path is not None:
        write_html(rows, config, html_path)
    return 0 if all(row.ok and row.is_exact for row in rows) else 1


class SpeedSource(StrEnum):
    """Where Convoy's cycles come from."""

    NATIVE = "native"
    MODEL = "model"


SOURCES = {
    SpeedSource.NATIVE: "Convoy: RTL simulated cycle by cycle.",
    SpeedSource.MODEL: "Convoy: estimates of its timing model.",
}


@bench_app.command()
def speed(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER|MODEL...",
            help="TFLite files, or folders of them.",
            show_default=False,
            autocompletion=complete_files,
        ),
    ],
    configs: Annotated[
        str,
        typer.Option(
            "--config",
            metavar="NAME,NAME...",
            help="Presets or TOML files of parameters.",
            autocompletion=complete_config,
        ),
    ] = "Q,O,X",
    source: Annotated[
        SpeedSource, typer.Option("--device", help="native simulates the RTL; model estimates, in seconds.")
    ] = SpeedSource.NATIVE,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=256, help="Simulations at the same time.", show_default="number of cores"),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the rows to this file; - for stdout.", autocompletion=complete_files
        ),
    ] = None,
    html_path: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write table and plots as one HTML page (extra plots).",
            autocompletion=complete_files,
        ),
    ] = None,
) -> int:
    """Compare the cycles of networks with an Ethos-U55.

    Vela, Arm's compiler, estimates those of an Ethos-U55 with as many multipliers; without it (extra `peer`) only
    Convoy's are shown.

    Exit code 1: a result differs from LiteRT's.
    """
    from convoy.driver.runtime.device import MemoryModel

    from .peer import PEER_NAME, find_peer, peer_version
    from .speed import find_models, measure_speed
    from .speed_show import print_speeds, speed_notes, write_speed_page

    names, models, program = configs.split(","), find_models(paths), find_peer()
    _check("native" if source == SpeedSource.NATIVE else None, (*models, *map(Path, names)), json_path, html_path)
    named = [(name, load_config(name)) for name in names]
    with bar("compiling") as progress:
        rows = measure_speed(models, named, jobs or os.cpu_count() or 1, progress, str(source), program)
    notes = speed_notes(rows, program is not None)
    report = {
        "device": str(source),
        "memory_latency_cycles": MemoryModel().latency_cycles,
        "peer": {"name": PEER_NAME, "version": peer_version()} if program else None,
        "rows": [row.to_dict() for row in rows],
    }
    text = json.dumps(report, indent=2) + "\n"
    if json_path is not None and str(json_path) == "-":
        typer.echo(text, nl=False)
    else:
        from convoy.driver.report.tables import stdout_console

        print_speeds(rows, stdout_console())
        for line in notes:
            typer.echo(line)
        if json_path is not None:
            write_file(json_path, text)
    if html_path is not None:
        write_speed_page(rows, SOURCES[source], notes, html_path)
    return 0 if all(row.bit_exact is not False for row in rows) else 1


def _check(device: str | None, read: Iterable[Path], json_path: Path | None, html_path: Path | None) -> None:
    """Refuse, before any work, a device whose tools are missing, outputs that could not be written, and charts whose
    packages are missing.
    """
    if device is not None:
        from convoy.driver.devices import check_device

        check_device(device)
    json_file = None if json_path is None or str(json_path) == "-" else json_path
    check_outputs(read, {"--json": json_file, "--html": html_path})
    if html_path is not None:
        from convoy.driver.report import html_page as page  # noqa: F401 - what it needs may not be installed


def _parse_rules(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers separated by commas."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and len(part) <= 9 and int(part) in known for part in parts):
        raise GraphError(f"--rules {text}: give numbers out of {', '.join(map(str, known))}, separated by commas")
    return tuple(int(part) for part in parts)
