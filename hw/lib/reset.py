"""Resets of units: each from a register near it."""

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetInserter, ResetSignal, Value

from .idle import ClockGates

__all__ = ["OwnResets", "add_resettable"]


class OwnResets:
    """Platform of an elaboration for hardware: the registers of a unit take its reset alone, which needs no gate and
    no wire from afar.

    Without it they take the reset of the design too, in logic. `amaranth.sim` needs that: there a domain whose clock is
    another's comes a delta cycle later.
    """


def add_resettable(m: Module, name: str, unit, reset: Value, platform) -> None:
    """Add the unit as the submodule `name` whose reset is `reset`, also that of the units at rest in it.

    `reset` comes from a register that is 1 out of the reset of the design, in which the unit is for that reason.
    """
    if isinstance(platform, OwnResets):
        m.domains += ClockDomain(name, local=True)
        m.d.comb += [ClockSignal(name).eq(ClockSignal()), ResetSignal(name).eq(reset)]
        m.submodules[name] = DomainRenamer(name)(unit)
    elif isinstance(platform, ClockGates):
        platform.resets.append(reset)
        m.submodules[name] = ResetInserter(dict.fromkeys(("sync", *platform.domains), reset))(unit)
    else:
        m.submodules[name] = ResetInserter(reset)(unit)
