"""Registers that multipliers and block memories of an ECP5 take over from flip-flops."""

from __future__ import annotations

from pathlib import Path

import pytest

CLOCK, ENABLE, OTHER_ENABLE, RESET = 2, 3, 4, 5
PLAIN = {"CEMUX": "1 ", "LSRMUX": "LSR", "REGSET": "RESET"}
ENABLED = {**PLAIN, "CEMUX": "CE"}
NUM_BITS = 3


@pytest.fixture
def with_hard_registers(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench" / "synth"))
    from hard_registers import with_hard_registers

    return with_hard_registers


def netlist(block: dict, outputs: list[str], parameters=PLAIN, connections=None) -> dict:
    """A block, a flip-flop behind each of some of its outputs, a LUT behind each flip-flop."""
    cells = {"block": block | {"port_directions": {}}}
    inputs = {port: "input" for port in block["connections"]}
    for index, port in enumerate(outputs):
        block["connections"][port] = [100 + index]
        cells[f"register{index}"] = {
            "type": "TRELLIS_FF",
            "parameters": dict(parameters),
            "connections": {"CLK": [CLOCK], "LSR": ["0"], "DI": [100 + index], "Q": [200 + index]}
            | (connections or {}),
            "port_directions": {"CLK": "input", "CE": "input", "LSR": "input", "DI": "input", "Q": "output"},
        }
        cells[f"lut{index}"] = {
            "type": "LUT4",
            "parameters": {},
            "connections": {"A": [200 + index], "Z": [300 + index]},
            "port_directions": {"A": "input", "Z": "output"},
        }
    cells["block"]["port_directions"] = inputs | dict.fromkeys(outputs, "output")
    return {"modules": {"top": {"ports": {}, "cells": cells}}}


def product(**options) -> dict:
    block = {"type": "MULT18X18D", "parameters": {}, "connections": {"A0": [10], "B0": [11]}}
    return netlist(block, [f"P{index}" for index in range(NUM_BITS)], **options)


def memory(width: int, outputs: list[str], **options) -> dict:
    parameters = {"DATA_WIDTH_B": f"{width:032b}", "REGMODE_A": "NOREG", "REGMODE_B": "NOREG"}
    connections = {"CLKA": [CLOCK], "CLKB": [CLOCK], "OCEA": ["0"], "OCEB": ["1"]}
    return netlist({"type": "DP16KD", "parameters": parameters, "connections": connections}, outputs, **options)


def is_taken(design: dict) -> bool:
    """All registers are, and those that read them read the block; or none is."""
    cells = design["modules"]["top"]["cells"]
    left = [name for name in cells if name.startswith("register")]
    outputs = [nets[0] for port, nets in cells["block"]["connections"].items() if port.startswith(("P", "DO"))]
    if left:
        assert len(left) == len([name for name in cells if name.startswith("lut")])
        assert outputs == [100 + index for index in range(len(left))]
    else:
        assert outputs == [200 + index for index in range(len(outputs))]
    return not left


def test_products_have_a_register(with_hard_registers):
    design = with_hard_registers(product())
    block = design["modules"]["top"]["cells"]["block"]
    assert is_taken(design)
    assert block["connections"]["CLK0"] == [CLOCK]
    assert block["parameters"]["REG_OUTPUT_CLK"] == "CLK0"


@pytest.mark.parametrize(
    ("width", "outputs", "modes"),
    [
        (36, ["DOA0", "DOB0", "DOB17"], ("OUTREG", "OUTREG")),
        (18, ["DOB0", "DOB1"], ("NOREG", "OUTREG")),
        (9, ["DOA0", "DOA8"], ("OUTREG", "NOREG")),
    ],
)
@pytest.mark.parametrize("enable", [["1"], [ENABLE]])
def test_read_ports_have_a_register(with_hard_registers, width, outputs, modes, enable):
    is_enabled = enable != ["1"]
    options = {"parameters": ENABLED, "connections": {"CE": enable}} if is_enabled else {}
    design = with_hard_registers(memory(width, outputs, **options))
    block = design["modules"]["top"]["cells"]["block"]
    assert is_taken(design)
    assert (block["parameters"]["REGMODE_A"], block["parameters"]["REGMODE_B"]) == modes
    for port, mode in zip("AB", modes, strict=True):
        assert mode == "NOREG" or block["connections"][f"OCE{port}"] == enable


@pytest.mark.parametrize("make", [product, lambda **options: memory(36, ["DOA0", "DOB0"], **options)])
@pytest.mark.parametrize(
    "options",
    [
        {"connections": {"LSR": [RESET]}},
        {"connections": {"LSR": ["1"]}},
        {"parameters": {**PLAIN, "LSRMUX": "INV"}},
        {"parameters": {**PLAIN, "REGSET": "SET"}},
        {"parameters": {**PLAIN, "CLKMUX": "INV"}},
        {"parameters": {**PLAIN, "CEMUX": "INV"}, "connections": {"CE": [ENABLE]}},
    ],
)
def test_what_a_block_cannot_do_stays(with_hard_registers, make, options):
    assert not is_taken(with_hard_registers(make(**options)))


def test_an_enabled_product_stays(with_hard_registers):
    assert not is_taken(with_hard_registers(product(parameters=ENABLED, connections={"CE": [ENABLE]})))


@pytest.mark.parametrize("make", [product, lambda: memory(36, ["DOA0", "DOB0"])])
def test_registers_that_differ_stay(with_hard_registers, make):
    design = make()
    register = design["modules"]["top"]["cells"]["register1"]
    register["parameters"], register["connections"]["CE"] = dict(ENABLED), [OTHER_ENABLE]
    assert not is_taken(with_hard_registers(design))


@pytest.mark.parametrize("make", [product, lambda: memory(18, ["DOB0", "DOB1"])])
def test_what_is_read_before_the_register_stays(with_hard_registers, make):
    """By a LUT, by a port of the design, or through the flip-flop's other input."""
    design = make()
    design["modules"]["top"]["cells"]["lut0"]["connections"]["A"] = [101]
    assert not is_taken(with_hard_registers(design))
    design = make()
    design["modules"]["top"]["ports"]["out"] = {"direction": "output", "bits": [101]}
    assert not is_taken(with_hard_registers(design))
    design = make()
    ports = design["modules"]["top"]["cells"]["register0"]["connections"]
    ports["M"] = ports.pop("DI")
    design["modules"]["top"]["cells"]["register0"]["port_directions"]["M"] = "input"
    assert not is_taken(with_hard_registers(design))
