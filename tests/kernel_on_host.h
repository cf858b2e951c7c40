// What a .cu file needs to be C++: see kernel_on_host.py. A thread of a block is a stack; one of them runs at a time.

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

using std::abs;
using std::max;
using std::min;
using std::fmaf;

struct Place3 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static Place3 threadIdx, blockIdx, blockDim;

namespace host {

constexpr int WARP = 32;
constexpr std::size_t STACK = 64 << 10;

// Threads that wait for one another, and what they hand round there: one box for this meeting and one for the last,
// since a thread may come to the next meeting before another has read the boxes of this one.
struct Meeting {
    int arrived = 0, line = 0;
    unsigned turn = 0;
    std::uint64_t given[2][WARP];
};

struct Thread {
    ucontext_t first;
    std::jmp_buf at;
    std::unique_ptr<char[]> stack{new char[STACK]};
    Meeting* waits_for = nullptr;
    unsigned until = 0;
    bool started = false, ended = true;
};

static std::vector<Thread> threads;
static std::vector<Meeting> warps;
static Meeting block;
static int alive, running;
static std::vector<int> alive_in_warp;
static std::jmp_buf scheduler;
static std::uint32_t seed = 1;
static const std::function<void()>* body;

[[noreturn]] inline void give_up(const char* what, int line)
{
    std::fprintf(stderr, "thread %d of block (%d, %d), line %d: %s\n", running, blockIdx.x, blockIdx.y, line, what);
    std::abort();
}

inline void suspend()
{
    if (!_setjmp(threads[running].at)) _longjmp(scheduler, 1);
}

inline void meet(Meeting& here, int members, int line)
{
    if (here.arrived && here.line != line) give_up("others of the warp or block are at another line", line);
    here.line = line;
    unsigned turn = here.turn;
    if (++here.arrived == members) {
        here.arrived = 0, ++here.turn;
    }
    threads[running].waits_for = &here, threads[running].until = turn + 1;
    suspend();
}

inline std::uint64_t* exchange(std::uint64_t value, unsigned mask, int line)
{
    int warp = running / WARP;
    if (mask != ~0u || alive_in_warp[warp] != WARP) give_up("only whole warps may meet", line);
    Meeting& here = warps[warp];
    std::uint64_t* given = here.given[here.turn & 1];
    given[running % WARP] = value;
    meet(here, WARP, line);
    return given;
}

template <typename T> inline T shuffle(T value, int from, unsigned mask, int line)
{
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(bits, mask, line)[from & WARP - 1];
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

inline void enter()
{
    for (;;) {   // a stack serves block after block: to make one costs more than to run on it
        (*body)();
        Thread& own = threads[running];
        own.ended = true, --alive, --alive_in_warp[running / WARP];
        if (block.arrived) give_up("ended while the block waits", block.line);
        if (warps[running / WARP].arrived) give_up("ended while its warp waits", warps[running / WARP].line);
        suspend();
    }
}

inline void resume(int thread)
{
    Thread& next = threads[thread];
    running = thread, threadIdx = {thread, 0};
    if (_setjmp(scheduler)) return;
    if (next.started) _longjmp(next.at, 1);
    next.started = true;
    getcontext(&next.first);
    next.first.uc_stack.ss_sp = next.stack.get(), next.first.uc_stack.ss_size = STACK, next.first.uc_link = nullptr;
    makecontext(&next.first, enter, 0);
    setcontext(&next.first);
}

inline void run_block(int count)
{
    int whole = (count + WARP - 1) / WARP;
    if ((int)threads.size() != count) threads = std::vector<Thread>(count);
    warps.assign(whole, {}), alive_in_warp.assign(whole, 0), block = {}, alive = count;
    for (int thread = 0; thread < count; ++thread) {
        threads[thread].ended = false, threads[thread].waits_for = nullptr;
        ++alive_in_warp[thread / WARP];
    }
    while (alive) {
        bool went = false;
        for (int warp = 0; warp < whole; ++warp) {
            seed = seed * 1664525u + 1013904223u;
            int flip = seed >> 27;   // another order of the lanes each time
            for (int lane = 0; lane < WARP; ++lane) {
                int thread = warp * WARP + (lane ^ flip);
                if (thread >= count || threads[thread].ended) continue;
                Meeting* meeting = threads[thread].waits_for;
                if (meeting && meeting->turn != threads[thread].until) continue;
                threads[thread].waits_for = nullptr, went = true;
                resume(thread);
            }
        }
        if (!went) give_up("nobody can go on", 0);
    }
}

}  // namespace host

inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int k = 0; k < 32; k += 8) c += (a >> k & 255) * (b >> k & 255);
    return c;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((std::uint64_t)high << 32 | low) >> (by & 31));
}

inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned by)
{
    return by >= 32 ? low : (unsigned)((((std::uint64_t)high << 32 | low) << by) >> 32);
}

inline void __syncthreads(int line = __builtin_LINE()) { host::meet(host::block, host::alive, line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { host::exchange(0, mask, line); }

template <typename T> inline T __shfl_sync(unsigned mask, T value, int from, int line = __builtin_LINE())
{
    return host::shuffle(value, from, mask, line);
}

template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int flip, int line = __builtin_LINE())
{
    return host::shuffle(value, host::running % host::WARP ^ flip, mask, line);
}

template <typename T> inline T __shfl_up_sync(unsigned mask, T value, int by, int line = __builtin_LINE())
{
    int lane = host::running % host::WARP;
    return host::shuffle(value, lane < by ? lane : lane - by, mask, line);
}

template <typename T> inline T __shfl_down_sync(unsigned mask, T value, int by, int line = __builtin_LINE())
{
    int lane = host::running % host::WARP;
    return host::shuffle(value, lane + by < host::WARP ? lane + by : lane, mask, line);
}

inline unsigned __ballot_sync(unsigned mask, bool vote, int line = __builtin_LINE())
{
    const std::uint64_t* votes = host::exchange(vote, mask, line);
    unsigned all = 0;
    for (int lane = 0; lane < host::WARP; ++lane) all |= (unsigned)votes[lane] << lane;
    return all;
}

template <typename T> inline T __ldg(const T* at) { return *at; }

inline float rsqrtf(float v) { return (float)(1.0 / std::sqrt((double)v)); }

inline float __uint_as_float(unsigned bits)
{
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

inline unsigned __float_as_uint(float v)
{
    unsigned bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}

// Of a sum below 2^24 in size and not near 0, which a double holds: rounded down.
inline float rounded_down(double v)
{
    float nearest = (float)v;
    return nearest > v ? std::nextafter(nearest, -INFINITY) : nearest;
}

inline float __fadd_rd(float a, float b) { return rounded_down((double)a + b); }
inline float __fmaf_rd(float a, float b, float c) { return rounded_down((double)a * b + c); }

inline int __clz(unsigned bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }
inline int __ffsll(unsigned long long bits) { return __builtin_ffsll((long long)bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select)
{
    std::uint64_t both = (std::uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int k = 0; k < 4; ++k) out |= (unsigned)(both >> 8 * (select >> 4 * k & 7) & 255) << 8 * k;
    return out;
}

inline int atomicAdd(int* at, int value)
{
    int old = *at;
    *at += value;
    return old;
}

template <typename T> inline T atomicOr(T* at, T bits)
{
    T old = *at;
    *at |= bits;
    return old;
}

inline void launch(int across, int down, int threads, const std::function<void()>& body)
{
    host::body = &body, blockDim = {threads, 1};
    for (int y = 0; y < down; ++y) {
        for (int x = 0; x < across; ++x) {
            blockIdx = {x, y};
            host::run_block(threads);
        }
    }
}
