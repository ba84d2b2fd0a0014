/* The runtime of convoy.h. */
#include "convoy.h"

#include <stdatomic.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values and descriptors are copied as they are: the CPU must be little-endian"
#endif

/* GCC and Clang need these of every environment, but not every one has <string.h>. */
void *memcpy(void *restrict to, const void *restrict from, size_t num_bytes);
void *memset(void *to, int byte, size_t num_bytes);

#define MAX_POLLS 10000u /* reads of STATUS until the memory counts as stuck */
#define WEAK __attribute__((weak))

/* The port */

WEAK uint32_t convoy_port_read32(const convoy_npu *npu, uint32_t offset) {
    return *(const volatile uint32_t *)(npu->registers + offset);
}

WEAK void convoy_port_write32(const convoy_npu *npu, uint32_t offset, uint32_t value) {
    *(volatile uint32_t *)(npu->registers + offset) = value;
}

WEAK int convoy_port_wait(convoy_npu *npu) {
    (void)npu;
    return 0;
}

WEAK void convoy_port_clean(void *start, size_t num_bytes) {
    (void)start, (void)num_bytes;
    atomic_thread_fence(memory_order_seq_cst);
}

WEAK void convoy_port_invalidate(void *start, size_t num_bytes) {
    (void)start, (void)num_bytes;
    atomic_thread_fence(memory_order_seq_cst);
}

/* The NPU */

static int wait_until_idle(const convoy_npu *npu) {
    for (uint32_t i = 0; i < MAX_POLLS; ++i) {
        if (!(convoy_port_read32(npu, CONVOY_REG_STATUS) & (CONVOY_STATUS_BUSY | CONVOY_STATUS_STOPPING)))
            return CONVOY_OK;
    }
    return CONVOY_STUCK;
}

int convoy_open(convoy_npu *npu, uintptr_t registers, bool has_interrupt) {
    *npu = (convoy_npu){.registers = registers, .has_interrupt = has_interrupt};
    if (convoy_port_read32(npu, CONVOY_REG_ID) != CONVOY_ID) return CONVOY_NO_NPU;
    return convoy_reset(npu);
}

int convoy_reset(convoy_npu *npu) {
    convoy_port_write32(npu, CONVOY_REG_IRQ_ENABLE, 0);
    npu->running = NULL;
    npu->status = CONVOY_OK;
    convoy_port_write32(npu, CONVOY_REG_CONTROL, CONVOY_CONTROL_SOFT_RESET);
    const int status = wait_until_idle(npu);
    if (status) return status;
    convoy_port_write32(npu, CONVOY_REG_CONTROL, CONVOY_CONTROL_CLEAR_ERROR);
    convoy_port_write32(npu, CONVOY_REG_IRQ_STATUS, 1);
    return CONVOY_OK;
}

/* Memory */

static uint8_t *bytes_at(const convoy_instance *instance, uint32_t offset) {
    return (uint8_t *)instance->memory.start + offset;
}

/* Add what the network's addresses have been moved by to the 32 bits of a descriptor from `bit` on. */
static void move_address(const convoy_instance *instance, uint8_t *descriptor, uint32_t bit) {
    const uint32_t boundary = instance->network->constants_offset;
    uint8_t *bytes = descriptor + bit / 8;
    const uint32_t shift = bit % 8;
    const uint32_t num_bytes = shift ? 5 : 4;
    uint64_t word = 0;
    for (uint32_t i = 0; i < num_bytes; ++i) word |= (uint64_t)bytes[i] << 8 * i;
    uint32_t addr = (uint32_t)(word >> shift);
    addr += addr < boundary ? instance->memory.addr : instance->constants_addr - boundary;
    word = (word & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)addr << shift;
    for (uint32_t i = 0; i < num_bytes; ++i) bytes[i] = (uint8_t)(word >> 8 * i);
}

static void move_addresses(const convoy_instance *instance, uint8_t *descriptor) {
    static const uint16_t nn[] = CONVOY_NN_ADDRESS_BITS, tp[] = CONVOY_TP_ADDRESS_BITS;
    const bool is_nn = descriptor[0] == CONVOY_OPCODE_NN;
    const uint16_t *bits = is_nn ? nn : tp;
    const size_t count = is_nn ? sizeof nn / sizeof nn[0] : sizeof tp / sizeof tp[0];
    for (size_t i = 0; i < count; ++i) move_address(instance, descriptor, bits[i]);
}

/* Load a network whose constants the NPU sees at `constants_addr`; they need `constant_bytes` of the memory. */
static int load(convoy_instance *instance, convoy_npu *npu, const convoy_network *network, convoy_memory memory,
                uint32_t constants_addr, uint32_t constant_bytes) {
    const uint32_t descriptors = network->constants_offset + constant_bytes;
    const uint32_t num_bytes = network->num_descriptors * CONVOY_DESCRIPTOR_BYTES;
    if (convoy_port_read32(npu, CONVOY_REG_CONFIG0) != network->config) return CONVOY_OTHER_CONFIG;
    const uint32_t missing = network->features & ~convoy_port_read32(npu, CONVOY_REG_FEATURES);
#define LACKS(name, bit) \
    if (missing >> (bit) & 1) return CONVOY_LACKS_##name;
    CONVOY_FEATURES(LACKS)
#undef LACKS
    *instance = (convoy_instance){
        .npu = npu,
        .network = network,
        .memory = memory,
        .constants_addr = constants_addr,
        .descriptors_addr = memory.addr + descriptors,
        .records_addr = memory.addr + descriptors + num_bytes,
        .watchdog_cycles = network->watchdog_cycles,
        .timeout_cycles = network->timeout_cycles,
    };
    uint8_t *copy = bytes_at(instance, descriptors);
    memcpy(copy, network->descriptors, num_bytes);
    for (uint32_t i = 0; i < network->num_descriptors; ++i)
        move_addresses(instance, copy + i * CONVOY_DESCRIPTOR_BYTES);
    convoy_port_clean(copy, num_bytes);
    convoy_reset_state(instance);
    return CONVOY_OK;
}

/* Are `needed` bytes there, at a multiple of CONVOY_ALIGN, and all within 4 GiB? */
static int check_place(uint32_t addr, uint32_t num_bytes, uint32_t needed) {
    if (addr % CONVOY_ALIGN) return CONVOY_MISALIGNED;
    return num_bytes < needed || addr > UINT32_MAX - needed ? CONVOY_NO_MEMORY : CONVOY_OK;
}

int convoy_load(convoy_instance *instance, convoy_npu *npu, const convoy_network *network, convoy_memory memory) {
    const int status = check_place(memory.addr, memory.num_bytes, network->memory_bytes);
    if (status) return status;
    if (!network->constants) return CONVOY_NO_CONSTANTS;
    uint8_t *constants = (uint8_t *)memory.start + network->constants_offset;
    memcpy(constants, network->constants, network->constant_bytes);
    convoy_port_clean(constants, network->constant_bytes);
    return load(instance, npu, network, memory, memory.addr + network->constants_offset, network->constant_bytes);
}

int convoy_load_in_place(convoy_instance *instance, convoy_npu *npu, const convoy_network *network,
                         convoy_memory memory, uint32_t constants_addr) {
    int status = check_place(memory.addr, memory.num_bytes, network->memory_bytes_in_place);
    if (!status) status = check_place(constants_addr, network->constant_bytes, network->constant_bytes);
    return status ? status : load(instance, npu, network, memory, constants_addr, 0);
}

void convoy_reset_state(const convoy_instance *instance) {
    for (uint32_t i = 0; i < instance->network->num_variables; ++i) {
        const convoy_variable *variable = &instance->network->variables[i];
        const uint32_t num_bytes = variable->tensor.num_bytes;
        uint8_t *bytes = bytes_at(instance, variable->tensor.offset);
        if (!variable->has_initial) continue;
        convoy_port_invalidate(bytes, num_bytes); /* lines at the ends hold others' bytes too */
        if (variable->initial) memcpy(bytes, variable->initial, num_bytes);
        else memset(bytes, variable->fill, num_bytes);
        convoy_port_clean(bytes, num_bytes);
    }
}

/* Copy all bytes of a tensor between the memory of the NPU and an array in the network's order. */
static void copy_values(const convoy_tensor *tensor, uint8_t *npu, uint8_t *values, bool is_write) {
    const uint32_t value_bytes = tensor->dtype == CONVOY_INT16 ? 2 : 1;
    const uint8_t flip = tensor->dtype == CONVOY_UINT8 ? 0x80 : 0;
    uint32_t extents[4] = {1, 1, 1, 1}; /* images, rows, columns, bytes of all channels */
    for (uint32_t i = 0; i < tensor->num_dims; ++i) {
        const uint32_t from_end = tensor->num_dims - 1 - i;
        extents[from_end < 3 ? 3 - from_end : 0] *= tensor->shape[i];
    }
    extents[3] *= value_bytes;
    const uint32_t image = extents[1] * extents[2] * extents[3], plane = extents[1] * extents[2];
    const bool is_linear = tensor->layout == CONVOY_LINEAR, is_turned = tensor->layout == CONVOY_PLANAR_TRANSPOSED;
    if (is_linear && !flip) {
        memcpy(is_write ? npu : values, is_write ? values : npu, tensor->num_bytes);
        return;
    }
    const uint32_t row_step = is_linear ? extents[2] * extents[3] : is_turned ? 1 : extents[2];
    const uint32_t column_step = is_linear ? extents[3] : is_turned ? extents[1] : 1;
    const uint32_t channel_step = is_linear ? 1 : plane;
    for (uint32_t n = 0; n < extents[0]; ++n, npu += image)
        for (uint32_t row = 0; row < extents[1]; ++row)
            for (uint32_t column = 0; column < extents[2]; ++column)
                for (uint32_t channel = 0; channel < extents[3]; ++channel, ++values) {
                    uint8_t *byte = npu + row * row_step + column * column_step + channel * channel_step;
                    if (is_write) *byte = *values ^ flip;
                    else *values = *byte ^ flip;
                }
}

void convoy_write(const convoy_instance *instance, const convoy_tensor *tensor, const void *values) {
    uint8_t *bytes = bytes_at(instance, tensor->offset);
    convoy_port_invalidate(bytes, tensor->num_bytes); /* lines at the ends hold others' bytes too */
    copy_values(tensor, bytes, (uint8_t *)(uintptr_t)values, true);
    convoy_port_clean(bytes, tensor->num_bytes);
}

void convoy_read(const convoy_instance *instance, const convoy_tensor *tensor, void *values) {
    uint8_t *bytes = bytes_at(instance, tensor->offset);
    convoy_port_invalidate(bytes, tensor->num_bytes);
    copy_values(tensor, bytes, values, false);
}

void *convoy_data(const convoy_instance *instance, const convoy_tensor *tensor) {
    return bytes_at(instance, tensor->offset);
}

/* Runs */

/* Allow the NPU what the network needs and nothing else. */
static void set_windows(const convoy_instance *instance) {
    const convoy_network *network = instance->network;
    const struct {
        uint32_t base, num_bytes, access;
    } windows[] = {
        {instance->memory.addr, network->activation_bytes, CONVOY_WINDOW_READ | CONVOY_WINDOW_WRITE},
        {instance->constants_addr, network->constant_bytes, CONVOY_WINDOW_READ},
        {instance->descriptors_addr, network->num_descriptors * CONVOY_DESCRIPTOR_BYTES, CONVOY_WINDOW_READ},
        {instance->records_addr, network->num_records * CONVOY_RECORD_BYTES, CONVOY_WINDOW_WRITE},
    };
    _Static_assert(sizeof windows / sizeof windows[0] == CONVOY_NUM_WINDOWS, "every window is set");
    for (uint32_t i = 0; i < CONVOY_NUM_WINDOWS; ++i)
        convoy_port_write32(instance->npu, CONVOY_REG_WINDOW_CONTROL(i), 0);
    for (uint32_t i = 0; i < CONVOY_NUM_WINDOWS; ++i) {
        convoy_port_write32(instance->npu, CONVOY_REG_WINDOW_BASE(i), windows[i].base);
        convoy_port_write32(instance->npu, CONVOY_REG_WINDOW_LIMIT(i), windows[i].base + windows[i].num_bytes);
        convoy_port_write32(instance->npu, CONVOY_REG_WINDOW_CONTROL(i), windows[i].access);
    }
}

/* Ring the doorbell for the next program of an instance. */
static int start_program(convoy_instance *instance) {
    convoy_npu *npu = instance->npu;
    const convoy_program *program = &instance->network->programs[instance->next_program];
    const int status = wait_until_idle(npu);
    if (status) return status;
    ++instance->next_program;
    convoy_port_write32(npu, CONVOY_REG_IRQ_STATUS, 1);
    convoy_port_write32(npu, CONVOY_REG_IRQ_ENABLE, npu->has_interrupt);
    convoy_port_write32(npu, CONVOY_REG_WATCHDOG, instance->watchdog_cycles);
    convoy_port_write32(npu, CONVOY_REG_TIMEOUT, instance->timeout_cycles);
    set_windows(instance);
    convoy_port_write32(npu, CONVOY_REG_PROGRAM_BASE,
                        instance->descriptors_addr + program->first * CONVOY_DESCRIPTOR_BYTES);
    convoy_port_write32(npu, CONVOY_REG_PROGRAM_COUNT, program->count);
    convoy_port_write32(npu, CONVOY_REG_RECORD_BASE, instance->records_addr);
    convoy_port_write32(npu, CONVOY_REG_CONTROL, CONVOY_CONTROL_DOORBELL);
    return CONVOY_OK;
}

static void end_run(convoy_npu *npu, int status) {
    npu->running = NULL;
    npu->status = status;
}

int convoy_start(convoy_instance *instance) {
    convoy_npu *npu = instance->npu;
    if (npu->running) return CONVOY_BUSY;
    npu->cycles = npu->error = npu->error_addr = 0;
    npu->status = CONVOY_RUNNING;
    npu->running = instance;
    instance->next_program = 0;
    const int status = start_program(instance);
    if (status) end_run(npu, status);
    return status;
}

void convoy_irq(convoy_npu *npu) {
    convoy_instance *instance = npu->running;
    if (!convoy_port_read32(npu, CONVOY_REG_IRQ_STATUS)) return; /* another device's interrupt */
    const uint32_t status = convoy_port_read32(npu, CONVOY_REG_STATUS);
    convoy_port_write32(npu, CONVOY_REG_IRQ_STATUS, 1);
    if (!instance) return;
    npu->cycles += convoy_port_read32(npu, CONVOY_REG_CYCLES);
    if (status & CONVOY_STATUS_ERROR) {
        npu->error = convoy_port_read32(npu, CONVOY_REG_ERROR);
        npu->error_addr = convoy_port_read32(npu, CONVOY_REG_ERROR_ADDR);
        convoy_port_write32(npu, CONVOY_REG_CONTROL, CONVOY_CONTROL_CLEAR_ERROR);
    }
    if (status & CONVOY_STATUS_STOPPING) end_run(npu, CONVOY_STUCK);
    else if (npu->error) end_run(npu, (int)npu->error);
    else if (instance->next_program == instance->network->num_programs) end_run(npu, CONVOY_OK);
    else {
        const int started = start_program(instance);
        if (started) end_run(npu, started);
    }
}

int convoy_poll(convoy_npu *npu) {
    if (!npu->has_interrupt && npu->running) convoy_irq(npu);
    return npu->status;
}

int convoy_wait(convoy_npu *npu) {
    int status;
    while ((status = convoy_poll(npu)) == CONVOY_RUNNING) {
        if (convoy_port_wait(npu)) return CONVOY_GAVE_UP;
    }
    return status;
}

int convoy_run(convoy_instance *instance) {
    const int status = convoy_start(instance);
    return status ? status : convoy_wait(instance->npu);
}

const char *convoy_error_name(int status) {
    switch (status) {
#define NAME(name, code) \
    case code: \
        return code ? #name : "CONVOY_OK";
        CONVOY_ERRORS(NAME)
#undef NAME
#define NAME(name) \
    case name: \
        return #name;
        NAME(CONVOY_RUNNING)
        NAME(CONVOY_NO_NPU)
        NAME(CONVOY_OTHER_CONFIG)
        NAME(CONVOY_BUSY)
        NAME(CONVOY_MISALIGNED)
        NAME(CONVOY_NO_MEMORY)
        NAME(CONVOY_NO_CONSTANTS)
        NAME(CONVOY_STUCK)
        NAME(CONVOY_GAVE_UP)
#undef NAME
#define LACKS(name, bit) \
    case CONVOY_LACKS_##name: \
        return "CONVOY_LACKS_" #name;
        CONVOY_FEATURES(LACKS)
#undef LACKS
        default:
            return "unknown";
    }
}
