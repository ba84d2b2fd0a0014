"""The network, of no file format, and a reader for each format."""

from .graph import Graph, GraphError, Op, Quant, Tensor

__all__ = ["Graph", "GraphError", "Op", "Quant", "Tensor"]
