/* The C runtime behind functions of plain numbers for ctypes, its port behind functions of Python. */
#include "convoy.h"

#define NUM_INSTANCES 4

static convoy_npu npu;
static convoy_instance instances[NUM_INSTANCES];

uint32_t (*host_read32)(uint32_t offset);
void (*host_write32)(uint32_t offset, uint32_t value);
int (*host_wait)(void);
void (*host_clean)(void *start, size_t num_bytes);
void (*host_invalidate)(void *start, size_t num_bytes);

uint32_t convoy_port_read32(const convoy_npu *from, uint32_t offset) {
    (void)from;
    return host_read32(offset);
}

void convoy_port_write32(const convoy_npu *to, uint32_t offset, uint32_t value) {
    (void)to;
    host_write32(offset, value);
}

int convoy_port_wait(convoy_npu *from) {
    (void)from;
    return host_wait();
}

void convoy_port_clean(void *start, size_t num_bytes) { host_clean(start, num_bytes); }

void convoy_port_invalidate(void *start, size_t num_bytes) { host_invalidate(start, num_bytes); }

int host_open(int has_interrupt);
int host_reset(void);
int host_load(int slot, const convoy_network *network, void *start, uint32_t addr, uint32_t num_bytes);
int host_load_in_place(int slot, const convoy_network *network, void *start, uint32_t addr, uint32_t num_bytes,
                       uint32_t constants_addr);
void host_reset_state(int slot);
void host_limits(int slot, uint32_t watchdog_cycles, uint32_t timeout_cycles);
const convoy_tensor *host_tensor(int slot, int kind, uint32_t number);
void host_write(int slot, const convoy_tensor *tensor, const void *values);
void host_read(int slot, const convoy_tensor *tensor, void *values);
int32_t host_quantised(int slot, float real);
float host_real(int slot, int32_t value);
int host_start(int slot);
int host_run(int slot);
int host_poll(void);
void host_irq(void);
uint32_t host_error(void);
uint32_t host_error_addr(void);
uint32_t host_cycles(void);

int host_open(int has_interrupt) { return convoy_open(&npu, 0, has_interrupt != 0); }

int host_reset(void) { return convoy_reset(&npu); }

int host_load(int slot, const convoy_network *network, void *start, uint32_t addr, uint32_t num_bytes) {
    return convoy_load(&instances[slot], &npu, network, (convoy_memory){start, addr, num_bytes});
}

int host_load_in_place(int slot, const convoy_network *network, void *start, uint32_t addr, uint32_t num_bytes,
                       uint32_t constants_addr) {
    const convoy_memory memory = {start, addr, num_bytes};
    return convoy_load_in_place(&instances[slot], &npu, network, memory, constants_addr);
}

void host_reset_state(int slot) { convoy_reset_state(&instances[slot]); }

void host_limits(int slot, uint32_t watchdog_cycles, uint32_t timeout_cycles) {
    instances[slot].watchdog_cycles = watchdog_cycles;
    instances[slot].timeout_cycles = timeout_cycles;
}

/* `kind` 0: input, 1: output, 2: variable. */
const convoy_tensor *host_tensor(int slot, int kind, uint32_t number) {
    const convoy_network *network = instances[slot].network;
    const convoy_tensor *tensors = kind ? network->outputs : network->inputs;
    return kind == 2 ? &network->variables[number].tensor : &tensors[number];
}

void host_write(int slot, const convoy_tensor *tensor, const void *values) {
    convoy_write(&instances[slot], tensor, values);
}

void host_read(int slot, const convoy_tensor *tensor, void *values) { convoy_read(&instances[slot], tensor, values); }

/* Of the first input. */
int32_t host_quantised(int slot, float real) { return convoy_quantised(&instances[slot].network->inputs[0], real); }

float host_real(int slot, int32_t value) { return convoy_real(&instances[slot].network->inputs[0], value); }

int host_start(int slot) { return convoy_start(&instances[slot]); }

int host_run(int slot) { return convoy_run(&instances[slot]); }

int host_poll(void) { return convoy_poll(&npu); }

void host_irq(void) { convoy_irq(&npu); }

uint32_t host_error(void) { return npu.error; }

uint32_t host_error_addr(void) { return npu.error_addr; }

uint32_t host_cycles(void) { return npu.cycles; }
