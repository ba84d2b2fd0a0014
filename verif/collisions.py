"""Memories that are worse than they need to be: what is read where it is being written is rubbish."""

from amaranth.hdl import Cat, MemoryInstance, Module, Shape, Signal, Value
from amaranth.lib.memory import Memory

__all__ = ["rubbish_on_collision"]


def rubbish_on_collision(memory: Memory, platform: object) -> Module:
    """Takes the place of `Memory.elaborate`: a synchronous read that meets a write to its address in the same cycle
    gives the complement of what was there.

    This is what block memories permit themselves; a read port that is `transparent_for` the write port has the new
    value, as ever. A design that works with such memories needs no bypass around them.
    """
    m = Module()
    width = Shape.cast(memory.shape).width
    m.submodules.memory = instance = MemoryInstance(data=memory.data, attrs=memory.attrs)
    writes = {
        port: instance.write_port(domain=port.domain, addr=port.addr, data=port.data, en=port.en)
        for port in memory.write_ports
    }
    for port in memory.read_ports:
        stored = Signal(width)
        transparent_for = tuple(writes[write] for write in port.transparent_for)
        instance.read_port(domain=port.domain, data=stored, addr=port.addr, en=port.en, transparent_for=transparent_for)
        is_rubbish = Signal()
        if port.domain != "comb":
            collisions = Cat(
                write.en.any() & (write.addr == port.addr)
                for write in memory.write_ports
                if write not in port.transparent_for
            )
            with m.If(port.en):
                m.d[port.domain] += is_rubbish.eq(collisions.any())
        m.d.comb += Value.cast(port.data).eq(stored ^ is_rubbish.replicate(width))
    return m
