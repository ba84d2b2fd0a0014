"""Variables of a TFLite file: handles and initialisation subgraphs -> numbered variables with their first values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .check import printable
from .graph import GraphError, Op, Tensor, Variable

__all__ = ["HANDLE_DTYPE", "resolve_variables"]

HANDLE_DTYPE = np.dtype(np.void)
"""What a tensor of type RESOURCE is imported as."""
_COUNTS = {"CALL_ONCE": (0, 0), "VAR_HANDLE": (0, 1), "READ_VARIABLE": (1, 1), "ASSIGN_VARIABLE": (2, 0)}
"""Inputs and outputs of the operators that deal with variables."""


def resolve_variables(
    tensors: Sequence[Tensor], ops: Sequence[Op], read_subgraph: Callable[[int], tuple[Sequence[Tensor], Sequence[Op]]]
) -> tuple[tuple[Op, ...], tuple[Variable, ...]]:
    """What remains of operators that deal with variables.

    Parameters
    ----------
    tensors, ops : of the main subgraph; `VAR_HANDLE` with the option `name`, `CALL_ONCE` with `init_subgraph`
    read_subgraph : gives tensors and operators of another subgraph

    Returns
    -------
    (ops, variables)
        Operators without handles and initialisation: `READ_VARIABLE` has one output, `ASSIGN_VARIABLE` one input, both
        the option `variable`.

    Raises
    ------
    GraphError
        When a variable is read that nothing has given a value, or its tensors differ in shape or type, or a subgraph
        does more than assign constants.
    """
    return _Resolver(tensors, read_subgraph).run(ops)


class _Resolver:
    def __init__(
        self, tensors: Sequence[Tensor], read_subgraph: Callable[[int], tuple[Sequence[Tensor], Sequence[Op]]]
    ):
        self.tensors, self.read_subgraph = tensors, read_subgraph
        self.initial: dict[str, Tensor] = {}
        self.used: dict[str, Tensor] = {}
        """By name, the first tensor that a variable was read to or assigned from, in order of use."""
        self.assigned: set[str] = set()

    def run(self, ops: Sequence[Op]) -> tuple[tuple[Op, ...], tuple[Variable, ...]]:
        handles: dict[int, str] = {}
        kept = []
        for op in ops:
            where = _check_counts(op)
            if op.kind == "CALL_ONCE":
                if self.used:
                    raise GraphError(f"{where} comes after operators that use variables; it must come first")
                self._initialise(where, *self.read_subgraph(op.options["init_subgraph"]))
            elif op.kind == "VAR_HANDLE":
                handles[op.outputs[0]] = op.options["name"]
            elif op.kind in _COUNTS:
                kept.append(self._access(where, op, _name_of(where, op, handles)))
            else:
                kept.append(op)
        variables = (
            Variable(name, tensor.shape, tensor.dtype, self.initial[name].data if name in self.initial else None)
            for name, tensor in self.used.items()
        )
        return tuple(kept), tuple(variables)

    def _access(self, where: str, op: Op, name: str) -> Op:
        """A read or an assignment of a variable."""
        is_read = op.kind == "READ_VARIABLE"
        tensor = self.tensors[op.outputs[0] if is_read else op.inputs[1]]
        known = self.used.setdefault(name, self.initial.get(name, tensor))
        if (tensor.shape, tensor.dtype) != (known.shape, known.dtype):
            raise GraphError(
                f"{where}: variable {printable(name)} is {known.dtype} {list(known.shape)}, but tensor {tensor.index} "
                f"({printable(tensor.name)}) is {tensor.dtype} {list(tensor.shape)}"
            )
        if not is_read:
            self.assigned.add(name)
        elif name not in self.assigned and name not in self.initial:
            raise GraphError(
                f"{where}: nothing gives variable {printable(name)} a value before it is read; assign it first, or by "
                "CALL_ONCE"
            )
        return Op(op.index, op.kind, op.inputs[1:], op.outputs, {"variable": list(self.used).index(name)})

    def _initialise(self, caller: str, tensors: Sequence[Tensor], ops: Sequence[Op]) -> None:
        """The constants that a subgraph assigns."""
        handles: dict[int, str] = {}
        for op in ops:
            where = f"{caller}: {_check_counts(op)} of the initialisation"
            if op.kind == "VAR_HANDLE":
                handles[op.outputs[0]] = op.options["name"]
            elif op.kind == "ASSIGN_VARIABLE" and tensors[op.inputs[1]].data is not None:
                self.initial[_name_of(where, op, handles)] = tensors[op.inputs[1]]
            else:
                raise GraphError(f"{where}: only constants can be assigned there")


def _check_counts(op: Op) -> str:
    """How errors name an operator, which has the right number of tensors if it deals with variables."""
    where = f"operator {op.index} ({op.kind})"
    if op.kind in _COUNTS and ((len(op.inputs), len(op.outputs)) != _COUNTS[op.kind] or -1 in op.inputs):
        raise GraphError(f"{where} has {len(op.inputs)} inputs and {len(op.outputs)} outputs")
    return where


def _name_of(where: str, op: Op, handles: dict[int, str]) -> str:
    """The variable that a read or an assignment is for."""
    if op.inputs[0] not in handles:
        raise GraphError(f"{where}: tensor {op.inputs[0]} is not the handle of a variable")
    return handles[op.inputs[0]]
