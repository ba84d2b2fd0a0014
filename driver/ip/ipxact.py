"""The IP as a component of IP-XACT (IEEE 1685-2014): ports, bus interfaces, registers, files."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from convoy.spec.csr import CSR_ADDR_BITS, REGISTERS

from .systemrdl import fields_of, register_doc
from .verilog import Port, outer_port

__all__ = ["ipxact"]

NAMESPACE = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"
VENDOR, LIBRARY = "convoy", "npu"
AXI = "amba.com", "AMBA4", "r0p0_0"
SIGNAL = "xilinx.com", "signal", "1.0"
"""Vendor, library and version of bus definitions; nobody else's of clocks, resets and interrupts are in use."""
BUSES = {
    "s_axil": (AXI, "AXI4Lite"),
    "m_axi": (AXI, "AXI4"),
    "aclk": (SIGNAL, "clock"),
    "aresetn": (SIGNAL, "reset"),
    "irq": (SIGNAL, "interrupt"),
}
LOGICAL = {"aclk": "CLK", "aresetn": "RST", "irq": "INTERRUPT"}
ACCESS = {"ro": "read-only", "rw": "read-write", "wo": "write-only", "w1c": "read-write"}
ADDRESS_SPACE, MEMORY_MAP, FILE_SET, INSTANCE = "memory", "registers", "rtl", "rtl"


def ipxact(name: str, version: str, ports: list[Port], names: Mapping[str, str], addr_bits: int) -> str:
    """The document.

    Parameters
    ----------
    name : the top module, and the Verilog file without `.v`
    ports : those of the core
    names, addr_bits : of `convoy.driver.ip.verilog.outer_port`
    """
    ElementTree.register_namespace("ipxact", NAMESPACE)
    root = ElementTree.Element(_tag("component"))
    for tag, value in (("vendor", VENDOR), ("library", LIBRARY), ("name", name), ("version", version)):
        _add(root, tag, value)
    interfaces = _add(root, "busInterfaces")
    for bus in BUSES:
        _bus_interface(interfaces, bus, ports, names, addr_bits)
    space = _add(_add(root, "addressSpaces"), "addressSpace")
    for tag, text in (("name", ADDRESS_SPACE), ("range", 1 << addr_bits), ("width", addr_bits)):
        _add(space, tag, text)
    _memory_map(_add(_add(root, "memoryMaps"), "memoryMap"))
    _model(_add(root, "model"), name, [outer_port(port, names, addr_bits) for port in ports])
    files = _add(_add(root, "fileSets"), "fileSet")
    _add(files, "name", FILE_SET)
    file = _add(files, "file")
    _add(file, "name", f"{name}.v")
    _add(file, "fileType", "verilogSource")
    _add(root, "description", "Convoy NPU: an accelerator for quantised neural networks")
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _bus_interface(
    parent: ElementTree.Element, bus: str, ports: list[Port], names: Mapping[str, str], addr_bits: int
) -> None:
    (vendor, library, version), definition = BUSES[bus]

    def reference(parent: ElementTree.Element, tag: str, suffix: str = "") -> None:
        _add(parent, tag, None, vendor=vendor, library=library, name=f"{definition}{suffix}", version=version)

    interface = _add(parent, "busInterface")
    _add(interface, "name", names[bus])
    reference(interface, "busType")
    abstraction = _add(_add(interface, "abstractionTypes"), "abstractionType")
    reference(abstraction, "abstractionRef", "_rtl")
    maps = _add(abstraction, "portMaps")
    wires = {names[bus]: LOGICAL[bus]} if bus in LOGICAL else {}
    if bus not in LOGICAL:
        wires = {names["aclk"]: "ACLK", names["aresetn"]: "ARESETn"} | {
            outer_port(port, names, addr_bits).name: port.name.partition("__")[2].upper()
            for port in ports
            if port.name.startswith(f"{bus}__")
        }
    for physical, logical in wires.items():
        joined = _add(maps, "portMap")
        _add(_add(joined, "logicalPort"), "name", logical)
        _add(_add(joined, "physicalPort"), "name", physical)
    if bus == "m_axi":
        _add(_add(interface, "master"), "addressSpaceRef", None, addressSpaceRef=ADDRESS_SPACE)
    elif bus == "s_axil":
        _add(_add(interface, "slave"), "memoryMapRef", None, memoryMapRef=MEMORY_MAP)
    else:
        _add(interface, "master" if bus == "irq" else "slave")
    parameters = {
        "aclk": {"ASSOCIATED_BUSIF": f"{names['s_axil']}:{names['m_axi']}", "ASSOCIATED_RESET": names["aresetn"]},
        "aresetn": {"POLARITY": "ACTIVE_LOW"},
        "irq": {"SENSITIVITY": "LEVEL_HIGH"},
    }.get(bus, {})
    if parameters:
        listed = _add(interface, "parameters")
        for key, value in parameters.items():
            parameter = _add(listed, "parameter", None, parameterId=f"{bus}_{key}", type="string")
            _add(parameter, "name", key)
            _add(parameter, "value", value)


def _memory_map(memory_map: ElementTree.Element) -> None:
    _add(memory_map, "name", MEMORY_MAP)
    block = _add(memory_map, "addressBlock")
    for tag, text in (
        ("name", MEMORY_MAP),
        ("baseAddress", 0),
        ("range", 1 << CSR_ADDR_BITS),
        ("width", 32),
        ("usage", "register"),
    ):
        _add(block, tag, text)
    for register in REGISTERS.values():
        entry = _add(block, "register")
        _add(entry, "name", register.name)
        _add(entry, "description", register_doc(register))
        _add(entry, "addressOffset", register.addr)
        _add(entry, "size", 32)
        _add(entry, "access", ACCESS[register.access])
        for field in fields_of(register):
            part = _add(entry, "field")
            _add(part, "name", field.name)
            if field.doc:
                _add(part, "description", field.doc)
            _add(part, "bitOffset", field.lsb)
            _add(part, "bitWidth", field.width)
            _add(part, "access", ACCESS[register.access])
            if field.values:
                values = _add(part, "enumeratedValues")
                for member in field.values:
                    value = _add(values, "enumeratedValue")
                    _add(value, "name", member.name)
                    _add(value, "value", member.value)
            if register.access == "w1c":
                _add(part, "modifiedWriteValue", "oneToClear")
    _add(memory_map, "addressUnitBits", 8)


def _model(model: ElementTree.Element, name: str, ports: list[Port]) -> None:
    view = _add(_add(model, "views"), "view")
    _add(view, "name", INSTANCE)
    _add(view, "componentInstantiationRef", INSTANCE)
    instance = _add(_add(model, "instantiations"), "componentInstantiation")
    for tag, text in (("name", INSTANCE), ("language", "verilog"), ("moduleName", name)):
        _add(instance, tag, text)
    parameter = _add(_add(instance, "moduleParameters"), "moduleParameter")
    _add(parameter, "name", "BASE_ADDRESS")
    _add(parameter, "value", 0)
    _add(_add(instance, "fileSetRef"), "localName", FILE_SET)
    listed = _add(model, "ports")
    for port in ports:
        entry = _add(listed, "port")
        _add(entry, "name", port.name)
        wire = _add(entry, "wire")
        _add(wire, "direction", "in" if port.is_input else "out")
        if port.bits:
            vector = _add(_add(wire, "vectors"), "vector")
            _add(vector, "left", port.width - 1)
            _add(vector, "right", 0)


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _add(parent: ElementTree.Element, tag: str, text: object = None, **attributes: str) -> ElementTree.Element:
    """A child with a text and attributes."""
    child = ElementTree.SubElement(parent, _tag(tag), attributes)
    if text is not None:
        child.text = str(text)
    return child
