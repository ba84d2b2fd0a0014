"""Registers behind multipliers and block memories of an ECP5: of these, where Yosys makes flip-flops."""

from __future__ import annotations

from collections import defaultdict

__all__ = ["with_hard_registers"]

Cells = dict[str, dict]


def with_hard_registers(design: dict) -> dict:
    """The netlist with fewer flip-flops, and the same behaviour in every cycle. Changes `design`.

    What is taken: flip-flops that start at zero, are never reset, and have the only connection of an output; all of the
    outputs of a read port that anything reads, or of a multiplier, with one clock and one enable; behind a multiplier
    without an enable, for nextpnr does not write that of its output register into a bitstream.

    Parameters
    ----------
    design
        Of Yosys, flat.
    """
    top = design["modules"]["top"]
    cells = top["cells"]
    readers = _readers(top)
    for cell in [cell for cell in cells.values() if cell["type"] in ("MULT18X18D", "DP16KD")]:
        ports, is_memory = cell["connections"], cell["type"] == "DP16KD"
        for names in _outputs(cell):
            pairs = {name: readers[net] for name in names for net in ports.get(name, ()) if readers.get(net)}
            registers = [_register(cells, found) for found in pairs.values()]
            if not registers or None in registers or len({_control(cells[name]) for name in registers}) > 1:
                continue
            first = cells[registers[0]]
            enable = first["connections"].get("CE", ["1"]) if _mode(first, "CEMUX", "CE") == "CE" else ["1"]
            if enable != ["1"] and not is_memory:
                continue
            for name, register in zip(pairs, registers, strict=True):
                ports[name] = cells.pop(register)["connections"]["Q"]
            if is_memory:
                _register_memory(cell, {name[2] for name in names}, enable)
            else:
                _register_product(cell, first["connections"]["CLK"])
    return design


def _readers(top: dict) -> dict[int, list[tuple[str, str]]]:
    """Cell and port of every reader of a net; a port of the design is one without a cell."""
    readers = defaultdict(list)
    for name, cell in top["cells"].items():
        for port, nets in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for net in nets:
                    readers[net].append((name, port))
    for port, facts in top["ports"].items():
        if facts["direction"] == "output":
            for net in facts["bits"]:
                readers[net].append(("", port))
    return readers


def _outputs(cell: dict) -> list[list[str]]:
    """The outputs that have a register of their own: products; those of a memory's ports, one of 36 bits having all."""
    if cell["type"] == "MULT18X18D":
        return [[f"P{index}" for index in range(36)]]
    first, second = ([f"DO{port}{index}" for index in range(18)] for port in "AB")
    return [first + second] if int(cell["parameters"]["DATA_WIDTH_B"], 2) == 36 else [first, second]


def _register(cells: Cells, readers: list[tuple[str, str]]) -> str | None:
    """The register that reads a net, if nothing else does and the block can do what it does."""
    (name, port), *others = readers
    if others or not name or port != "DI" or cells[name]["type"] != "TRELLIS_FF":
        return None
    cell = cells[name]
    is_plain = (
        cell["connections"].get("LSR", ["0"]) == ["0"]
        and _mode(cell, "LSRMUX", "LSR") == "LSR"
        and _mode(cell, "REGSET", "RESET") == "RESET"
        and _mode(cell, "CLKMUX", "CLK") == "CLK"
        and _mode(cell, "CEMUX", "CE") in ("CE", "1")
    )
    return name if is_plain else None


def _control(register: dict) -> tuple:
    return (*(str(register["connections"].get(port)) for port in ("CLK", "CE")), _mode(register, "CEMUX", "CE"))


def _mode(cell: dict, parameter: str, default: str) -> str:
    return cell["parameters"].get(parameter, default).strip()


def _register_product(cell: dict, clock: list) -> None:
    cell["connections"]["CLK0"], cell["port_directions"]["CLK0"] = clock, "input"
    cell["parameters"] |= {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0"}


def _register_memory(cell: dict, ports: set[str], enable: list) -> None:
    """Memory and register have the same clock: the port's."""
    for port in sorted(ports):
        cell["connections"][f"OCE{port}"], cell["port_directions"][f"OCE{port}"] = enable, "input"
        cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
