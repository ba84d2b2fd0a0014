"""Wiring a part of an interface."""

from amaranth.lib.wiring import Out

__all__ = ["forward"]


def forward(outer, inner) -> list:
    """Connects the members of `inner`, an interface of a submodule, to those of the same name of `outer`, the parent's own interface.

    `outer` may have further members; both have the same direction, and `inner` has no nested interfaces or arrays.

    Returns
    -------
    list
        Assignments for the combinational domain.
    """
    assignments = []
    for name, member in inner.signature.members.items():
        source, target = (inner, outer) if member.flow is Out else (outer, inner)
        assignments.append(getattr(target, name).eq(getattr(source, name)))
    return assignments
