// Gated message passing over a batch of graphs (arXiv 2110.13100, equations 3 and 4): what a block of threads needs
// for a sweep over one graph, forward (forward.cu) or backward (backward.cu). This text stands before theirs.
//
// In: node states [nodes, HID], the packed weights (order of `Weights::tensors`), and for both sweeps the visits:
// groups of up to SLOTS nodes whose neighbours were all visited before. All floats are f32.
//
// One block of threads sweeps one graph from its first visit to its last in one launch, with barriers of the block
// between the steps of a visit. Weights and the rows that neighbours read lie in shared memory as far as it
// reaches, else in global memory. No thread adds to what another thread wrote: every sum has one owner and a fixed
// order, so results are the same in every run for a given number of threads.
//
// Sizes are compiled in: HID and HIDDEN (multiples of 8 and 4), FUNCTIONS (1: direct neighbours; 2: virtual edges).

#if !defined(HID) || !defined(HIDDEN) || !defined(FUNCTIONS)
#error "HID, HIDDEN and FUNCTIONS must be defined"
#endif
static_assert(HID % 8 == 0 && HIDDEN % 4 == 0 && (FUNCTIONS == 1 || FUNCTIONS == 2), "sizes that rows of float4 allow");

typedef unsigned int u32;

// Constants are enumerators: each program uses its own part of them.
enum : u32 {
    WARP = 32,
    ALL_LANES = 0xffffffffu,
    /// Nodes of a visit at most; `cuda.rs` fills the visits.
    SLOTS = 8,
    /// Warps that gather for one visit at most: each writes a partial sum.
    GATHERS = 16,
    /// Floats after each row of weights in shared memory: rows start in different banks.
    PADDING = 4,
};

/// How a warp reads rows: ROW_LANES lanes read one together, a float4 each, ROW_PARTS times.
enum : u32 {
    WORDS = HID / 4,
    ROW_LANES = WORDS <= 2 ? 2 : WORDS <= 4 ? 4 : WORDS <= 8 ? 8 : WORDS <= 16 ? 16 : 32,
    ROW_PARTS = (WORDS + ROW_LANES - 1) / ROW_LANES,
    ROWS_AT_ONCE = WARP / ROW_LANES,
};

/// What the forward pass keeps of a node in one sweep: a row of SAVED floats.
enum : u32 {
    MESSAGE = 0,
    RESET = HID,
    UPDATE = 2 * HID,
    NEW = 3 * HID,
    /// The state's part of the new gate, before the reset gate multiplies it.
    CANDIDATE = 4 * HID,
    AFTER = 5 * HID,
    /// Per function: what the node sends.
    SENT = 6 * HID,
    /// Per function: the hidden activations of that.
    ACTIVE = SENT + FUNCTIONS * HID,
    SAVED = ACTIVE + FUNCTIONS * HIDDEN,
};

/// What the backward pass keeps of a node in one sweep, for the gradient of the weights: a row of DELTAS floats.
enum : u32 {
    /// Before the gates reset, update, new (the message's side), new (the state's side).
    GATES = 0,
    BY_SENT = 4 * HID,
    BY_ACTIVE = BY_SENT + FUNCTIONS * HID,
    BY_MESSAGE = BY_ACTIVE + FUNCTIONS * HIDDEN,
    DELTAS = BY_MESSAGE + HID,
};

extern __shared__ float4 shared_memory[];

__device__ inline float4 load4(const float* at) { return *reinterpret_cast<const float4*>(at); }

__device__ inline void add_product(float4& sum, float factor, const float4& row) {
    sum.x += factor * row.x;
    sum.y += factor * row.y;
    sum.z += factor * row.z;
    sum.w += factor * row.w;
}

/// Sum over N values of `row[i] * x[i]`.
template <u32 N>
__device__ inline float dot(const float* row, const float* x) {
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
    for (u32 i = 0; i < N; i += 4) {
        const float4 a = load4(row + i), b = load4(x + i);
        sum.x += a.x * b.x;
        sum.y += a.y * b.y;
        sum.z += a.z * b.z;
        sum.w += a.w * b.w;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

/// Sum over N rows of `column[o * STRIDE] * x[o]`.
template <u32 N, u32 STRIDE>
__device__ inline float column_dot(const float* column, const float* x) {
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
    for (u32 o = 0; o < N; o += 4) {
        const float4 b = load4(x + o);
        sum.x += column[o * STRIDE] * b.x;
        sum.y += column[(o + 1) * STRIDE] * b.y;
        sum.z += column[(o + 2) * STRIDE] * b.z;
        sum.w += column[(o + 3) * STRIDE] * b.w;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// Where the weights lie in a copy whose rows are followed by PAD unused floats.
template <u32 PAD>
struct Maps {
    static constexpr u32 WIDE = HID + PAD, NARROW = HIDDEN + PAD;
    static constexpr u32 FUNCTION = HIDDEN * WIDE + HIDDEN + HID * NARROW + HID;
    static constexpr u32 GATE_WEIGHTS = 3 * HID * WIDE;
    static constexpr u32 LENGTH = FUNCTIONS * FUNCTION + 2 * GATE_WEIGHTS + 6 * HID;

    const float* base;

    /// First layer of message function `f`: rows [HIDDEN][WIDE].
    __device__ const float* first(u32 f) const { return base + f * FUNCTION; }
    __device__ const float* first_bias(u32 f) const { return first(f) + HIDDEN * WIDE; }
    /// Second layer: rows [HID][NARROW].
    __device__ const float* second(u32 f) const { return first_bias(f) + HIDDEN; }
    __device__ const float* second_bias(u32 f) const { return second(f) + HID * NARROW; }
    /// Gates: rows [6 HID][WIDE], those of the message before those of the state.
    __device__ const float* gates() const { return base + FUNCTIONS * FUNCTION; }
    __device__ const float* gates_bias() const { return gates() + 2 * GATE_WEIGHTS; }
};

/// A block's shared memory, in floats: what every visit needs, then weights, then rows that neighbours read.
struct Shared {
    static constexpr u32 RECIPROCALS = 256;
    static constexpr u32 VISITS = 2 * SLOTS * 4;
    /// Partial sums of the gather, then the parts of the gates.
    static constexpr u32 PARTS = SLOTS * 6 * HID;
    static_assert(GATHERS * FUNCTIONS * HID <= PARTS, "partial sums fit where the gates' parts do");
    static constexpr u32 ROWS = SLOTS * HID;
    static constexpr u32 LENGTH = RECIPROCALS + VISITS + PARTS + 3 * ROWS + SLOTS * FUNCTIONS * (HIDDEN + HID);

    float* reciprocals;
    uint4* visits;
    float* parts;
    /// Rows [SLOTS][HID] each.
    float* message;
    float* state;
    float* after;
    /// [SLOTS][FUNCTIONS][HIDDEN] and [SLOTS][FUNCTIONS][HID].
    float* active;
    float* sent;
    float* weights;

    __device__ Shared() {
        reciprocals = reinterpret_cast<float*>(shared_memory);
        visits = reinterpret_cast<uint4*>(reciprocals + RECIPROCALS);
        parts = reciprocals + RECIPROCALS + VISITS;
        message = parts + PARTS;
        state = message + ROWS;
        after = state + ROWS;
        active = after + ROWS;
        sent = active + SLOTS * FUNCTIONS * HIDDEN;
        weights = sent + SLOTS * FUNCTIONS * HID;
    }
};

/// Fills the table of `1 / distance` and copies the weights if they fit.
__device__ inline void prepare(const Shared& shared, const float* packed, u32 shared_floats) {
    for (u32 d = threadIdx.x; d < Shared::RECIPROCALS; d += blockDim.x) {
        shared.reciprocals[d] = 1.0f / static_cast<float>(d > 0 ? d : 1);
    }
    if (Shared::LENGTH + Maps<PADDING>::LENGTH <= shared_floats) {
        typedef Maps<0> Tight;
        typedef Maps<PADDING> Padded;
        for (u32 i = threadIdx.x; i < Tight::LENGTH; i += blockDim.x) {
            u32 to;
            if (i < FUNCTIONS * Tight::FUNCTION) {
                constexpr u32 FIRST = HIDDEN * HID, SECOND = FIRST + HIDDEN, LAST = SECOND + HID * HIDDEN;
                const u32 f = i / Tight::FUNCTION, at = i % Tight::FUNCTION;
                to = f * Padded::FUNCTION + at;
                to += at < FIRST ? at / HID * PADDING : HIDDEN * PADDING;
                to += at < SECOND ? 0 : at < LAST ? (at - SECOND) / HIDDEN * PADDING : HID * PADDING;
            } else {
                const u32 at = i - FUNCTIONS * Tight::FUNCTION;
                to = FUNCTIONS * Padded::FUNCTION + at;
                to += at < 2 * Tight::GATE_WEIGHTS ? at / HID * PADDING : 6 * HID * PADDING;
            }
            shared.weights[to] = packed[i];
        }
    }
}

/// Visits of one sweep over the graph of this block.
struct Order {
    u32 first;
    u32 last;
    /// [visits][SLOTS]: node (within its graph), its first edge, the end of its edges, nodes of the visit.
    const uint4* visits;
    /// Neighbour (within its graph) in the lower 24 bits, distance above.
    const u32* edges;
};

/// What is gathered: rows of neighbours, in shared memory (HOT) or in global memory.
template <bool HOT>
struct Rows {
    float* hot;
    float* cold;
    u32 stride;

    __device__ float* of(u32 node) const {
        return HOT ? hot + node * HID : cold + static_cast<size_t>(node) * stride;
    }
};

/// Warps that share the edges of each of `count` nodes.
__device__ inline u32 splits_of(u32 count) {
    const u32 warps = blockDim.x / WARP < GATHERS ? blockDim.x / WARP : GATHERS;
    return warps > count ? warps / count : 1;
}

/// Partial sums over the neighbours of every node of a visit.
///
/// SEPARATE: `first` rows over direct neighbours and over all neighbours by 1 / distance are kept apart
/// (partial[split of node][FUNCTIONS][HID]); else `first` rows of direct neighbours and `second` rows of all
/// neighbours are added up (partial[split of node][HID]).
template <bool SEPARATE, bool HOT>
__device__ inline void gather(const Shared& shared, const uint4* visit, u32 count, u32 splits, const u32* edges,
                              const Rows<HOT>& first, const Rows<HOT>& second) {
    constexpr u32 SUMS = SEPARATE ? FUNCTIONS : 1;
    const u32 warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
    for (u32 task = threadIdx.x / WARP; task < count * splits; task += warps) {
        const uint4 node = visit[task / splits];
        for (u32 part = 0; part < ROW_PARTS; ++part) {
            const u32 column = 4 * (part * ROW_LANES + lane % ROW_LANES);
            float4 sums[SUMS];
            for (u32 s = 0; s < SUMS; ++s) {
                sums[s] = float4{0.0f, 0.0f, 0.0f, 0.0f};
            }
            if (column < HID) {
                const u32 start = node.y + task % splits * ROWS_AT_ONCE + lane / ROW_LANES;
#pragma unroll 4
                for (u32 e = start; e < node.z; e += splits * ROWS_AT_ONCE) {
                    const u32 edge = edges[e], neighbour = edge & 0xffffffu, distance = edge >> 24;
                    if (FUNCTIONS == 2) {
                        const float4 row = load4((SEPARATE ? first : second).of(neighbour) + column);
                        add_product(sums[SUMS - 1], shared.reciprocals[distance], row);
                    }
                    if (distance == 1) {
                        add_product(sums[0], 1.0f, load4(first.of(neighbour) + column));
                    }
                }
            }
            for (u32 s = 0; s < SUMS; ++s) {
                for (u32 offset = ROW_LANES; offset < WARP; offset *= 2) {
                    sums[s].x += __shfl_xor_sync(ALL_LANES, sums[s].x, offset);
                    sums[s].y += __shfl_xor_sync(ALL_LANES, sums[s].y, offset);
                    sums[s].z += __shfl_xor_sync(ALL_LANES, sums[s].z, offset);
                    sums[s].w += __shfl_xor_sync(ALL_LANES, sums[s].w, offset);
                }
                if (lane < ROW_LANES && column < HID) {
                    *reinterpret_cast<float4*>(shared.parts + (task * SUMS + s) * HID + column) = sums[s];
                }
            }
        }
    }
}

/// Sum of the partial sums of value `i` of `width` values of the node in `slot`.
__device__ inline float joined(const Shared& shared, u32 slot, u32 splits, u32 width, u32 i) {
    float sum = 0.0f;
    for (u32 split = 0; split < splits; ++split) {
        sum += shared.parts[(slot * splits + split) * width + i];
    }
    return sum;
}

/// Visits of a sweep one after the other; while one is worked on, the next is fetched.
struct Visitor {
    const Shared& shared;
    const Order& order;
    u32 visit;
    u32 half;
    uint4 next;

    /// Ends with a barrier.
    __device__ Visitor(const Shared& shared, const Order& order)
        : shared(shared), order(order), visit(order.first), half(0), next() {
        fetch(visit);
        store(0);
        __syncthreads();
    }
    __device__ bool fetches(u32 which) const { return threadIdx.x < SLOTS && which < order.last; }
    __device__ void fetch(u32 which) {
        if (fetches(which)) {
            next = order.visits[which * SLOTS + threadIdx.x];
        }
    }
    __device__ void store(u32 to) {
        if (threadIdx.x < SLOTS) {
            shared.visits[to * SLOTS + threadIdx.x] = next;
        }
    }
    __device__ const uint4* nodes() const { return shared.visits + half * SLOTS; }
    /// Ends with a barrier.
    __device__ void advance() {
        half = 1 - half;
        store(half);
        ++visit;
        __syncthreads();
    }
};

/// Arguments of both kernels for one sweep over one graph.
struct Sweep {
    /// Nodes of the graph.
    u32 nodes;
    /// States before the sweep, rows `before_stride` apart, from the graph's first node on.
    const float* before;
    u32 before_stride;
    /// The graph's rows [nodes][SAVED] and [nodes][DELTAS] of this sweep.
    float* saved;
    float* deltas;
    /// The graph's rows [nodes][HID]: states after the sweep, or their gradient.
    float* states;
};

/// One sweep over this block's graph, with as much in shared memory as fits into `shared_floats`: the weights, then
/// `Kind::ROWS` rows for each node.
template <class Kind>
__device__ inline void run(const Shared& shared, const float* packed, const Order& order, const Sweep& sweep,
                           u32 shared_floats) {
    const u32 used = Shared::LENGTH + Maps<PADDING>::LENGTH;
    if (used > shared_floats) {
        Kind::template sweep<false, false>(shared, packed, order, sweep);
    } else if (sweep.nodes > (shared_floats - used) / (Kind::ROWS * HID)) {
        Kind::template sweep<true, false>(shared, packed, order, sweep);
    } else {
        Kind::template sweep<true, true>(shared, packed, order, sweep);
    }
}
