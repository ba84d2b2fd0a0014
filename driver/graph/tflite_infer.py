"""`python -m convoy.driver.graph.tflite_infer`: the shapes that LiteRT computes for the TFLite file on standard input, as JSON on standard output.

A process of its own, because LiteRT aborts on some files. `{"shapes": {index: shape}}` of every tensor that has a value, or `{"error": text}`.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import numpy as np

__all__: list[str] = []

MAX_MEMORY_BYTES = 16 << 30
"""Of the process; the address space of the libraries is part of it."""


def _shapes(model: bytes) -> dict[int, list[int]]:
    """Shapes after LiteRT has allocated all tensors; if that does not give each a value, after a run on zeros."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    found, num_missing = _valued(interpreter)
    if num_missing:
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
        found, _ = _valued(interpreter)
    return found


def _valued(interpreter: Any) -> tuple[dict[int, list[int]], int]:
    """Shapes of the tensors that have a value, and the number of the others; handles of variables are neither."""
    found, num_missing = {}, 0
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] == np.object_:  # LiteRT crashes when asked for the value of a handle
            continue
        try:
            found[int(detail["index"])] = list(interpreter.get_tensor(detail["index"]).shape)
        except ValueError:
            num_missing += 1
    return found, num_missing


def _main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard), hard))
    try:
        answer: dict[str, Any] = {"shapes": _shapes(sys.stdin.buffer.read())}
    except (ValueError, RuntimeError, MemoryError) as error:
        answer = {"error": " ".join(str(error).split())}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()
