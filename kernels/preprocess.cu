// Preprocess: N pictures of any size, pitch, depth, matrix and rotation -> one letterboxed (N, 3, H, W)
// tensor, in one launch. The maths is Note [Preprocess] of preprocess_cpu.py; sums run across first, then
// down, which changes their last bits only.
//
// One thread per four neighbouring pixels of a row, all three channels; blockIdx.z is the entry of the batch.
// Strides are in bytes. Every element of the N entries is written, padding included. W is a multiple of 4.
//
// 2:1 and 3:1, as 720p and 1080p come to 640 pixels, need no tables: a pixel is the mean of 2 x 2 or 3 x 3
// luma samples, read in whole words (`averaged`).

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
    int ratio;                                       // 2 or 3: for `averaged`, see ratio_of; 0: by the tables
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

__device__ __noinline__ float luma_of(const Entry& e, const Axis& down, const Axis& across, int row, int column)
{
    const u8* plane = (const u8*)e.y;
    int taps = max(down.taps, across.taps);
    if (taps <= 2) return sampled<2>(plane, e.luma_row, e.luma_step, down, across, row, column);
    if (taps == 3) return sampled<3>(plane, e.luma_row, e.luma_step, down, across, row, column);
    if (taps == 4) return sampled<4>(plane, e.luma_row, e.luma_step, down, across, row, column);
    return sampled<0>(plane, e.luma_row, e.luma_step, down, across, row, column);
}

__device__ __noinline__ float2 chroma_of(const Entry& e, const Axis& down, const Axis& across, int row, int column)
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

// The luma sums of four pixels R x R, and the chroma of each, upright, in whole words: R words hold 4 R samples.
template <int R>
__device__ __forceinline__ void averaged(const Entry& e, int row, int column, float* luma, float2* chroma)
{
    const unsigned even_bytes = 0x00ff00ffu;
    const u8* at = (const u8*)e.y + (i64)R * row * e.luma_row + R * column;
    unsigned even[R], odd[R];
#pragma unroll
    for (int k = 0; k < R; ++k) even[k] = odd[k] = 0;
#pragma unroll
    for (int j = 0; j < R; ++j, at += e.luma_row) {
#pragma unroll
        for (int k = 0; k < R; ++k) {
            unsigned word = ((const unsigned*)at)[k];
            even[k] += word & even_bytes;
            odd[k] += word >> 8 & even_bytes;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        unsigned sum = 0;
#pragma unroll
        for (int k = R * i; k < R * i + R; ++k) {
            unsigned word = k & 1 ? odd[k / 4] : even[k / 4];
            sum += word >> 8 * (k & 2) & 0xffff;
        }
        luma[i] = as_float(sum) * (1.0f / (R * R));
    }
    if constexpr (R == 2) {   // chroma is 1:1
        const unsigned* pair = (const unsigned*)((const u8*)e.u + (i64)row * e.chroma_row + 2 * column);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned both = pair[i / 2] >> 16 * (i & 1);
            chroma[i] = make_float2(as_float(both & 255), as_float(both >> 8 & 255));
        }
    } else {   // 3:2, both ways: of three samples two outputs, 2/3 and 1/3 of the nearest two
        const u8* first = (const u8*)e.u + (i64)(3 * (row >> 1) + (row & 1)) * e.chroma_row + 3 * column;
        unsigned near = row & 1 ? 1u : 2u, u[3] = {0, 0, 0}, v[3] = {0, 0, 0};
#pragma unroll
        for (int k = 0; k < 3; ++k) {   // a word holds u0 v0 u1 v1
            unsigned above = ((const unsigned*)first)[k], below = ((const unsigned*)(first + e.chroma_row))[k];
            u[k] = near * (above & even_bytes) + (3u - near) * (below & even_bytes);
            v[k] = near * (above >> 8 & even_bytes) + (3u - near) * (below >> 8 & even_bytes);
        }
        unsigned down_u[6] = {u[0] & 0xffff, u[0] >> 16, u[1] & 0xffff, u[1] >> 16, u[2] & 0xffff, u[2] >> 16};
        unsigned down_v[6] = {v[0] & 0xffff, v[0] >> 16, v[1] & 0xffff, v[1] >> 16, v[2] & 0xffff, v[2] >> 16};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int s = 3 * (i / 2) + (i & 1);
            unsigned left = i & 1 ? 1u : 2u;
            chroma[i] = make_float2(as_float(left * down_u[s] + (3u - left) * down_u[s + 1]) * (1.0f / 9.0f),
                                    as_float(left * down_v[s] + (3u - left) * down_v[s + 1]) * (1.0f / 9.0f));
        }
    }
}

__device__ __forceinline__ void put(float* at, const float* four)
{
    *(float4*)at = make_float4(four[0], four[1], four[2], four[3]);
}

__device__ __forceinline__ void put(__half* at, const float* four)
{
    __half2 low = __floats2half2_rn(four[0], four[1]), high = __floats2half2_rn(four[2], four[3]);
    *(uint2*)at = make_uint2(*(unsigned*)&low, *(unsigned*)&high);
}

// gain, bias of the three channels; pad: value around the picture, before them.
extern "C" __global__ void __launch_bounds__(256)
preprocess(OUT* tensor, int width, int height, const Entry* entries, const int* tables, float gain0, float gain1,
           float gain2, float bias0, float bias1, float bias2, float pad)
{
    __shared__ Entry e;
    int thread = threadIdx.y * 32 + threadIdx.x;
    if (thread < sizeof(Entry) / 4) ((int*)&e)[thread] = ((const int*)(entries + blockIdx.z))[thread];
    __syncthreads();
    int x = 4 * (blockIdx.x * 32 + threadIdx.x), y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    float gain[3] = {gain0, gain1, gain2}, bias[3] = {bias0, bias1, bias2};
    float luma[4];
    float2 chroma[4];
    int inside = 0;          // a bit for each pixel
    int row = y - e.box_y, column = x - e.box_x;
    if (row >= 0 && row < e.box_height && column > -4 && column < e.box_width) {
        if (e.ratio) {       // the box begins and ends with a thread's pixels
            inside = 15;
            if (e.ratio == 3) averaged<3>(e, row, column, luma, chroma);
            else averaged<2>(e, row, column, luma, chroma);
        } else {
            Axis luma_down(tables, e, 0), luma_across(tables, e, 1);
            Axis chroma_down(tables, e, 2), chroma_across(tables, e, 3);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                int at = column + k;
                luma[k] = 0.0f, chroma[k] = make_float2(0.0f, 0.0f);
                if (at < 0 || at >= e.box_width) continue;
                inside |= 1 << k;
                // The scaled picture as it is stored, and its pixel that lands here.
                int right = e.box_width - 1 - at, below = e.box_height - 1 - row;
                int at_row = e.rotation == 0 ? row : e.rotation == 1 ? right : e.rotation == 2 ? below : at;
                int at_column = e.rotation == 0 ? at : e.rotation == 1 ? row : e.rotation == 2 ? right : below;
                luma[k] = luma_of(e, luma_down, luma_across, at_row, at_column);
                chroma[k] = chroma_of(e, chroma_down, chroma_across, at_row, at_column);
            }
        }
    }
    i64 plane = (i64)width * height;
    OUT* out = tensor + 3 * plane * blockIdx.z + (i64)y * width + x;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const float* m = e.to_rgb + 4 * c;
        float value[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            value[k] = pad;
            if (inside >> k & 1) {
                value[k] = m[0] * luma[k] + m[1] * chroma[k].x + m[2] * chroma[k].y + m[3];
                value[k] = fminf(fmaxf(value[k], 0.0f), 255.0f);
            }
            value[k] = value[k] * gain[c] + bias[c];
        }
        put(out + c * plane, value);
    }
}
