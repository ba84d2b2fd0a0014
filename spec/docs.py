"""The strings that stand below members and constants in the source: what generated pages say of them."""

from __future__ import annotations

import ast
import inspect
import itertools
from types import ModuleType

__all__ = ["constant_docs", "member_docs"]


def member_docs(owner: type) -> dict[str, str]:
    """The string below each member of a class, by name, in one line."""
    (definition,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(definition, ast.ClassDef)
    return _docs_below(definition.body)


def constant_docs(module: ModuleType) -> dict[str, str]:
    """The same for the constants of a module."""
    return _docs_below(ast.parse(inspect.getsource(module)).body)


def _docs_below(body: list[ast.stmt]) -> dict[str, str]:
    docs = {}
    for statement, below in itertools.pairwise(body):
        target = getattr(statement, "target", None) or getattr(statement, "targets", [None])[0]
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[target.id] = inspect.cleandoc(str(below.value.value)).replace("\n", " ")
    return docs
