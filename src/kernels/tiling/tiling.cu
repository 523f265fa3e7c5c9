// Tiling and normalisation, forward and backward (arXiv 2110.13100, section 2 and appendix B).
//
// In: tables [tables] and the tiles, as in mod.rs. Out: parameters [len], or the gradient of the tables. All floats
// are f32. A thread owns what it writes and sums it in a fixed order: results are the same in every run.

typedef unsigned int u32;

/// Elements of the output that a block writes; `cuda.rs` says where each block starts.
enum : u32 { FORWARD_CHUNK = 1024, BACKWARD_CHUNK = 256 };

/// One parameter. Components x, y, z, w are out channels, in channels, height, width.
struct alignas(16) Tile {
    u32 source;
    u32 target;
    /// Bits 0-1: the transform. Then two bits for each axis, in the order of falling strides.
    u32 kind;
    float factor;
    uint4 size;
    uint4 strides;
    uint4 shape;
};

__device__ inline u32 end_of(const Tile& tile) {
    return tile.target + tile.shape.x * tile.shape.y * tile.shape.z * tile.shape.w;
}

enum : u32 { IDENTITY, SCALE, NORM_WEIGHT, BIAS };

__device__ inline float transformed(const Tile& tile, float value) {
    switch (tile.kind & 3) {
    case SCALE:
        return value * tile.factor;
    case NORM_WEIGHT:
        return 2.0f / (1.0f + expf(-value / 2.0f));
    case BIAS:
        return tanhf(value / 5.0f);
    default:
        return value;
    }
}

/// Derivative of the transform, from its result.
__device__ inline float derivative(const Tile& tile, float result) {
    switch (tile.kind & 3) {
    case SCALE:
        return tile.factor;
    case NORM_WEIGHT:
        return result / 2.0f * (1.0f - result / 2.0f);
    case BIAS:
        return (1.0f - result * result) / 5.0f;
    default:
        return 1.0f;
    }
}

/// A position in a parameter along one axis, and in the table that repeats along it.
struct Axis {
    u32 at;
    u32 wrapped;

    __device__ Axis(u32 at, u32 size) : at(at), wrapped(at % size) {}

    /// One step on; true where the axis is used up and starts again.
    __device__ bool step(u32 size, u32 length) {
        ++at;
        wrapped = wrapped + 1 == size ? 0 : wrapped + 1;
        if (at < length) {
            return false;
        }
        at = 0;
        wrapped = 0;
        return true;
    }
};

/// `params [len]` of `tables`; `first_tile [grid]`: the tile of each block's first element. A thread computes four
/// elements in a row: it divides once to find its place and then steps.
extern "C" __global__ void __launch_bounds__(256)
tiling_forward(const float* tables, const uint4* tiles, const u32* first_tile, float* params, u32 len) {
    const Tile* all = reinterpret_cast<const Tile*>(tiles);
    for (u32 quad = threadIdx.x; quad < FORWARD_CHUNK / 4; quad += blockDim.x) {
        const u32 begin = blockIdx.x * FORWARD_CHUNK + quad * 4;
        if (begin >= len) {
            return;
        }
        u32 which = first_tile[blockIdx.x];
        while (begin >= end_of(all[which])) {
            ++which;
        }
        Tile tile = all[which];
        const u32 element = begin - tile.target;
        const u32 line = element / tile.shape.w, channel = line / tile.shape.z;
        Axis x(element % tile.shape.w, tile.size.w), y(line % tile.shape.z, tile.size.z);
        Axis i(channel % tile.shape.y, tile.size.y), o(channel / tile.shape.y, tile.size.x);
        float values[4];
        for (u32 k = 0; k < 4 && begin + k < len; ++k) {
            if (begin + k >= end_of(tile)) {
                // All four axes are back at 0.
                tile = all[++which];
            }
            const u32 cell = o.wrapped * tile.strides.x + i.wrapped * tile.strides.y + y.wrapped * tile.strides.z +
                             x.wrapped * tile.strides.w;
            values[k] = transformed(tile, tables[tile.source + cell]);
            if (x.step(tile.size.w, tile.shape.w) && y.step(tile.size.z, tile.shape.z) &&
                i.step(tile.size.y, tile.shape.y)) {
                o.step(tile.size.x, tile.shape.x);
            }
        }
        if (begin + 4 <= len) {
            *reinterpret_cast<float4*>(params + begin) = float4{values[0], values[1], values[2], values[3]};
        } else {
            for (u32 k = 0; begin + k < len; ++k) {
                params[begin + k] = values[k];
            }
        }
    }
}

__device__ inline u32 component(const uint4& of, u32 axis) {
    return axis == 0 ? of.x : axis == 1 ? of.y : axis == 2 ? of.z : of.w;
}

/// Gradient of the table element `offset` after the tile's source: the sum over all its copies; 0 if the tile does
/// not read it.
__device__ inline float gradient(const Tile& tile, u32 offset, const float* grad, const float* params) {
    u32 place[4] = {0, 0, 0, 0};
    // Every axis steps over all that the axes of smaller stride reach, so the largest stride decides first.
    for (u32 rank = 0; rank < 4; ++rank) {
        const u32 axis = tile.kind >> (2 + 2 * rank) & 3;
        const u32 size = component(tile.size, axis);
        if (size > 1) {
            const u32 stride = component(tile.strides, axis);
            const u32 at = offset / stride;
            if (at >= size) {
                return 0.0f;
            }
            offset -= at * stride;
            for (u32 a = 0; a < 4; ++a) {
                place[a] = a == axis ? at : place[a];
            }
        }
    }
    if (offset > 0) {
        return 0.0f;
    }
    const uint4 n = tile.shape;
    float sum = 0.0f;
    for (u32 o = place[0]; o < n.x; o += tile.size.x) {
        for (u32 i = place[1]; i < n.y; i += tile.size.y) {
            for (u32 y = place[2]; y < n.z; y += tile.size.z) {
                for (u32 x = place[3]; x < n.w; x += tile.size.w) {
                    sum += grad[tile.target + ((o * n.y + i) * n.z + y) * n.w + x];
                }
            }
        }
    }
    const u32 copy = tile.target + ((place[0] * n.y + place[1]) * n.z + place[2]) * n.w + place[3];
    return sum * derivative(tile, params[copy]);
}

/// Gradient of the tables [len]. `groups`: runs of tiles that reach into one another (first element, end, first
/// member, end of the members), ascending; `members`: their tiles; `first_group [grid]`: the first group that ends
/// behind each block's first element. A thread sums one element.
extern "C" __global__ void __launch_bounds__(256, 4)
tiling_backward(const float* grad, const float* params, const uint4* tiles, const uint4* groups, const u32* members,
                const u32* first_group, float* by_tables, u32 len, u32 group_count) {
    const Tile* all = reinterpret_cast<const Tile*>(tiles);
    for (u32 k = threadIdx.x; k < BACKWARD_CHUNK; k += blockDim.x) {
        const u32 element = blockIdx.x * BACKWARD_CHUNK + k;
        if (element >= len) {
            return;
        }
        u32 which = first_group[blockIdx.x];
        while (which < group_count && element >= groups[which].y) {
            ++which;
        }
        float sum = 0.0f;
        if (which < group_count && element >= groups[which].x) {
            const uint4 group = groups[which];
            for (u32 member = group.z; member < group.w; ++member) {
                const Tile tile = all[members[member]];
                if (element >= tile.source) {
                    sum += gradient(tile, element - tile.source, grad, params);
                }
            }
        }
        by_tables[element] = sum;
    }
}
