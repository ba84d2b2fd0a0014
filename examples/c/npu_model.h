/* The NPU as Verilator compiled it, with memory behind it, in place of hardware. */
#ifndef NPU_MODEL_H
#define NPU_MODEL_H

#include <stdint.h>

/* Load the compiled model and reset it. Returns what stands for the address of the registers. Ends the program if that
 * fails. */
uintptr_t model_open(const char *library);

/* Where the CPU sees address 0 of the NPU's memory. */
uint8_t *model_memory(void);

#endif
