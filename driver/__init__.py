"""Compiler, devices, runtime and command line; `load` is the way in from Python.

A module that has moved is still found under its former name, with a `DeprecationWarning`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .network import Network, Outputs, Report, Stream, load

__all__ = ["Network", "Outputs", "Report", "Stream", "load"]

_FORMER_NAMES = {
    "device": "runtime.device",
    "importers": "graph",
    "importers.tflite": "graph.tflite_reader",
    "inputs": "workload.inputs",
    "program": "emit.program",
    "synthetic": "workload.synthetic",
}


class _FormerName(MetaPathFinder, Loader):
    """Makes modules of former names, with what the ones that took their place define."""

    def find_spec(self, fullname, path=None, target=None):
        name = fullname.removeprefix(f"{__name__}.")
        return ModuleSpec(fullname, self, is_package=name == "importers") if name in _FORMER_NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        new_name = f"{__name__}.{_FORMER_NAMES[module.__name__.removeprefix(f'{__name__}.')]}"
        warnings.warn(f"{module.__name__} is {new_name} now", DeprecationWarning, stacklevel=2)
        new = importlib.import_module(new_name)
        vars(module).update({name: value for name, value in vars(new).items() if not name.startswith("__")})


def __getattr__(name: str) -> Any:
    """What `network` defines, and the version, when they are first asked for: commands start without them."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("convoy-npu")
    if name in __all__:
        return getattr(importlib.import_module(".network", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


sys.meta_path.append(_FormerName())
