"""The IP-XACT component: ports, bus interfaces and registers; valid by IEEE's schema when it was written."""

from xml.etree import ElementTree

import pytest

from convoy.driver.ip.folder import parse_names
from convoy.driver.ip.ipxact import NAMESPACE, ipxact
from convoy.driver.ip.verilog import Port
from convoy.spec.csr import CSR_ADDR_BITS, REGISTERS

PORTS = [
    Port("clk", 1, True),
    Port("rst", 1, True),
    Port("irq", 1, False),
    Port("s_axil__awaddr", 12, True),
    Port("m_axi__araddr", 32, False),
    Port("m_axi__rdata", 64, True),
]


@pytest.fixture(scope="module")
def root():
    return ElementTree.fromstring(ipxact("npu", "1.2", PORTS, parse_names(["m_axi=mem", "aclk=clk"]), 40))


def texts(node, path):
    return [found.text for found in node.findall("/".join(f"{{{NAMESPACE}}}{tag}" for tag in path.split("/")))]


def test_ports(root):
    assert texts(root, "model/ports/port/name") == ["clk", "aresetn", "irq", "s_axil_awaddr", "mem_araddr", "mem_rdata"]
    assert texts(root, "model/ports/port/wire/direction") == ["in", "in", "out", "in", "out", "in"]
    assert texts(root, "model/ports/port/wire/vectors/vector/left") == ["11", "39", "63"]


def test_bus_interfaces(root):
    interfaces = root.findall(f".//{{{NAMESPACE}}}busInterface")
    assert [texts(interface, "name") for interface in interfaces] == [
        ["s_axil"],
        ["mem"],
        ["clk"],
        ["aresetn"],
        ["irq"],
    ]
    maps = "abstractionTypes/abstractionType/portMaps/portMap"
    assert texts(interfaces[1], f"{maps}/logicalPort/name") == ["ACLK", "ARESETn", "ARADDR", "RDATA"]
    assert texts(interfaces[1], f"{maps}/physicalPort/name") == ["clk", "aresetn", "mem_araddr", "mem_rdata"]
    assert texts(interfaces[2], "parameters/parameter/value") == ["s_axil:mem", "aresetn"]


def test_registers(root):
    block = "memoryMaps/memoryMap/addressBlock"
    assert texts(root, f"{block}/register/name") == list(REGISTERS)
    assert texts(root, f"{block}/register/addressOffset") == [str(register.addr) for register in REGISTERS.values()]
    assert texts(root, "addressSpaces/addressSpace/range") == [str(1 << 40)]
    assert texts(root, f"{block}/range") == [str(1 << CSR_ADDR_BITS)]
