// The memory behind the AXI4 port: timing, random stalls and protocol checks, one step per clock cycle.
//
// docs/simulation.md gives the rules of the timing; bus_model.py follows the same rules, cycle for cycle.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace convoy {

constexpr uint64_t kMemoryBytes = 1ull << 30;  // address space behind the port
constexpr unsigned kMaxPortBytes = 32;
constexpr size_t kMaxBursts = 64;              // bursts that the memory queues per direction
constexpr size_t kMaxEarlyBeats = 512;         // write beats taken before their address
constexpr uint32_t kDecErr = 3;                // the answer beyond the memory

// Channels that can be silenced: READY of the first three, VALID of the others.
enum Channel : uint32_t { kAr = 1, kAw = 2, kW = 4, kR = 8, kB = 16 };

// A memory window of the NPU; `access` as in its CONTROL register.
struct Window {
    uint32_t base = 0, limit = 0, access = 0;
};

struct Address {
    bool valid = false;
    uint32_t addr = 0, id = 0, len = 0, size = 0, burst = 0;
    bool operator==(const Address& o) const {
        return addr == o.addr && id == o.id && len == o.len && size == o.size && burst == o.burst;
    }
};

struct WriteBeat {
    bool valid = false, last = false;
    uint32_t strb = 0;
    uint8_t data[kMaxPortBytes] = {};
};

struct ManagerPins {  // what the NPU drives
    Address aw, ar;
    WriteBeat w;
    bool bready = false, rready = false;
};

struct MemoryPins {  // what the memory drives
    bool awready = false, wready = false, arready = false, bvalid = false, rvalid = false, rlast = false;
    uint32_t bid = 0, bresp = 0, rid = 0, rresp = 0;
    uint8_t rdata[kMaxPortBytes] = {};
};

struct Timing {
    uint32_t latency_cycles = 32, stall_percent = 0;
    uint64_t seed = 0;
    bool is_shared = false;
};

class AxiMemory {
  public:
    AxiMemory(unsigned port_bytes, const Timing& timing) : port_bytes_(port_bytes), timing_(timing) {
        random_ = timing.seed * 0x9E3779B97F4A7C15ull + 0x2545F4914F6CDD1Dull;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* p = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        bytes_ = p == MAP_FAILED ? nullptr : static_cast<uint8_t*>(p);
    }
    ~AxiMemory() {
        if (bytes_) munmap(bytes_, kMemoryBytes);
    }
    AxiMemory(const AxiMemory&) = delete;
    AxiMemory& operator=(const AxiMemory&) = delete;

    uint8_t* bytes() { return bytes_; }
    const std::string& error() const { return error_; }
    const MemoryPins& pins() const { return pins_; }

    // Bursts that touch [base, limit) are answered with `resp` and write nothing; resp 0: they are not answered while
    // this holds.
    // With `only_beats` it is only those beats of a read that touch it.
    void inject_fault(uint64_t base, uint64_t limit, uint32_t resp, bool only_beats) {
        fault_base_ = base, fault_limit_ = limit, fault_resp_ = resp, fault_only_beats_ = only_beats;
    }

    // These channels neither take nor give anything new while this holds.
    void silence(uint32_t channels) { silent_ = channels; }

    // Every burst that is shown from now on must lie in one of these, of its direction; if none has access to anything,
    // it may lie anywhere.
    void set_windows(std::vector<Window> windows) { windows_ = std::move(windows); }

    // `now` is what the NPU drove before this cycle's clock edge; afterwards pins() are for the next cycle.
    void step(const ManagerPins& now) {
        check_stable(now);
        if (now.ar.valid && !waits_ar_) check_burst("read", 1, now.ar);
        if (now.aw.valid && !waits_aw_) check_burst("write", 2, now.aw);
        if (now.ar.valid && pins_.arready) take_read(now.ar);
        if (now.aw.valid && pins_.awready) take_write(now.aw);
        if (now.w.valid && pins_.wready) early_.push_back(now.w);
        match_beats();
        if (pins_.rvalid && now.rready) finish_read_beat();
        if (pins_.bvalid && now.bready) pins_.bvalid = false;
        waits_ar_ = now.ar.valid && !pins_.arready;
        waits_aw_ = now.aw.valid && !pins_.awready;
        waits_w_ = now.w.valid && !pins_.wready;
        if (waits_ar_ || waits_aw_ || waits_w_) before_ = now;
        ++cycle_;
        drive(now.w.valid && !pins_.wready);
    }

  private:
    struct Burst {
        Address address;
        uint64_t ready_cycle = 0;
        uint32_t beat = 0;
        bool is_complete = false;
        std::deque<WriteBeat> beats;
    };

    bool stalls() {
        if (!timing_.stall_percent) return false;
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return (random_ >> 33) % 100 < timing_.stall_percent;
    }

    uint64_t due() const { return cycle_ + (timing_.latency_cycles ? timing_.latency_cycles : 1); }

    void drive(bool is_write_waiting) {
        const bool stall_ar = stalls(), stall_aw = stalls(), stall_w = stalls(), stall_r = stalls(), stall_b = stalls();
        pins_.arready = !stall_ar && reads_.size() < kMaxBursts && !(silent_ & kAr);
        pins_.awready = !stall_aw && writes_.size() < kMaxBursts && !(silent_ & kAw);
        const bool can_read = !reads_.empty() && reads_.front().ready_cycle <= cycle_ && !stall_r &&
                              !is_hung(reads_.front()) && !(silent_ & kR);
        const bool can_write = !stall_w && early_.size() < kMaxEarlyBeats && !(silent_ & kW);
        bool grant_read = true, grant_write = true;
        if (timing_.is_shared) {
            const bool wants_read = pins_.rvalid || can_read;
            if (wants_read && is_write_waiting && can_write && !pins_.rvalid) {
                grant_read = !was_read_;
                was_read_ = grant_read;
            }
            grant_write = !(wants_read && grant_read);
        }
        pins_.wready = can_write && grant_write;
        if (!pins_.rvalid && can_read && grant_read) show_read_beat();
        const bool can_answer = !writes_.empty() && writes_.front().is_complete &&
                                writes_.front().ready_cycle <= cycle_ && !stall_b && !is_hung(writes_.front()) &&
                                !(silent_ & kB);
        if (!pins_.bvalid && can_answer) finish_write();
    }

    void take_read(const Address& a) {
        reads_.push_back(Burst{a, due(), 0, false, {}});
    }

    void take_write(const Address& a) {
        writes_.push_back(Burst{a, 0, 0, false, {}});
    }

    // Give write beats to the bursts whose addresses are known.
    void match_beats() {
        for (Burst& burst : writes_) {
            if (burst.is_complete) continue;
            while (!early_.empty() && !burst.is_complete) {
                const bool is_last = burst.beat == burst.address.len;
                if (early_.front().last != is_last) {
                    fail("WLAST is %u on beat %u of the write to 0x%08x of %u beats", early_.front().last, burst.beat,
                         burst.address.addr, burst.address.len + 1);
                }
                burst.beats.push_back(early_.front());
                early_.pop_front();
                ++burst.beat;
                if (is_last) burst.is_complete = true, burst.ready_cycle = due();
            }
            if (!burst.is_complete) break;
        }
    }

    void show_read_beat() {
        const Burst& burst = reads_.front();
        const uint64_t addr = burst.address.addr + uint64_t(burst.beat) * port_bytes_;
        pins_.rvalid = true;
        pins_.rid = burst.address.id;
        pins_.rresp = addr >= kMemoryBytes ? kDecErr : is_faulty(burst) ? fault_resp_ : 0;
        pins_.rlast = burst.beat == burst.address.len;
        if (addr < kMemoryBytes) std::memcpy(pins_.rdata, bytes_ + addr, port_bytes_);
        else std::memset(pins_.rdata, 0, port_bytes_);
    }

    void finish_read_beat() {
        pins_.rvalid = false;
        if (reads_.front().beat++ == reads_.front().address.len) reads_.pop_front();
    }

    // Write the memory and show the response; until then a reader sees the old bytes.
    void finish_write() {
        Burst& burst = writes_.front();
        uint64_t addr = burst.address.addr;
        const uint32_t resp = addr >= kMemoryBytes ? kDecErr : is_faulty(burst) ? fault_resp_ : 0;
        for (const WriteBeat& beat : burst.beats) {
            if (!resp)
                for (unsigned i = 0; i < port_bytes_; ++i)
                    if (beat.strb >> i & 1) bytes_[addr + i] = beat.data[i];
            addr += port_bytes_;
        }
        pins_.bvalid = true;
        pins_.bid = burst.address.id;
        pins_.bresp = resp;
        writes_.pop_front();
    }

    // Whether the fault is for this burst, or for the next beat of a read.
    bool is_faulty(const Burst& burst) const {
        const bool is_beat = fault_only_beats_ && !burst.is_complete;
        const uint64_t start = burst.address.addr + (is_beat ? uint64_t(burst.beat) * port_bytes_ : 0);
        const uint64_t end = start + (is_beat ? 1 : uint64_t(burst.address.len + 1)) * port_bytes_;
        return start < fault_limit_ && end > fault_base_;
    }

    bool is_hung(const Burst& burst) const { return !fault_resp_ && is_faulty(burst); }

    // A burst is checked when it is shown first, not when it is taken.
    void check_burst(const char* what, uint32_t access, const Address& a) {
        const uint64_t end = a.addr + uint64_t(a.len + 1) * port_bytes_;
        if (a.burst != 1) fail("%s of 0x%08x has burst type %u, not INCR", what, a.addr, a.burst);
        if ((1u << a.size) != port_bytes_) {
            fail("%s of 0x%08x has beats of %u bytes, not %u", what, a.addr, 1u << a.size, port_bytes_);
        }
        if (a.addr % port_bytes_) fail("%s of 0x%08x is not aligned to %u bytes", what, a.addr, port_bytes_);
        if ((a.addr >> 12) != ((end - 1) >> 12)) {
            fail("%s of 0x%08x, %u beats, crosses a 4 KiB boundary", what, a.addr, a.len + 1);
        }
        const bool is_open = std::none_of(windows_.begin(), windows_.end(), [](const Window& w) { return w.access; });
        const auto allows = [&](const Window& w) { return (w.access & access) && a.addr >= w.base && end <= w.limit; };
        if (is_open || std::any_of(windows_.begin(), windows_.end(), allows)) return;
        std::string text;
        for (const Window& w : windows_) {
            char one[50];
            std::snprintf(one, sizeof one, " 0x%08x-0x%08x", w.base, w.limit);
            if (w.access & access) text += one;
        }
        fail("%s of 0x%08x, %u beats, is outside the memory windows:%s", what, a.addr, a.len + 1,
             text.empty() ? " none" : text.c_str());
    }

    void check_stable(const ManagerPins& now) {
        if (waits_ar_ && (!now.ar.valid || !(now.ar == before_.ar))) {
            fail("AR changed before ARREADY; it was 0x%08x, is 0x%08x", before_.ar.addr, now.ar.addr);
        }
        if (waits_aw_ && (!now.aw.valid || !(now.aw == before_.aw))) {
            fail("AW changed before AWREADY; it was 0x%08x, is 0x%08x", before_.aw.addr, now.aw.addr);
        }
        if (waits_w_ && (!now.w.valid || now.w.last != before_.w.last || now.w.strb != before_.w.strb ||
                         std::memcmp(now.w.data, before_.w.data, port_bytes_))) {
            fail("W changed before WREADY");
        }
    }

    template <typename... Args>
    void fail(const char* format, Args... args) {
        if (!error_.empty()) return;
        char text[400];
        const int used = std::snprintf(text, sizeof text, "cycle %llu: ", static_cast<unsigned long long>(cycle_));
        if constexpr (sizeof...(args) == 0) std::snprintf(text + used, sizeof text - used, "%s", format);
        else std::snprintf(text + used, sizeof text - used, format, args...);
        error_ = text;
    }

    const unsigned port_bytes_;
    const Timing timing_;
    uint8_t* bytes_ = nullptr;
    uint64_t random_ = 1, cycle_ = 0, fault_base_ = 0, fault_limit_ = 0;
    uint32_t fault_resp_ = 2, silent_ = 0;
    bool fault_only_beats_ = false;
    bool was_read_ = false, waits_ar_ = false, waits_aw_ = false, waits_w_ = false;
    ManagerPins before_;
    MemoryPins pins_;
    std::deque<Burst> reads_, writes_;
    std::deque<WriteBeat> early_;
    std::vector<Window> windows_;
    std::string error_;
};

}  // namespace convoy
