"""Weight streams: from tokens in memory to dense weights."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import STREAM, TABLE_ALIGN_BYTES

from .memory import MachineError, MemoryView

__all__ = ["decode_tokens", "read_weights"]


def decode_tokens(raw: np.ndarray, run_bits: int, num_positions: int, zero_point: int = 0) -> tuple[np.ndarray, int]:
    """Expand a string of tokens.

    Parameters
    ----------
    raw : uint8, shape (n,)
    run_bits : bits of a zero run, 0 .. `MAX_RUN_BITS`
    num_positions : where the stream must end
    zero_point : `NN.wgt_zero_point`

    Returns
    -------
    (weights, num_bits)
        int16 of shape (num_positions,), and the bits that the tokens take

    Raises
    ------
    MachineError
        When the bytes run out before the last position, or a token jumps over it.
    """
    token_bits = 8 + run_bits
    num_tokens = min(len(raw) * 8 // token_bits, num_positions)
    lsb = np.arange(num_tokens) * token_bits
    padded = np.concatenate([raw, np.zeros(3, np.uint8)]).astype(np.uint32)
    byte = lsb >> 3
    bits = (padded[byte] | padded[byte + 1] << 8 | padded[byte + 2] << 16) >> (lsb & 7).astype(np.uint32)
    lowest = -128 - zero_point
    values = ((bits & 0xFF).astype(np.int64) - lowest) % 256 + lowest
    positions = np.cumsum((bits >> 8 & ((1 << run_bits) - 1)).astype(np.int64) + 1) - 1
    num_tokens = int(np.searchsorted(positions, num_positions - 1)) + 1
    if num_tokens > len(positions):
        reached = positions[-1] if len(positions) else -1
        raise MachineError(f"the weight stream ends at position {reached} instead of {num_positions - 1}")
    if positions[num_tokens - 1] != num_positions - 1:
        raise MachineError(
            f"a token of the weight stream jumps to position {positions[num_tokens - 1]}, over the last position "
            f"{num_positions - 1}"
        )
    weights = np.zeros(num_positions, np.int16)
    weights[positions[:num_tokens]] = values[:num_tokens]
    return weights, num_tokens * token_bits


def read_weights(config: NpuConfig, memory: MemoryView, d: dict[str, int], superblock: int) -> np.ndarray:
    """The dense weights of one superblock, int16 of shape (num_cores, num_z, kernels_per_z, num_taps).

    Raises
    ------
    MachineError
        When an entry of the stream directory or a stream is malformed.
    """
    is_last = superblock == d["num_sb"] - 1
    num_z = d["num_z_last"] if is_last else d["num_z"]
    kernels_per_z = d["kernels_per_z_last"] if is_last else d["kernels_per_z"]
    shape = (num_z, kernels_per_z, d["num_taps"])
    cores = []
    for core in range(config.num_cores):
        where = f"superblock {superblock}, core {core}"
        entry_addr = d["stream_addr"] + (superblock * config.num_cores + core) * STREAM.num_bytes
        entry = memory.read_record(f"NN.stream_addr, {where}", STREAM, entry_addr)
        if entry["num_beats"] < 1 or entry["offset_bytes"] % TABLE_ALIGN_BYTES:
            raise MachineError(
                f"STREAM of {where}: num_beats = {entry['num_beats']}, offset_bytes = {entry['offset_bytes']}: use "
                f"at least 1 beat and a multiple of {TABLE_ALIGN_BYTES}"
            )
        most_beats = -(-int(np.prod(shape)) * (8 + d["run_bits"]) // config.port_bits)
        if entry["num_beats"] > most_beats:
            raise MachineError(
                f"STREAM.num_beats of {where} = {entry['num_beats']}: {int(np.prod(shape))} weights take at most "
                f"{most_beats}"
            )
        raw = memory.read(
            f"STREAM of {where}", d["wgt_addr"] + entry["offset_bytes"], entry["num_beats"] * config.port_bytes
        )
        try:
            weights, num_bits = decode_tokens(raw, d["run_bits"], int(np.prod(shape)), d["wgt_zero_point"])
        except MachineError as error:
            raise MachineError(f"STREAM of {where}: {error}") from None
        num_beats = -(-num_bits // config.port_bits)
        if entry["num_beats"] != num_beats:
            raise MachineError(
                f"STREAM.num_beats of {where} = {entry['num_beats']}: the last token is in beat {num_beats}"
            )
        cores.append(weights.reshape(shape))
    return np.stack(cores)
