// Kernels with and without planted faults, to show that the shim finds them.

extern __shared__ float4 shared_memory[];

/// `out[i]` becomes the value of the next thread, through shared memory.
__device__ inline void neighbour(const float* in, float* out, bool wait, unsigned next) {
    float* shared = reinterpret_cast<float*>(shared_memory);
    shared[threadIdx.x] = in[threadIdx.x];
    if (wait) {
        __syncthreads();
    }
    out[threadIdx.x] = shared[next % blockDim.x];
}

extern "C" __global__ void right(const float* in, float* out) { neighbour(in, out, true, threadIdx.x + 1); }

/// The barrier is missing, and the next thread is read.
extern "C" __global__ void race_up(const float* in, float* out) { neighbour(in, out, false, threadIdx.x + 1); }

/// The same, and the thread before is read: right where threads run in ascending order, but for the first.
extern "C" __global__ void race_down(const float* in, float* out) {
    neighbour(in, out, false, threadIdx.x > 0 ? threadIdx.x - 1 : 0);
}

/// Sum over a warp in every lane.
extern "C" __global__ void warp_sum(const float* in, float* out) {
    float sum = in[threadIdx.x];
    for (unsigned offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    out[threadIdx.x] = sum;
}

/// Half of the threads do not come to the barrier.
extern "C" __global__ void absent(const float* in, float* out) {
    if (threadIdx.x < blockDim.x / 2) {
        __syncthreads();
    }
    out[threadIdx.x] = in[threadIdx.x];
}

/// Two barriers where there should be one.
extern "C" __global__ void two_barriers(const float* in, float* out) {
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = in[threadIdx.x];
}

/// Some lanes leave before the shuffle.
extern "C" __global__ void divergent_shuffle(const float* in, float* out) {
    if (threadIdx.x % 32 < 5) {
        return;
    }
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);
}

/// Writes one value too many into shared memory.
extern "C" __global__ void beyond_shared(const float* in, float* out) {
    reinterpret_cast<float*>(shared_memory)[threadIdx.x + 1] = in[threadIdx.x];
    out[threadIdx.x] = in[threadIdx.x];
}

/// Writes before its result.
extern "C" __global__ void before_buffer(const float* in, float* out) { *(out + threadIdx.x - 1) = in[threadIdx.x]; }

/// Reads shared memory that nobody wrote.
extern "C" __global__ void unwritten(const float* in, float* out) {
    out[threadIdx.x] = in[threadIdx.x] + reinterpret_cast<float*>(shared_memory)[threadIdx.x];
}
