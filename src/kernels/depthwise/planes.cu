// Depthwise convolution of planes, forward.
//
// In: x [C, N, H, W], weights [C, kernel.y, kernel.x]. Out: y [C, N, OH, OW]. All floats are f32. A thread sums the taps
// of one output in a fixed order; pixels outside of the image count as 0 and are not read. Taps of neighbouring threads
// overlap and meet in the first-level cache.

typedef unsigned int u32;

/// Pairs are vertical, horizontal.
struct Window {
    u32 images, height, width, out_height, out_width, kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x,
        dilation;
};

extern "C" __global__ void __launch_bounds__(256)
depthwise_planes(const float* x, const float* weights, const u32* window, float* y, u32 len) {
    const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= len) {
        return;
    }
    const Window& of = *reinterpret_cast<const Window*>(window);
    const u32 out_x = at % of.out_width, out_y = at / of.out_width % of.out_height;
    const u32 plane = at / (of.out_width * of.out_height), channel = plane / of.images;
    const float* image = x + static_cast<size_t>(plane) * of.height * of.width;
    const float* taps = weights + channel * of.kernel_y * of.kernel_x;
    float sum = 0.0f;
    for (u32 tap_y = 0; tap_y < of.kernel_y; ++tap_y) {
        // Above the image the difference wraps around to a large number.
        const u32 row = out_y * of.stride_y + tap_y * of.dilation - of.padding_y;
        if (row >= of.height) {
            continue;
        }
        for (u32 tap_x = 0; tap_x < of.kernel_x; ++tap_x) {
            const u32 column = out_x * of.stride_x + tap_x * of.dilation - of.padding_x;
            if (column < of.width) {
                sum += image[row * of.width + column] * taps[tap_y * of.kernel_x + tap_x];
            }
        }
    }
    y[at] = sum;
}
