"""The NN engine: its units, the jobs given to them, and the counters that keep them in step."""

from functools import reduce
from operator import and_

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import ReadPort, WritePort
from convoy.hw.dma.chunk_writer import ChunkWriter
from convoy.hw.lib.idle import Rest, rested
from convoy.hw.lib.register import data_register
from convoy.hw.lib.reset import add_resettable
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import UNIT_RESET_GROUPS
from convoy.spec.isa import NN, NN_FEATURES

from .activity import Activity, ActivityMonitor
from .core import Core
from .drain import DrainChunks, drain_ports
from .drain_units import DRAIN_FIELDS
from .filler import FILLER_FIELDS, Filler
from .job import JobSlot
from .loader import LOADER_FIELDS, Loader
from .param_fetch import PARAM_FIELDS, ParamFetcher
from .stripe import StripeMemory
from .tp_wait import TpDue, TpWait
from .weight_fetch import FETCH_FIELDS, WeightFetcher

__all__ = ["NnEngine"]


class NnEngine(wiring.Component):
    """Executes `NN` descriptors as docs/architecture.md defines them.

    A descriptor is handed to every unit at once, as soon as each has room for it; from there the units run freely, tied
    together by data and by counters only, so that the next descriptor loads while the present one computes and the
    previous one drains.

    Members
    -------
    job : In(stream of NN.layout)
    tp_due : In, with a job: how many jobs of the tensor processor, the oldest ones that are not complete, it waits for
    tp_done : In(1), strobe: the tensor processor has completed one
    read_acts, read_weights, read_tables, read_params, and those of `drain_ports` : Out(ReadPort)
    write : Out(WritePort)
    done : Out(1), strobe: a descriptor is complete and its writes are acknowledged; in order
    activity : Out(Activity), what the cores did two cycles before
    unit_resets : In(UNIT_RESET_GROUPS), resets of cores and other units beside that of the whole engine; core n has
        number n modulo `UNIT_RESET_GROUPS`, the others begin with number 1
    """

    FAN_OUT_CYCLES = cycles.DRAIN_FAN_OUT_CYCLES

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.layout)),
                "tp_due": In(TpDue),
                "tp_done": In(1),
                "read_acts": Out(ReadPort(config)),
                "read_weights": Out(ReadPort(config)),
                "read_tables": Out(ReadPort(config)),
                "read_params": Out(ReadPort(config)),
                **drain_ports(config),
                "write": Out(WritePort(config)),
                "done": Out(1),
                "activity": Out(Activity(config)),
                "unit_resets": In(UNIT_RESET_GROUPS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config

        def add(name, unit, group):
            add_resettable(m, name, unit, self.unit_resets[group % UNIT_RESET_GROUPS], platform)

        loader, filler = Loader(config), Filler(config)
        m.submodules.loader_rest = loader_rest = Rest(max_open=7, tail_cycles=63)
        add("loader", rested(loader, loader_rest.is_active, platform, "loader"), 1)
        m.submodules.stripe = stripe = StripeMemory(config)
        add("filler", filler, 1)
        fetch = WeightFetcher(config)
        add("fetch", fetch, 2)
        params = ParamFetcher(config)
        m.submodules.params_rest = params_rest = Rest(tail_cycles=15)
        add("params", rested(params, params_rest.is_active, platform, "params"), 2)
        drain = DrainChunks(config, acc_read_cycles=2 * self.FAN_OUT_CYCLES + Core.DRAIN_CYCLES)
        add("drain", drain, 3)
        writer = ChunkWriter(config, config.chunk_lanes)
        m.submodules.writer_rest = writer_rest = Rest(tail_cycles=15)
        add("writer", rested(writer, writer_rest.is_active, platform, "writer"), 3)
        cores = [Core(config, number) for number in range(config.num_cores)]
        for number, core in enumerate(cores):
            add(f"core_{number}", core, number)

        m.submodules.monitor = monitor = ActivityMonitor(config)

        self._fork(m, loader, filler, fetch, params, drain, writer, cores, monitor)

        wiring.connect(m, loader.port, wiring.flipped(self.read_acts))
        wiring.connect(m, fetch.weights, wiring.flipped(self.read_weights))
        wiring.connect(m, fetch.tables, wiring.flipped(self.read_tables))
        wiring.connect(m, params.port, wiring.flipped(self.read_params))
        for name in drain_ports(config):
            wiring.connect(m, getattr(drain, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, writer.port, wiring.flipped(self.write))
        wiring.connect(m, params.params, drain.params)
        # Parameters are needed last, and weights are fetched far ahead: they need not be while pixels, or parameters,
        # are waited for
        m.d.sync += params.gives_way.eq(loader.is_reading)
        m.d.sync += fetch.gives_way.eq(loader.is_reading | params.port.bursts.valid)
        wiring.connect(m, drain.chunks, writer.chunks)
        m.d.comb += [
            self.done.eq(writer.done),
            loader_rest.offered.eq(loader.job.valid),
            loader_rest.accepted.eq(loader.job.valid & loader.job.ready),
            loader_rest.done.eq(loader.done),
            params_rest.offered.eq(
                (params.job.valid & params.job.ready)
                | params.gives_way  # when that ends what it has held back is requested
                | params.port.bursts.valid
                | params.port.beats.valid
                | (params.params.valid & params.params.ready)
            ),
            writer_rest.offered.eq(
                writer.chunks.valid | writer.port.bursts.valid | writer.port.beats.valid | writer.port.done
            ),
        ]

        self._connect_stripe(m, loader, stripe, filler)
        self._connect_cores(m, filler, fetch, cores)
        self._connect_drain(m, drain, cores, monitor)
        m.d.comb += [
            *(state.eq(core.state) for state, core in zip(monitor.states, cores, strict=True)),
            monitor.fill_waits_load.eq(filler.waits_load),
            monitor.fill_waits_slot.eq(filler.waits_slot),
            self.activity.eq(monitor.activity),
        ]
        return m

    def _fork(self, m, loader, filler, fetch, params, drain, writer, cores, monitor):
        """Hand a descriptor to all units; hold the loader, or the gathering of activations, back for the hazards that
        only it can meet.
        """
        consumers = [
            (loader.job, (*LOADER_FIELDS, "wait_nn", "load_after_fill", "is_swapped")),
            (filler.job, FILLER_FIELDS),
            (fetch.job, FETCH_FIELDS),
            (params.job, PARAM_FIELDS),
            (drain.job, DRAIN_FIELDS),
        ]
        inputs = []
        for unit_job, fields in consumers:
            slot = JobSlot(NN.subset(*dict.fromkeys(fields)))
            m.submodules += slot
            inputs.append(slot.i)
            for name, _ in unit_job.payload.shape():
                m.d.comb += unit_job.payload[name].eq(slot.o.payload[name])
            if unit_job is loader.job:
                load = slot.o
            else:
                m.d.comb += [unit_job.valid.eq(slot.o.valid), slot.o.ready.eq(unit_job.ready)]
        inputs += [core.job for core in cores]
        absent = self._config.absent(NN_FEATURES)

        m.d.comb += self.job.ready.eq(Cat(job.ready for job in inputs).all())
        for job in inputs:
            m.d.comb += job.valid.eq(self.job.valid & self.job.ready)
            for name, _ in job.payload.shape():
                m.d.comb += job.payload[name].eq(0 if name in absent else self.job.payload[name])

        accepted = Signal()
        num_open, num_unfilled = (
            Signal(4),
            Signal(4),
        )  # descriptors accepted and not complete; whose windows are not all read
        num_fetched = Signal(4)  # descriptors that the fetcher has taken and that are not complete
        may_load, fetch_taken = Signal(), Signal()
        m.submodules.load_wait, m.submodules.slot_wait, m.submodules.gather_wait = (
            load_wait,
            slot_wait,
            gather_wait,
        ) = TpWait(), TpWait(), TpWait()
        # One that waits for the loader, one that waits for the fetcher, and the one that this is at
        for wait, begins, due in (
            (load_wait, accepted, self.tp_due),
            (slot_wait, accepted, self.tp_due),
            (gather_wait, fetch_taken, slot_wait.left),
        ):
            m.d.comb += [wait.load.eq(begins), wait.due.eq(due), wait.done.eq(self.tp_done)]
        m.d.comb += [
            accepted.eq(self.job.valid & self.job.ready),
            fetch_taken.eq(fetch.job.valid & fetch.job.ready),
            may_load.eq(
                (load.payload.is_swapped | (load_wait.is_over & (~load.payload.wait_nn | (num_open == 1))))
                & (~load.payload.load_after_fill | (num_unfilled == 1))
            ),
            fetch.is_oldest.eq(num_fetched == 1),
            fetch.is_made.eq(gather_wait.is_over),
            loader.job.valid.eq(load.valid & may_load),
            load.ready.eq(loader.job.ready & may_load),
            monitor.load_waits.eq(load.valid & ~may_load),
            monitor.load_waits_tp.eq(~load.payload.is_swapped & ~load_wait.is_over),
            monitor.fetch_waits.eq(fetch.waits),
            monitor.fetch_waits_tp.eq(~gather_wait.is_over),
            monitor.is_open.eq(num_open != 0),
        ]
        m.d.sync += [
            num_open.eq(num_open + accepted - writer.done),
            num_unfilled.eq(num_unfilled + accepted - filler.done),
            num_fetched.eq(num_fetched + fetch_taken - writer.done),
        ]

    def _connect_stripe(self, m, loader, stripe, filler):
        wiring.connect(m, loader.write, stripe.write)
        m.d.comb += [
            filler.channel_loaded.eq(loader.channel_done),
            filler.load_done.eq(loader.done),
            loader.channel_read.eq(filler.channel_read),
            stripe.read.en.eq(filler.stripe_en),
            stripe.read.word.eq(filler.stripe_word),
            filler.stripe_data.eq(stripe.read.data),
        ]

    def _connect_cores(self, m, filler, fetch, cores):
        for number, core in enumerate(cores):
            m.d.comb += [
                core.beats.payload.eq(fetch.beats),
                core.beats.valid.eq(fetch.beat_en[number]),
                fetch.taken[number].eq(core.beat_taken),
                core.tap_write.eq(fetch.tap_write),
                core.window_write.eq(filler.write),
                core.window_write.en.eq(filler.write.en & filler.write_core[number]),
                core.window_filled.eq(filler.filled[number]),
                filler.released[number].eq(core.window_released),
            ]

    def _connect_drain(self, m, drain, cores, monitor):
        """The drain sees a group when every core has finished it."""
        has_group = []
        for number, core in enumerate(cores):
            num_done = Signal(range(3), name=f"groups_{number}")
            m.d.sync += num_done.eq(num_done + core.group_done - drain.group_done)
            has_group.append(num_done != 0)
            is_mine = drain.acc_core == number
            m.d.sync += [
                core.drain_en.eq(drain.acc_read & is_mine),
                core.drain_clear.eq(drain.acc_clear & is_mine),
                core.drain_entry.eq(drain.acc_entry),
                core.drain_chunk.eq(drain.acc_lane),
                core.group_drained.eq(drain.group_done),
            ]
        m.d.comb += [drain.group_valid.eq(Cat(has_group).all()), monitor.finished.eq(Cat(has_group))]

        acc_data = data_register(m, drain.acc_data)
        # Cores that were not asked give inverted zeros
        m.d.sync += acc_data.eq(~reduce(and_, (core.drain_inverted for core in cores)))
