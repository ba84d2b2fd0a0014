"""The IP as a folder: Verilog, what tools need beside it, and a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from convoy.driver.errors import GraphError
from convoy.spec.config import PAGE_BYTES, NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, REGISTERS

from .ipxact import ipxact
from .systemrdl import systemrdl
from .verilog import (
    CORE_NAMES,
    KEYWORDS,
    RAM_STYLES,
    RAM_UNITS,
    TAKEN,
    Port,
    find_ports,
    outer_port,
    top_module,
    verilog_2005,
    with_prefix,
    with_ram_styles,
)

__all__ = ["DEFAULT_NAMES", "DEFAULT_RAM", "ip_files", "parse_names", "parse_ram", "prefix_of"]

DEFAULT_NAMES = {name: name for name in ("aclk", "aresetn", "irq", "s_axil", "m_axi")}
"""Ports and buses of the top module, in the order of its ports, by the name that `--rename` takes."""
DEFAULT_RAM = {"accumulators": "block"}
"""Wide and shallow memories that tools put into look-up tables unless they are told."""
AUTO = "auto"
START_WAIVER = "A register changes once at the start, so that every `always @*` runs; Verilator runs them anyway."


def parse_names(options: Iterable[str]) -> dict[str, str]:
    """`DEFAULT_NAMES` with changes of the form `aclk=clk`.

    Raises
    ------
    GraphError
        For anything else, a name that Verilog does not take, and one that is given twice.
    """
    names = dict(DEFAULT_NAMES)
    for option in options:
        old, _, new = option.partition("=")
        if old not in names:
            raise GraphError(f"--rename {option}: give OLD=NEW, OLD one of {', '.join(names)}")
        names[old] = _identifier(f"--rename {option}", new)
    buses = tuple(f"{names[bus]}_" for bus in ("s_axil", "m_axi"))
    for old, new in names.items():
        others = {names[other] for other in names if other != old}
        if new in others | TAKEN or new.startswith(buses):
            raise GraphError(f"--rename: {new} is the name of something else in the top module; give another")
    return names


def parse_ram(options: Iterable[str]) -> dict[str, str]:
    """`DEFAULT_RAM` with changes of the form `windows=block`; units with `auto` are left to the tool.

    Raises
    ------
    GraphError
        For anything else.
    """
    styles = dict(DEFAULT_RAM)
    for option in options:
        unit, _, style = option.partition("=")
        if unit not in RAM_UNITS or style not in (*RAM_STYLES, AUTO):
            raise GraphError(
                f"--ram {option}: give UNIT=STYLE, UNIT one of {', '.join(RAM_UNITS)}, STYLE one of "
                f"{', '.join((*RAM_STYLES, AUTO))}"
            )
        if style == "block" and not RAM_UNITS[unit].is_registered:
            raise GraphError(f"--ram {option}: they are read without a clock edge; use distributed or {AUTO}")
        styles[unit] = style
    return {unit: style for unit, style in styles.items() if style != AUTO}


def prefix_of(config_name: str, prefix: str | None) -> str:
    """The name of the top module: what the user says, else that of the configuration's preset or file.

    Raises
    ------
    GraphError
        When Verilog does not take it.
    """
    if prefix is not None:
        return _identifier(f"--prefix {prefix}", prefix)
    return f"convoy_npu_{re.sub(r'[^A-Za-z0-9_]', '_', config_name)}"


def _identifier(option: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise GraphError(f"{option}: a name is a letter, then up to 63 letters, digits and underscores")
    if name in KEYWORDS.split():
        raise GraphError(f"{option}: {name} is a word of Verilog; give another")
    return name


def ip_files(
    config: NpuConfig,
    verilog: str,
    top: str,
    waivers: Mapping[str, str],
    *,
    name: str,
    names: Mapping[str, str],
    ram: Mapping[str, str],
    addr_bits: int,
    version: str,
    commit: str | None,
) -> dict[str, str]:
    """The files by name.

    Parameters
    ----------
    verilog, top : the emitted design and its top module
    waivers : classes of Verilator's warnings about it -> why they are accepted
    name : of the new top module; all other modules begin with it
    names, ram : from `parse_names`, `parse_ram`
    addr_bits : of the memory port, at least 32
    version, commit : of Convoy
    """
    core = f"{name}_core"
    ports = sorted(find_ports(verilog, top), key=_place)
    header = [
        f"{name}: Convoy NPU, configuration {config.name}",
        f"Written by `convoy verilog`, version {version}{f', commit {commit}' if commit else ''}; do not edit.",
        "SPDX-License-Identifier: Apache-2.0",
        "",
        *config.to_toml().splitlines(),
    ]
    design = with_prefix(verilog_2005(with_ram_styles(verilog, top, ram)), top, name)
    comment = "".join(f"// {line}".rstrip() + "\n" for line in header)
    accepted = {**waivers, "INITIALDLY": START_WAIVER}
    return {
        f"{name}.v": f"{comment}\n{top_module(ports, name, core, names, addr_bits)}\n{design}",
        f"{name}.vlt": _waiver_file(name, accepted),
        f"{name}.core": _fusesoc(name, version),
        f"{name}.rdl": systemrdl(name, header[:3]),
        "component.xml": ipxact(name, version, ports, names, addr_bits),
        "README.md": _readme(config, name, [outer_port(port, names, addr_bits) for port in ports], names, ram, header),
    }


def _place(port: Port) -> int:
    """Clock, reset and interrupt first, then the buses."""
    bus = port.name.partition("__")[0]
    return list(DEFAULT_NAMES).index(CORE_NAMES.get(bus, bus))


def _waiver_file(name: str, waivers: Mapping[str, str]) -> str:
    lines = ["`verilator_config", f"// Use: verilator --lint-only -Wall {name}.vlt {name}.v", ""]
    for rule, reason in sorted(waivers.items()):
        lines += [f"// {reason}", f'lint_off -rule {rule} -file "*{name}.v"']
    return "\n".join(lines) + "\n"


def _fusesoc(name: str, version: str) -> str:
    return f"""CAPI=2:
name: convoy:npu:{name}:{version}
description: Convoy NPU, an accelerator for quantised neural networks
filesets:
  rtl:
    files: [{name}.v]
    file_type: verilogSource-2005
  waivers:
    files: [{name}.vlt]
    file_type: vlt
targets:
  default:
    filesets: [rtl]
  lint:
    filesets: [waivers, rtl]
    toplevel: {name}
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
"""


def _readme(
    config: NpuConfig, name: str, ports: list[Port], names: Mapping[str, str], ram: Mapping[str, str], header: list[str]
) -> str:
    table = "\n".join(f"| `{port.name}` | {'in' if port.is_input else 'out'} | {port.width} |" for port in ports)
    parameters = "\n".join(f"| `{key}` | {str(value).lower()} |" for key, value in config.to_dict().items())
    registers = "\n".join(f"| 0x{r.addr:02X} | {r.name} | {r.access} |" for r in REGISTERS.values())
    memories = "\n".join(f"| `{unit}` | {ram.get(unit, AUTO)} | {about.doc} |" for unit, about in RAM_UNITS.items())
    max_burst = f"{config.max_burst_beats} beats of {config.port_bits} bits"
    instance = ",\n".join(f"    .{port.name}({port.name})" for port in ports)
    return f"""# {name}

{header[0].partition(": ")[2]}. {header[1]} How to integrate it: `docs/integration.md` of Convoy.

| file | content |
| -- | -- |
| `{name}.v` | the design in Verilog-2005, top module `{name}`; all other modules begin with `{name}_` |
| `{name}.vlt` | warnings that are accepted, with reasons: `verilator --lint-only -Wall {name}.vlt {name}.v` |
| `{name}.core` | FuseSoC: `fusesoc --cores-root . run --target lint convoy:npu:{name}` |
| `component.xml` | IP-XACT, IEEE 1685-2014: bus interfaces, registers, files |
| `{name}.rdl` | registers in SystemRDL: `peakrdl c-header {name}.rdl -o {name}.h`, `peakrdl html`, `peakrdl uvm` |

## Ports

* `{names["aclk"]}`: the only clock
* `{names["aresetn"]}`: reset, active low, synchronous to the clock
* `{names["irq"]}`: interrupt, a level, active high
* `{names["s_axil"]}_*`: registers, an AXI4-Lite subordinate of {1 << CSR_ADDR_BITS} bytes
* `{names["m_axi"]}_*`: memory, an AXI4 manager: INCR bursts of up to {max_burst}, one ID

Parameter `BASE_ADDRESS`, a multiple of {PAGE_BYTES}, is added to every address of the memory: the NPU's own begin at 0
and have 32 bits.

| port | direction | bits |
| -- | -- | -- |
{table}

```verilog
{name} npu (
{instance}
);
```

## Configuration

| parameter | value |
| -- | -- |
{parameters}

## Registers

| address | register | access |
| -- | -- | -- |
{registers}

## Memories

Styles are attributes that synthesis reads; `auto` leaves the choice to the tool. `convoy verilog --ram UNIT=STYLE`
changes them.

| unit | style | content |
| -- | -- | -- |
{memories}
"""
