// Preprocess: N pictures of any size, pitch, depth, matrix and rotation -> one letterboxed (N, 3, H, W)
// tensor, in one launch. The maths is Note [Preprocess] of preprocess_cpu.py; sums run across first, then
// down, which changes their last bits only.
//
// One thread per two neighbouring pixels of a row, all three channels; blockIdx.z is the entry of the batch.
// Strides are in bytes. Every element of the N entries is written, padding included. W is even.

#include <cuda_fp16.h>

#ifndef OUT
#define OUT __half       // element of the tensor: __half or float
#endif

typedef unsigned char u8;
typedef long long i64;

// One entry of the batch; see ENTRY of preprocess_cuda.py.
struct Entry {
    i64 y, u, v;                                     // address of the first sample (of 16 bits the high byte)
    i64 luma_row, chroma_row;                        // bytes to the next row
    int luma_step, chroma_step;                      // bytes to the next sample
    int box_x, box_y, box_width, box_height;         // where the picture lies in the tensor
    int rotation;                                    // quarter turns clockwise
    int axes[4];                                     // luma rows, luma columns, chroma rows, chroma columns
    int taps[4];
    int outputs[4];                                  // length of each axis
    float to_rgb[12];                                // [M | o], a row for each channel
    int pairs;                                       // u and v side by side on an even address
    int unused;
};

// An axis in `tables`: first (outputs) int32, then weights (taps, outputs) float32.
struct Axis {
    const int* first;
    const float* weights;
    int taps, outputs;

    __device__ __forceinline__ Axis(const int* tables, const Entry& e, int k)
        : first(tables + e.axes[k]), weights((const float*)(tables + e.axes[k] + e.outputs[k])), taps(e.taps[k]),
          outputs(e.outputs[k])
    {
    }
};

// A byte as float, without the conversion units, of which there are few: 2^23 + byte, minus 2^23.
__device__ __forceinline__ float as_float(unsigned byte)
{
    return __uint_as_float(0x4b000000u | byte) - 8388608.0f;
}

// One sample of a plane, scaled; TAPS >= both axes' taps, 0 for any number of them.
template <int TAPS>
__device__ __forceinline__ float sampled(const u8* plane, i64 row_step, int step, const Axis& down, const Axis& across,
                                         int row, int column)
{
    const u8* at = plane + down.first[row] * row_step + (i64)across.first[column] * step;
    float value = 0.0f;
    if constexpr (TAPS == 0) {
        for (int j = 0; j < down.taps; ++j, at += row_step) {
            float sum = 0.0f;
            for (int k = 0; k < across.taps; ++k) {
                sum = fmaf(across.weights[k * across.outputs + column], as_float(at[k * step]), sum);
            }
            value = fmaf(down.weights[j * down.outputs + row], sum, value);
        }
    } else {
        float weight[TAPS];
#pragma unroll
        for (int k = 0; k < TAPS; ++k) {
            weight[k] = k < across.taps ? across.weights[k * across.outputs + column] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < TAPS; ++j, at += row_step) {
            if (j >= down.taps) break;
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < TAPS; ++k) {
                if (k < across.taps) sum = fmaf(weight[k], as_float(at[k * step]), sum);
            }
            value = fmaf(down.weights[j * down.outputs + row], sum, value);
        }
    }
    return value;
}

// u and v at once, where they lie side by side on an even address.
template <int TAPS>
__device__ __forceinline__ float2 sampled_pair(const u8* plane, i64 row_step, int step, const Axis& down,
                                               const Axis& across, int row, int column)
{
    const u8* at = plane + down.first[row] * row_step + (i64)across.first[column] * step;
    float2 value = make_float2(0.0f, 0.0f);
    const int taps_y = TAPS ? TAPS : down.taps, taps_x = TAPS ? TAPS : across.taps;
#pragma unroll
    for (int j = 0; j < taps_y; ++j, at += row_step) {
        if (j >= down.taps) break;
        float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int k = 0; k < taps_x; ++k) {
            if (k >= across.taps) break;
            unsigned both = *(const unsigned short*)(at + k * step);
            float weight = across.weights[k * across.outputs + column];
            sum.x = fmaf(weight, as_float(both & 255), sum.x);
            sum.y = fmaf(weight, as_float(both >> 8), sum.y);
        }
        float weight = down.weights[j * down.outputs + row];
        value.x = fmaf(weight, sum.x, value.x);
        value.y = fmaf(weight, sum.y, value.y);
    }
    return value;
}

__device__ __forceinline__ float luma_of(const Entry& e, const Axis& down, const Axis& across, int row, int column)
{
    const u8* plane = (const u8*)e.y;
    int taps = max(down.taps, across.taps);
    if (taps <= 2) return sampled<2>(plane, e.luma_row, e.luma_step, down, across, row, column);
    if (taps == 3) return sampled<3>(plane, e.luma_row, e.luma_step, down, across, row, column);
    if (taps == 4) return sampled<4>(plane, e.luma_row, e.luma_step, down, across, row, column);
    return sampled<0>(plane, e.luma_row, e.luma_step, down, across, row, column);
}

__device__ __forceinline__ float2 chroma_of(const Entry& e, const Axis& down, const Axis& across, int row, int column)
{
    if (e.pairs) {
        const u8* plane = (const u8*)e.u;
        int taps = max(down.taps, across.taps);
        if (taps <= 2) return sampled_pair<2>(plane, e.chroma_row, e.chroma_step, down, across, row, column);
        if (taps == 3) return sampled_pair<3>(plane, e.chroma_row, e.chroma_step, down, across, row, column);
        return sampled_pair<0>(plane, e.chroma_row, e.chroma_step, down, across, row, column);
    }
    return make_float2(sampled<0>((const u8*)e.u, e.chroma_row, e.chroma_step, down, across, row, column),
                       sampled<0>((const u8*)e.v, e.chroma_row, e.chroma_step, down, across, row, column));
}

__device__ __forceinline__ void put(float* at, float a, float b) { *(float2*)at = make_float2(a, b); }
__device__ __forceinline__ void put(__half* at, float a, float b) { *(__half2*)at = __floats2half2_rn(a, b); }

// gain, bias of the three channels; pad: value around the picture, before them.
extern "C" __global__ void __launch_bounds__(256)
preprocess(OUT* tensor, int width, int height, const Entry* entries, const int* tables, float gain0, float gain1,
           float gain2, float bias0, float bias1, float bias2, float pad)
{
    __shared__ Entry e;
    int thread = threadIdx.y * 32 + threadIdx.x;
    if (thread < sizeof(Entry) / 4) ((int*)&e)[thread] = ((const int*)(entries + blockIdx.z))[thread];
    __syncthreads();
    int x = 2 * (blockIdx.x * 32 + threadIdx.x), y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    float gain[3] = {gain0, gain1, gain2}, bias[3] = {bias0, bias1, bias2};
    float rgb[3][2];
#pragma unroll
    for (int c = 0; c < 3; ++c) rgb[c][0] = rgb[c][1] = pad;

    int row = y - e.box_y;
    Axis luma_down(tables, e, 0), luma_across(tables, e, 1), chroma_down(tables, e, 2), chroma_across(tables, e, 3);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        int column = x + k - e.box_x;
        if (column < 0 || row < 0 || column >= e.box_width || row >= e.box_height) continue;
        // The scaled picture as it is stored, and its pixel that lands here.
        int right = e.box_width - 1 - column, below = e.box_height - 1 - row;
        int at_row = e.rotation == 0 ? row : e.rotation == 1 ? right : e.rotation == 2 ? below : column;
        int at_column = e.rotation == 0 ? column : e.rotation == 1 ? row : e.rotation == 2 ? right : below;
        float luma = luma_of(e, luma_down, luma_across, at_row, at_column);
        float2 chroma = chroma_of(e, chroma_down, chroma_across, at_row, at_column);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float* m = e.to_rgb + 4 * c;
            float value = m[0] * luma + m[1] * chroma.x + m[2] * chroma.y + m[3];
            rgb[c][k] = fminf(fmaxf(value, 0.0f), 255.0f);
        }
    }
    i64 plane = (i64)width * height;
    OUT* out = tensor + 3 * plane * blockIdx.z + (i64)y * width + x;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        put(out + c * plane, rgb[c][0] * gain[c] + bias[c], rgb[c][1] * gain[c] + bias[c]);
    }
}
