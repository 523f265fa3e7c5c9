// Backward pass: the gradient of the states before both sweeps, and of every node's maps their results' gradients,
// from which weight_gradient.cu makes that of the weights. Follows block.cuh.

struct Backward {
    /// Rows of a node that its neighbours read.
    static constexpr u32 ROWS = 1;

    template <bool RESIDENT, bool HOT>
    static __device__ inline void sweep(const Shared& shared, const float* packed, const Order& order, const Sweep& s) {
        typedef Maps<RESIDENT ? PADDING : 0> Weights;
        const Weights maps = {RESIDENT ? shared.weights : packed};
        const Rows<HOT> by_message = {shared.weights + Maps<PADDING>::LENGTH, s.deltas + BY_MESSAGE, DELTAS};
        const u32 thread = threadIdx.x, threads = blockDim.x;

        Visitor visitor(shared, order);
        while (visitor.visit < order.last) {
            visitor.fetch(visitor.visit + 1);
            const uint4* visit = visitor.nodes();
            const u32 count = visit[0].w, splits = splits_of(count);
            gather<true>(shared, visit, count, splits, order.edges, by_message, by_message);
            __syncthreads();
            // Through the second ReLU.
            for (u32 t = thread; t < count * FUNCTIONS * HID; t += threads) {
                const u32 slot = t / (FUNCTIONS * HID), i = t % (FUNCTIONS * HID), node = visit[slot].x;
                const bool open = s.saved[static_cast<size_t>(node) * SAVED + SENT + i] > 0.0f;
                const float by_sent = open ? joined(shared, slot, splits, FUNCTIONS * HID, i) : 0.0f;
                shared.sent[t] = by_sent;
                s.deltas[static_cast<size_t>(node) * DELTAS + BY_SENT + i] = by_sent;
            }
            __syncthreads();
            // Through the second layer and the first ReLU.
            for (u32 t = thread; t < count * FUNCTIONS * HIDDEN; t += threads) {
                const u32 slot = t / (FUNCTIONS * HIDDEN), f = t / HIDDEN % FUNCTIONS, j = t % HIDDEN;
                const u32 node = visit[slot].x;
                const float* by_sent = shared.sent + (slot * FUNCTIONS + f) * HID;
                const bool open = s.saved[static_cast<size_t>(node) * SAVED + ACTIVE + f * HIDDEN + j] > 0.0f;
                const float sum = column_dot<HID, Weights::NARROW>(maps.second(f) + j, by_sent);
                const float by_active = open ? sum : 0.0f;
                shared.active[t] = by_active;
                s.deltas[static_cast<size_t>(node) * DELTAS + BY_ACTIVE + f * HIDDEN + j] = by_active;
            }
            __syncthreads();
            // Through the first layer, then the gates; `parts` holds the gradients [SLOTS][4 HID] before them.
            for (u32 t = thread; t < count * HID; t += threads) {
                const u32 slot = t / HID, i = t % HID, node = visit[slot].x;
                float by_after = s.states[static_cast<size_t>(node) * HID + i];
                for (u32 f = 0; f < FUNCTIONS; ++f) {
                    const float* by_active = shared.active + (slot * FUNCTIONS + f) * HIDDEN;
                    by_after += column_dot<HIDDEN, Weights::WIDE>(maps.first(f) + i, by_active);
                }
                const float* saved = s.saved + static_cast<size_t>(node) * SAVED + i;
                const float before = s.before[static_cast<size_t>(node) * s.before_stride + i];
                const float reset = saved[RESET], update = saved[UPDATE], fresh = saved[NEW];
                const float by_new = by_after * (1.0f - update) * (1.0f - fresh * fresh);
                const float gates[4] = {
                    by_new * saved[CANDIDATE] * reset * (1.0f - reset),
                    by_after * (before - fresh) * update * (1.0f - update),
                    by_new,
                    by_new * reset,
                };
                float* deltas = s.deltas + static_cast<size_t>(node) * DELTAS + GATES + i;
                for (u32 g = 0; g < 4; ++g) {
                    shared.parts[(slot * 4 + g) * HID + i] = gates[g];
                    deltas[g * HID] = gates[g];
                }
                shared.state[t] = by_after * update;
            }
            __syncthreads();
            // To the message and to the state before.
            for (u32 t = thread; t < count * 2 * HID; t += threads) {
                const u32 slot = t / (2 * HID), i = t % HID, node = visit[slot].x;
                const bool to_state = t / HID % 2 == 1;
                const float* gates = shared.parts + slot * 4 * HID;
                const float* column = maps.gates() + (to_state ? Weights::GATE_WEIGHTS : 0) + i;
                const float* last = gates + (to_state ? 3 : 2) * HID;
                const float sum = column_dot<2 * HID, Weights::WIDE>(column, gates) +
                                  column_dot<HID, Weights::WIDE>(column + 2 * HID * Weights::WIDE, last);
                if (to_state) {
                    s.states[static_cast<size_t>(node) * HID + i] = shared.state[slot * HID + i] + sum;
                } else {
                    by_message.of(node)[i] = sum;
                }
            }
            visitor.advance();
        }
    }
};

/// Both sweeps back, the last one first. A sweep is undone in the visits of the other: successors come before a
/// node, and they are who heard it. `grad [nodes][HID]`: of the states after both sweeps; `deltas
/// [2][nodes][DELTAS]`; `by_states [nodes][HID]`: of the states before. One block for each graph.
extern "C" __global__ void __launch_bounds__(512, 1)
message_passing_backward(const float* states, const float* packed, const u32* graphs, const u32* first_in,
                         const uint4* visits_in, const u32* edges_in, const u32* first_out, const uint4* visits_out,
                         const u32* edges_out, float* saved, const float* grad, float* deltas, float* by_states,
                         u32 nodes, u32 shared_floats) {
    const Shared shared;
    prepare(shared, packed, shared_floats);
    const u32 graph = blockIdx.x, first = graphs[graph], end = graphs[graph + 1];
    const size_t values_end = static_cast<size_t>(end) * HID;
    for (size_t t = static_cast<size_t>(first) * HID + threadIdx.x; t < values_end; t += blockDim.x) {
        by_states[t] = grad[t];
    }
    for (u32 which = 2; which-- > 0;) {
        const Order order = which == 1 ? Order{first_in[graph], first_in[graph + 1], visits_in, edges_in}
                                       : Order{first_out[graph], first_out[graph + 1], visits_out, edges_out};
        float* rows = saved + static_cast<size_t>(first) * SAVED;
        Sweep s = {};
        s.nodes = end - first;
        s.before = which == 0 ? states + static_cast<size_t>(first) * HID : rows + AFTER;
        s.before_stride = which == 0 ? HID : SAVED;
        s.saved = rows + static_cast<size_t>(which) * nodes * SAVED;
        s.deltas = deltas + (static_cast<size_t>(which) * nodes + first) * DELTAS;
        s.states = by_states + static_cast<size_t>(first) * HID;
        run<Backward>(shared, packed, order, s, shared_floats);
    }
}
