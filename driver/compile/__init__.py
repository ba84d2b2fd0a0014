"""The stages of compilation in their order."""

from .pipeline import compile_graph

__all__ = ["compile_graph"]
