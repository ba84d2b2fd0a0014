"""What the cores do in each cycle, for the counters."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.config import NpuConfig
from convoy.spec.enums import IntEnum
from convoy.spec.isa import Cause

__all__ = ["STATE_CAUSES", "Activity", "ActivityMonitor", "CoreState"]


class CoreState(IntEnum, shape=3):
    """What a core does in a cycle, or the first thing that it lacks."""

    BUSY = 0
    JOB = 1
    """It has no job."""
    BUFFER = 2
    """No free accumulators for the next group."""
    WINDOW = 3
    """The next window is not there."""
    BEATS = 4
    """No weight, and no beat in the weight queue."""
    DECODER = 5
    """No weight, but the weight queue has a beat; or a group ends."""


STATE_CAUSES = {
    CoreState.BUSY: (Cause.BUSY,),
    CoreState.BEATS: (Cause.BUS, Cause.DRAIN, Cause.TP),
    CoreState.DECODER: (Cause.WEIGHTS,),
    CoreState.JOB: (Cause.DISPATCH, Cause.TP, Cause.DRAIN, Cause.IMBALANCE),
    CoreState.BUFFER: (Cause.DRAIN, Cause.IMBALANCE),
    CoreState.WINDOW: (Cause.WINDOW, Cause.BUS, Cause.DRAIN, Cause.TP, Cause.IMBALANCE),
}
"""The causes that a state may have. Where there are several, it is the rest of the machine that decides, and for all
cores alike.
"""


def Activity(config: NpuConfig) -> data.StructLayout:
    """`counts`: cores in each `CoreState`, together `num_cores`; `job`, `buffer`, `window`, `beats`: the cause of the
    state of that name.
    """
    return data.StructLayout(
        {
            "counts": data.ArrayLayout(range(config.num_cores + 1), len(CoreState)),
            "job": Cause,
            "buffer": Cause,
            "window": Cause,
            "beats": Cause,
        }
    )


class ActivityMonitor(wiring.Component):
    """Counts the cores in each state and finds the causes of the states that have several.

    Members
    -------
    states : In(CoreState for each core)
    is_open : In(1), the engine has a job that is not complete
    fill_waits_load, fill_waits_slot : In(1), the filler waits for pixels; for a core to release a window
    load_waits, fetch_waits : In(1), the loader, the gathering of activations waits for the completion of earlier jobs
    load_waits_tp, fetch_waits_tp : In(1), with these: of the tensor processor
    finished : In(num_cores bits), cores that have finished the oldest group that is not drained
    activity : Out(Activity), one cycle later
    """

    def __init__(self, config: NpuConfig):
        self._num_cores = config.num_cores
        counts = [config.num_cores * (state == CoreState.JOB) for state in CoreState]
        super().__init__(
            {
                "states": In(CoreState).array(config.num_cores),
                "is_open": In(1),
                "fill_waits_load": In(1),
                "fill_waits_slot": In(1),
                "load_waits": In(1),
                "fetch_waits": In(1),
                "load_waits_tp": In(1),
                "fetch_waits_tp": In(1),
                "finished": In(config.num_cores),
                "activity": Out(
                    Activity(config),
                    init={
                        "counts": counts,
                        "job": Cause.DISPATCH,
                        "buffer": Cause.DRAIN,
                        "window": Cause.WINDOW,
                        "beats": Cause.BUS,
                    },
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        are = {state: Cat(core == state for core in self.states) for state in CoreState}
        for state, cores in are.items():
            m.d.sync += self.activity.counts[state].eq(sum(cores))
        is_any_busy, is_any_finished = are[CoreState.BUSY].any(), self.finished.any()
        m.d.sync += [
            self.activity.job.eq(
                Mux(~are[CoreState.JOB].all(), Cause.IMBALANCE, Mux(self.is_open, Cause.DRAIN, Cause.DISPATCH))
            ),
            self.activity.buffer.eq(Mux(is_any_finished & ~self.finished.all(), Cause.IMBALANCE, Cause.DRAIN)),
        ]
        maker = Mux(self.fetch_waits_tp, Cause.TP, Cause.DRAIN)
        m.d.sync += self.activity.beats.eq(Mux(self.fetch_waits, maker, Cause.BUS))
        waits_job = self.fill_waits_load & self.load_waits
        with m.If(self.fill_waits_load & ~self.load_waits):
            m.d.sync += self.activity.window.eq(Cause.BUS)
        with m.Elif((waits_job | self.fill_waits_slot) & is_any_busy):
            m.d.sync += self.activity.window.eq(Cause.IMBALANCE)
        with m.Else():
            maker = Mux(self.load_waits_tp, Cause.TP, Cause.DRAIN)
            m.d.sync += self.activity.window.eq(Mux(waits_job, maker, Cause.WINDOW))
        return m
