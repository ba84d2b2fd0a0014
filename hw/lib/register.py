"""Registers of data, which have no reset."""

from amaranth.hdl import Module, Signal

__all__ = ["data_register"]


def data_register(m: Module, port) -> Signal:
    """The register behind an output, a payload or another unit's input `port`: of its shape, without reset; assign
    to it in `sync`.

    For what a valid bit, a strobe or a state vouches for. Most flip-flops of the NPU hold such data; without them the
    reset nets have fewer loads to reach, and fewer gates stand in front of flip-flops. Inside a unit `Signal(...,
    reset_less=True)` says the same.
    """
    name = getattr(port, "name", None) or "data"
    register = Signal.like(port, reset_less=True, name=f"{name}_register")
    m.d.comb += port.eq(register)
    return register
