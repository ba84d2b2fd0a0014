"""A Convoy NPU as a module of LiteX: an AXI4 manager, AXI4-Lite registers and an interrupt around the Verilog of a
folder that `convoy verilog` wrote.
"""

from __future__ import annotations

import re
from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.interconnect.axi import AXIInterface, AXILiteInterface
from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourceLevel
from migen import ClockSignal, Instance, ResetSignal, Signal

__all__ = ["REGISTER_BYTES", "ConvoyNpu"]

REGISTER_BYTES = 4096
"""Size of the region of the registers."""
ADDRESS = ("addr", "prot")
FULL_ADDRESS = (*ADDRESS, "id", "len", "size", "burst", "lock", "cache")
CHANNELS = {
    "m_axi": (
        (("aw", FULL_ADDRESS), ("ar", FULL_ADDRESS), ("w", ("data", "strb", "last"))),
        (("b", ("id", "resp")), ("r", ("id", "data", "resp", "last"))),
    ),
    "s_axil": (
        (("b", ("resp",)), ("r", ("data", "resp"))),
        (("aw", ADDRESS), ("ar", ADDRESS), ("w", ("data", "strb"))),
    ),
}
"""Of each bus the channels that the NPU drives, and those that it takes, with their signals."""


class ConvoyNpu(LiteXModule):
    """The NPU.

    Parameters
    ----------
    platform
        Gets the Verilog.
    folder : Path
        What `convoy verilog --prefix NAME` wrote, with the usual names of ports.
    name : str
        That prefix.
    base_address : int
        Of what the NPU knows as address 0.

    Attributes
    ----------
    memory : AXIInterface
        For `soc.bus.add_master`.
    registers : AXILiteInterface
        For `soc.bus.add_slave`, with a region of `REGISTER_BYTES`.
    irq : Signal
        The interrupt, also as the event `ev.done`.
    """

    def __init__(self, platform, folder: Path, name: str = "npu", base_address: int = 0):
        verilog = folder / f"{name}.v"
        highest_bit = re.search(r"^  input  wire \[(\d+):0\] +m_axi_rdata\b", verilog.read_text(), re.MULTILINE)
        port_bits = int(highest_bit[1]) + 1
        self.memory = AXIInterface(data_width=port_bits, address_width=32, id_width=4, bursting=True)
        self.registers = AXILiteInterface(data_width=32, address_width=32)
        self.irq = Signal()
        self.ev = EventManager()
        self.ev.done = EventSourceLevel()
        self.ev.finalize()
        self.comb += self.ev.done.trigger.eq(self.irq)

        ports = {"i_aclk": ClockSignal(), "i_aresetn": ~ResetSignal(), "o_irq": self.irq}
        for bus, interface in (("m_axi", self.memory), ("s_axil", self.registers)):
            driven, taken = CHANNELS[bus]
            for flow, back, channels in (("o", "i", driven), ("i", "o", taken)):
                for channel, signals in channels:
                    endpoint = getattr(interface, channel)
                    ports[f"{flow}_{bus}_{channel}valid"] = endpoint.valid
                    ports[f"{back}_{bus}_{channel}ready"] = endpoint.ready
                    for signal in signals:
                        value = getattr(endpoint, signal, None)
                        if value is None:
                            value = 0
                        ports[f"{flow}_{bus}_{channel}{signal}"] = value
        for port in ("i_s_axil_awaddr", "i_s_axil_araddr"):
            ports[port] = ports[port][: REGISTER_BYTES.bit_length() - 1]
        self.specials += Instance(name, p_BASE_ADDRESS=base_address, **ports)
        platform.add_source(str(verilog))
