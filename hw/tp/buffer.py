"""The TP engine's local memory: byte banks, written a beat at a time, gathered a group at a time."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.narrow import truncate
from convoy.spec import cycles

__all__ = ["TpBuffer"]


class TpBuffer(wiring.Component):
    """`num_bytes` of memory in `num_banks` banks of one byte: the bank of an address is the address mod `num_banks`.

    A beat of `num_banks` bytes is written in one cycle at any alignment. Two gathers read `num_lanes` bytes each per
    cycle; the lanes of a gather must lie in different banks, or at one address.

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
        Address of lane 0 of each gather.
    read_count : In
        Lanes in use, 0 .. num_lanes; lane i is at `read_addr + i * read_step`, within the same half.
    read_step : In(array of 2)
        Bytes from lane to lane of each gather, constant from two cycles before its address. With 0 all lanes read one
        byte.
    read_data : Out(2 x num_lanes bytes)
        The bytes, signed; those of lanes not in use are undefined.
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
                "read_count": In(range(num_lanes + 1)),
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
        amount = Signal(bank_bits)
        m.d.comb += amount.eq(bank - self.write_skip)
        rotated = self.write_data
        for bit in range(bank_bits):
            rotated = Mux(amount[bit], rotated.rotate_left(8 << bit), rotated)
        for index, port in enumerate(ports):
            offset = Signal(bank_bits, name=f"offset{index}")
            m.d.comb += offset.eq(index - bank)
            m.d.sync += [
                port.en.eq(self.write_en & (offset < self.write_count)),
                port.addr.eq(word + (bank > index)),
                port.data.eq(rotated[8 * index : 8 * index + 8]),
            ]

    def _gather(self, m, gather, ports):
        """Lane addresses; then each bank takes the word of the lane that falls to it; then each lane the byte of its
        bank.
        """
        bank_bits = exact_log2(self._num_banks)
        base = self.read_addr[gather]
        half_bits = len(base) - 1
        offset = [Signal(half_bits, reset_less=True, name=f"offset{gather}_{lane}") for lane in range(self._num_lanes)]
        words, select = [0] * len(ports), []
        for lane in range(self._num_lanes):
            is_used = Signal(name=f"is_used{gather}_{lane}")
            addr = Signal(len(base), reset_less=True, name=f"addr{gather}_{lane}")
            bank = Signal(bank_bits, reset_less=True, name=f"bank{gather}_{lane}")
            within = (base[:half_bits] + offset[lane])[:half_bits]
            m.d.sync += [
                offset[lane].eq(truncate(self.read_step[gather] * lane, offset[lane].shape())),
                is_used.eq(lane < self.read_count),
                addr.eq(Cat(within, base[half_bits])),
                bank.eq(addr[:bank_bits]),
            ]
            select.append(bank)
            for index in range(len(ports)):
                words[index] |= Mux(is_used & (addr[:bank_bits] == index), addr[bank_bits:], 0)
        for port, word in zip(ports, words, strict=True):
            m.d.comb += port.addr.eq(word)
        read = Array(port.data for port in ports)
        for lane, bank in enumerate(select):
            m.d.sync += self.read_data[gather][lane].eq(read[bank])
