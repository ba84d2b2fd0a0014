"""Constant multiples without a multiplier: those of the device are for the lanes."""

from amaranth.hdl import Value

__all__ = ["multiple"]


def multiple(value: Value, count: int) -> Value:
    """`value` * `count`, by shifts and additions; `count` is at least 1.

    Raises
    ------
    ValueError
        When `count` is less.
    """
    if count < 1:
        raise ValueError(f"count = {count}: use at least 1")
    first, *others = (value << n for n in range(count.bit_length()) if count >> n & 1)
    return sum(others, first)
