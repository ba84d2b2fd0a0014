"""A Convoy NPU on a board: block memory behind its port, and a serial line through which a computer reads and writes
memory and registers.
"""

from amaranth.hdl import Cat, ClockDomain, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature
from convoy.hw.npu import Npu
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS

__all__ = ["COMMAND_BYTES", "WORD_BYTES", "Board", "Command"]

WORD_BYTES = 4
"""What the serial line reads and writes at a time."""
COMMAND_BYTES = 7
"""A command, words of 16 bits, an address of 32 bits, the lowest byte first."""
POWER_UP_CYCLES = 15


class Command(enum.Enum, shape=8):
    """First byte of a command. Behind a write follow its words; the answer of a read is its words."""

    READ_REGISTER = 0
    WRITE_REGISTER = 1
    READ_MEMORY = 2
    WRITE_MEMORY = 3


class Receiver(wiring.Component):
    """Bytes of a serial line: 8 bits, no parity, `divisor` cycles each."""

    rx: In(1)
    o: Out(stream.Signature(8, always_ready=True))

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        line = Signal(2, init=0b11)
        bits_left, cycles_left, bits = Signal(range(10)), Signal(range(2 * self._divisor)), Signal(8)
        m.d.sync += [line.eq(Cat(self.rx, line)), self.o.valid.eq(0)]
        with m.If(cycles_left != 0):
            m.d.sync += cycles_left.eq(cycles_left - 1)
        with m.Elif(bits_left != 0):
            m.d.sync += [bits_left.eq(bits_left - 1), cycles_left.eq(Mux(bits_left == 1, 0, self._divisor - 1))]
            with m.If(bits_left == 1):
                m.d.sync += [self.o.payload.eq(bits), self.o.valid.eq(line[1])]
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line[1]))
        with m.Elif(~line[1]):
            m.d.sync += [bits_left.eq(9), cycles_left.eq(self._divisor + self._divisor // 2 - 2)]
        return m


class Sender(wiring.Component):
    """Sends bytes over a serial line, as `Receiver` reads them."""

    i: In(stream.Signature(8))
    tx: Out(1, init=1)

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        frame, bits_left, cycles_left = Signal(10), Signal(range(11)), Signal(range(self._divisor))
        m.d.comb += self.i.ready.eq((bits_left == 0) & (cycles_left == 0))
        m.d.sync += self.tx.eq((bits_left == 0) | frame[0])
        with m.If(cycles_left != 0):
            m.d.sync += cycles_left.eq(cycles_left - 1)
        with m.Elif(bits_left != 0):
            m.d.sync += [frame.eq(frame[1:]), bits_left.eq(bits_left - 1), cycles_left.eq(self._divisor - 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [frame.eq(Cat(0, self.i.payload, 1)), bits_left.eq(10), cycles_left.eq(self._divisor - 1)]
        return m


class BlockMemory(wiring.Component):
    """A memory behind AXI4, a beat per cycle, and behind a port of words, which has precedence.

    Parameters
    ----------
    data_bits
        Width of the AXI port.
    num_bytes
        Size, a power of two; addresses are taken modulo it.

    Members
    -------
    axi : In(AxiSignature)
        One read and one write burst at a time.
    word_addr : In
        Address in words of `WORD_BYTES`.
    read_en, read_data : In, Out
        `read_data` has the word two cycles after `read_en`.
    write_en, write_data : In
        Writes a word.
    """

    def __init__(self, *, data_bits: int, num_bytes: int):
        self._data_bits, self._num_bytes = data_bits, num_bytes
        super().__init__(
            {
                "axi": In(AxiSignature(data_bits=data_bits)),
                "word_addr": In(range(num_bytes // WORD_BYTES)),
                "read_en": In(1),
                "read_data": Out(32),
                "write_en": In(1),
                "write_data": In(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, beat_bytes = self.axi, self._data_bits // 8
        words = beat_bytes // WORD_BYTES
        m.submodules.memory = memory = Memory(shape=self._data_bits, depth=self._num_bytes // beat_bytes, init=[])
        read, write = memory.read_port(), memory.write_port(granularity=8)
        shift = (beat_bytes - 1).bit_length()
        beat_addr, lane = self.word_addr >> (words - 1).bit_length(), self.word_addr % words

        is_reading, reads_left, read_addr = Signal(), Signal(8), Signal.like(read.addr)
        can_read = is_reading & ~self.read_en & (~axi.rvalid | axi.rready)
        m.d.comb += [
            axi.arready.eq(~is_reading & ~axi.rvalid),
            read.addr.eq(Mux(self.read_en, beat_addr, read_addr)),
            read.en.eq(self.read_en | can_read),
            axi.rdata.eq(read.data),
        ]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(can_read):
            m.d.sync += [
                axi.rvalid.eq(1),
                axi.rlast.eq(reads_left == 0),
                read_addr.eq(read_addr + 1),
                reads_left.eq(reads_left - 1),
                is_reading.eq(reads_left != 0),
            ]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [
                is_reading.eq(1),
                read_addr.eq(axi.araddr >> shift),
                reads_left.eq(axi.arlen),
                axi.rid.eq(axi.arid),
            ]
        read_lane = Signal.like(lane)
        m.d.sync += [read_lane.eq(lane), self.read_data.eq(read.data.word_select(read_lane, 32))]

        is_writing, write_addr = Signal(), Signal.like(write.addr)
        m.d.comb += [
            axi.awready.eq(~is_writing & ~axi.bvalid),
            axi.wready.eq(is_writing & ~self.write_en),
            write.addr.eq(Mux(self.write_en, beat_addr, write_addr)),
            write.data.eq(Mux(self.write_en, self.write_data.replicate(words), axi.wdata)),
        ]
        with m.If(self.write_en):
            m.d.comb += write.en.word_select(lane, WORD_BYTES).eq(2**WORD_BYTES - 1)
        with m.Elif(axi.wvalid & axi.wready):
            m.d.comb += write.en.eq(axi.wstrb)
            m.d.sync += write_addr.eq(write_addr + 1)
            with m.If(axi.wlast):
                m.d.sync += [is_writing.eq(0), axi.bvalid.eq(1)]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [is_writing.eq(1), write_addr.eq(axi.awaddr >> shift), axi.bid.eq(axi.awid)]
        return m


class Bridge(wiring.Component):
    """Reads and writes registers and memory as the serial line commands. Its host reads memory only while the NPU is
    idle.

    Members
    -------
    i, o : byte streams
        Commands, and the words that were read.
    registers : Out(AxiLiteSignature)
    word_addr, read_en, read_data, write_en, write_data
        To `BlockMemory`.
    """

    i: In(stream.Signature(8, always_ready=True))
    o: Out(stream.Signature(8))
    registers: Out(AxiLiteSignature(addr_bits=CSR_ADDR_BITS))
    word_addr: Out(30)
    read_en: Out(1)
    read_data: In(32)
    write_en: Out(1)
    write_data: Out(32)

    def elaborate(self, platform):
        m = Module()
        axil = self.registers
        header, num_bytes, word, addr = Signal(8 * COMMAND_BYTES), Signal(3), Signal(32), Signal(32)
        command, words_left = Signal(Command), Signal(16)
        m.d.comb += [
            self.word_addr.eq(addr[2:]),
            self.write_data.eq(word),
            axil.awaddr.eq(addr),
            axil.araddr.eq(addr),
            axil.wdata.eq(word),
            axil.wstrb.eq(0b1111),
            self.o.payload.eq(word[:8]),
        ]
        with m.FSM():
            with m.State("COMMAND"), m.If(self.i.valid):
                m.d.sync += [header.eq(Cat(header[8:], self.i.payload)), num_bytes.eq(num_bytes + 1)]
                with m.If(num_bytes == COMMAND_BYTES - 1):
                    m.d.sync += num_bytes.eq(0)
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += Cat(command, words_left, addr).eq(header)
                m.next = "NEXT"
            with m.State("NEXT"):
                with m.If(words_left == 0):
                    m.next = "COMMAND"
                with m.Elif((command == Command.WRITE_REGISTER) | (command == Command.WRITE_MEMORY)):
                    m.next = "TAKE"
                with m.Elif(command == Command.READ_MEMORY):
                    m.d.comb += self.read_en.eq(1)
                    m.next = "WAIT"
                with m.Else():
                    m.d.sync += [axil.arvalid.eq(1), axil.rready.eq(1)]
                    m.next = "READ"
            with m.State("TAKE"), m.If(self.i.valid):
                m.d.sync += [word.eq(Cat(word[8:], self.i.payload)), num_bytes.eq(num_bytes + 1)]
                with m.If(num_bytes == WORD_BYTES - 1):
                    m.d.sync += num_bytes.eq(0)
                    with m.If(command == Command.WRITE_MEMORY):
                        m.next = "STORE"
                    with m.Else():
                        m.d.sync += [axil.awvalid.eq(1), axil.wvalid.eq(1), axil.bready.eq(1)]
                        m.next = "WRITE"
            with m.State("STORE"):
                m.d.comb += self.write_en.eq(1)
                m.next = "STEP"
            with m.State("WRITE"):
                with m.If(axil.awready):
                    m.d.sync += axil.awvalid.eq(0)
                with m.If(axil.wready):
                    m.d.sync += axil.wvalid.eq(0)
                with m.If(axil.bvalid & axil.bready):
                    m.d.sync += axil.bready.eq(0)
                    m.next = "STEP"
            with m.State("WAIT"):
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += word.eq(self.read_data)
                m.next = "SEND"
            with m.State("READ"):
                with m.If(axil.arready):
                    m.d.sync += axil.arvalid.eq(0)
                with m.If(axil.rvalid & axil.rready):
                    m.d.sync += [axil.rready.eq(0), word.eq(axil.rdata)]
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [word.eq(word >> 8), num_bytes.eq(num_bytes + 1)]
                    with m.If(num_bytes == WORD_BYTES - 1):
                        m.d.sync += num_bytes.eq(0)
                        m.next = "STEP"
            with m.State("STEP"):
                m.d.sync += [addr.eq(addr + WORD_BYTES), words_left.eq(words_left - 1)]
                m.next = "NEXT"
        return m


class Board(wiring.Component):
    """The whole chip.

    Parameters
    ----------
    config
        The NPU.
    memory_bytes
        Of the block memory at address 0.
    divisor
        Cycles of the clock for each bit of the serial line.

    Members
    -------
    clk : In
        The only clock; what is in the chip is reset for the first cycles.
    rx, tx : In, Out
        The serial line.
    led : Out(4)
        The interrupt, the line's two directions, and a counter that shows that the clock runs.
    wifi_gpio0 : Out
        High.
    """

    clk: In(1)
    rx: In(1)
    tx: Out(1)
    led: Out(4)
    wifi_gpio0: Out(1)

    def __init__(self, config: NpuConfig, *, memory_bytes: int, divisor: int):
        self._config, self._memory_bytes, self._divisor = config, memory_bytes, divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        sync, power_up = ClockDomain("sync"), ClockDomain("power_up", reset_less=True)
        m.domains += [sync, power_up]
        cycles = Signal(range(POWER_UP_CYCLES + 1))
        m.d.power_up += [sync.rst.eq(cycles != POWER_UP_CYCLES), cycles.eq(cycles + (cycles != POWER_UP_CYCLES))]

        m.submodules.npu = npu = Npu(self._config)
        m.submodules.memory = memory = BlockMemory(data_bits=self._config.port_bits, num_bytes=self._memory_bytes)
        m.submodules.receiver = receiver = Receiver(self._divisor)
        m.submodules.sender = sender = Sender(self._divisor)
        m.submodules.bridge = bridge = Bridge()
        wiring.connect(m, npu.m_axi, memory.axi)
        wiring.connect(m, bridge.registers, npu.s_axil)
        wiring.connect(m, receiver.o, bridge.i)
        wiring.connect(m, bridge.o, sender.i)
        alive = Signal(24)
        m.d.sync += alive.eq(alive + 1)
        m.d.comb += [
            sync.clk.eq(self.clk),
            power_up.clk.eq(self.clk),
            memory.word_addr.eq(bridge.word_addr),
            memory.read_en.eq(bridge.read_en),
            bridge.read_data.eq(memory.read_data),
            memory.write_en.eq(bridge.write_en),
            memory.write_data.eq(bridge.write_data),
            receiver.rx.eq(self.rx),
            self.tx.eq(sender.tx),
            self.wifi_gpio0.eq(1),
            self.led.eq(Cat(npu.irq, ~self.rx, ~sender.tx, alive[-1])),
        ]
        return m
