/* Runs any network on the NPU, step after step, and compares its outputs with those that vectors.py wrote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convoy.h"
#include "network.h"   /* convoy compile MODEL --c-array network.c */
#include "npu_model.h" /* the NPU: on a chip, the address of its registers instead */
#include "vectors.h"   /* inputs and outputs of each step */

#define MEMORY_ADDR 0x10000000u

static void check(int status, const convoy_npu *npu) {
    if (status == CONVOY_OK) return;
    fprintf(stderr, "%s at address 0x%08x\n", convoy_error_name(status), (unsigned)npu->error_addr);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s LIBRARY: the compiled model of the NPU\n", argv[0]);
        return 2;
    }
    convoy_npu npu;
    convoy_instance instance;
    static uint8_t found[VECTOR_BYTES];
    const convoy_network *network = &network_network;
    const uintptr_t registers = model_open(argv[1]);
    const convoy_memory memory = {model_memory() + MEMORY_ADDR, MEMORY_ADDR, NETWORK_MEMORY_BYTES};
    int num_different = 0;

    check(convoy_open(&npu, registers, true), &npu);
    check(convoy_load(&instance, &npu, network, memory), &npu);
    const uint8_t *vector = vectors;
    for (int step = 0; step < NUM_STEPS; ++step) {
        for (uint32_t i = 0; i < network->num_inputs; vector += network->inputs[i++].num_bytes)
            convoy_write(&instance, &network->inputs[i], vector);
        check(convoy_run(&instance), &npu);
        printf("step %d: %u cycles\n", step, (unsigned)npu.cycles);
        for (uint32_t i = 0; i < network->num_outputs; vector += network->outputs[i++].num_bytes) {
            const convoy_tensor *output = &network->outputs[i];
            convoy_read(&instance, output, found);
            const bool is_equal = memcmp(found, vector, output->num_bytes) == 0;
            num_different += !is_equal;
            printf("  %s: %u bytes %s\n", output->name, (unsigned)output->num_bytes, is_equal ? "equal" : "DIFFERENT");
        }
    }
    printf("%s\n", num_different ? "some outputs differ" : "all outputs are equal");
    return num_different ? 1 : 0;
}
