"""The example board's device: the driver over a serial bridge."""

import importlib.util
import sys
from pathlib import Path

import pytest

from convoy.driver import load
from convoy.driver.devices import open_device
from convoy.driver.errors import DeviceError
from convoy.spec.config import PRESETS

EXAMPLES = Path(__file__).parents[2] / "examples"
MEMORY_BYTES = 32768


@pytest.fixture(scope="module")
def board():
    """`examples/ulx3s/board.py`."""
    spec = importlib.util.spec_from_file_location("board", EXAMPLES / "ulx3s" / "board.py")
    sys.modules["board"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bridge:
    """LiteX's bridge, with the golden model behind it; what is not a word of the map fails."""

    def __init__(self, board):
        self._board, self._npu = board, open_device("golden", PRESETS["S"])
        self._npu.write_memory(0, bytes(MEMORY_BYTES))

    def read(self, addr, length=None):
        words = [self._word(addr + 4 * number) for number in range(length or 1)]
        return words if length else words[0]

    def write(self, addr, data):
        for number, word in enumerate(data if isinstance(data, list) else [data]):
            place = addr + 4 * number
            assert place % 4 == 0
            if place < self._board.MEMORY_BASE:
                self._npu.write32(place - self._board.REGISTERS_BASE, word)
            else:
                self._npu.write_memory(self._offset(place), word.to_bytes(4, "little"))

    def close(self):
        self._npu = None

    def _word(self, addr):
        assert addr % 4 == 0
        if addr < self._board.MEMORY_BASE:
            return self._npu.read32(addr - self._board.REGISTERS_BASE)
        return int.from_bytes(self._npu.read_memory(self._offset(addr), 4), "little")

    def _offset(self, addr):
        assert 0 <= addr - self._board.MEMORY_BASE < MEMORY_BYTES
        return addr - self._board.MEMORY_BASE


@pytest.fixture
def device(board):
    return board.UartDevice(PRESETS["S"], Bridge(board), MEMORY_BYTES)


def test_the_digits(device):
    """A network whose every tensor equals the reference's; the device stays open."""
    network = load(EXAMPLES / "digits_int8.tflite", "S")
    for _ in range(2):
        outputs = network.run(device=device, reference=True)
        assert not outputs.mismatches
        assert outputs.report["device"] == "UartDevice"
    device.close()


@pytest.mark.parametrize(("addr", "num_bytes"), [(0, 4), (1, 1), (2, 5), (7, 2), (12, 300), (3, 1025)])
def test_bytes_at_any_place(device, addr, num_bytes):
    """Words around them keep their other bytes."""
    before = bytes(index % 251 for index in range(2048))
    device.write_memory(0, before)
    data = bytes((7 * index + 1) % 256 for index in range(num_bytes))
    device.write_memory(addr, data)
    assert device.read_memory(addr, num_bytes) == data
    assert device.read_memory(0, 2048) == before[:addr] + data + before[addr + num_bytes :]


def test_no_more_than_the_board_has(device):
    device.write_memory(MEMORY_BYTES - 1, b"\1")
    for call in (lambda: device.write_memory(MEMORY_BYTES - 1, b"12"), lambda: device.read_memory(MEMORY_BYTES, 1)):
        with pytest.raises(DeviceError, match="larger MEMORY_BYTES, or take a smaller network"):
            call()
