// The board in Verilator: what comes on standard input goes over the serial line, what the line answers to standard
// output. Ends with the input.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "Vboard.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

int main() {
  const int divisor = DIVISOR, look_cycles = 64;
  Vboard board;
  board.rx = 1;
  fcntl(0, F_SETFL, O_NONBLOCK);
  unsigned sending = 0, num_sending = 0, send_wait = 0, receiving = 0, num_receiving = 0, receive_wait = 0;
  unsigned char byte;
  for (unsigned long cycle = 0;; cycle++) {
    board.clk = 0;
    board.eval();
    if (send_wait) {
      send_wait--;
    } else if (num_sending) {
      board.rx = sending & 1;
      sending >>= 1;
      num_sending--;
      send_wait = divisor - 1;
    } else if (cycle % look_cycles == 0) {
      const ssize_t count = read(0, &byte, 1);
      if (count == 0) return 0;
      if (count < 0 && errno != EAGAIN) return 1;
      // A start bit, 8 bits and two stop bits, so that the receiver need not keep up
      if (count == 1) sending = byte << 1 | 0x600, num_sending = 11;
    }
    if (receive_wait) {
      receive_wait--;
    } else if (num_receiving) {
      receiving = receiving >> 1 | board.tx << 7;
      receive_wait = divisor - 1;
      if (--num_receiving == 0) {
        byte = receiving;
        if (write(1, &byte, 1) != 1) return 1;
      }
    } else if (!board.tx) {
      num_receiving = 8;
      receive_wait = divisor + divisor / 2 - 1;
    }
    board.clk = 1;
    board.eval();
  }
}
