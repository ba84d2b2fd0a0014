"""The zoo: networks that the real converters wrote, made, run on Convoy, and written to docs/networks.md.

    make zoo
    .venv/bin/python bench/zoo/run.py [--python PYTHON] [--only 'PATTERN'] [--model FILE ...]

PYTHON has the packages of bench/zoo/requirements.txt. Networks and rows are kept in the cache: a run that was stopped
goes on, and a row is made again when the network or Convoy's code has changed. Each network is made and run in
processes of its own, so that what one of them breaks costs one row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

from page import write_page
from platformdirs import user_cache_path

from convoy.driver.report.progress import bar

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
OTHER = "files"
"""Source of models given on the command line."""
SUFFIXES = {"onnxruntime": ".onnx"}
"""Of files by source; others are .tflite."""
MAKE_SECONDS, RUN_SECONDS = 1800, 3600
"""After so long a process is ended."""


@dataclass(frozen=True)
class Network:
    """One file of the zoo, there or to be made."""

    source: str
    name: str
    path: Path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter that makes networks; without, those there are run")
    parser.add_argument("--cache", type=Path, default=user_cache_path("convoy-zoo"))
    parser.add_argument("--only", action="append", help="SOURCE/NAME, with * and ?; may be repeated")
    parser.add_argument("--model", action="append", type=Path, default=[], help="a file more, or a folder of them")
    parser.add_argument("--config", default="Q")
    parser.add_argument(
        "--rtl-cycles", type=int, default=20_000_000, help="of a network that the RTL simulates; above, golden"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kept", action="store_true", help="make and run nothing: the page of the rows there are")
    parser.add_argument("--no-page", action="store_true", help="leave docs/networks.md as it is")
    args = parser.parse_args()
    networks = [
        network
        for network in (*_networks(args.python, args.cache), *_given(args.model))
        if (not args.kept or _row_path(network, args.cache).exists())
        and (not args.only or any(fnmatch(f"{network.source}/{network.name}", pattern) for pattern in args.only))
    ]
    code = _code_digest()
    rows: dict[Network, dict[str, Any]] = {}
    with bar("running") as progress, ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(_row, network, args, code): network for network in networks}
        for future in as_completed(futures):
            network = futures[future]
            rows[network] = future.result()
            progress(f"{network.source}/{network.name}", len(rows), len(networks))
            if (problem := rows[network].get("refusal")) or rows[network].get("bit_exact") is False:
                print(f"{network.source}/{network.name}: {problem or rows[network]['mismatches'][0]}", flush=True)
    if not args.no_page:
        write_page(
            [{"source": network.source, "network": network.name, **rows[network]} for network in networks], args.config
        )


def _networks(python: Path | None, cache: Path) -> Iterator[Network]:
    """Those that the generator knows; without it those in the cache."""
    folder = cache / "networks"
    if python is None:
        for path in sorted(folder.glob("*/[!.]*")):
            if path.suffix in (".tflite", ".onnx"):
                yield Network(path.parent.name, path.stem, path)
        return
    listed = subprocess.run([python, HERE / "make.py", "--list"], check=True, stdout=subprocess.PIPE).stdout
    for source, names in json.loads(listed).items():
        for name in names:
            yield Network(source, name, folder / source / f"{name}{SUFFIXES.get(source, '.tflite')}")


def _given(paths: list[Path]) -> Iterator[Network]:
    for path in paths:
        for file in sorted(path.glob("*.tflite")) if path.is_dir() else [path]:
            yield Network(OTHER, file.stem, file)


def _row_path(network: Network, cache: Path) -> Path:
    return cache / "rows" / network.source / f"{network.name}.json"


def _row(network: Network, args: argparse.Namespace, code: str) -> dict[str, Any]:
    """A network's row, kept or new."""
    row_path = _row_path(network, args.cache)
    if args.kept:
        return json.loads(row_path.read_text())
    if not network.path.exists() and (problem := _make(network, args.python)):
        return {"refusal": f"the converter: {problem}", "is_made": False}
    key = sha256(network.path.read_bytes() + f"{code} {args.config} {args.rtl_cycles}".encode()).hexdigest()
    if row_path.exists() and (kept := json.loads(row_path.read_text())).get("key") == key:
        return kept
    row_path.parent.mkdir(parents=True, exist_ok=True)
    row_path.unlink(missing_ok=True)
    command = [sys.executable, HERE / "examine.py", network.path, row_path, "--config", args.config]
    begin = time.perf_counter()
    problem = _run([*command, "--rtl-cycles", str(args.rtl_cycles)], RUN_SECONDS, row_path)
    row = {"refusal": f"crash: {problem}", "is_crash": True} if problem else json.loads(row_path.read_text())
    row |= {"key": key, "file_bytes": network.path.stat().st_size, "seconds": round(time.perf_counter() - begin, 1)}
    row_path.write_text(json.dumps(row, indent=1) + "\n")
    return row


def _make(network: Network, python: Path) -> str:
    """Write the file; the last line of the converter's words when it cannot, which is kept too."""
    network.path.parent.mkdir(parents=True, exist_ok=True)
    refused = network.path.with_suffix(".refused")
    if refused.exists():
        return refused.read_text()
    command = [python, HERE / "make.py", network.source, network.name, network.path]
    problem = _run(command, MAKE_SECONDS, network.path)
    if problem:
        refused.write_text(problem)
    return problem


def _run(command: list[Any], seconds: int, made: Path) -> str:
    """Run a program that writes a file; what it said last if it does not."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return f"not done after {seconds} s"
    if done.returncode == 0 and made.exists():
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines and done.returncode > 0 else f"its process ended with code {done.returncode}"


def _code_digest() -> str:
    """Of all that decides about a row, but the network."""
    digest = sha256()
    for folder in ("spec", "golden", "hw", "driver"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
