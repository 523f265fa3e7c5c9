// Reads one launch from standard input, runs it, writes all buffers to standard output.
//
// In, as 32-bit words: order, seed, grid x and y, threads, bytes of shared memory; number of buffers, their lengths;
// number of arguments, for each (0, buffer) or (1, number); then the buffers. Argument of the program: the kernel.

#pragma once

#include <map>
#include <string>
#include <tuple>

#include "device.hpp"

namespace shim {

/// Words on both sides of a buffer that no kernel may change.
constexpr size_t MARGIN = 16;

struct Job {
    std::vector<std::vector<uint32_t>> buffers;
    std::vector<uint32_t> arguments;

    template <class T>
    T argument(size_t index) {
        const uint32_t kind = arguments.at(2 * index), value = arguments.at(2 * index + 1);
        if constexpr (std::is_pointer_v<T>) {
            if (kind != 0) {
                fail("argument %zu must be a buffer", index);
            }
            return reinterpret_cast<T>(buffers.at(value).data() + MARGIN);
        } else {
            if (kind != 1) {
                fail("argument %zu must be a number", index);
            }
            return value;
        }
    }
};

inline uint32_t word() {
    uint32_t value;
    if (fread(&value, 4, 1, stdin) != 1) {
        fail("the job ends too early");
    }
    return value;
}

template <class... A, size_t... I>
std::function<void()> bound(void (*function)(A...), Job& job, std::index_sequence<I...>) {
    if (job.arguments.size() != 2 * sizeof...(A)) {
        fail("the kernel has %zu arguments, %zu are given", sizeof...(A), job.arguments.size() / 2);
    }
    std::tuple<A...> arguments{job.argument<A>(I)...};
    return [function, arguments] { std::apply(function, arguments); };
}

using Binder = std::function<std::function<void()>(Job&)>;

template <class... A>
Binder binder(void (*function)(A...)) {
    return [function](Job& job) { return bound(function, job, std::index_sequence_for<A...>()); };
}

inline int run_job(const std::map<std::string, Binder>& kernels, const char* name) {
    const Order order = static_cast<Order>(word());
    const uint32_t seed = word(), x = word(), y = word(), threads = word(), shared_bytes = word();
    Job job;
    for (uint32_t count = word(); count > 0; --count) {
        job.buffers.emplace_back(word() + 2 * MARGIN, POISON);
    }
    for (uint32_t count = 2 * word(); count > 0; --count) {
        job.arguments.push_back(word());
    }
    for (auto& buffer : job.buffers) {
        const size_t length = buffer.size() - 2 * MARGIN;
        if (fread(buffer.data() + MARGIN, 4, length, stdin) != length) {
            fail("the job ends too early");
        }
    }
    launch({x, y, 1}, threads, shared_bytes, order, seed, kernels.at(name)(job));
    for (size_t b = 0; b < job.buffers.size(); ++b) {
        const auto& buffer = job.buffers[b];
        for (size_t i = 0; i < MARGIN; ++i) {
            if (buffer[i] != POISON || buffer[buffer.size() - 1 - i] != POISON) {
                fail("buffer %zu was written outside", b);
            }
        }
        fwrite(buffer.data() + MARGIN, 4, buffer.size() - 2 * MARGIN, stdout);
    }
    return 0;
}

}  // namespace shim
