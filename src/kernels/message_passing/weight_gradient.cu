// The gradient of the weights from what both sweeps kept of every node: partial sums over runs of nodes, then their
// sum in order. Follows block.cuh.

/// A map's gradient from rows of nodes: `outputs` values of `deltas` from `delta` on, `inputs` values from `x` on.
struct Outer {
    u32 outputs;
    u32 inputs;
    /// Where its weights [outputs][inputs] and its biases lie in the packed vector.
    u32 weight;
    u32 bias;
};

/// Threads for a first layer, for a second one, for the gates of one side.
enum : u32 {
    FIRST_TASKS = HIDDEN / 4 * (HID + 1),
    SECOND_TASKS = HID / 4 * (HIDDEN + 1),
    GATE_TASKS = 3 * HID / 4 * (HID + 1),
    FUNCTION_TASKS = FIRST_TASKS + SECOND_TASKS,
    TASKS = FUNCTIONS * FUNCTION_TASKS + 2 * GATE_TASKS,
};

/// Partial gradients of the packed weights over `nodes_per_part` nodes and both sweeps: `parts [grid.y][weights]`.
/// A thread sums one column of four rows of a map; the column after the last input is the bias.
extern "C" __global__ void __launch_bounds__(256)
message_passing_weight_parts(const float* states, const float* saved, const float* deltas, float* parts, u32 nodes,
                             u32 nodes_per_part) {
    typedef Maps<0> Weights;
    u32 task = blockIdx.x * blockDim.x + threadIdx.x;
    if (task >= TASKS) {
        return;
    }
    enum Input { State, Message, After, Active };
    Outer map;
    Input input;
    u32 delta, function = 0;
    constexpr u32 GATES_AT = FUNCTIONS * Weights::FUNCTION, BIAS_AT = GATES_AT + 2 * Weights::GATE_WEIGHTS;
    if (task < FUNCTIONS * FUNCTION_TASKS) {
        function = task / FUNCTION_TASKS;
        task %= FUNCTION_TASKS;
        const u32 at = function * Weights::FUNCTION;
        if (task < FIRST_TASKS) {
            map = Outer{HIDDEN, HID, at, at + HIDDEN * HID};
            input = After;
            delta = BY_ACTIVE + function * HIDDEN;
        } else {
            task -= FIRST_TASKS;
            const u32 second = at + HIDDEN * HID + HIDDEN;
            map = Outer{HID, HIDDEN, second, second + HID * HIDDEN};
            input = Active;
            delta = BY_SENT + function * HID;
        }
    } else {
        task -= FUNCTIONS * FUNCTION_TASKS;
        const bool state = task >= GATE_TASKS;
        task -= state ? GATE_TASKS : 0;
        map = Outer{3 * HID, HID, GATES_AT + (state ? Weights::GATE_WEIGHTS : 0), BIAS_AT + (state ? 3 * HID : 0)};
        input = state ? State : Message;
        delta = GATES;
    }
    const u32 row = task / (map.inputs + 1) * 4, column = task % (map.inputs + 1);
    // The new gate has its own gradient on the state's side.
    delta += row + (input == State && row >= 2 * HID ? HID : 0);
    const u32 begin = blockIdx.y * nodes_per_part;
    const u32 end = begin + nodes_per_part < nodes ? begin + nodes_per_part : nodes;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (u32 sweep = 0; sweep < 2; ++sweep) {
        const float* x;
        u32 stride = SAVED;
        const float* rows = saved + static_cast<size_t>(sweep) * nodes * SAVED;
        switch (input) {
        case State:
            x = sweep == 0 ? states : saved + AFTER;
            stride = sweep == 0 ? HID : SAVED;
            break;
        case Message:
            x = rows + MESSAGE;
            break;
        case After:
            x = rows + AFTER;
            break;
        default:
            x = rows + ACTIVE + function * HIDDEN;
        }
        const float* d = deltas + static_cast<size_t>(sweep) * nodes * DELTAS + delta;
        for (u32 v = begin; v < end; ++v) {
            const float value = column < map.inputs ? x[static_cast<size_t>(v) * stride + column] : 1.0f;
            add_product(sum, value, load4(d + static_cast<size_t>(v) * DELTAS));
        }
    }
    const bool bias = column == map.inputs;
    float* to = parts + static_cast<size_t>(blockIdx.y) * Weights::LENGTH +
                (bias ? map.bias + row : map.weight + row * map.inputs + column);
    const u32 step = bias ? 1 : map.inputs;
    to[0] = sum.x;
    to[step] = sum.y;
    to[2 * step] = sum.z;
    to[3 * step] = sum.w;
}

/// Adds up `count` partial gradients in their order: `gradients [weights]` from `first` on.
extern "C" __global__ void __launch_bounds__(256)
message_passing_weight_sum(const float* parts, u32 count, float* gradients, u32 first) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= Maps<0>::LENGTH) {
        return;
    }
    float sum = 0.0f;
    for (u32 part = 0; part < count; ++part) {
        sum += parts[static_cast<size_t>(part) * Maps<0>::LENGTH + i];
    }
    gradients[first + i] = sum;
}
