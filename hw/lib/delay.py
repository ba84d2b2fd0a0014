"""The delay line: a value as it was some cycles ago."""

from amaranth.hdl import Module, Signal

__all__ = ["delay"]


def delay(m: Module, value, cycles: int, *, name: str, reset_less: bool = False):
    """`value`, `cycles` later, by registers `<name>_0`, `<name>_1`, ... that start at zero; of its shape.

    With 0 cycles it is `value` itself. `reset_less` registers hold data for which something else vouches, as those of
    `data_register` do.

    Raises
    ------
    ValueError
        When `cycles` is negative.
    """
    if cycles < 0:
        raise ValueError(f"cycles = {cycles}: a value cannot come early, use at least 0")
    for cycle in range(cycles):
        later = Signal(value.shape(), name=f"{name}_{cycle}", reset_less=reset_less)
        m.d.sync += later.eq(value)
        value = later
    return value
