// The NPU as CXXRTL compiled it, running one program: prints the cycles to the interrupt and the seconds they took.
// Arguments: file of (address, size, bytes) pieces of memory, then register address and value pairs; the last one is
// the doorbell.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "axi_memory.h"
#include "npu.cc"

using convoy::AxiMemory;
using Npu = cxxrtl_design::p_convoy__npu;
constexpr unsigned kPortBytes = PORT_BYTES;

static void edge(Npu& npu) {
    npu.p_clk.set(false);
    npu.step();
    npu.p_clk.set(true);
    npu.step();
}

static convoy::ManagerPins manager_pins(const Npu& npu) {
    convoy::ManagerPins pins;
    if (npu.p_m__axi____arvalid) {
        pins.ar = {true, npu.p_m__axi____araddr.get<uint32_t>(), npu.p_m__axi____arid.get<uint32_t>(),
                   npu.p_m__axi____arlen.get<uint32_t>(), npu.p_m__axi____arsize.get<uint32_t>(),
                   npu.p_m__axi____arburst.get<uint32_t>()};
    }
    if (npu.p_m__axi____awvalid) {
        pins.aw = {true, npu.p_m__axi____awaddr.get<uint32_t>(), npu.p_m__axi____awid.get<uint32_t>(),
                   npu.p_m__axi____awlen.get<uint32_t>(), npu.p_m__axi____awsize.get<uint32_t>(),
                   npu.p_m__axi____awburst.get<uint32_t>()};
    }
    if (npu.p_m__axi____wvalid) {
        pins.w.valid = true;
        pins.w.last = bool(npu.p_m__axi____wlast);
        pins.w.strb = npu.p_m__axi____wstrb.get<uint32_t>();
        std::memcpy(pins.w.data, npu.p_m__axi____wdata.data, kPortBytes);
    }
    pins.bready = bool(npu.p_m__axi____bready);
    pins.rready = bool(npu.p_m__axi____rready);
    return pins;
}

static void drive(Npu& npu, const convoy::MemoryPins& pins) {
    npu.p_m__axi____arready.set(pins.arready), npu.p_m__axi____awready.set(pins.awready);
    npu.p_m__axi____wready.set(pins.wready);
    npu.p_m__axi____bvalid.set(pins.bvalid), npu.p_m__axi____bid.set(pins.bid), npu.p_m__axi____bresp.set(pins.bresp);
    npu.p_m__axi____rvalid.set(pins.rvalid), npu.p_m__axi____rid.set(pins.rid), npu.p_m__axi____rresp.set(pins.rresp);
    npu.p_m__axi____rlast.set(pins.rlast);
    std::memcpy(npu.p_m__axi____rdata.data, pins.rdata, kPortBytes);
}

static void cycle(Npu& npu, AxiMemory& memory) {
    const convoy::ManagerPins now = manager_pins(npu);
    edge(npu);
    memory.step(now);
    drive(npu, memory.pins());
}

static void write32(Npu& npu, AxiMemory& memory, uint32_t addr, uint32_t value) {
    npu.p_s__axil____awaddr.set(addr), npu.p_s__axil____wdata.set(value), npu.p_s__axil____wstrb.set(15u);
    npu.p_s__axil____bready.set(true);
    npu.p_s__axil____awvalid.set(true), npu.p_s__axil____wvalid.set(true);
    cycle(npu, memory);  // an idle NPU takes address and data at once
    npu.p_s__axil____awvalid.set(false), npu.p_s__axil____wvalid.set(false);
    for (int i = 0; i < 4; ++i) cycle(npu, memory);
}

int main(int argc, char** argv) {
    Npu npu;
    AxiMemory memory(kPortBytes, convoy::Timing{});
    std::ifstream image(argv[1], std::ios::binary);
    uint64_t header[2];
    while (image.read(reinterpret_cast<char*>(header), sizeof header)) {
        image.read(reinterpret_cast<char*>(memory.bytes()) + header[0], header[1]);
    }
    npu.p_rst.set(true);
    for (int i = 0; i < 4; ++i) edge(npu);
    npu.p_rst.set(false);
    for (int i = 2; i + 1 < argc; i += 2) {
        write32(npu, memory, std::strtoul(argv[i], nullptr, 0), std::strtoul(argv[i + 1], nullptr, 0));
    }
    const auto begin = std::chrono::steady_clock::now();
    uint64_t cycles = 0;
    while (!npu.p_irq && memory.error().empty() && cycles < 10'000'000) cycle(npu, memory), ++cycles;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (!npu.p_irq) return std::fprintf(stderr, "no interrupt: %s\n", memory.error().c_str()), 1;
    std::printf("%llu %.6f\n", static_cast<unsigned long long>(cycles), seconds.count());
}
