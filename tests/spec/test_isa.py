"""Records: one layout for hardware and software."""

import pytest
from amaranth.hdl import Shape
from hypothesis import given
from hypothesis import strategies as st

from convoy.spec.isa import DESCRIPTOR_BYTES, NN, RECORDS, STREAM, TP
from convoy.spec.record import EncodeError, Field, Record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_record_is_as_wide_as_its_layout(record):
    assert Shape.cast(record.layout).width == record.num_bits <= 8 * record.num_bytes


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
@given(data=st.data())
def test_encode_and_decode_are_inverse(record, data):
    values = {field.name: data.draw(st.integers(field.min, field.max), field.name) for field in record.fields.values()}
    raw = record.encode(**values)
    assert len(raw) == record.num_bytes
    assert record.decode(raw) == values
    word = record.layout.from_bits(int.from_bytes(raw, "little") & ((1 << record.num_bits) - 1))
    assert {name: int(word[name]) for name in values} == values


def test_descriptors_share_their_header():
    assert NN.num_bytes == TP.num_bytes == DESCRIPTOR_BYTES
    names = ["opcode", "wait_nn", "wait_tp", "tp_ahead", "reserved", "tag"]
    assert list(NN.fields)[:6] == list(TP.fields)[:6] == names


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(EncodeError, match=r"STREAM\.num_beats = -1 is outside 0\.\."):
        STREAM.encode(offset_bytes=0, num_beats=-1)
    with pytest.raises(EncodeError, match="field num_beats is missing"):
        STREAM.encode(offset_bytes=0)
    with pytest.raises(EncodeError, match="no field colour"):
        STREAM.encode(offset_bytes=0, num_beats=1, colour=3)
    with pytest.raises(EncodeError, match="7 bytes instead of 8"):
        STREAM.decode(bytes(7))
    with pytest.raises(ValueError, match="40 bits do not fit 4 bytes"):
        Record("R", 4, [Field("wide", 40, "Too wide.")])
