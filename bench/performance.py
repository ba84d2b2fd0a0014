"""Cycles and utilisation of typical layers and of whole networks on the RTL, written to docs/performance.md.

    .venv/bin/python bench/performance.py [--config Q] [MODEL.tflite ...]

Every figure is a run of the command line on device `native` with its default memory; cycles are exact, the same on
every machine. Models given on the command line are listed by file name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.progress import track

from convoy.driver.report.markdown import filled
from convoy.driver.workload.prune import prune_file

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "performance.md"
DIGITS = ROOT / "examples" / "digits_int8.tflite"

ZERO_SHARE = 0.75
"""Of the weights of each convolution of a pruned network."""

CONV = "--op conv --input 32x32x64 --oc 64 --kernel 3x3 --pad 1,1,1,1"
LAYERS = (
    ("3x3, 64 to 64 channels, 32x32", CONV),
    ("the same on 34x34 without pads", "--op conv --input 34x34x64 --oc 64 --kernel 3x3"),
    ("the same, half of the weights zero", f"{CONV} --density 0.5"),
    ("three quarters zero", f"{CONV} --density 0.25"),
    ("nine tenths zero", f"{CONV} --density 0.1"),
    ("3x3, stride 2", "--op conv --input 32x32x64 --oc 64 --kernel 3x3 --stride 2x2 --pad 0,1,0,1"),
    ("1x1, 64 to 64 channels, 32x32", "--op conv --input 32x32x64 --oc 64 --kernel 1x1"),
    ("5x5, 32 to 32 channels, 32x32", "--op conv --input 32x32x32 --oc 32 --kernel 5x5 --pad 2,2,2,2"),
    ("1x7, 32 to 32 channels, 32x32", "--op conv --input 32x32x32 --oc 32 --kernel 1x7 --pad 0,0,3,3"),
    ("7x1, 32 to 32 channels, 32x32", "--op conv --input 32x32x32 --oc 32 --kernel 7x1 --pad 3,3,0,0"),
    ("3x3, 64 to 64 channels, 8x8", "--op conv --input 8x8x64 --oc 64 --kernel 3x3 --pad 1,1,1,1"),
    (
        "3x3, 3 to 16 channels, 96x96, stride 2",
        "--op conv --input 96x96x3 --oc 16 --kernel 3x3 --stride 2x2 --pad 0,1,0,1",
    ),
    ("depthwise 3x3, 128 channels, 28x28", "--op depthwise --input 28x28x128 --oc 128 --kernel 3x3 --pad 1,1,1,1"),
    ("depthwise 3x3, stride 2", "--op depthwise --input 28x28x128 --oc 128 --kernel 3x3 --stride 2x2 --pad 0,1,0,1"),
)


def report(*arguments: str) -> dict:
    """The JSON report of a `convoy` command; its exit code must be 0, that is, every tensor is exact."""
    command = [sys.executable, "-m", "convoy.driver.cli", *arguments, "--json", "-"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def row(name: str, result: dict, read_bytes: int, write_bytes: int) -> str:
    return (
        f"| {name} | {result['macs']:,} | {result['cycles']:,} | {result['utilisation']:.1%} | {read_bytes:,} | "
        f"{write_bytes:,} |"
    )


def pruned_row(model: Path, config: str, dense_cycles: int) -> str:
    """A network as it is and with most of its weights zero."""
    pruned, layers = prune_file(model.read_bytes(), ZERO_SHARE)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model.name).write_bytes(pruned)
        result = report("run", str(Path(folder) / model.name), "--config", config, "--seed", "1")
    count, before, after = (
        sum(getattr(layer, name) for layer in layers) for name in ("num_weights", "num_zero_before", "num_zero")
    )
    return (
        f"| {model.name} | {before / count:.1%} | {dense_cycles:,} | {after / count:.1%} | {result['cycles']:,} | "
        f"{dense_cycles / result['cycles']:.2f}"
        f" | {result['utilisation']:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="Q")
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args()
    lines = [
        "# Performance",
        "",
        *filled(
            "Written by `python bench/performance.py` from runs of the RTL: device `native`, 64-bit port, memory of 32 "
            "cycles of latency that takes and gives one beat (64 bits) per cycle. Every tensor of every run equals "
            "that of LiteRT's reference kernels. Columns: MACs are multiply-accumulates of the layer as if no weight "
            "were zero; utilisation is MACs / (cycles x multipliers), so that skipped zeros raise it above 100 %; "
            "bytes are those over the memory port."
        ),
        "",
    ]
    head = ["| MACs | cycles | utilisation | bytes read | bytes written |", "|---|---:|---:|---:|---:|---:|"]
    lines += [f"## Layers, configuration {options.config}", "", "| layer " + head[0], head[1]]
    for name, arguments in track(LAYERS, "layers"):
        result = report("layer", *arguments.split(), "--config", options.config)
        lines.append(row(name, result, result["layers"][0]["read_bytes"], result["layers"][0]["write_bytes"]))
    pruned = []
    for model in track(dict.fromkeys(map(Path.resolve, [DIGITS, *options.models])), "networks"):
        lines += ["", f"## {model.name}", "", "| configuration " + head[0], head[1]]
        for config in "SDQOX":
            result = report("run", str(model), "--config", config, "--seed", "1")
            lines.append(
                row(
                    config,
                    result,
                    *(sum(layer[key] for layer in result["layers"]) for key in ("read_bytes", "write_bytes")),
                )
            )
            if config == options.config:
                pruned.append(pruned_row(model, config, result["cycles"]))
    lines += [
        "",
        f"## Pruned networks, configuration {options.config}",
        "",
        *filled(
            f"The same files with the smallest weights of each `CONV_2D` set to zero until {ZERO_SHARE:.0%} are "
            "(`convoy prune`); depthwise and fully connected layers are as before. Without training the accuracy is "
            "lost; the cycles are those of any network with as many zeros."
        ),
        "",
        "| network | zero weights of its convolutions | cycles | pruned: zero | cycles | times as fast | utilisation |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *pruned,
    ]
    TARGET.write_text("\n".join(lines) + "\n")
    print(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
