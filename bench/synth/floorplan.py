"""A floorplan of a netlist for nextpnr: its block memories, its multipliers, and tiles for what is reset."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from hard_places import EVERYWHERE, Cells, bel, nets_at, nets_of, settled, tile, top
from scipy.optimize import linear_sum_assignment

__all__ = ["planned", "without_resets"]

TILE_SLICES, SLICE_FFS = "ABCD", 2
"""Of a tile of logic: four slices of two flip-flops and two LUTs each. To nextpnr all flip-flops of a tile have one
reset net, and those of a slice one clock enable (`slices_compatible` in its `ecp5/arch_place.cc`).
"""
CHAINED = ("CCU2", "DPRAM")
"""Modes of LUTs that lie beside each other in a fixed order: carry chains and distributed memories. While there are
tiles enough, registers with a reset get others, so that the places of these stay free.
"""
TURNS = 2
"""Times that registers gathered in eights get tiles, and then trade sites one by one."""
NEARNESS = 0.1
"""Of wire, that a tile of distance from where it was is worth to a register."""
Net = int | str


@dataclass(frozen=True)
class _Register:
    """A flip-flop, with the LUT that it shares a site with."""

    name: str
    lut: str | None
    reset: tuple
    enable: tuple

    @property
    def names(self) -> list[str]:
        """Of the cells at its site."""
        return [self.name, *([self.lut] if self.lut else [])]


Load = list[list[_Register]]
"""Registers of a tile, by slice."""


def without_resets(design: dict) -> dict:
    """The netlist with flip-flops that are never reset, for a first placement that no reset net hinders. Changes
    `design`.
    """
    for cell in top(design).values():
        if cell["type"] == "TRELLIS_FF":
            cell["connections"]["LSR"] = ["0"]
    return design


def planned(design: dict, placed: dict) -> dict:
    """The netlist with a `BEL` for block memories, multipliers, and registers with a reset. Changes `design`.

    nextpnr's placers know nothing of reset nets until they make a placement legal. Then each cell takes the nearest
    tile that suits it, until no tile without a register is left, and the registers of some reset find no place at all.
    Here the registers of each reset are gathered eight by eight, each eight gets the tile of the least wire, and then
    registers trade sites with their like.

    Parameters
    ----------
    design
        Of Yosys.
    placed
        The same without resets as nextpnr placed it, `--write`.

    Raises
    ------
    ValueError
        When there are more eights of registers than tiles.
    """
    cells, packed = top(settled(design, placed)), top(placed)
    for name, cell in cells.items():
        if cell["type"] == "TRELLIS_FF" and not _is_paired(packed[name]):
            _keep_apart(cell)
    floor = _Floor(packed)
    loads = [load for registers in _by_reset(cells, packed).values() for load in _loads(registers, floor)]
    for _ in range(TURNS):
        floor.assign(loads)
        loads = floor.traded(loads)
    for load in loads:
        for name, slots in zip(TILE_SLICES, load, strict=False):
            for index, register in enumerate(slots):
                x, y = floor.at[register.name]
                cells[register.name]["attributes"]["BEL"] = f"X{x}/Y{y}/SLICE{name}.FF{index}"
                if register.lut:
                    cells[register.lut]["attributes"]["BEL"] = f"X{x}/Y{y}/SLICE{name}.K{index}"
    return design


class _Floor:
    """Where the cells of a placement are, and the wire that registers take which go elsewhere."""

    def __init__(self, packed: Cells):
        self.at = {name: tile(bel(cell)) for name, cell in packed.items() if bel(cell)}
        self._packed, self._nets = packed, nets_of(packed)
        logic = {name: place for name, place in self.at.items() if "/SLICE" in bel(packed[name])}
        self._columns, self._rows = (np.arange(max(place[axis] for place in logic.values()) + 1) for axis in (0, 1))
        columns, rows = ({place[axis] for place in logic.values()} for axis in (0, 1))
        self._tiles = [(x, y) for y in sorted(rows) for x in sorted(columns)]
        chained = {place for name, place in logic.items() if packed[name]["parameters"].get("MODE") in CHAINED}
        self._free = [place for place in self._tiles if place not in chained]

    def assign(self, loads: list[Load]) -> None:
        """Give each load a tile: the least wire to what is around it."""
        if len(loads) > len(self._tiles):
            raise ValueError(
                f"registers with a reset need {len(loads)} tiles of logic, of which there are {len(self._tiles)}: "
                "take a smaller NPU or fewer resets"
            )
        tiles = self._free if len(loads) <= len(self._free) else self._tiles
        each = [[register for slots in load for register in slots] for load in loads]
        chosen = linear_sum_assignment(np.array([self._wire(registers, tiles) for registers in each]))[1]
        for registers, index in zip(each, chosen, strict=True):
            self._put(registers, tiles[index])

    def traded(self, loads: list[Load]) -> list[Load]:
        """The loads after those registers have exchanged their sites that may: they have one reset and one enable."""
        alike = defaultdict(list)
        for load in loads:
            for slots in load:
                for register in slots:
                    alike[register.reset, register.enable].append(register)
        follower = {}
        for registers in alike.values():
            tiles = [self.at[register.name] for register in registers]
            chosen = linear_sum_assignment(np.array([self._wire([register], tiles) for register in registers]))[1]
            for register, index in zip(registers, chosen, strict=True):
                follower[registers[index].name] = register
                self._put([register], tiles[index])
        return [[[follower[register.name] for register in slots] for slots in load] for load in loads]

    def _put(self, registers: list[_Register], place: tuple[int, int]) -> None:
        self.at |= {name: place for register in registers for name in register.names}

    def _wire(self, registers: list[_Register], tiles: list[tuple[int, int]]) -> np.ndarray:
        """Half perimeters of all their nets, summed, for each of some tiles; where these are the same, the nearest is a
        little better.
        """
        own = {name for register in registers for name in register.names}
        ends = [
            np.array([self.at[other] for other in others])
            for net in {net for name in own for net in nets_at(self._packed[name])}
            if 1 < len(self._nets[net]) <= EVERYWHERE
            and (others := [other for other in self._nets[net] if other not in own])
        ]
        centre = np.mean([self.at[name] for name in own], axis=0)
        columns, rows = (
            sum(
                (np.maximum(end[:, axis].max(), places) - np.minimum(end[:, axis].min(), places) for end in ends),
                NEARNESS * np.abs(places - centre[axis]),
            )
            for axis, places in enumerate((self._columns, self._rows))
        )
        x, y = np.array(tiles).T
        return columns[x] + rows[y]


def _is_paired(register: dict) -> bool:
    """nextpnr has put it at the site of what drives it."""
    return register["parameters"]["SD"].strip() == "1"


def _keep_apart(register: dict) -> None:
    """Have nextpnr not pair it with what drives it: which one of several registers it pairs with a LUT may change."""
    for ports in (register["connections"], register["port_directions"]):
        ports["M"] = ports.pop("DI")


def _net(cell: dict, port: str) -> Net | None:
    """What a port is connected to."""
    return next(iter(cell["connections"].get(port, ())), None)


def _by_reset(cells: Cells, packed: Cells) -> dict[tuple, list[_Register]]:
    """The registers with a reset, without those that nextpnr makes part of a carry chain or a distributed memory."""
    luts = {_net(cell, "Z"): name for name, cell in cells.items() if cell["type"] == "LUT4"}
    found = defaultdict(list)
    for name, cell in cells.items():
        reset = _net(cell, "LSR")
        if cell["type"] != "TRELLIS_FF" or not isinstance(reset, int):
            continue
        is_paired = _is_paired(packed[name])
        lut = luts.get(_net(cell, "DI")) if is_paired else None
        if is_paired and not lut:
            continue
        key = (reset, cell["parameters"].get("LSRMUX"))
        found[key].append(_Register(name, lut, key, (_net(cell, "CE"), cell["parameters"].get("CEMUX"))))
    return found


def _loads(registers: list[_Register], floor: _Floor) -> list[Load]:
    """Registers of one reset as tiles of slices of registers, near ones together."""
    by_enable = defaultdict(list)
    for register in registers:
        by_enable[register.enable].append(register)
    singles = [_parts([[each] for each in group], SLICE_FFS, floor) for group in by_enable.values()]
    slices = [[register for each in part for register in each] for parts in singles for part in parts]
    return _parts(slices, len(TILE_SLICES), floor)


def _parts(groups: list[list[_Register]], size: int, floor: _Floor) -> list[Load]:
    """Groups in parts of `size`, by halving along the longer side."""
    if len(groups) <= size:
        return [groups]
    centres = np.array([np.mean([floor.at[register.name] for register in group], axis=0) for group in groups])
    axis = int(np.argmax(np.ptp(centres, axis=0)))
    order = np.argsort(centres[:, axis], kind="stable")
    half = -(-len(groups) // size) // 2 * size
    return [part for side in (order[:half], order[half:]) for part in _parts([groups[i] for i in side], size, floor)]
