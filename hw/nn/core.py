"""One core: a weight per cycle into P lanes."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.delay import delay
from convoy.hw.lib.idle import Rest, rested
from convoy.hw.lib.stage import Stage
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

from .accumulate import ACC_BITS, Accumulators
from .activity import CoreState
from .decoder import DECODER_FIELDS, TapWrite, TokenDecoder, WeightBeat, WeightPlace
from .fast_forms import form_for
from .job import JobSlot
from .lanes import Lanes
from .sequencer import SEQUENCER_FIELDS, Sequencer
from .window import WindowMemory, WindowWrite

__all__ = ["CORE_FIELDS", "Core"]

CORE_FIELDS = tuple(dict.fromkeys(DECODER_FIELDS + SEQUENCER_FIELDS))
"""What a core needs of an NN descriptor."""


class Core(wiring.Component):
    """Weight queue, decoder, sequencer, window memory, lanes and accumulators.

    Parameters
    ----------
    config
    number
        Of the core in its engine.

    Members
    -------
    job : In(stream of CORE_FIELDS)
    beats : In(stream of WeightBeat), weight streams; `beat_taken` strobes in the cycle after one has left the queue
    tap_write : In(TapWrite)
    window_write : In(WindowWrite); `window_filled` strobes after the last word of a window, `window_released` when it
        is free again
    group_done : Out(1), strobe: a group's sums are ready; `group_drained` : In(1), strobe: they have been drained and
        cleared
    state : Out(CoreState), what it did in the cycle before
    drain_* : access to the oldest group's accumulators, see `Accumulators`; `drain_inverted` comes `DRAIN_CYCLES` later

    Throughput: one non-zero weight and vector per cycle.
    """

    DRAIN_CYCLES = Accumulators.DRAIN_CYCLES

    def __init__(self, config: NpuConfig, number: int = 0):
        self._config, self._number = config, number
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*CORE_FIELDS))),
                "beats": In(stream.Signature(WeightBeat(config))),
                "beat_taken": Out(1),
                "tap_write": In(TapWrite),
                "window_write": In(WindowWrite(config)),
                "window_filled": In(1),
                "window_released": Out(1),
                "group_done": Out(1),
                "group_drained": In(1),
                "state": Out(CoreState),
                "drain_en": In(1),
                "drain_clear": In(1),
                "drain_entry": In(exact_log2(config.num_acc_entries)),
                "drain_chunk": In(range(config.num_lanes // config.post_lanes)),
                "drain_inverted": Out(config.post_lanes * ACC_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        beat_bits = WeightBeat(config).size
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=beat_bits, depth=config.weight_fifo_beats)
        m.submodules.beat = beat = Stage(WeightBeat(config))
        decoder = TokenDecoder(config)
        m.submodules.decoder = rested(decoder, decoder.is_active, platform, f"decoder_{self._number}")
        m.submodules.places = places = fifo.SyncFIFO(width=WeightPlace(config).size, depth=4)
        m.submodules.sequencer = sequencer = Sequencer(config)
        window = form_for(WindowMemory, platform)(config)
        lanes = form_for(Lanes, platform)(config.num_lanes)
        acc = form_for(Accumulators, platform)(config)
        m.submodules.rest = rest = Rest(tail_cycles=window.READ_CYCLES + lanes.PIPELINE_CYCLES + acc.ADD_CYCLES + 2)
        for name, unit in (("window", window), ("lanes", lanes), ("acc", acc)):
            m.submodules[name] = rested(unit, rest.is_active, platform, f"lanes_{self._number}")

        self._connect_job(m, acc.is_clear, decoder, sequencer)
        m.d.comb += [
            queue.w_data.eq(self.beats.payload),
            queue.w_en.eq(self.beats.valid),
            self.beats.ready.eq(queue.w_rdy),
            beat.i.payload.eq(queue.r_data),
            beat.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(beat.i.ready),
            decoder.tap_write.eq(self.tap_write),
            places.w_data.eq(decoder.weights.payload),
            places.w_en.eq(decoder.weights.valid),
            decoder.weights.ready.eq(places.w_rdy),
            sequencer.weights.payload.eq(places.r_data),
            sequencer.weights.valid.eq(places.r_rdy),
            places.r_en.eq(sequencer.weights.ready),
            window.write.eq(self.window_write),
            sequencer.window_filled.eq(self.window_filled),
            self.window_released.eq(sequencer.window_released),
            sequencer.has_beat.eq(queue.r_rdy | decoder.beats.valid),
            self.state.eq(sequencer.state),
            self.group_done.eq(sequencer.group_done),
            sequencer.group_drained.eq(self.group_drained),
        ]

        m.d.sync += self.beat_taken.eq(queue.r_rdy & queue.r_en)
        wiring.connect(m, beat.o, decoder.beats)

        issue = sequencer.issue
        weight = delay(m, issue.value, window.READ_CYCLES, name="weight", reset_less=True)
        is_low = delay(m, issue.is_low, window.READ_CYCLES, name="is_low")
        add = Cat(issue.is_valid, issue.entry, issue.buffer)
        add = delay(m, add, window.READ_CYCLES + lanes.PIPELINE_CYCLES - acc.PRODUCT_CYCLES, name="add")
        drain_buffer = Signal()
        with m.If(self.group_drained):
            m.d.sync += drain_buffer.eq(~drain_buffer)
        m.d.comb += [
            window.pixel.eq(issue.pixel),
            window.split_log2.eq(issue.split_log2),
            window.split_words.eq(issue.split_words),
            lanes.pixels.eq(window.pixels),
            lanes.weight.eq(weight),
            lanes.is_low.eq(is_low),
            Cat(acc.add_en, acc.add_entry, acc.add_buffer).eq(add),
            acc.products.eq(lanes.products),
            acc.drain_buffer.eq(drain_buffer),
            acc.drain_en.eq(self.drain_en),
            acc.drain_clear.eq(self.drain_clear),
            acc.drain_entry.eq(self.drain_entry),
            acc.drain_chunk.eq(self.drain_chunk),
            self.drain_inverted.eq(acc.drain_inverted),
            rest.offered.eq(issue.is_valid | self.window_write.en | self.drain_en | self.drain_clear | ~acc.is_clear),
        ]
        return m

    def _connect_job(self, m, is_clear, *units):
        """A job is taken when both units have room for it and the accumulators have been cleared since the last
        reset.
        """
        slots = []
        for unit in units:
            slot = JobSlot(unit.job.payload.shape())
            m.submodules += slot
            wiring.connect(m, slot.o, unit.job)
            slots.append(slot)
            for name, _ in unit.job.payload.shape():
                m.d.comb += slot.i.payload[name].eq(self.job.payload[name])
        m.d.comb += self.job.ready.eq(Cat(is_clear, *(slot.i.ready for slot in slots)).all())
        for slot in slots:
            m.d.comb += slot.i.valid.eq(self.job.valid & self.job.ready)
