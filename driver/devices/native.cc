// The NPU as Verilator compiled it, with its memory and its registers, behind a C interface for ctypes.

#include <algorithm>
#include <array>
#include <memory>

#include "Vconvoy.h"
#include "axi_memory.h"
#include "verilated.h"
#if CONVOY_DIRECT
#include "quiet.h"
#endif
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

#define M_AXI(name) top_->m_axi___05F##name
#define S_AXIL(name) top_->s_axil___05F##name

double sc_time_stamp() { return 0; }

namespace convoy {

constexpr int kResetCycles = 4;
constexpr int kRegisterCycles = 1000;  // longest wait for an answer on AXI4-Lite

class Npu {
  public:
    Npu(const Timing& timing, const char* waves)
        : context_(new VerilatedContext),
          top_(new Vconvoy(context_.get(), "npu")),
          memory_(sizeof(top_->m_axi___05Frdata), timing) {
#if VM_TRACE
        context_->traceEverOn(true);
        trace_.reset(new VerilatedVcdC);
        top_->trace(trace_.get(), 99);
        trace_->open(waves);
#else
        (void)waves;
#endif
        drive_memory_pins(memory_.pins());
        for (int i = 1; i <= kResetCycles; ++i) {
            top_->rst = i < kResetCycles;  // registered by the wrapper, like the pins of the memory
            settle();
            all_units_ |= top_->rest_active;  // the reset reaches all of them
            rise();
            if (M_AXI(arvalid) || M_AXI(awvalid) || M_AXI(wvalid)) reset_error_ = "a VALID is high during reset";
        }
        settle();
#if CONVOY_DIRECT
        find_triggers();
#endif
    }

    ~Npu() {
#if VM_TRACE
        trace_->close();
#endif
        top_->final();
    }

    AxiMemory& memory() { return memory_; }
    // What ended the simulation, else what the last register access met; empty if nothing.
    const std::string& message() const { return is_dead() ? fatal() : register_error_; }

    // Run until the interrupt, an error or `max_cycles`; cycles run.
    uint64_t run(uint64_t max_cycles) {
        uint64_t cycles = 0;
        register_error_.clear();
        settle();
        while (cycles < max_cycles && !top_->irq && !is_dead()) {
            step_memory();
            clock();
            ++cycles;
        }
        return cycles;
    }

    bool irq() const { return top_->irq; }

    // Give every unit its clock in every cycle, also at rest.
    void stay_awake() { always_active_ = all_units_; }

    bool write32(uint32_t addr, uint32_t value) {
        S_AXIL(awaddr) = addr, S_AXIL(awvalid) = 1;
        S_AXIL(wdata) = value, S_AXIL(wstrb) = 15, S_AXIL(wvalid) = 1;
        S_AXIL(bready) = 1;
        for (int i = 0; i < kRegisterCycles && !is_dead(); ++i) {
            settle();
            const bool took_aw = S_AXIL(awvalid) && S_AXIL(awready), took_w = S_AXIL(wvalid) && S_AXIL(wready);
            const bool is_done = S_AXIL(bvalid);
            const unsigned resp = S_AXIL(bresp);
            cycle();
            if (took_aw) S_AXIL(awvalid) = 0;
            if (took_w) S_AXIL(wvalid) = 0;
            if (is_done) {
                S_AXIL(bready) = 0;
                return check_response("write", addr, resp);
            }
        }
        return check_response("write", addr, ~0u);
    }

    bool read32(uint32_t addr, uint32_t* value) {
        S_AXIL(araddr) = addr, S_AXIL(arvalid) = 1, S_AXIL(rready) = 1;
        for (int i = 0; i < kRegisterCycles && !is_dead(); ++i) {
            settle();
            const bool took_ar = S_AXIL(arvalid) && S_AXIL(arready), is_done = S_AXIL(rvalid);
            const unsigned resp = S_AXIL(rresp);
            *value = S_AXIL(rdata);
            cycle();
            if (took_ar) S_AXIL(arvalid) = 0;
            if (is_done) {
                S_AXIL(rready) = 0;
                return check_response("read", addr, resp);
            }
        }
        return check_response("read", addr, ~0u);
    }

  private:
    const std::string& fatal() const { return reset_error_.empty() ? memory_.error() : reset_error_; }
    bool is_dead() const { return !fatal().empty(); }

    void settle() {
        top_->clk = 0, top_->rest_clk = 0;
        top_->eval();
    }

    void rise() {
        dump();
        // with the clocks of the units that are not at rest
        top_->clk = 1, top_->rest_clk = top_->rest_active | always_active_;
        top_->eval();
        dump();
    }

    void dump() {
#if VM_TRACE
        trace_->dump(time_);
#endif
        time_ += 5;
    }

    // One clock cycle of NPU and memory, after changes of the inputs that the wrapper does not register.
    void cycle() {
        settle();
        step_memory();
        clock();
    }

    // The wrapper passes the memory's pins on at the clock edge, so they are set before it.
    void step_memory() {
        memory_.step(manager_pins());
        drive_memory_pins(memory_.pins());
    }

#if CONVOY_DIRECT
    // A rise and fall of the clocks. Verilator's `eval` would look for changed inputs and edges twice; here none but
    // these are known to be there.
    void clock() {
        const uint64_t active = top_->rest_active | always_active_;
        uint64_t triggers = clk_trigger_;
        for (size_t i = 0; i < rest_triggers_.size(); ++i) triggers |= rest_triggers_[i][active >> 8 * i & 255];
        top_->rootp->__VnbaTriggered[0] = triggers;
        if (top_->is_reset) {
            Vconvoy___024root___eval_nba(top_->rootp);
        } else {
            Vconvoy___024root___eval_nba__quiet(top_->rootp);
            if (!is_quiet(*top_->rootp)) reset_error_ = "a reset in a cycle without one";
        }
        top_->rootp->__VnbaTriggered[0] = 0;
        time_ += 10;
    }

    // Ask Verilator which triggers an edge of each clock sets.
    void find_triggers() {
        clk_trigger_ = triggers_of(1, 0);
        uint64_t one[64] = {};
        for (int bit = 0; bit < 64; ++bit)
            if (all_units_ >> bit & 1) one[bit] = triggers_of(0, 1ull << bit);
        for (size_t i = 0; i < rest_triggers_.size(); ++i)
            for (int byte = 0; byte < 256; ++byte)
                for (int bit = 0; bit < 8; ++bit)
                    if (byte >> bit & 1) rest_triggers_[i][byte] |= one[8 * i + bit];
    }

    uint64_t triggers_of(bool clk, uint64_t rest_clk) {
        top_->clk = clk, top_->rest_clk = rest_clk;
        Vconvoy___024root___eval_triggers_vec__act(top_->rootp);
        const uint64_t triggers = top_->rootp->__VactTriggered[0];
        top_->clk = 0, top_->rest_clk = 0;
        Vconvoy___024root___eval_triggers_vec__act(top_->rootp);
        return triggers;
    }
#else
    void clock() {
        rise();
        settle();
    }
#endif

    ManagerPins manager_pins() const {
        ManagerPins pins;
        pins.ar.valid = M_AXI(arvalid);
        if (pins.ar.valid) pins.ar = {true, M_AXI(araddr), M_AXI(arid), M_AXI(arlen), M_AXI(arsize), M_AXI(arburst)};
        pins.aw.valid = M_AXI(awvalid);
        if (pins.aw.valid) pins.aw = {true, M_AXI(awaddr), M_AXI(awid), M_AXI(awlen), M_AXI(awsize), M_AXI(awburst)};
        pins.w.valid = M_AXI(wvalid);
        if (pins.w.valid) {
            pins.w.last = M_AXI(wlast);
            pins.w.strb = M_AXI(wstrb);
            std::memcpy(pins.w.data, &M_AXI(wdata), sizeof(M_AXI(wdata)));
        }
        pins.bready = M_AXI(bready);
        pins.rready = M_AXI(rready);
        return pins;
    }

    void drive_memory_pins(const MemoryPins& pins) {
        M_AXI(awready) = pins.awready, M_AXI(wready) = pins.wready, M_AXI(arready) = pins.arready;
        M_AXI(bvalid) = pins.bvalid, M_AXI(bid) = pins.bid, M_AXI(bresp) = pins.bresp;
        M_AXI(rvalid) = pins.rvalid, M_AXI(rid) = pins.rid, M_AXI(rresp) = pins.rresp, M_AXI(rlast) = pins.rlast;
        if (pins.rvalid) std::memcpy(&M_AXI(rdata), pins.rdata, sizeof(M_AXI(rdata)));
    }

    bool check_response(const char* what, uint32_t addr, unsigned resp) {
        register_error_.clear();
        if (resp != 0) {
            char text[100];
            if (resp == ~0u) std::snprintf(text, sizeof text, "%s of register 0x%03x: no answer", what, addr);
            else std::snprintf(text, sizeof text, "%s of register 0x%03x: response %u", what, addr, resp);
            register_error_ = text;
        }
        return message().empty();
    }

    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vconvoy> top_;
    AxiMemory memory_;
    uint64_t time_ = 0;
    uint64_t all_units_ = 0, always_active_ = 0;  // a bit for each unit that may rest
#if CONVOY_DIRECT
    uint64_t clk_trigger_ = 0;
    std::array<std::array<uint64_t, 256>, sizeof(top_->rest_clk)> rest_triggers_{};
#endif
    std::string reset_error_, register_error_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> trace_;
#endif
};

}  // namespace convoy

#define EXPORT extern "C" __attribute__((visibility("default")))
using convoy::Npu;

EXPORT Npu* convoy_create(uint32_t latency_cycles, uint32_t stall_percent, uint64_t seed, uint32_t is_shared,
                          const char* waves) {
    Npu* npu = new Npu(convoy::Timing{latency_cycles, stall_percent, seed, is_shared != 0}, waves);
    if (npu->memory().bytes()) return npu;
    delete npu;
    return nullptr;
}
EXPORT void convoy_destroy(Npu* npu) { delete npu; }
EXPORT uint64_t convoy_memory_bytes() { return convoy::kMemoryBytes; }
EXPORT uint8_t* convoy_memory(Npu* npu) { return npu->memory().bytes(); }
EXPORT const char* convoy_error(Npu* npu) { return npu->message().c_str(); }
EXPORT void convoy_stay_awake(Npu* npu) { npu->stay_awake(); }
EXPORT int convoy_irq(Npu* npu) { return npu->irq(); }
EXPORT uint64_t convoy_run(Npu* npu, uint64_t max_cycles) { return npu->run(max_cycles); }
EXPORT int convoy_write32(Npu* npu, uint32_t addr, uint32_t value) { return npu->write32(addr, value); }
EXPORT int convoy_read32(Npu* npu, uint32_t addr, uint32_t* value) { return npu->read32(addr, value); }
EXPORT void convoy_inject_fault(Npu* npu, uint64_t base, uint64_t limit, uint32_t resp, uint32_t only_beats) {
    npu->memory().inject_fault(base, limit, resp, only_beats != 0);
}
EXPORT void convoy_silence(Npu* npu, uint32_t channels) { npu->memory().silence(channels); }
EXPORT void convoy_set_windows(Npu* npu, const convoy::Window* windows, uint32_t count) {
    npu->memory().set_windows(std::vector<convoy::Window>(windows, windows + count));
}
