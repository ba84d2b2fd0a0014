"""The emitted Verilog, written as Verilog-2005 with names of choice, and a top module with the usual names of ports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from convoy.spec.config import PAGE_BYTES

__all__ = [
    "CORE_NAMES",
    "KEYWORDS",
    "RAM_STYLES",
    "RAM_UNITS",
    "TAKEN",
    "Port",
    "find_ports",
    "top_module",
    "verilog_2005",
    "with_free_collisions",
    "with_prefix",
    "with_ram_styles",
]

KEYWORDS = (
    "always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default "
    "defparam design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive "
    "endspecify endtable endtask event for force forever fork function generate genvar highz0 highz1 if ifnone "
    "incdir include initial inout input instance integer join large liblist library localparam macromodule medium "
    "module nand negedge nmos nor noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive "
    "pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat "
    "rnmos rpmos rtran rtranif0 rtranif1 scalared showcancelled signed small specify specparam strong0 strong1 "
    "supply0 supply1 table task time tran tranif0 tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire "
    "vectored wait wand weak0 weak1 while wire wor xnor xor"
)
"""Of Verilog-2005, separated by spaces."""
TAKEN = frozenset(("BASE_ADDRESS", "core", "core_araddr", "core_awaddr"))
"""Names that the top module has for other things than ports."""
CORE_NAMES = {"clk": "aclk", "rst": "aresetn"}
"""What the top module calls these ports of the core, if nothing else is said."""
START = "\\$start "
"""Register of a module that changes once, when the simulation starts."""
_TRIGGER = re.compile(r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ ")
_SINGLE = re.compile(r"^  always(?: @\*|_comb)\n    (\S[^;]*;)\n", re.MULTILINE)
_AMARANTH = re.compile(r"^ *\(\* (?:init|enum_base_type|enum_value_\w+) = .* \*\)\n", re.MULTILINE)
_ZEROS = re.compile(r"^  initial begin\n    (\w+)\[\d+\] = (\d+'h0+);\n(?:    \1\[\d+\] = \2;\n)*  end\n", re.MULTILINE)
_MEMORY = re.compile(r"^  (reg (?:\[\d+:0\] )?)(\w+) (\[\d+:0\];)$", re.MULTILINE)
_MODULE = re.compile(r"^(?=module )", re.MULTILINE)
_PORT = re.compile(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", re.MULTILINE)

RAM_STYLES = {
    "block": '(* ram_style = "block", syn_ramstyle = "block_ram" *)',
    "distributed": '(* ram_style = "distributed", syn_ramstyle = "distributed", ramstyle = "MLAB" *)',
}
"""Attributes by style, for Vivado, Yosys and Radiant (`ram_style`), Synplify (`syn_ramstyle`) and Quartus
(`ramstyle`; its name of a block memory depends on the device).
"""


@dataclass(frozen=True)
class RamUnit:
    """Memories that a style may be asked for: those of the modules that match, with names that match."""

    modules: str
    names: str
    doc: str
    is_registered: bool = True
    """Read with a clock edge, so that they may be block memories."""


RAM_UNITS = {
    "accumulators": RamUnit(r"nn\.core_\d+\.acc", r"(add|drain)_memory", "Sums of the cores: wide and shallow."),
    "windows": RamUnit(
        r"nn\.core_\d+\.window",
        r"bank_\d+_\d+",
        "Windows of the cores: one bank of bytes per lane.",
        is_registered=False,
    ),
    "weights": RamUnit(r"nn\.core_\d+\.queue", "storage", "Weight queues of the cores."),
    "taps": RamUnit(r"nn\.core_\d+\.decoder\.places", "taps", "Tables of kernel positions of the cores."),
    "stripe": RamUnit(r"nn\.stripe", "memory", "The input stripe."),
    "pool": RamUnit(r"nn\.drain\.pool\.maxima", "lines", "Line buffer of the fused pool."),
    "gather": RamUnit(r"nn\.fetch\.gather\.source", "bytes", "Input of layers whose stripe is gathered."),
    "tables": RamUnit(r"(nn\.drain|tp\.process)\.lut", r"table_\d+_\d+", "Look-up tables of activation functions."),
    "buffer": RamUnit(r"tp\.buffer", r"bank\d+", "Local memory of the tensor processor."),
}
"""All memories except queues of a few entries, by the name that `--ram` takes."""


@dataclass(frozen=True)
class Port:
    """A port of a module."""

    name: str
    width: int
    is_input: bool

    @property
    def bits(self) -> str:
        """Its range in Verilog, if it is a vector."""
        return f"[{self.width - 1}:0]" if self.width > 1 else ""


def find_ports(verilog: str, module: str) -> list[Port]:
    """The ports of a module, in their order in its text."""
    text = next(text for text in _MODULE.split(verilog) if text.startswith(f"module {module}("))
    return [Port(name, int(highest or 0) + 1, flow == "input") for flow, highest, name in _PORT.findall(text)]


def verilog_2005(verilog: str) -> str:
    """The same design in Verilog-2005.

    Every combinational process reads a register that changes once, at the start of a simulation: `always @*` waits for
    a change, and a value that never changes would never be computed. Yosys has most do so, but writes that register's
    value as one it always had. Memories are cleared by loops. Attributes that only Amaranth reads are gone.
    """
    return "".join(map(_module_2005, _MODULE.split(_AMARANTH.sub("", verilog))))


def _module_2005(module: str) -> str:
    module = _ZEROS.sub(_cleared, module)
    trigger = f"    if ({START}) begin end\n"
    module = _SINGLE.sub(lambda process: f"  always @* begin\n{trigger}    {process[1]}\n  end\n", module)
    module = re.sub(rf"^  reg {_TRIGGER.pattern} = 0;\n", "", module, flags=re.MULTILINE)
    module = _TRIGGER.sub(lambda _: START, module)
    if trigger in module:
        header, body = module.split(";\n", 1)
        module = f"{header};\n  reg {START};\n  initial {START}<= 1'b0;\n{body}"
    return module


def _cleared(match: re.Match[str]) -> str:
    """A loop in the place of an assignment for each word of a memory."""
    name, zero = match[1], match[2]
    depth, bits = match[0].count(f"{name}["), zero.partition("'")[0]
    return (
        f"  initial begin : clear_{name}\n    integer place;\n"
        f"    for (place = 0; place < {depth}; place = place + 1) {name}[place] = {bits}'h0;\n  end\n"
    )


def with_prefix(verilog: str, top: str, prefix: str) -> str:
    """The same design with plain names of modules that begin with a prefix: `top.a.b$1` becomes `prefix_a_b_1`, the
    top module `prefix_core`.

    Raises
    ------
    ValueError
        When two modules would get one name.
    """
    names = dict.fromkeys(re.findall(rf"^module \\{top}\.(\S+) ", verilog, re.MULTILINE))
    plain = {name: f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}" for name in names}
    if len({*plain.values(), f"{prefix}_core"}) != len(plain) + 1:
        raise ValueError("two modules would get one name")
    verilog = re.sub(
        rf"^(module |  )\\{top}\.(\S+) ", lambda found: f"{found[1]}{plain[found[2]]} ", verilog, flags=re.M
    )
    return re.sub(rf"^module {top}(?=\()", f"module {prefix}_core", verilog, flags=re.MULTILINE)


def with_ram_styles(verilog: str, top: str, styles: Mapping[str, str]) -> str:
    """The same design, not renamed yet, with attributes at the memories of units.

    Parameters
    ----------
    styles : unit in `RAM_UNITS` -> style in `RAM_STYLES`
    """

    return "".join(_styled(module, top, styles) for module in _MODULE.split(verilog))


def _styled(module: str, top: str, styles: Mapping[str, str]) -> str:
    found = re.match(rf"module \\{top}\.(\S+) ", module)
    wanted = {
        RAM_UNITS[unit].names: RAM_STYLES[style]
        for unit, style in styles.items()
        if found and re.fullmatch(RAM_UNITS[unit].modules, found[1])
    }

    def marked(memory: re.Match[str]) -> str:
        attributes = [f"  {style}\n" for names, style in wanted.items() if re.fullmatch(names, memory[2])]
        return "".join([*attributes, memory[0]])

    return _MEMORY.sub(marked, module) if wanted else module


def with_free_collisions(verilog: str) -> str:
    """The same design, whose memories say that no result depends on what they give when they are read where they are
    being written: without that word Yosys puts a bypass around each block memory.
    """
    return _MEMORY.sub(lambda memory: f"  (* no_rw_check *)\n{memory[0]}", verilog)


def outer_port(port: Port, names: Mapping[str, str], addr_bits: int) -> Port:
    """A port of the core as the top module has it: renamed, addresses of the memory `addr_bits` wide."""
    bus, _, member = port.name.partition("__")
    if not member:
        return Port(names[CORE_NAMES.get(bus, bus)], port.width, port.is_input)
    return Port(f"{names[bus]}_{member}", addr_bits if is_memory_address(port) else port.width, port.is_input)


def is_memory_address(port: Port) -> bool:
    """Does the port of the core give an address of the memory?"""
    return port.name in ("m_axi__araddr", "m_axi__awaddr")


def top_module(ports: list[Port], name: str, core: str, names: Mapping[str, str], addr_bits: int) -> str:
    """A module around `core` with an active-low reset, the names of ports that tools recognise, and a parameter that is
    added to the addresses of the memory.

    Parameters
    ----------
    ports : those of `core`
    names : of `outer_port`
    addr_bits : of the memory, at least those of `core`
    """
    attributes = {
        "clk": (
            f"xilinx.com:signal:clock:1.0 {names['aclk']} CLK",
            f"ASSOCIATED_BUSIF {names['s_axil']}:{names['m_axi']}, ASSOCIATED_RESET {names['aresetn']}",
        ),
        "rst": (f"xilinx.com:signal:reset:1.0 {names['aresetn']} RST", "POLARITY ACTIVE_LOW"),
        "irq": (f"xilinx.com:signal:interrupt:1.0 {names['irq']} INTERRUPT", "SENSITIVITY LEVEL_HIGH"),
    }
    declared, wires, joins = [], [], []
    for port in ports:
        outer = outer_port(port, names, addr_bits)
        if port.name in attributes:
            info, parameter = attributes[port.name]
            declared.append(f'  (* X_INTERFACE_INFO = "{info}" *)\n  (* X_INTERFACE_PARAMETER = "{parameter}" *)\n')
        else:
            declared.append("")
        flow = "input  wire" if port.is_input else "output wire"
        declared[-1] += f"  {flow} {outer.bits:7} {outer.name}"
        if is_memory_address(port):
            inner = f"core_{port.name.rpartition('_')[2]}"
            wires += [f"  wire {port.bits} {inner};", f"  assign {outer.name} = BASE_ADDRESS + {inner};"]
        else:
            inner = f"!{outer.name}" if port.name == "rst" else outer.name
        joins.append(f"    .{port.name}({inner})")
    return "\n".join(
        [
            f"module {name} #(",
            f"  parameter [{addr_bits - 1}:0] BASE_ADDRESS = 0  // of what the NPU knows as address 0; a multiple of "
            f"{PAGE_BYTES}",
            ") (",
            ",\n".join(declared),
            ");",
            *wires,
            f"  {core} core (",
            ",\n".join(joins),
            "  );",
            "endmodule",
            "",
        ]
    )
