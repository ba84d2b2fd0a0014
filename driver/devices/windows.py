"""The memory windows of a simulated NPU, as its memory has to know them to check the bus."""

from __future__ import annotations

from typing import NamedTuple

from convoy.spec.csr import NUM_WINDOWS, REGISTERS, WINDOW_ALIGN_BYTES, WindowControl

__all__ = ["Window", "WindowRegisters"]

_NAMES = {
    REGISTERS[f"WINDOW{number}_{field}"].addr: (number, field)
    for number in range(NUM_WINDOWS)
    for field in ("BASE", "LIMIT", "CONTROL")
}


class Window(NamedTuple):
    """Bytes from `base` to below `limit`; `access`: bits READ and WRITE of `WindowControl`."""

    base: int
    limit: int
    access: int


class WindowRegisters:
    """A copy of the window registers, from what is read back after each write: it may have been ignored.

    Windows change at rest only (`Register.is_held`), so every burst that is shown on the bus must lie in those of this
    copy.
    """

    def __init__(self) -> None:
        self._values = [dict.fromkeys(("BASE", "LIMIT", "CONTROL"), 0) for _ in range(NUM_WINDOWS)]

    def __contains__(self, addr: int) -> bool:
        return addr & ~3 in _NAMES

    def put(self, addr: int, value: int) -> list[Window]:
        """Note the value of one of the registers; the windows."""
        number, field = _NAMES[addr & ~3]
        self._values[number][field] = value
        align, access = ~(WINDOW_ALIGN_BYTES - 1), WindowControl.READ.value | WindowControl.WRITE.value
        return [Window(each["BASE"] & align, each["LIMIT"] & align, each["CONTROL"] & access) for each in self._values]
