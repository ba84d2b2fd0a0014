/* Recognises handwritten digits on the NPU, and compares what it computes with LiteRT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convoy.h"
#include "digits.h"    /* the network: convoy compile digits_int8.tflite --c-array digits.c */
#include "npu_model.h" /* the NPU: on a chip, the address of its registers instead */
#include "samples.h"   /* images, and the scores that LiteRT gives */

#define MEMORY_ADDR 0x10000000u /* where the network is loaded */

static void check(int status, const convoy_npu *npu) {
    if (status == CONVOY_OK) return;
    fprintf(stderr, "%s at address 0x%08x\n", convoy_error_name(status), (unsigned)npu->error_addr);
    exit(1);
}

static void print_image(const int8_t *pixels, const uint32_t *shape) {
    for (uint32_t row = 0; row < shape[1]; ++row) {
        for (uint32_t column = 0; column < shape[2]; ++column) {
            const int level = (pixels[row * shape[2] + column] + 128) / 64;
            printf("%c%c", " .+#"[level], " .+#"[level]);
        }
        printf("\n");
    }
}

/* Run the network on an image: true if its scores are LiteRT's. */
static bool recognise(convoy_instance *digits, int sample) {
    const convoy_tensor *input = &digits->network->inputs[0], *output = &digits->network->outputs[0];
    int8_t scores[sizeof expected[0]];
    convoy_write(digits, input, images[sample]);
    check(convoy_run(digits), digits->npu);
    convoy_read(digits, output, scores);

    int best = 0;
    for (int i = 1; i < (int)sizeof scores; ++i) {
        if (scores[i] > scores[best]) best = i;
    }
    const bool is_equal = memcmp(scores, expected[sample], sizeof scores) == 0;
    printf("a %d is taken for a %d; scores %s LiteRT's; %u cycles\n", labels[sample], best,
           is_equal ? "equal" : "DIFFER FROM", (unsigned)digits->npu->cycles);
    return is_equal;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s LIBRARY: the compiled model of the NPU\n", argv[0]);
        return 2;
    }
    convoy_npu npu;
    convoy_instance digits;
    const uintptr_t registers = model_open(argv[1]);
    const convoy_memory memory = {model_memory() + MEMORY_ADDR, MEMORY_ADDR, DIGITS_MEMORY_BYTES};
    int num_equal = 0;

    /* Ask the NPU whether it has ended ... */
    check(convoy_open(&npu, registers, false), &npu);
    check(convoy_load(&digits, &npu, &digits_network, memory), &npu);
    print_image(images[0], digits.network->inputs[0].shape);
    for (int i = 0; i < NUM_SAMPLES / 2; ++i) num_equal += recognise(&digits, i);

    /* ... or be told: `convoy_port_wait` calls `convoy_irq` as an interrupt would. */
    check(convoy_open(&npu, registers, true), &npu);
    for (int i = NUM_SAMPLES / 2; i < NUM_SAMPLES; ++i) num_equal += recognise(&digits, i);
    printf("%d of %d results equal LiteRT's\n", num_equal, NUM_SAMPLES);

    /* A run that is stopped does no harm to the next one. */
    digits.timeout_cycles = 1000;
    const int status = convoy_run(&digits);
    printf("with a limit of %u cycles: %s; without: ", (unsigned)digits.timeout_cycles, convoy_error_name(status));
    digits.timeout_cycles = 0;
    const bool is_well = recognise(&digits, 0);
    return status == CONVOY_ERROR_TIMEOUT && is_well && num_equal == NUM_SAMPLES ? 0 : 1;
}
