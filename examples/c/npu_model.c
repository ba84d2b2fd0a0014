/* The port of the C runtime to the Verilator model: registers and waiting go through its functions, and the model
 * stands still whenever none of them runs. On a chip this file is not needed: the weak functions of convoy.c do. */
#include "npu_model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convoy.h"

#define LATENCY_CYCLES 32 /* of the memory */
#define RUN_CYCLES 1000   /* at once, while the CPU waits */

/* The interface of the model, see the end of driver/devices/native.cc. */
static struct {
    void *npu;
    void *(*create)(uint32_t latency_cycles, uint32_t stall_percent, uint64_t seed, uint32_t is_shared,
                    const char *waves);
    uint8_t *(*memory)(void *npu);
    const char *(*error)(void *npu);
    int (*irq)(void *npu);
    uint64_t (*run)(void *npu, uint64_t max_cycles);
    int (*write32)(void *npu, uint32_t addr, uint32_t value);
    int (*read32)(void *npu, uint32_t addr, uint32_t *value);
} model;

static void fail(const char *message) {
    fprintf(stderr, "model: %s\n", message);
    exit(1);
}

static void find(void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    if (!found) fail(dlerror());
    memcpy(function, &found, sizeof found);
}

uintptr_t model_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror());
    find(library, "convoy_create", &model.create);
    find(library, "convoy_memory", &model.memory);
    find(library, "convoy_error", &model.error);
    find(library, "convoy_irq", &model.irq);
    find(library, "convoy_run", &model.run);
    find(library, "convoy_write32", &model.write32);
    find(library, "convoy_read32", &model.read32);
    model.npu = model.create(LATENCY_CYCLES, 0, 0, 0, "");
    if (!model.npu) fail("no address space for its memory");
    return (uintptr_t)model.npu;
}

uint8_t *model_memory(void) { return model.memory(model.npu); }

uint32_t convoy_port_read32(const convoy_npu *npu, uint32_t offset) {
    uint32_t value;
    if (!model.read32((void *)npu->registers, offset, &value)) fail(model.error(model.npu));
    return value;
}

void convoy_port_write32(const convoy_npu *npu, uint32_t offset, uint32_t value) {
    if (!model.write32((void *)npu->registers, offset, value)) fail(model.error(model.npu));
}

/* Time passes, and at the interrupt its handler is called, as the CPU would. */
int convoy_port_wait(convoy_npu *npu) {
    model.run(model.npu, RUN_CYCLES);
    if (*model.error(model.npu)) fail(model.error(model.npu));
    if (model.irq(model.npu)) convoy_irq(npu);
    return 0;
}
