"""AXI4 and AXI4-Lite signatures with flat, conventional member names (`awaddr`, `awvalid`, ...)."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.enums import IntEnum

__all__ = ["AxiLiteSignature", "AxiSignature", "Resp"]


class Resp(IntEnum, shape=2):
    """AXI response codes (AMBA AXI4 specification, A3.4.4)."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class AxiSignature(wiring.Signature):
    """An AXI4 manager: `addr_bits` of address, `data_bits` of data, IDs of `id_bits`. INCR bursts only."""

    def __init__(self, *, addr_bits: int = 32, data_bits: int, id_bits: int = 4):
        def address(prefix):
            return {
                f"{prefix}id": Out(id_bits),
                f"{prefix}addr": Out(addr_bits),
                f"{prefix}len": Out(8),
                f"{prefix}size": Out(3),
                f"{prefix}burst": Out(2),
                f"{prefix}lock": Out(1),
                f"{prefix}cache": Out(4),
                f"{prefix}prot": Out(3),
                f"{prefix}valid": Out(1),
                f"{prefix}ready": In(1),
            }

        super().__init__(
            {
                **address("aw"),
                **address("ar"),
                "wdata": Out(data_bits),
                "wstrb": Out(data_bits // 8),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(id_bits),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "rid": In(id_bits),
                "rdata": In(data_bits),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class AxiLiteSignature(wiring.Signature):
    """An AXI4-Lite manager with 32-bit data; a subordinate uses `.flip()` or `In(...)`."""

    def __init__(self, *, addr_bits: int):
        super().__init__(
            {
                "awaddr": Out(addr_bits),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(addr_bits),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )
