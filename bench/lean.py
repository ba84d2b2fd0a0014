"""What an NPU that leaves something out takes longer, estimated for networks and written to docs/lean.md.

    .venv/bin/python bench/lean.py [--jobs 2] MODEL.tflite ...

Cycles are those of the timing model (`convoy estimate`). The example network of digits is always among them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import geometric_mean

from rich.progress import track

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.reader import read_network
from convoy.driver.report.markdown import filled
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimate
from convoy.spec.config import ALL_PRESETS, FEATURES, LEAN_PRESETS, PRESETS, NpuConfig, value_text

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "lean.md"
DIGITS = ROOT / "examples" / "digits_int8.tflite"
BASE = "Q"
SMALLER = {
    "post_lanes": (4, 2, 1),
    "window_words": (32,),
    "pool_channels": (32,),
    "tp_buffer_bytes": (8192,),
    "tp_lanes": (2, 1),
    "weight_fifo_beats": (128,),
    **dict.fromkeys(FEATURES, (False,)),
}
"""Values to try instead of the base's, each alone."""


def cost(model: Path, config: NpuConfig) -> tuple[int, int]:
    """Cycles of one inference, and operators that the CPU executes."""
    plan = compile_graph(read_network(model), config, keep_tensors=True)
    num_host_ops = sum(len(step.ops) for step in plan.steps if isinstance(step, HostStep))
    return estimate(plan, MemoryModel()).cycles, num_host_ops


def percent(ratio: float | None) -> str:
    return "CPU" if ratio is None else f"{ratio - 1:+.1%}"


def mean(ratios: Sequence[float | None]) -> float | None:
    """The geometric mean, if all networks have a figure."""
    known = [ratio for ratio in ratios if ratio is not None]
    return geometric_mean(known) if len(known) == len(ratios) else None


def table(head: str, models: Sequence[Path], rows: Sequence[tuple[str, list[float | None]]]) -> list[str]:
    """Ratios by network, and their mean."""
    return [
        f"| {head} | {' | '.join(model.stem for model in models)} | mean |",
        f"|---|{'---:|' * len(models)}---:|",
        *(f"| {name} | {' | '.join(map(percent, ratios))} | {percent(mean(ratios))} |" for name, ratios in rows),
    ]


def preset_rows() -> list[str]:
    """What each lean preset has less of than the full one of its size."""
    rows = []
    for full, lean in zip(PRESETS.values(), LEAN_PRESETS.values(), strict=True):
        values = full.to_dict()
        less = [f"`{name} = {value_text(value)}`" for name, value in lean.to_dict().items() if value != values[name]]
        rows.append(f"| {lean.name} | {', '.join(less)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args()
    models = list(dict.fromkeys(map(Path.resolve, [DIGITS, *options.models])))
    base = PRESETS[BASE]
    changed = {
        f"`{name} = {value_text(value)}`": base.with_(**{name: value})
        for name, values in SMALLER.items()
        for value in values
    }
    configs = list({*ALL_PRESETS.values(), *changed.values()})
    pairs = list(product(models, configs))
    with ProcessPoolExecutor(options.jobs) as pool:
        found = dict(zip(pairs, track(pool.map(cost, *zip(*pairs, strict=True)), "estimates", len(pairs)), strict=True))

    def ratio(model: Path, config: NpuConfig, full: NpuConfig) -> float | None:
        (cycles, num_host), (full_cycles, full_num_host) = found[model, config], found[model, full]
        return cycles / full_cycles if num_host == full_num_host else None

    def ratios(config: NpuConfig, full: NpuConfig) -> list[float | None]:
        return [ratio(model, config, full) for model in models]

    lines = [
        "# Lean presets",
        "",
        *filled(
            "Written by `python bench/lean.py` from estimates of the timing model, with a memory of 32 cycles of "
            "latency. Each figure says how many more cycles a network takes, the last one their geometric mean; CPU: "
            "more operators than before run there, of which this says nothing."
        ),
        "",
        *filled(
            "Units that an NPU lacks are not in its hardware. The compiler knows: sums, maximum pools and tables are "
            "then the tensor processor's, and operators of int16 run on the CPU, or are refused with `--strict`. A "
            "program for another NPU is refused: `DescriptorCheck` finds descriptors that need what is not there, and "
            "register `FEATURES` tells driver and C runtime before they start one."
        ),
        "",
        "## The presets",
        "",
        "| preset | differs from its full one by |",
        "|---|---|",
        *preset_rows(),
        "",
        *table(
            "preset",
            models,
            [
                (f"{lean} beside {full}", ratios(LEAN_PRESETS[lean], PRESETS[full]))
                for full, lean in zip(PRESETS, LEAN_PRESETS, strict=True)
            ],
        ),
        "",
        f"## One parameter of {BASE} changed",
        "",
        *table("parameter", models, [(name, ratios(config, base)) for name, config in changed.items()]),
        "",
        "## Without the check of descriptors",
        "",
        *filled(
            "`has_descriptor_check = false` loses no safety of memory: every burst is still compared with the memory "
            "windows and with the rules of AXI4 before it leaves (`hw/bus/guard.py`), and `make hostile` attacks such "
            "an NPU too. What is lost: a descriptor that breaks a rule is started. Instead of `OPCODE`, `MALFORMED` or "
            "`POOL` with its address, the program then hangs until WATCHDOG or TIMEOUT, is stopped at the windows, or "
            "writes rubbish inside them. So set both limits, as driver and C runtime do, and open windows for no more "
            "than the program needs. A unit that is not there is not asked: its fields count as 0."
        ),
    ]
    TARGET.write_text("\n".join(lines) + "\n")
    print(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
