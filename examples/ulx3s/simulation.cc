// The board in Verilator: its serial port is a TCP port, its clock is that of the NPU.
// simulation PORT CLOCKS_PER_BIT: waits for one connection, ends with it.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "Vulx3s.h"

namespace {

constexpr int kBits = 10;  // a start bit, eight of data, a stop bit
constexpr int kPollCycles = 256;

int accept_one(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(listener, 1)) {
    std::perror("the TCP port");
    std::exit(1);
  }
  std::printf("the board listens at socket://localhost:%u\n", port);
  std::fflush(stdout);
  const int connection = accept(listener, nullptr, nullptr);
  fcntl(connection, F_SETFL, O_NONBLOCK);
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  close(listener);
  return connection;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s PORT CLOCKS_PER_BIT\n", argv[0]);
    return 2;
  }
  const int clocks_per_bit = std::atoi(argv[2]);
  const auto board = std::make_unique<Vulx3s>();
  board->rst = 0;
  board->serial_rx = 1;
  const int connection = accept_one(static_cast<uint16_t>(std::atoi(argv[1])));
  uint64_t cycle = 0;
  int sent_bit = kBits, received_bit = -1, to_next = 0, to_sample = 0, frame = 0, received = 0;
  bool was_high = true;
  for (;; cycle++) {
    if (sent_bit == kBits && cycle % kPollCycles == 0) {
      uint8_t byte;
      const ssize_t count = recv(connection, &byte, 1, 0);
      if (count == 0) break;
      if (count == 1) {
        frame = byte << 1 | 1 << 9;
        sent_bit = to_next = 0;
      }
    }
    if (sent_bit < kBits && to_next-- == 0) {
      board->serial_rx = frame >> sent_bit & 1;
      sent_bit++;
      to_next = clocks_per_bit - 1;
      if (sent_bit == kBits) {
        uint8_t byte;
        if (recv(connection, &byte, 1, 0) == 1) {
          frame = byte << 1 | 1 << 9;
          sent_bit = 0;
        }
      }
    }
    board->clk25 = 0;
    board->eval();
    board->clk25 = 1;
    board->eval();
    if (received_bit < 0) {
      if (was_high && !board->serial_tx) {
        received_bit = received = 0;
        to_sample = clocks_per_bit + clocks_per_bit / 2;
      }
    } else if (--to_sample == 0) {
      to_sample = clocks_per_bit;
      if (received_bit == 8) {
        const auto byte = static_cast<uint8_t>(received);
        if (send(connection, &byte, 1, MSG_NOSIGNAL) != 1) break;
        received_bit = -1;
      } else {
        received |= board->serial_tx << received_bit++;
      }
    }
    was_high = board->serial_tx;
  }
  std::printf("%llu cycles\n", static_cast<unsigned long long>(cycle));
  return 0;
}
