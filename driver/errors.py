"""What ends a command with one line; no imports, so that the command line needs no more to say it."""

from __future__ import annotations

__all__ = ["DeviceError", "GraphError"]


class GraphError(ValueError):
    """The network cannot be read or run, or a file or an option is wrong; the message names the thing, the limit and
    the remedy.
    """


class DeviceError(RuntimeError):
    """The device stopped with an error or did not answer; the message names the error and the address."""
