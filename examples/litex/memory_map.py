"""Where the systems of LiteX have what: for those who build them, and for those who talk to them."""

REGISTERS_BASE = 0x3000_0000
"""The NPU's registers."""
MEMORY_BASE = 0x4000_0000
"""The memory, address 0 of the NPU."""
