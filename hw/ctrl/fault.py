"""`Fault`: why and where something went wrong, on its way to the ERROR registers."""

from amaranth.lib import data

from convoy.spec.csr import Error

__all__ = ["Fault"]


class Fault(data.Struct):
    """The values of ERROR and ERROR_ADDR."""

    code: Error
    addr: 32
