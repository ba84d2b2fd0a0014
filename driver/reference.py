"""LiteRT's reference kernels: the independent runtime that every result is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import GraphError

__all__ = ["REFERENCE_NAME", "Reference", "run_reference"]

REFERENCE_NAME = "litert"
"""As the command line calls it."""


class Reference:
    """A network in LiteRT with the resolver BUILTIN_REF (reference kernels, no delegates), keeping every tensor, and variables from run to run.

    Raises
    ------
    GraphError
        On construction, when LiteRT refuses the file.
    """

    def __init__(self, model: bytes):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        try:
            self._interpreter = Interpreter(
                model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise GraphError(f"the reference (LiteRT) refuses the model: {' '.join(str(error).split())}") from None

    @staticmethod
    def version() -> str:
        """Name, version and resolver, as reports state them."""
        from importlib.metadata import version

        return f"LiteRT {version('ai-edge-litert')} BUILTIN_REF"

    def run(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """Run the network on one array for each of its inputs; every tensor that has a value, by index.

        Raises
        ------
        GraphError
            When LiteRT cannot run the network or an input has another shape or dtype.
        """
        try:
            details = self._interpreter.get_input_details()
            for detail, values in zip(details, inputs, strict=True):
                self._interpreter.set_tensor(detail["index"], values)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise GraphError(f"the reference (LiteRT) cannot run the model: {' '.join(str(error).split())}") from None
        tensors = {}
        for detail in self._interpreter.get_tensor_details():
            if detail["dtype"] == np.object_:  # the handle of a variable: LiteRT crashes when asked for its value
                continue
            try:
                tensors[detail["index"]] = self._interpreter.get_tensor(detail["index"])
            except ValueError:
                continue
        return tensors


def run_reference(model: bytes, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """`Reference(model).run(inputs)`."""
    return Reference(model).run(inputs)
