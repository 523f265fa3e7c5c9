// Forward pass: states after both sweeps, and what the backward pass needs of every node. Follows block.cuh.

struct Forward {
    /// Rows of a node that its neighbours read.
    static constexpr u32 ROWS = FUNCTIONS;

    template <bool RESIDENT, bool HOT>
    static __device__ inline void sweep(const Shared& shared, const float* packed, const Order& order, const Sweep& s) {
        typedef Maps<RESIDENT ? PADDING : 0> Weights;
        const Weights maps = {RESIDENT ? shared.weights : packed};
        float* hot = shared.weights + Maps<PADDING>::LENGTH;
        const Rows<HOT> direct = {hot, s.saved + SENT, SAVED};
        const Rows<HOT> all = {hot + (FUNCTIONS - 1) * s.nodes * HID, s.saved + SENT + (FUNCTIONS - 1) * HID, SAVED};
        const u32 thread = threadIdx.x, threads = blockDim.x;

        Visitor visitor(shared, order);
        while (visitor.visit < order.last) {
            visitor.fetch(visitor.visit + 1);
            const uint4* visit = visitor.nodes();
            const u32 count = visit[0].w, splits = splits_of(count);
            gather<false>(shared, visit, count, splits, order.edges, direct, all);
            for (u32 t = thread; t < count * HID; t += threads) {
                shared.state[t] = s.before[static_cast<size_t>(visit[t / HID].x) * s.before_stride + t % HID];
            }
            __syncthreads();
            for (u32 t = thread; t < count * HID; t += threads) {
                const u32 slot = t / HID, i = t % HID;
                const float message = joined(shared, slot, splits, HID, i);
                shared.message[t] = message;
                s.saved[static_cast<size_t>(visit[slot].x) * SAVED + MESSAGE + i] = message;
            }
            __syncthreads();
            for (u32 t = thread; t < count * 6 * HID; t += threads) {
                const u32 slot = t / (6 * HID), row = t % (6 * HID);
                const float* x = (row < 3 * HID ? shared.message : shared.state) + slot * HID;
                shared.parts[t] = dot<HID>(maps.gates() + row * Weights::WIDE, x) + maps.gates_bias()[row];
            }
            __syncthreads();
            for (u32 t = thread; t < count * HID; t += threads) {
                const u32 slot = t / HID, i = t % HID, node = visit[slot].x;
                const float* parts = shared.parts + slot * 6 * HID + i;
                const float reset = sigmoid(parts[0] + parts[3 * HID]);
                const float update = sigmoid(parts[HID] + parts[4 * HID]);
                const float candidate = parts[5 * HID];
                const float fresh = tanhf(parts[2 * HID] + reset * candidate);
                const float after = (1.0f - update) * fresh + update * shared.state[t];
                shared.after[t] = after;
                s.states[static_cast<size_t>(node) * HID + i] = after;
                float* saved = s.saved + static_cast<size_t>(node) * SAVED + i;
                saved[RESET] = reset;
                saved[UPDATE] = update;
                saved[NEW] = fresh;
                saved[CANDIDATE] = candidate;
                saved[AFTER] = after;
            }
            __syncthreads();
            for (u32 t = thread; t < count * FUNCTIONS * HIDDEN; t += threads) {
                const u32 slot = t / (FUNCTIONS * HIDDEN), f = t / HIDDEN % FUNCTIONS, j = t % HIDDEN;
                const float sum =
                    dot<HID>(maps.first(f) + j * Weights::WIDE, shared.after + slot * HID) + maps.first_bias(f)[j];
                const float active = sum > 0.0f ? sum : 0.0f;
                shared.active[t] = active;
                s.saved[static_cast<size_t>(visit[slot].x) * SAVED + ACTIVE + f * HIDDEN + j] = active;
            }
            __syncthreads();
            for (u32 t = thread; t < count * FUNCTIONS * HID; t += threads) {
                const u32 slot = t / (FUNCTIONS * HID), f = t / HID % FUNCTIONS, i = t % HID, node = visit[slot].x;
                const float* active = shared.active + (slot * FUNCTIONS + f) * HIDDEN;
                const float sum = dot<HIDDEN>(maps.second(f) + i * Weights::NARROW, active) + maps.second_bias(f)[i];
                const float sent = sum > 0.0f ? sum : 0.0f;
                s.saved[static_cast<size_t>(node) * SAVED + SENT + f * HID + i] = sent;
                if (HOT) {
                    (f == 0 ? direct : all).of(node)[i] = sent;
                }
            }
            visitor.advance();
        }
    }
};

/// Both sweeps. `graphs [n + 1]`: first node of each graph; `first_* [n + 1]`: its first visit in the sweep over
/// incoming and over outgoing edges; `saved [2][nodes][SAVED]`; `out [nodes][HID]`. One block for each graph.
extern "C" __global__ void __launch_bounds__(512, 1)
message_passing_forward(const float* states, const float* packed, const u32* graphs, const u32* first_in,
                        const uint4* visits_in, const u32* edges_in, const u32* first_out, const uint4* visits_out,
                        const u32* edges_out, float* saved, float* out, u32 nodes, u32 shared_floats) {
    const Shared shared;
    prepare(shared, packed, shared_floats);
    const u32 graph = blockIdx.x, first = graphs[graph];
    for (u32 which = 0; which < 2; ++which) {
        const Order order = which == 0 ? Order{first_in[graph], first_in[graph + 1], visits_in, edges_in}
                                       : Order{first_out[graph], first_out[graph + 1], visits_out, edges_out};
        float* rows = saved + static_cast<size_t>(first) * SAVED;
        Sweep s = {};
        s.nodes = graphs[graph + 1] - first;
        s.before = which == 0 ? states + static_cast<size_t>(first) * HID : rows + AFTER;
        s.before_stride = which == 0 ? HID : SAVED;
        s.saved = rows + static_cast<size_t>(which) * nodes * SAVED;
        s.states = out + static_cast<size_t>(first) * HID;
        run<Forward>(shared, packed, order, s, shared_floats);
    }
}
