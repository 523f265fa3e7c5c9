// A GPU's block of threads on one CPU thread: enough of CUDA C++ to compile and run our kernels where there is no GPU.
//
// Every CUDA thread is a fiber with its own stack. A fiber runs until it must wait: at a barrier of the block, or for
// the other lanes of its warp in a shuffle. Between two waits the fibers run one after the other in an order that the
// job chooses (forward, reverse, random), so a kernel that misses a barrier gives different results in different orders.
// Threads that wait at different barriers, or forever, are reported and end the program. Shared memory starts as NaN,
// and must not be written beyond what the launch asked for.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
// At namespace scope only: an array within a function does not compile.
#define __shared__ __thread

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

/// Dynamic shared memory: the most that any device has, and a guard behind it.
enum { SHARED_BYTES = 227 * 1024, GUARD_BYTES = 1024 };
__thread float4 shared_memory[(SHARED_BYTES + GUARD_BYTES) / 16];

namespace shim {

enum class Wait { Nothing, Block, Warp, Ended };
enum class Order : uint32_t { Forward, Reverse, Random };
constexpr uint32_t POISON = 0x7fc0dead;

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool started;
    Wait wait;
    int line;
};

struct Warp {
    unsigned waiting = 0;
    int line = 0;
    /// A fast lane may already write for the next exchange while a slow one still reads.
    unsigned half = 0;
    float values[2][32];
};

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static std::vector<Warp> warps;
static unsigned current, waiting, ended;
static int barrier_line;
static jmp_buf scheduler;
static const std::function<void()>* kernel;
constexpr size_t STACK = 64 * 1024;

[[noreturn]] inline void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "block (%u, %u): ", blockIdx.x, blockIdx.y);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(3);
}

[[noreturn]] inline void leave() { _longjmp(scheduler, 1); }

[[gnu::noinline]] inline void pause(Wait wait, int line) {
    fibers[current].wait = wait;
    fibers[current].line = line;
    if (_setjmp(fibers[current].at) == 0) {
        leave();
    }
}

inline void enter() {
    (*kernel)();
    fibers[current].wait = Wait::Ended;
    ++ended;
    leave();
}

[[gnu::noinline]] inline void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(scheduler) == 0) {
        if (fibers[thread].started) {
            _longjmp(fibers[thread].at, 1);
        }
        fibers[thread].started = true;
        setcontext(&fibers[thread].start);
    }
}

/// All threads of the block meet here.
inline void barrier(int line) {
    if (waiting > 0 && line != barrier_line) {
        fail("divergent barrier: thread %u waits at line %d, others at line %d", current, line, barrier_line);
    }
    barrier_line = line;
    if (++waiting == blockDim.x) {
        waiting = 0;
        for (Fiber& fiber : fibers) {
            fiber.wait = Wait::Nothing;
        }
        pause(Wait::Nothing, line);
    } else {
        pause(Wait::Block, line);
    }
}

/// All lanes of the warp show a value; each gets that of lane `own ^ offset`.
inline float exchange(unsigned mask, float value, unsigned offset, int line) {
    if (mask != 0xffffffffu) {
        fail("a shuffle without all lanes at line %d", line);
    }
    Warp& warp = warps[current / 32];
    const unsigned first = current / 32 * 32, lane = current % 32, half = warp.half;
    if (warp.waiting > 0 && line != warp.line) {
        fail("divergent warp: thread %u shuffles at line %d, others at line %d", current, line, warp.line);
    }
    warp.line = line;
    warp.values[half][lane] = value;
    if (++warp.waiting == 32) {
        warp.waiting = 0;
        warp.half = 1 - half;
        for (unsigned l = 0; l < 32; ++l) {
            fibers[first + l].wait = Wait::Nothing;
        }
        pause(Wait::Nothing, line);
    } else {
        pause(Wait::Warp, line);
    }
    return warps[first / 32].values[half][lane ^ offset];
}

struct Permutation {
    Order order;
    uint64_t state;
    std::vector<unsigned> places;

    Permutation(Order order, uint32_t seed) : order(order), state(seed * 0x9e3779b97f4a7c15ull + 1) {}

    const std::vector<unsigned>& next(unsigned count) {
        if (places.size() != count) {
            places.resize(count);
            for (unsigned i = 0; i < count; ++i) {
                places[i] = order == Order::Reverse ? count - 1 - i : i;
            }
        }
        for (unsigned i = count; order == Order::Random && i > 1; --i) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            std::swap(places[i - 1], places[state % i]);
        }
        return places;
    }
};

inline void run_block(Permutation& order, unsigned shared_bytes) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(shared_memory);
    for (size_t i = 0; i < sizeof shared_memory / 4; ++i) {
        shared[i] = POISON;
    }
    waiting = ended = 0;
    warps.assign(blockDim.x / 32, Warp());
    for (unsigned t = 0; t < blockDim.x; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = stacks.data() + t * STACK;
        fiber.start.uc_stack.ss_size = STACK;
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
        fiber.started = false;
        fiber.wait = Wait::Nothing;
    }
    while (ended < blockDim.x) {
        bool progress = false;
        for (unsigned thread : order.next(blockDim.x)) {
            if (fibers[thread].wait == Wait::Nothing) {
                resume(thread);
                progress = true;
            }
        }
        for (unsigned t = 0; !progress && t < blockDim.x; ++t) {
            if (fibers[t].wait != Wait::Ended) {
                fail("divergent barrier: thread %u waits forever at line %d; %u of %u threads wait at a barrier, %u "
                     "have ended",
                     t, fibers[t].line, waiting, blockDim.x, ended);
            }
        }
    }
    for (size_t i = (shared_bytes + 3) / 4; i < sizeof shared_memory / 4; ++i) {
        if (shared[i] != POISON) {
            fail("shared memory was written %zu bytes behind the %u that were asked for", 4 * i - shared_bytes,
                 shared_bytes);
        }
    }
}

inline void launch(Index grid, unsigned threads, unsigned shared_bytes, Order order, uint32_t seed,
                   const std::function<void()>& body) {
    if (threads == 0 || threads > 1024 || threads % 32 != 0 || shared_bytes > SHARED_BYTES) {
        fail("cannot launch %u threads with %u bytes of shared memory", threads, shared_bytes);
    }
    kernel = &body;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    fibers.resize(threads);
    stacks.resize(threads * STACK);
    Permutation threads_order(order, seed), blocks_order(order, seed + 1);
    for (unsigned block : blocks_order.next(grid.x * grid.y)) {
        blockIdx = {block % grid.x, block / grid.x, 0};
        run_block(threads_order, shared_bytes);
    }
}

}  // namespace shim

#define __syncthreads() shim::barrier(__LINE__)
#define __shfl_xor_sync(mask, value, offset) shim::exchange(mask, value, offset, __LINE__)
