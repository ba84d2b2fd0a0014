"""The floorplan that nextpnr gets: every register with a reset has a site that the FPGA allows."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

COLUMNS, ROWS = 12, 10
NO_RESET = 0
RESETS = {101: 40, 102: 9, 103: 1, 104: 8, NO_RESET: 60}
"""Registers of each reset net."""
ENABLES = (None, 201, 202, 203)


@pytest.fixture
def floorplan(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench" / "synth"))
    import floorplan

    return floorplan


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench" / "synth"))
    from hard_places import settled

    return settled


def designs(seed: int, columns: int = COLUMNS) -> tuple[dict, dict]:
    """A netlist, and the same as nextpnr placed it without resets, in so many columns of tiles."""
    rng = np.random.default_rng(seed)
    cells, packed = {}, {}

    def add(name: str, kind: str, bel: str, parameters: dict, connections: dict) -> None:
        directions = dict.fromkeys(connections, "input")
        cells[name] = {"type": kind, "parameters": {}, "attributes": {}, "connections": connections}
        cells[name]["port_directions"] = directions
        packed[name] = {"type": kind, "parameters": parameters, "attributes": {"NEXTPNR_BEL": bel}, "connections": {}}

    sites = [
        (f"X{x}/Y{y}/SLICE{name}", index)
        for x in range(2, 2 + columns)
        for y in range(3, 3 + ROWS)
        for name in "ABCD"
        for index in range(2)
    ]
    rng.shuffle(sites)
    number = 1000
    for reset, count in RESETS.items():
        for _ in range(count):
            slice_name, index = sites.pop()
            kind, enable = rng.choice(["alone", "lut", "carry"]), ENABLES[rng.integers(len(ENABLES))]
            connections = {"DI": [number], "LSR": [reset or "0"]} | ({"CE": [enable]} if enable else {})
            parameters = {"SD": "0" if kind == "alone" else "1 "}
            add(f"{kind}_{number}", "TRELLIS_FF", f"{slice_name}.FF{index}", parameters, connections)
            if kind == "lut":
                add(f"of_{number}", "LUT4", f"{slice_name}.K{index}", {}, {"Z": [number]})
            if kind == "carry":
                add(f"of_{number}", "CCU2C", f"{slice_name}.K{index}", {"MODE": "CCU2"}, {"S0": [number]})
            number += 1
    add("product", "MULT18X18D", "X4/Y30/MULT18_0", {}, {})
    add("memory", "DP16KD", "X4/Y40/EBR0", {}, {})
    return tuple({"modules": {"top": {"cells": each}}} for each in (cells, packed))


def chained(placed: dict) -> set[str]:
    """Tiles of carry chains."""
    cells = placed["modules"]["top"]["cells"].values()
    return {cell["attributes"]["NEXTPNR_BEL"].split("/SLICE")[0] for cell in cells if cell["type"] == "CCU2C"}


@pytest.mark.parametrize("seed", range(4))
def test_sites_are_as_the_fpga_allows(floorplan, seed):
    design, placed = designs(seed)
    before = copy.deepcopy(design["modules"]["top"]["cells"])
    cells = floorplan.planned(design, placed)["modules"]["top"]["cells"]
    bels = {name: cell["attributes"]["BEL"] for name, cell in cells.items() if cell["attributes"]}
    assert bels.pop("product") == "X4/Y30/MULT18_0"
    assert bels.pop("memory") == "X4/Y40/EBR0"
    assert len(set(bels.values())) == len(bels), "a site is given once"

    registers = {name for name, cell in before.items() if cell["connections"].get("LSR", ["0"]) != ["0"]}
    fixed = {name for name in registers if not name.startswith("carry")}
    assert {name for name in bels if not name.startswith("of_")} == fixed
    for name in fixed:
        if name.startswith("lut"):
            assert bels[name.replace("lut", "of")] == bels[name].replace(".FF", ".K"), "it stays with its LUT"

    resets, enables = defaultdict(set), defaultdict(set)
    for name in fixed:
        slice_name = bels[name].split(".")[0]
        resets[slice_name.split("/SLICE")[0]].add(cells[name]["connections"]["LSR"][0])
        enables[slice_name].add(cells[name]["connections"].get("CE", [None])[0])
    assert all(len(nets) == 1 for nets in resets.values()), "a tile has one reset"
    assert all(len(nets) == 1 for nets in enables.values()), "a slice has one enable"
    for name, cell in before.items():
        if name.startswith("alone"):
            assert cells[name]["connections"]["M"] == cell["connections"]["DI"], "it is paired with no other LUT"
    assert not chained(placed) & set(resets), "places of carry chains stay free"


def test_all_tiles_are_taken_before_they_are_too_few(floorplan):
    design, placed = designs(0, columns=2)
    cells = floorplan.planned(design, placed)["modules"]["top"]["cells"]
    assert chained(placed) & {str(cell["attributes"].get("BEL")).split("/SLICE")[0] for cell in cells.values()}
    many = designs(0)
    top = many[0]["modules"]["top"]["cells"]
    for number, cell in enumerate(each for each in top.values() if each["type"] == "TRELLIS_FF"):
        cell["connections"]["LSR"] = [5000 + number]
    for cell in many[1]["modules"]["top"]["cells"].values():
        cell["attributes"]["NEXTPNR_BEL"] = re.sub(r"^X\d+", "X2", cell["attributes"]["NEXTPNR_BEL"])
    with pytest.raises(ValueError, match=r"need \d+ tiles of logic, of which there are 10: take a smaller NPU"):
        floorplan.planned(*many)


@pytest.mark.parametrize("seed", range(4))
def test_hard_blocks_trade_places(settled, seed):
    """Memories and multipliers in a circle of places, far from the pins that each is joined with."""
    rng = np.random.default_rng(seed)
    kinds = ["DP16KD"] * 7 + ["MULT18X18D"] * 5
    bels = [f"X{10 * index}/Y{20 if kind == 'DP16KD' else 40}/B" for index, kind in enumerate(kinds)]
    found = [*rng.permutation(bels[:7]), *rng.permutation(bels[7:])]
    cells, packed = {}, {}
    for index, (kind, bel) in enumerate(zip(kinds, found, strict=True)):
        cells[f"hard{index}"] = {"type": kind, "attributes": {}}
        nets = {"A": [100 + index], "CLK": [1], "B": ["x"]} | ({"C": [100 + index - 7]} if index >= 7 else {})
        packed[f"hard{index}"] = {"type": kind, "attributes": {"NEXTPNR_BEL": bel}, "connections": nets}
        for end in range(3):
            pin = {"NEXTPNR_BEL": f"X{10 * index + end}/Y30/PIOA"}
            connections = {"O": [100 + index], "CLK": [1]}
            packed[f"of{index}.{end}"] = {"type": "TRELLIS_IO", "attributes": pin, "connections": connections}
    packed["unplaced"] = {"type": "TRELLIS_IO", "attributes": {}, "connections": {"O": [100]}}
    design, placed = ({"modules": {"top": {"cells": each}}} for each in (cells, packed))
    moved = settled(design, placed)["modules"]["top"]["cells"]
    assert [cell["attributes"]["BEL"] for cell in moved.values()] == bels


@pytest.mark.parametrize("seed", range(4))
def test_hard_blocks_take_their_logic_with_them(settled, seed):
    """Memories in a row, each with a register beside it, which nets of its own pull to a pin far off: all wire is least
    where each memory is at its pin, though no trade alone makes it shorter.
    """
    rng = np.random.default_rng(seed)
    cells, packed = {}, {}
    for index, place in enumerate(rng.permutation(8)):
        pulls = {f"I{number}": [10 * index + number] for number in range(3)}
        for name, kind, bel, connections in (
            (f"memory{index}", "DP16KD", f"X{10 * place}/Y20/EBR", {"DOA0": [100 + index]}),
            (f"register{index}", "TRELLIS_FF", f"X{10 * place}/Y19/SLICEA.FF0", {"DI": [100 + index]} | pulls),
            (f"pin{index}", "TRELLIS_IO", f"X{10 * index}/Y0/PIOA", pulls),
        ):
            packed[name] = {"type": kind, "attributes": {"NEXTPNR_BEL": bel}, "connections": connections}
            cells[name] = {"type": kind, "attributes": {}}
    design, placed = ({"modules": {"top": {"cells": each}}} for each in (cells, packed))
    moved = settled(design, placed)["modules"]["top"]["cells"]
    for index in range(8):
        assert moved[f"memory{index}"]["attributes"]["BEL"] == f"X{10 * index}/Y20/EBR"


def test_registers_trade_sites_with_their_like(floorplan):
    """Of three in the wrong one of two columns those two trade that have one enable."""
    packed, registers = {}, {}
    for name, column, wanted, enable in (("a", 2, 9, 201), ("b", 9, 2, 201), ("c", 9, 2, 202)):
        for cell, kind, bel in (
            (name, "TRELLIS_FF", f"X{column}/Y3/SLICEA.FF0"),
            (f"of_{name}", "TRELLIS_COMB", f"X{wanted}/Y3/SLICEB.LUT0"),
        ):
            attributes = {"NEXTPNR_BEL": bel}
            packed[cell] = {"type": kind, "parameters": {}, "attributes": attributes, "connections": {"N": [ord(name)]}}
        registers[name] = floorplan._Register(name, None, (101, None), (enable, None))
    floor = floorplan._Floor(packed)
    a, b, c = registers.values()
    assert floor.traded([[[a]], [[b], [c]]]) == [[[b]], [[a], [c]]]
    assert [floor.at[name] for name in "abc"] == [(9, 3), (2, 3), (9, 3)]


def test_nothing_is_reset_in_the_first_placement(floorplan):
    design, _ = designs(0)
    cells = floorplan.without_resets(design)["modules"]["top"]["cells"]
    assert {tuple(cell["connections"]["LSR"]) for cell in cells.values() if cell["type"] == "TRELLIS_FF"} == {("0",)}
