/* Registers, errors and records of the Convoy NPU. Written by `make reference` from `spec/`; do not edit. */
#ifndef CONVOY_REGS_H
#define CONVOY_REGS_H

/* Changes whenever what this header says of descriptors does: a network must have been made for it. */
#define CONVOY_FORMAT 0xd19aa5a3u

/* Value of the register ID. */
#define CONVOY_ID 0x434e5659u

/* Registers of 32 bits: offsets from ID. Those of the memory windows take their number. */
/* ro: CONVOY_ID, to recognise the NPU. */
#define CONVOY_REG_ID 0x000u
/* ro: num_cores in bits 7:0, num_lanes in 15:8, port_bytes in 23:16, post_lanes in 31:24. */
#define CONVOY_REG_CONFIG0 0x004u
/* wo: CONVOY_CONTROL_.... */
#define CONVOY_REG_CONTROL 0x008u
/* ro: CONVOY_STATUS_.... */
#define CONVOY_REG_STATUS 0x00cu
/* rw: Bit 0: the interrupt line follows IRQ_STATUS. */
#define CONVOY_REG_IRQ_ENABLE 0x010u
/* w1c: Bit 0: a program has ended, all its writes acknowledged, or has been stopped. */
#define CONVOY_REG_IRQ_STATUS 0x014u
/* ro: enum convoy_error. */
#define CONVOY_REG_ERROR 0x018u
/* ro: The address that goes with ERROR. */
#define CONVOY_REG_ERROR_ADDR 0x01cu
/* rw, held while BUSY or STOPPING: Address of the first descriptor, aligned to the size of a descriptor. */
#define CONVOY_REG_PROGRAM_BASE 0x020u
/* rw, held while BUSY or STOPPING: Number of descriptors, 1..65535; with another number the doorbell ends in
 * CONVOY_ERROR_MALFORMED, ERROR_ADDR is PROGRAM_BASE. */
#define CONVOY_REG_PROGRAM_COUNT 0x024u
/* rw, held while BUSY or STOPPING: Where completion records go, aligned to 64 bytes. */
#define CONVOY_REG_RECORD_BASE 0x028u
/* ro: Cycles from the last doorbell to its interrupt, or to now. */
#define CONVOY_REG_CYCLES 0x02cu
/* ro: Bytes read over the port since the last doorbell. */
#define CONVOY_REG_READ_BYTES 0x030u
/* ro: Bytes written over the port since the last doorbell (strobes set), completion records not counted. */
#define CONVOY_REG_WRITE_BYTES 0x034u
/* rw: Cycles without any progress after which a program is stopped with CONVOY_ERROR_WATCHDOG; 0: never. */
#define CONVOY_REG_WATCHDOG 0x038u
/* rw: Cycles from the doorbell after which a program is stopped with CONVOY_ERROR_TIMEOUT, whatever moves; 0: never.
 * If bursts under way do not end, the interrupt comes after twice as many cycles, with STOPPING set. */
#define CONVOY_REG_TIMEOUT 0x03cu
/* ro: What this NPU has: has_int16 in bit 0, has_residual in bit 1, has_fused_pool in bit 2, has_lut in bit 3,
 * has_descriptor_check in bit 4. */
#define CONVOY_REG_FEATURES 0x080u
/* rw, held while BUSY or STOPPING: First byte of the memory window, a multiple of 32. */
#define CONVOY_REG_WINDOW_BASE(n) (0x040u + 0x10u * (n))
/* rw, held while BUSY or STOPPING: The byte after the window's last one, a multiple of 32. */
#define CONVOY_REG_WINDOW_LIMIT(n) (0x044u + 0x10u * (n))
/* rw, held while BUSY or STOPPING: CONVOY_WINDOW_.... While no window has READ or WRITE set, every access is
 * allowed; else a burst must lie in one window that allows it. */
#define CONVOY_REG_WINDOW_CONTROL(n) (0x048u + 0x10u * (n))

/* Bits of CONTROL. */
/* Start the program; ignored unless idle and without error. */
#define CONVOY_CONTROL_DOORBELL 0x1u
/* Set ERROR to NONE; ignored while busy. */
#define CONVOY_CONTROL_CLEAR_ERROR 0x2u
/* Stop: start no burst, let those under way end, reset the engines. Then a program that was running has ended,
 * without error. */
#define CONVOY_CONTROL_SOFT_RESET 0x4u

/* Bits of STATUS. */
/* A program is running or being stopped. */
#define CONVOY_STATUS_BUSY 0x1u
/* ERROR is not NONE. */
#define CONVOY_STATUS_ERROR 0x2u
/* Bursts under way have not ended yet, or the engines are being reset; a doorbell is ignored. */
#define CONVOY_STATUS_STOPPING 0x4u

/* Bits of WINDOW*_CONTROL. */
/* Reads are allowed in the window. */
#define CONVOY_WINDOW_READ 0x1u
/* Writes are allowed in the window. */
#define CONVOY_WINDOW_WRITE 0x2u
/* The three registers of the window ignore writes from now on, until the hardware reset; a soft reset does not
 * unlock. */
#define CONVOY_WINDOW_LOCK 0x4u

/* X(name, bit) for each bit of FEATURES. */
#define CONVOY_FEATURES(X) \
    X(INT16, 0) \
    X(RESIDUAL, 1) \
    X(FUSED_POOL, 2) \
    X(LUT, 3) \
    X(DESCRIPTOR_CHECK, 4)

/* ERROR: why the NPU stopped. */
enum convoy_error {
    /* No error. */
    CONVOY_ERROR_NONE = 0,
    /* A descriptor has an opcode that does not exist; ERROR_ADDR is the descriptor's address. */
    CONVOY_ERROR_OPCODE = 1,
    /* A read got SLVERR or DECERR; ERROR_ADDR is the address of the burst. */
    CONVOY_ERROR_BUS_READ = 2,
    /* A write got SLVERR or DECERR; ERROR_ADDR is the address of the burst. */
    CONVOY_ERROR_BUS_WRITE = 3,
    /* A read outside the memory windows, or one that AXI4 forbids, was stopped before the bus; ERROR_ADDR is the
     * address of the burst. */
    CONVOY_ERROR_ACCESS_READ = 4,
    /* A write outside the memory windows, or one that AXI4 forbids, was stopped before the bus; ERROR_ADDR is the
     * address of the burst. */
    CONVOY_ERROR_ACCESS_WRITE = 5,
    /* Neither bus nor engines moved for WATCHDOG cycles; ERROR_ADDR is the address of the oldest read under way,
     * else of the oldest write, else 0. */
    CONVOY_ERROR_WATCHDOG = 6,
    /* A descriptor breaks a rule of the instruction set, or needs what FEATURES lacks, and was not started;
     * ERROR_ADDR is its address. Earlier descriptors have completed. Or PROGRAM_COUNT is not legal; ERROR_ADDR is
     * PROGRAM_BASE. */
    CONVOY_ERROR_MALFORMED = 7,
    /* The fused pool of a descriptor breaks a rule of pools, and nothing else is wrong; the same happens as with
     * MALFORMED. */
    CONVOY_ERROR_POOL = 8,
    /* The program had not ended after TIMEOUT cycles; ERROR_ADDR is 0. The completion records show how far it came. */
    CONVOY_ERROR_TIMEOUT = 9,
};

/* X(name, code) for each of them. */
#define CONVOY_ERRORS(X) \
    X(NONE, 0) \
    X(OPCODE, 1) \
    X(BUS_READ, 2) \
    X(BUS_WRITE, 3) \
    X(ACCESS_READ, 4) \
    X(ACCESS_WRITE, 5) \
    X(WATCHDOG, 6) \
    X(MALFORMED, 7) \
    X(POOL, 8) \
    X(TIMEOUT, 9)

/* Memory windows: number, and alignment of base and limit. */
#define CONVOY_NUM_WINDOWS 4u
#define CONVOY_WINDOW_ALIGN 32u

/* Descriptors: size and alignment; the first byte is the opcode; bits from which on they hold an address. */
#define CONVOY_DESCRIPTOR_BYTES 256u
#define CONVOY_OPCODE_NN 1u
#define CONVOY_OPCODE_TP 2u
#define CONVOY_NN_ADDRESS_BITS {32u, 64u, 96u, 128u, 160u, 734u, 947u, 980u, 1274u}
#define CONVOY_TP_ADDRESS_BITS {37u, 141u, 555u, 848u}

/* Completion records, one for each descriptor of a program: size, and offsets of 32-bit values. */
#define CONVOY_RECORD_BYTES 64u
#define CONVOY_RECORD_CYCLE 0u
#define CONVOY_RECORD_READ_BYTES 4u
#define CONVOY_RECORD_WRITE_BYTES 8u
#define CONVOY_RECORD_WEIGHT_BYTES 12u
#define CONVOY_RECORD_BUSY_CYCLES 16u
#define CONVOY_RECORD_WEIGHTS_CYCLES 20u
#define CONVOY_RECORD_WINDOW_CYCLES 24u
#define CONVOY_RECORD_IMBALANCE_CYCLES 28u
#define CONVOY_RECORD_DRAIN_CYCLES 32u
#define CONVOY_RECORD_BUS_CYCLES 36u
#define CONVOY_RECORD_DISPATCH_CYCLES 40u
#define CONVOY_RECORD_TP_CYCLES 44u

#endif
