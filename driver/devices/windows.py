"""What the NPU's window registers hold, as far as a simulator sees: from the writes that pass through it."""

from __future__ import annotations

from typing import NamedTuple

from convoy.spec.csr import NUM_WINDOWS, REGISTERS, WINDOW_ALIGN_BYTES, WindowControl

__all__ = ["Window", "WindowRegisters"]

_NAMES = {REGISTERS[f"WINDOW{number}_{field}"].addr: (number, field) for number in range(NUM_WINDOWS) for field in ("BASE", "LIMIT", "CONTROL")}


class Window(NamedTuple):
    """Bytes from `base` to below `limit`; `access`: bits READ and WRITE of `WindowControl`."""

    base: int
    limit: int
    access: int


class WindowRegisters:
    """A copy of the window registers of an NPU that has been reset, for the protocol checks of its memory."""

    def __init__(self) -> None:
        self._values = [dict.fromkeys(("BASE", "LIMIT", "CONTROL"), 0) for _ in range(NUM_WINDOWS)]

    def write(self, addr: int, value: int) -> list[Window] | None:
        """Note a register write, of any register: the windows from then on; None if it changes none."""
        number, field = _NAMES.get(addr & ~3, (0, ""))
        window = self._values[number]
        if not field or window["CONTROL"] & WindowControl.LOCK or window[field] == value:
            return None
        window[field] = value
        align = ~(WINDOW_ALIGN_BYTES - 1)
        access = WindowControl.READ | WindowControl.WRITE
        return [Window(each["BASE"] & align, each["LIMIT"] & align, each["CONTROL"] & access) for each in self._values]
