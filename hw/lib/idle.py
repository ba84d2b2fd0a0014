"""Units that have nothing to do: simulators may let them stand still."""

from amaranth.hdl import DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.config import NpuConfig

__all__ = ["ClockGates", "Rest", "rest_domains", "rested"]


def rest_domains(config: NpuConfig) -> tuple[str, ...]:
    """The units that may rest: the names of their clock domains in an elaboration with `ClockGates`."""
    units = (
        "tp",
        "loader",
        "tables",
        "params",
        "walk",
        "post",
        "residual",
        "pool",
        "split",
        "writer",
        "fetch",
        "check",
        "csr",
    )
    return (*units, *(f"{unit}_{core}" for core in range(config.num_cores) for unit in ("decoder", "lanes")))


class ClockGates:
    """Platform of an elaboration in which every unit that may rest has a clock domain of its own, for simulators
    that skip logic whose clock stands still.

    Attributes
    ----------
    domains : tuple[str, ...]
        Names of all domains that there may be.
    is_active : dict[str, Value]
        By domain: with this at 1 before an edge of `sync`'s clock, or any of `resets`, its clock must rise too;
        otherwise it must not.
    resets : list[Value]
        Resets of units, beside the one of `sync`.
    """

    def __init__(self, domains: tuple[str, ...]):
        self.domains = domains
        self.is_active: dict[str, Value] = {}
        self.resets: list[Value] = []


def rested(unit, is_active, platform, domain: str):
    """The unit, which would stay as it is while `is_active` is 0: nothing inside would change, or nothing that is
    ever looked at.

    With the platform `ClockGates` it gets a clock domain of its own and stands still meanwhile; for hardware there is
    nothing to gain and nothing to pay.
    """
    if isinstance(platform, ClockGates):
        if domain not in platform.domains:
            raise ValueError(f"domain {domain!r} is not one of {', '.join(platform.domains)}")
        if platform.is_active.setdefault(domain, is_active) is not is_active:
            raise ValueError(f"domain {domain!r} has two conditions")
        return DomainRenamer(domain)(unit)
    return unit


class Rest(wiring.Component):
    """When a unit has something to do: from the offer of a job until `tail_cycles` after the last one is done.

    Members
    -------
    offered : In(1)
        A job is offered; keeps the unit active in the same cycle.
    accepted, done : In(1)
        Strobes: the unit has taken a job, has finished the oldest one. At most `max_open` jobs are open at a time; with
        none the unit is active whenever something is `offered`, and `tail_cycles` more.
    is_active : Out(1)
    """

    def __init__(self, tail_cycles: int, max_open: int = 0):
        self._max_open, self._tail_cycles = max_open, tail_cycles
        super().__init__({"offered": In(1), "accepted": In(1), "done": In(1), "is_active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        num_open = Signal(range(self._max_open + 1))
        tail = Signal(range(self._tail_cycles + 1), init=self._tail_cycles)
        is_awake = Signal(init=1)  # tail != 0, registered
        is_busy = Signal()
        m.d.comb += [is_busy.eq(self.offered | (num_open != 0)), self.is_active.eq(self.offered | is_awake)]
        m.d.sync += [
            num_open.eq(num_open + self.accepted - self.done),
            tail.eq(Mux(is_busy, self._tail_cycles, Mux(tail == 0, 0, tail - 1))),
            is_awake.eq(is_busy | (tail > 1)),
        ]
        return m
