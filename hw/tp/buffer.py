"""The TP engine's local memory: byte banks, written a beat at a time, gathered a group at a time."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.choose import any_of, gated, one_hot, rotated, rotated_late
from convoy.hw.lib.delay import delay
from convoy.hw.lib.multiple import multiple
from convoy.hw.lib.narrow import truncate
from convoy.spec import cycles

__all__ = ["TpBuffer"]

_COARSE_BITS = 2
"""Of the rotation of a beat, that are left to the cycle after the one of the others."""


class TpBuffer(wiring.Component):
    """`num_bytes` of memory in `num_banks` banks of one byte: the bank of an address is the address mod `num_banks`.

    A beat of `num_banks` bytes is written in one cycle at any alignment. Two gathers read `num_lanes` bytes each per
    cycle; of the lanes of a gather that lie in one bank, at different addresses, only the first one gets its byte.

    Latency: a beat can be read 2 cycles after `write_en`; the bytes of a gather are there `GATHER_CYCLES` after its
    address. Throughput: one write and both gathers every cycle.

    Parameters
    ----------
    num_bytes, num_banks, num_lanes : int
        Powers of two; `num_lanes` at most `num_banks`.

    Members
    -------
    write_en : In(1)
    write_addr : In(log2(num_bytes))
        Address of the first byte written.
    write_data : In(8 * num_banks)
        A beat; its bytes `write_skip` .. `write_skip + write_count - 1` are written.
    write_skip, write_count : In
        0 .. num_banks-1, 0 .. num_banks; together at most num_banks.
    read_addr : In(array of 2 addresses)
        Address of lane 0 of each gather; lane i is at `read_addr + i * read_step`, within the same half.
    read_step : In(array of 2)
        Bytes from lane to lane of each gather, constant from two cycles before its address. With 0 all lanes read one
        byte.
    read_data : Out(2 x num_lanes bytes)
        The bytes, signed.
    """

    GATHER_CYCLES = cycles.GATHER_CYCLES

    def __init__(self, *, num_bytes: int, num_banks: int, num_lanes: int):
        self._num_banks, self._num_lanes, self._depth = num_banks, num_lanes, num_bytes // num_banks
        addr_bits = exact_log2(num_bytes)
        super().__init__(
            {
                "write_en": In(1),
                "write_addr": In(addr_bits),
                "write_data": In(8 * num_banks),
                "write_skip": In(range(num_banks)),
                "write_count": In(range(num_banks + 1)),
                "read_addr": In(data.ArrayLayout(addr_bits, 2)),
                "read_step": In(data.ArrayLayout(addr_bits - 1, 2)),
                "read_data": Out(data.ArrayLayout(data.ArrayLayout(signed(8), num_lanes), 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        banks = []
        for index in range(self._num_banks):
            m.submodules[f"bank{index}"] = bank = Memory(shape=8, depth=self._depth, init=[])
            banks.append((bank.write_port(), bank.read_port(), bank.read_port()))
        self._write(m, [ports[0] for ports in banks])
        for gather in range(2):
            self._gather(m, gather, [ports[1 + gather] for ports in banks])
        return m

    def _write(self, m, ports):
        """Rotate the beat so that every byte is in front of its bank."""
        bank_bits = exact_log2(self._num_banks)
        word, bank = self.write_addr[bank_bits:], self.write_addr[:bank_bits]
        turn = Signal(bank_bits)
        m.d.comb += turn.eq(self.write_skip - bank)
        fine_bits = max(bank_bits - _COARSE_BITS, 0)
        fine = rotated(m, self.write_data, turn[:fine_bits], 8, name="fine")
        beat = rotated_late(m, fine, turn[fine_bits:], 8 << fine_bits, name="beat")
        for index, port in enumerate(ports):
            m.d.comb += port.data.eq(beat.word_select(index, 8))
            offset = Signal(bank_bits, name=f"offset{index}")
            m.d.comb += offset.eq(index - bank)
            m.d.sync += [port.en.eq(self.write_en & (offset < self.write_count)), port.addr.eq(word + (bank > index))]

    def _gather(self, m, gather, ports):
        """Lane addresses, and which lane falls to which bank, whose word it takes; then each lane takes its byte from
        the banks, in two cycles, for block memories are slow.
        """
        bank_bits = exact_log2(self._num_banks)
        base = self.read_addr[gather]
        half_bits = len(base) - 1
        banks, words, half = [], [], Signal(reset_less=True, name=f"half{gather}")
        is_ignored = Signal(self._num_lanes, name=f"is_ignored{gather}")  # a lane before has the bank
        steps = [multiple(self.read_step[gather], lane) for lane in range(1, self._num_lanes)]
        is_alike = [step[:bank_bits] == 0 for step in steps]
        m.d.sync += [
            half.eq(base[half_bits]),
            is_ignored.eq(Cat(Cat(is_alike[:lane]).any() for lane in range(self._num_lanes))),
        ]
        for lane in range(self._num_lanes):
            within = Signal(half_bits, name=f"within{gather}_{lane}")
            if lane:
                offset = Signal(half_bits, reset_less=True, name=f"offset{gather}_{lane}")
                m.d.sync += offset.eq(truncate(steps[lane - 1], offset.shape()))
                m.d.comb += within.eq(truncate(base[:half_bits] + offset, within.shape()))
            else:
                m.d.comb += within.eq(base[:half_bits])
            banks.append(within[:bank_bits])
            words.append(within[bank_bits:])
        for index, port in enumerate(ports):
            word = any_of(
                gated(m, word, (banks[lane] == index) & ~is_ignored[lane], name=f"word{gather}_{index}_{lane}")
                for lane, word in enumerate(words)
            )
            m.d.comb += port.addr.eq(Cat(word, half))
        pairs = [Cat(even.data, odd.data) for even, odd in zip(ports[::2], ports[1::2], strict=True)]
        for lane, bank in enumerate(banks):
            is_pair = one_hot(delay(m, bank, 2, name=f"select{gather}_{lane}", reset_less=True)[1:])
            is_odd = delay(m, bank[0], 3, name=f"is_odd{gather}_{lane}", reset_less=True)
            pair = any_of(gated(m, each, is_pair[n], name=f"pair{gather}_{lane}_{n}") for n, each in enumerate(pairs))
            m.d.sync += self.read_data[gather][lane].eq(Mux(is_odd, pair[8:], pair[:8]))
