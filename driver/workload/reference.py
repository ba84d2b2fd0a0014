"""The independent runtimes that every result is compared with: LiteRT's reference kernels, and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.onnx_reader import OnnxModel
from convoy.driver.graph.tflite_reader import TfliteModel
from convoy.driver.litert.process import LiteRT, LiteRTError, LoadedModel
from convoy.driver.ort.runtime import OrtError

from .onnx_reference import OnnxReference

__all__ = ["Compared", "Reference", "ReferenceFailed", "run_reference"]


class ReferenceFailed(GraphError):
    """There is nothing to compare with, for LiteRT refuses the network or aborts; the network itself may run."""


class Reference:
    """A network in LiteRT with the resolver BUILTIN_REF (reference kernels, no delegates), keeping every tensor, and
    variables from run to run.

    LiteRT has a process of its own here, for it aborts on some networks: among others those with an int8 SOFTMAX whose
    exponentials sum up to 512 times the largest one.

    Raises
    ------
    ReferenceFailed
        On construction, when LiteRT refuses the file.
    """

    def __init__(self, model: bytes):
        self._model, self._failure = LoadedModel(LiteRT(), model, keeps_tensors=True), ""
        try:
            self._model.load()
        except LiteRTError as error:
            raise ReferenceFailed(f"the reference (LiteRT) refuses the model: {error}") from None

    @staticmethod
    def version() -> str:
        """Name, version and resolver, as reports state them."""
        from importlib.metadata import version

        return f"LiteRT {version('ai-edge-litert')} BUILTIN_REF"

    @property
    def remark(self) -> str | None:
        """What was changed in the network for the reference to run it, if anything."""
        relabelled = ", ".join(self._model.relabelled)
        return (
            f"compared with {relabelled}: same kernel, but LiteRT's reference registry ends there"
            if relabelled
            else None
        )

    def run(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """Run the network on one array for each of its inputs; every tensor that has a value, by index.

        Raises
        ------
        ReferenceFailed
            When LiteRT cannot run the network, or an input has another shape or dtype; from then on at every call, as
            the variables may be lost.
        """
        if not self._failure:
            try:
                return self._model.run(inputs)
            except LiteRTError as error:
                self._failure = f"the reference (LiteRT) cannot run the model: {error}"
        raise ReferenceFailed(self._failure)


class Compared:
    """The reference of a run that goes on without it: when the network's runtime cannot run it there is none, and
    `note` says why.

    Parameters
    ----------
    model : a TFLite file, or a network that has been read
    doubtful : as for `OnnxReference`
    """

    def __init__(self, model: bytes | TfliteModel | OnnxModel, doubtful: frozenset[int] = frozenset()):
        if isinstance(model, TfliteModel):
            model = model.data
        self._reference: Reference | OnnxReference | None = None
        self.note: str | None = None
        """Why there is no reference, or what was changed in the network for it."""
        self.name = "litert" if isinstance(model, bytes) else "onnxruntime"
        try:
            if isinstance(model, bytes):
                self._reference = Reference(model)
                self.note = self._reference.remark
            else:
                self._reference = OnnxReference(model, doubtful)
        except ReferenceFailed as error:
            self.note = str(error)

    def run(
        self, inputs: Sequence[np.ndarray], found: Mapping[int, np.ndarray] | None = None
    ) -> dict[int, np.ndarray] | None:
        """Every tensor that has a value, by index; None without a reference, and from then on. `found` are the
        tensors to compare with, at least the doubtful ones.
        """
        try:
            if isinstance(self._reference, OnnxReference):
                return self._reference.run(inputs, found or {})
            return self._reference.run(inputs) if self._reference else None
        except (ReferenceFailed, OrtError) as error:
            self._reference, self.note = None, str(error)
            return None


def run_reference(model: bytes, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """`Reference(model).run(inputs)`."""
    return Reference(model).run(inputs)
