"""`RecordAssembler`: records on wide and narrow ports, in any runs, whichever side stalls."""

import random

import pytest

from convoy.hw.dma.record_assembler import RecordAssembler
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes


def beats(records, port_bytes, record_bytes, first_addr):
    """The beats of a run of records from an address, with rubbish around them."""
    content = b"".join(record.to_bytes(record_bytes, "little") for record in records)
    skip = first_addr % port_bytes
    padded = b"\xaa" * skip + content
    for start in range(0, len(padded), port_bytes):
        part = padded[start : start + port_bytes]
        before = skip if start == 0 else 0
        yield {
            "data": int.from_bytes(part.ljust(port_bytes, b"\x55"), "little"),
            "skip": before,
            "count": len(part) - before,
            "last": start + port_bytes >= len(padded),
        }


@pytest.mark.parametrize("record_bytes", [8, 16])
@pytest.mark.parametrize("port_bits", [32, 64, 256])
def test_records_of_runs(port_bits, record_bytes):
    """Runs of one, two, five and three records, that begin anywhere in a beat."""
    config, rng = NpuConfig(port_bits=port_bits), random.Random(port_bits + record_bytes)
    dut, records, given = RecordAssembler(config, record_bytes), [], []
    for number, count in enumerate((1, 2, 5, 3)):
        run = [rng.getrandbits(8 * record_bytes) for _ in range(count)]
        given += beats(run, config.port_bytes, record_bytes, number * record_bytes)
        records += run
    got = []

    async def sender(ctx):
        await send(ctx, dut.beats, given, go=sometimes(rng, 0.7))

    async def receiver(ctx):
        got.extend(await receive(ctx, dut.records, len(records), go=sometimes(rng, 0.6)))
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.records.valid)

    simulate(dut, sender, receiver, background=[monitor(dut.records)])
    assert got == records
