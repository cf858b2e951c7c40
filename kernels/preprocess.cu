// Preprocess: N pictures of any size, pitch, depth, matrix and rotation -> one letterboxed (N, 3, H, W)
// tensor, in one launch. The maths is Note [Preprocess] of preprocess_cpu.py, in the same order:
// down each column first, then across.
//
// One thread per tensor pixel, all three channels; blockIdx.z is the entry of the batch. Strides are in
// bytes. Every element of the N entries is written, padding included.

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

// An axis lies in `tables` as first (outputs) int32, then weights (taps, outputs) float32.
__device__ __forceinline__ float plane_at(const u8* plane, i64 row_step, int step, const int* tables,
                                          const Entry& e, int rows, int columns, int row, int column)
{
    const int* first_row = tables + e.axes[rows];
    const int* first_column = tables + e.axes[columns];
    const float* down = (const float*)(first_row + e.outputs[rows]) + row;
    const float* across = (const float*)(first_column + e.outputs[columns]) + column;
    const u8* at = plane + first_row[row] * row_step + (i64)first_column[column] * step;
    float value = 0.0f;
    for (int k = 0; k < e.taps[columns]; ++k, at += step) {
        float sum = 0.0f;
        const u8* sample = at;
        for (int j = 0; j < e.taps[rows]; ++j, sample += row_step) {
            sum = fmaf(down[j * e.outputs[rows]], (float)*sample, sum);
        }
        value = fmaf(across[k * e.outputs[columns]], sum, value);
    }
    return value;
}

__device__ __forceinline__ float2 pair_at(const u8* plane, i64 row_step, int step, const int* tables, const Entry& e,
                                          int row, int column)
{
    const int rows = 2, columns = 3;
    const int* first_row = tables + e.axes[rows];
    const int* first_column = tables + e.axes[columns];
    const float* down = (const float*)(first_row + e.outputs[rows]) + row;
    const float* across = (const float*)(first_column + e.outputs[columns]) + column;
    const u8* at = plane + first_row[row] * row_step + (i64)first_column[column] * step;
    float2 value = make_float2(0.0f, 0.0f);
    for (int k = 0; k < e.taps[columns]; ++k, at += step) {
        float2 sum = make_float2(0.0f, 0.0f);
        const u8* sample = at;
        for (int j = 0; j < e.taps[rows]; ++j, sample += row_step) {
            unsigned both = *(const unsigned short*)sample;
            float weight = down[j * e.outputs[rows]];
            sum.x = fmaf(weight, (float)(both & 255), sum.x);
            sum.y = fmaf(weight, (float)(both >> 8), sum.y);
        }
        float weight = across[k * e.outputs[columns]];
        value.x = fmaf(weight, sum.x, value.x);
        value.y = fmaf(weight, sum.y, value.y);
    }
    return value;
}

__device__ __forceinline__ void put(float* at, float value) { *at = value; }
__device__ __forceinline__ void put(__half* at, float value) { *at = __float2half_rn(value); }

// affine: gain of the three channels, then bias; pad: value around the picture, per channel.
extern "C" __global__ void __launch_bounds__(256)
preprocess(OUT* tensor, int width, int height, const Entry* entries, const int* tables, float gain0, float gain1,
           float gain2, float bias0, float bias1, float bias2, float pad)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Entry& e = entries[blockIdx.z];
    float gain[3] = {gain0, gain1, gain2}, bias[3] = {bias0, bias1, bias2};
    i64 plane = (i64)width * height;
    OUT* out = tensor + 3 * plane * blockIdx.z + (i64)y * width + x;
    int column = x - e.box_x, row = y - e.box_y;
    if (column < 0 || row < 0 || column >= e.box_width || row >= e.box_height) {
        for (int c = 0; c < 3; ++c) put(out + c * plane, pad * gain[c] + bias[c]);
        return;
    }
    // The scaled picture as it is stored, and its pixel that lands here.
    int right = e.box_width - 1 - column, below = e.box_height - 1 - row;
    int at_row = e.rotation == 0 ? row : e.rotation == 1 ? right : e.rotation == 2 ? below : column;
    int at_column = e.rotation == 0 ? column : e.rotation == 1 ? row : e.rotation == 2 ? right : below;
    float luma = plane_at((const u8*)e.y, e.luma_row, e.luma_step, tables, e, 0, 1, at_row, at_column);
    float2 chroma;
    if (e.pairs) {
        chroma = pair_at((const u8*)e.u, e.chroma_row, e.chroma_step, tables, e, at_row, at_column);
    } else {
        chroma.x = plane_at((const u8*)e.u, e.chroma_row, e.chroma_step, tables, e, 2, 3, at_row, at_column);
        chroma.y = plane_at((const u8*)e.v, e.chroma_row, e.chroma_step, tables, e, 2, 3, at_row, at_column);
    }
    for (int c = 0; c < 3; ++c) {
        const float* m = e.to_rgb + 4 * c;
        float value = m[0] * luma + m[1] * chroma.x + m[2] * chroma.y + m[3];
        value = fminf(fmaxf(value, 0.0f), 255.0f);
        put(out + c * plane, value * gain[c] + bias[c]);
    }
}
