/* Runs compiled networks on the Convoy NPU from C11, without heap and without an operating system.
 *
 * A network is what `convoy compile MODEL --c-array FILE.c` writes: constants, descriptors and tables that say where
 * tensors lie. It is loaded into memory that the NPU reaches, at any address, and run as often as wanted:
 *
 *     convoy_npu npu;
 *     convoy_instance digits;
 *     convoy_open(&npu, 0x40000000, false);
 *     convoy_load(&digits, &npu, &digits_network, memory);
 *     convoy_write(&digits, &digits_network.inputs[0], image);
 *     convoy_run(&digits);
 *     convoy_read(&digits, &digits_network.outputs[0], scores);
 *
 * Every function that returns an int returns CONVOY_OK (0) or says why not; `convoy_error_name` puts it into words.
 * docs/c-runtime.md explains all of it with examples. */
#ifndef CONVOY_H
#define CONVOY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "convoy_regs.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONVOY_MAX_DIMS 8u
/* Alignment of the memory of a network, and of constants that stay where they are. At multiples of 4096 bursts are cut
 * the same way wherever the network lies, so that a run takes the same cycles. */
#define CONVOY_ALIGN 256u
/* What stands in front of the constants of a network: a section of its own, say. */
#ifndef CONVOY_CONSTANTS
#define CONVOY_CONSTANTS
#endif

/* What a function found. 1 to 255 are the codes of the ERROR register (enum convoy_error): the NPU stopped the
 * program. It takes the next one; variables of the network are undefined until `convoy_reset_state`. */
enum convoy_status {
    CONVOY_OK = 0,
    CONVOY_RUNNING = 0x100, /* no error: the run has not ended */
    CONVOY_NO_NPU,          /* the ID register does not hold CONVOY_ID: check the address of the registers */
    CONVOY_OTHER_CONFIG,    /* the network was compiled for another configuration: `convoy compile --config` */
    CONVOY_BUSY,            /* a run is under way on this NPU: wait for it */
    CONVOY_MISALIGNED,      /* memory or constants do not begin at a multiple of CONVOY_ALIGN */
    CONVOY_NO_MEMORY,       /* the memory is smaller than the network needs, or does not end below 4 GiB */
    CONVOY_NO_CONSTANTS,    /* they were written into a file (--constants): convoy_load_in_place */
    CONVOY_STUCK,           /* the memory does not answer bursts under way: reset it and the NPU together */
    CONVOY_GAVE_UP,         /* `convoy_port_wait` ended the wait; `convoy_reset` before the next run */
/* CONVOY_LACKS_...: the NPU was made without what the network was compiled for; compile for a configuration without */
#define CONVOY_LACKS(name, bit) CONVOY_LACKS_##name = 0x200 + (bit),
    CONVOY_FEATURES(CONVOY_LACKS)
#undef CONVOY_LACKS
};

enum convoy_dtype { CONVOY_INT8, CONVOY_UINT8, CONVOY_INT16, CONVOY_BOOL };

/* The order of values in the memory of the NPU; `convoy_write` and `convoy_read` convert.
 * Planes are of channels; of 16-bit values, the plane of a channel's low bytes, then that of its high bytes.
 * uint8 values are stored less 128. */
enum convoy_layout {
    CONVOY_LINEAR,           /* as in the network: rows, columns, channels */
    CONVOY_PLANAR,           /* channels, rows, columns */
    CONVOY_PLANAR_TRANSPOSED /* channels, columns, rows */
};

/* An input, an output or a variable: a real number is scale * (value - zero_point). */
typedef struct {
    const char *name;
    uint32_t offset;    /* from the start of the network's memory */
    uint32_t num_bytes; /* in memory, and in the arrays of convoy_write and convoy_read */
    uint32_t num_dims;
    uint32_t shape[CONVOY_MAX_DIMS];
    enum convoy_dtype dtype;
    enum convoy_layout layout;
    float scale; /* 0: none */
    int32_t zero_point;
} convoy_tensor;

/* Memory that a run leaves to the next one. */
typedef struct {
    convoy_tensor tensor;
    bool has_initial;       /* false: every run writes it before it reads it */
    const uint32_t *initial; /* its bytes before the first run; NULL: all of them are `fill` */
    uint8_t fill;
} convoy_variable;

/* One run of the NPU from doorbell to interrupt: some of the network's descriptors. */
typedef struct {
    uint32_t first, count;
} convoy_program;

/* A compiled network. Addresses in its descriptors count from 0: activations, then, from `constants_offset` on,
 * constants. */
typedef struct {
    const char *name;
    uint32_t config;                /* what CONFIG0 of the NPU must hold */
    uint32_t features;              /* bits that its FEATURES must have set */
    uint32_t activation_bytes;      /* inputs, outputs, variables and what is between */
    uint32_t constants_offset;      /* multiple of CONVOY_ALIGN */
    uint32_t constant_bytes;
    const uint32_t *constants;      /* weights and tables; NULL: they are in a file */
    uint32_t num_descriptors;
    const uint32_t *descriptors;
    uint32_t num_records;           /* the most descriptors of a program */
    uint32_t memory_bytes;          /* that it needs */
    uint32_t memory_bytes_in_place; /* that it needs if constants stay where they are */
    uint32_t watchdog_cycles, timeout_cycles;
    uint32_t num_programs, num_inputs, num_outputs, num_variables;
    const convoy_program *programs;
    const convoy_tensor *inputs, *outputs;
    const convoy_variable *variables;
} convoy_network;

/* Memory that both reach: `start` is where the CPU sees it, `addr` where the NPU does. */
typedef struct {
    void *start;
    uint32_t addr, num_bytes;
} convoy_memory;

/* An NPU. Only `registers` is meant to be read outside, by the functions of the port, and the results at the end. */
typedef struct convoy_npu {
    uintptr_t registers;
    bool has_interrupt;
    struct convoy_instance *volatile running;
    volatile int status;
    /* Of the last run: */
    volatile uint32_t cycles;     /* from doorbells to interrupts */
    volatile uint32_t error_addr; /* ERROR_ADDR, if the NPU stopped */
    volatile uint32_t error;      /* ERROR, also under CONVOY_STUCK */
} convoy_npu;

/* A network in memory. The limits may be changed between runs; 0: none. */
typedef struct convoy_instance {
    convoy_npu *npu;
    const convoy_network *network;
    convoy_memory memory;
    uint32_t constants_addr, descriptors_addr, records_addr; /* where the NPU sees them */
    uint32_t next_program;
    uint32_t watchdog_cycles, timeout_cycles;
} convoy_instance;

/* Find the NPU whose registers are at `registers` (the CPU's address of ID) and bring it to rest. With `has_interrupt`
 * the application calls `convoy_irq` at its interrupt, else `convoy_wait` and `convoy_poll` ask.
 * CONVOY_NO_NPU, CONVOY_STUCK. */
int convoy_open(convoy_npu *npu, uintptr_t registers, bool has_interrupt);

/* Stop what the NPU is doing, clear its error and bring it to rest. CONVOY_STUCK. */
int convoy_reset(convoy_npu *npu);

/* Copy a network into memory, `network->memory_bytes` of it, and give its variables their first values. Several
 * networks, or one several times, may be loaded, each in memory of its own.
 * CONVOY_OTHER_CONFIG, CONVOY_LACKS_..., CONVOY_MISALIGNED, CONVOY_NO_MEMORY, CONVOY_NO_CONSTANTS. */
int convoy_load(convoy_instance *instance, convoy_npu *npu, const convoy_network *network, convoy_memory memory);

/* The same, but constants stay where the NPU sees them at `constants_addr`: in flash, say, or with another instance of
 * the network (`other.constants_addr`). `network->memory_bytes_in_place` are enough then. */
int convoy_load_in_place(convoy_instance *instance, convoy_npu *npu, const convoy_network *network,
                         convoy_memory memory, uint32_t constants_addr);

/* Give every variable of the network its first value. Not during a run. */
void convoy_reset_state(const convoy_instance *instance);

/* Copy `tensor->num_bytes` of values, in the order and type of the network, into memory or out of it. Not during a
 * run. A tensor may share memory with others that are not alive at the same time: write inputs before each run, read
 * outputs before the next one. */
void convoy_write(const convoy_instance *instance, const convoy_tensor *tensor, const void *values);
void convoy_read(const convoy_instance *instance, const convoy_tensor *tensor, void *values);

/* Where the CPU sees the bytes of a tensor, in its layout. What is written there needs `convoy_port_clean`, what is
 * read `convoy_port_invalidate`. */
void *convoy_data(const convoy_instance *instance, const convoy_tensor *tensor);

/* Start a run and return. CONVOY_BUSY, CONVOY_STUCK. */
int convoy_start(convoy_instance *instance);

/* CONVOY_RUNNING, or how the last run ended. */
int convoy_poll(convoy_npu *npu);

/* Wait for the end of the run: how it ended. Between two looks it calls `convoy_port_wait`. */
int convoy_wait(convoy_npu *npu);

/* Start a run and wait for its end. */
int convoy_run(convoy_instance *instance);

/* To be called at the NPU's interrupt. Starts the next program of the network, or ends the run; does nothing at an
 * interrupt that is not the NPU's. */
void convoy_irq(convoy_npu *npu);

/* "CONVOY_OK", "BUS_READ", ... of what a function returned; never NULL. */
const char *convoy_error_name(int status);

/* The real number of a value, and the value nearest to a real number. */
static inline float convoy_real(const convoy_tensor *tensor, int32_t value) {
    return tensor->scale * (float)(value - tensor->zero_point);
}

static inline int32_t convoy_quantised(const convoy_tensor *tensor, float real) {
    const int32_t least = tensor->dtype == CONVOY_INT8 ? -128 : tensor->dtype == CONVOY_INT16 ? -32768 : 0;
    const int32_t most = tensor->dtype == CONVOY_INT16 ? 32767 : tensor->dtype == CONVOY_BOOL ? 1 : least + 255;
    const float value = real / tensor->scale + (float)tensor->zero_point;
    if (!(value > (float)least)) return least;
    if (value >= (float)most) return most;
    return (int32_t)(value + (value < 0 ? -0.5f : 0.5f));
}

/* The port: how the runtime reaches the NPU and its memory. Weak functions for a bus on which the CPU reads and writes
 * the registers at their addresses, and memory without a cache; define your own to replace any of them. */

/* Read and write the register at `offset` (CONVOY_REG_...). */
uint32_t convoy_port_read32(const convoy_npu *npu, uint32_t offset);
void convoy_port_write32(const convoy_npu *npu, uint32_t offset, uint32_t value);

/* Called between two looks at a run that has not ended: sleep until an interrupt, yield, count ... Returns 0 to go on
 * waiting, anything else to give up. */
int convoy_port_wait(convoy_npu *npu);

/* Let the NPU see what the CPU has written there: write back the lines of the cache. */
void convoy_port_clean(void *start, size_t num_bytes);

/* Let the CPU see what the NPU has written there: throw away the lines of the cache. */
void convoy_port_invalidate(void *start, size_t num_bytes);

#ifdef __cplusplus
}
#endif

#endif
