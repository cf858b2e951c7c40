// Compose: N pictures and their overlays -> every byte of one NV12 mosaic, written once.
//
// The maths is Note [Compose] of compose_cpu.py and Note [Blending] of primitives.py, all of it
// integer but for the coverage of a LINE; compiled without contraction, so that it rounds alike.
//
// Two kernels, launched one after the other on one stream:
//
//   bound_rows   one thread per primitive: its clipped bounding box, and one box per 32 of them
//   compose      one thread per 8 x 2 luma samples and their 4 chroma pairs, kept in registers from the
//                background to the last primitive; a warp covers 64 x 8 and works for itself alone
//
// A warp looks for the tiles that reach it, and draws them in order. Of a tile's primitives it tests the
// boxes of 32 first, then those of the groups that met it, and draws what is left in order: cost follows
// what is drawn. Nothing waits for another warp. Strides are in bytes. The mosaic's pitch is its width.
//
// Samples are kept two to a register, 16 bits each: every product of this kernel's blending fits.

// Columns of the tile table, int64: for y, u, v: address of the first sample (0: no picture), bytes
// to the next row and to the next sample. See compose_cuda.py, which fills it.
#define PLANES 0
#define TABLE 9      // where the axes luma x, luma y, chroma x, chroma y begin in `tables`
#define BOX 13       // x, y, width, height of the visible part, mosaic samples, even
#define OPACITY 17
#define COLOUR 18    // row of `colours`, -1 for none
#define MODE 19      // 0: by the tables; 1: 1:1; 2: 2:1; PAIRS: u, v side by side on even addresses
#define UNDER 20     // primitives [UNDER, OVER) before the picture, [OVER, END) after it
#define OVER 21
#define END 22
#define REACH 23     // x0, y0, x1, y1 outside of which the tile draws nothing, four times 16 bits
#define ORIGIN 24    // modes 1 and 2: source samples of the box's top left: luma x, luma y, chroma x, chroma y
#define TILE_COLUMNS 28

#define MODE_COPY 1
#define MODE_HALF 2
#define MODE_MASK 3
#define PAIRS 4

// A packed axis, see scaling.py.
#define AXIS_N 0
#define AXIS_TAPS 1
#define AXIS_FIRST 2
#define AXIS_HEADER 11

#define COLOUR_BITS 14

#define FILL 0
#define FRAME 1
#define LINE 2
#define GLYPH 3

#define THREADS 256
#define WARPS_ACROSS 2
#define BLOCK_WIDTH (64 * WARPS_ACROSS)
#define BLOCK_HEIGHT (8 * THREADS / 32 / WARPS_ACROSS)

#ifndef MIN_BLOCKS
#define MIN_BLOCKS 3        // blocks that a multiprocessor shall hold: bounds the registers of a thread
#endif

typedef unsigned char u8;
typedef long long i64;

#define LANES 0x00ff00ffu   // the eight bits of both samples of a register

// A primitive as it travels, 32 bytes: see pack_rows of compose_cuda.py.
struct __align__(16) Row {
    unsigned colour;        // luma, cb, cr, alpha: one byte each, luma lowest
    int x0, y0, x1;
    int y1;
    unsigned ab;            // a: 16 bits, b: 14 bits, kind: 2 bits
    short clip_x0, clip_y0, clip_x1, clip_y1;
};

// What a primitive may touch, half-open, and a part of that which it leaves alone: the inside of a FRAME.
struct __align__(16) Bounds {
    short x0, y0, x1, y1;
    short hole_x0, hole_y0, hole_x1, hole_y1;
};

__device__ __forceinline__ bool meet(const Bounds& a, int x0, int y0, int x1, int y1)
{
    bool outside = a.x0 >= x1 || a.x1 <= x0 || a.y0 >= y1 || a.y1 <= y0;
    bool in_hole = a.hole_x0 <= x0 && x1 <= a.hole_x1 && a.hole_y0 <= y0 && y1 <= a.hole_y1;
    return !outside && !in_hole;
}

// One thread per primitive; blockDim.x is a multiple of 32. groups: one Bounds per 32 rows.
extern "C" __global__ void bound_rows(const Row* rows, int count, int width, int height, Bounds* bounds,
                                      Bounds* groups)
{
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    int x0 = 32767, y0 = 32767, x1 = -1, y1 = -1;
    if (n < count) {
        Row row = rows[n];
        int left = row.x0, above = row.y0, right = row.x1, below = row.y1;
        int kind = row.ab >> 30, a = row.ab & 0xffff;
        Bounds box = {0, 0, 0, 0, 1, 1, 0, 0};
        if (kind == LINE) {
            int reach = a / 2 + 16;
            left = (min(row.x0, row.x1) - reach) >> 4;
            right = ((max(row.x0, row.x1) + reach) >> 4) + 1;
            above = (min(row.y0, row.y1) - reach) >> 4;
            below = ((max(row.y0, row.y1) + reach) >> 4) + 1;
        } else if (kind == FRAME) {
            box.hole_x0 = (short)min(max(left + a, -1), 32767), box.hole_x1 = (short)min(max(right - a, -1), 32767);
            box.hole_y0 = (short)min(max(above + a, -1), 32767), box.hole_y1 = (short)min(max(below - a, -1), 32767);
        }
        left = max(max(left, (int)row.clip_x0), 0);
        right = min(min(right, (int)row.clip_x1), width);
        above = max(max(above, (int)row.clip_y0), 0);
        below = min(min(below, (int)row.clip_y1), height);
        if (left < right && above < below && row.colour >> 24) {
            x0 = left, y0 = above, x1 = right, y1 = below;
        }
        box.x0 = (short)x0, box.y0 = (short)y0, box.x1 = (short)x1, box.y1 = (short)y1;
        bounds[n] = box;
    }
    for (int step = 16; step; step >>= 1) {
        x0 = min(x0, __shfl_xor_sync(~0u, x0, step));
        y0 = min(y0, __shfl_xor_sync(~0u, y0, step));
        x1 = max(x1, __shfl_xor_sync(~0u, x1, step));
        y1 = max(y1, __shfl_xor_sync(~0u, y1, step));
    }
    if (n < count && (threadIdx.x & 31) == 0) {
        groups[n >> 5] = Bounds{(short)x0, (short)y0, (short)x1, (short)y1, 1, 1, 0, 0};
    }
}

// The samples of one thread: y[r][i] holds luma 2i and 2i + 1 of row r, uv[i] the chroma below them.
struct Cell {
    unsigned y[2][4];
    unsigned uv[4];
};

// (v + 127) / 255 in both halves, for v + 127 <= 65152.
__device__ __forceinline__ unsigned divided(unsigned v)
{
    return (v + (v >> 8 & LANES) + 0x00010001u) >> 8 & LANES;
}

// Both halves towards `value` (one in each half) by c / 255.
__device__ __forceinline__ unsigned mix(unsigned old, unsigned value, unsigned c)
{
    return divided(old * (255u - c) + value * c + 0x007f007fu);
}

// The same with a weight for each half.
__device__ __forceinline__ unsigned mix(unsigned old, unsigned value, unsigned low, unsigned high)
{
    unsigned first = (old & 0xffffu) * (255u - low) + value * low;
    unsigned second = (old >> 16) * (255u - high) + value * high;
    return divided((first | second << 16) + 0x007f007fu);
}

// Four bytes of a word, two to a register.
__device__ __forceinline__ unsigned low_pair(unsigned word) { return __byte_perm(word, 0, 0x4140); }
__device__ __forceinline__ unsigned high_pair(unsigned word) { return __byte_perm(word, 0, 0x4342); }

__device__ __forceinline__ int clamped(int total)
{
    return min(max(total >> COLOUR_BITS, 0), 255);
}

// Note [Compose], step 1: one output of one plane.
__device__ __forceinline__ int scaled(const u8* plane, i64 row_step, int step, const int* across, const int* down,
                                      int x, int y)
{
    int taps_x = across[AXIS_TAPS], taps_y = down[AXIS_TAPS];
    const int* wx = across + AXIS_HEADER + across[AXIS_N] + x * taps_x;
    const int* wy = down + AXIS_HEADER + down[AXIS_N] + y * taps_y;
    const u8* at = plane + (down[AXIS_FIRST] + down[AXIS_HEADER + y]) * row_step
                 + (i64)(across[AXIS_FIRST] + across[AXIS_HEADER + x]) * step;
    int total = 1 << 20;
    for (int k = 0; k < taps_x; ++k, at += step) {
        int sum = 64;
        const u8* sample = at;
        for (int j = 0; j < taps_y; ++j, sample += row_step) {
            sum += wy[j] * (int)*sample;
        }
        total += wx[k] * (sum >> 7);
    }
    return total >> 21;
}

// The same for u and v at once, where they lie side by side on an even address: u low, v high.
__device__ __forceinline__ unsigned scaled_pair(const u8* plane, i64 row_step, int step, const int* across,
                                                const int* down, int x, int y)
{
    int taps_x = across[AXIS_TAPS], taps_y = down[AXIS_TAPS];
    const int* wx = across + AXIS_HEADER + across[AXIS_N] + x * taps_x;
    const int* wy = down + AXIS_HEADER + down[AXIS_N] + y * taps_y;
    const u8* at = plane + (down[AXIS_FIRST] + down[AXIS_HEADER + y]) * row_step
                 + (i64)(across[AXIS_FIRST] + across[AXIS_HEADER + x]) * step;
    int total_u = 1 << 20, total_v = 1 << 20;
    for (int k = 0; k < taps_x; ++k, at += step) {
        int sum_u = 64, sum_v = 64;
        const u8* sample = at;
        for (int j = 0; j < taps_y; ++j, sample += row_step) {
            unsigned both = *(const unsigned short*)sample;
            sum_u += wy[j] * (int)(both & 255);
            sum_v += wy[j] * (int)(both >> 8);
        }
        total_u += wx[k] * (sum_u >> 7);
        total_v += wx[k] * (sum_v >> 7);
    }
    return total_u >> 21 | total_v >> 21 << 16;
}

// What a thread samples by the tables: a loop may write it, which registers do not allow.
struct Fresh {
    unsigned short y[2][8][THREADS];
    unsigned uv[4][THREADS];
};

// Samples by the tables, one after the other: any ratio, rotation, depth and edge. x and y count from the
// box's top left, width is the box's.
__device__ __forceinline__ void sample_luma(Fresh& fresh, const i64* tile, const int* tables, int x, int y, int width)
{
    const int* across = tables + tile[TABLE];
    const int* down = tables + tile[TABLE + 1];
#pragma unroll 1
    for (int k = 0; k < 16; ++k) {
        int i = k & 7, r = k >> 3;
        if (x + i < 0 || x + i >= width) continue;
        fresh.y[r][i][threadIdx.x] = scaled((const u8*)tile[PLANES], tile[PLANES + 1], (int)tile[PLANES + 2], across,
                                            down, x + i, y + r);
    }
}

__device__ __forceinline__ void sample_chroma(Fresh& fresh, const i64* tile, const int* tables, bool pairs, int x,
                                              int y, int width)
{
    const u8* plane = (const u8*)tile[PLANES + 3];
    const int* across = tables + tile[TABLE + 2];
    const int* down = tables + tile[TABLE + 3];
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
        if (x + i < 0 || x + i >= width) continue;
        unsigned both;
        if (pairs) {
            both = scaled_pair(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y);
        } else {
            both = scaled(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y)
                 | scaled((const u8*)tile[PLANES + 6], tile[PLANES + 7], (int)tile[PLANES + 8], across, down, x + i, y)
                       << 16;
        }
        fresh.uv[i][threadIdx.x] = both;
    }
}

// 2:1. Luma is the mean of 2 x 2. Chroma is left-sited on both sides: across, its samples count 1, 4 and 3
// eighths, which is what the tables say; the sample before the first is the first.
__device__ __forceinline__ void halve_luma(Cell& out, const u8* at, i64 row_step)
{
#pragma unroll
    for (int r = 0; r < 2; ++r, at += 2 * row_step) {
        uint4 a = *(const uint4*)at, b = *(const uint4*)(at + row_step);
        unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            unsigned sum = (above[k] & LANES) + (above[k] >> 8 & LANES) + (below[k] & LANES) + (below[k] >> 8 & LANES);
            out.y[r][k] = sum + 0x00020002u >> 2 & LANES;
        }
    }
}

__device__ __forceinline__ void halve_chroma(Cell& out, const u8* at, i64 row_step, bool first)
{
    const u8* before = first ? at : at - 2;
    uint4 a = *(const uint4*)at, b = *(const uint4*)(at + row_step);
    unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w};
    unsigned last = low_pair(*(const unsigned short*)before) + low_pair(*(const unsigned short*)(before + row_step));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        unsigned middle = low_pair(above[k]) + low_pair(below[k]), next = high_pair(above[k]) + high_pair(below[k]);
        out.uv[k] = last + 4 * middle + 3 * next + 0x00080008u >> 4 & LANES;
        last = next;
    }
}

// Note [Compose] for one thread's samples; x and y are the mosaic's.
__device__ __forceinline__ void draw_picture(Cell& cell, Fresh& shared, const i64* tile, const int* tables,
                                             const int* colours, int x, int y)
{
    int left = (int)tile[BOX], top = (int)tile[BOX + 1];
    int right = left + (int)tile[BOX + 2], bottom = top + (int)tile[BOX + 3];
    if (x + 8 <= left || x >= right || y < top || y >= bottom) return;   // rows come in pairs, as boxes are even
    int mode = (int)tile[MODE] & MODE_MASK, scale = mode == MODE_HALF ? 2 : 1;
    bool pairs = (int)tile[MODE] & PAIRS;
    bool fast = x >= left && x + 8 <= right && mode != 0;
    int half_x = (x - left) / 2, half_y = (y - top) >> 1;   // x - left is even; may be negative
    i64 luma_row = tile[PLANES + 1], chroma_row = tile[PLANES + 4];
    Cell fresh;

    const u8* at = (const u8*)tile[PLANES] + (tile[ORIGIN + 1] + scale * (y - top)) * luma_row + tile[ORIGIN]
                 + scale * (x - left);
    if (fast && tile[PLANES + 2] == 1 && (((i64)at | luma_row) & 8 * scale - 1) == 0) {
        if (mode == MODE_COPY) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                uint2 eight = *(const uint2*)(at + r * luma_row);
                fresh.y[r][0] = low_pair(eight.x), fresh.y[r][1] = high_pair(eight.x);
                fresh.y[r][2] = low_pair(eight.y), fresh.y[r][3] = high_pair(eight.y);
            }
        } else {
            halve_luma(fresh, at, luma_row);
        }
    } else {
        sample_luma(shared, tile, tables, x - left, y - top, right - left);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                fresh.y[r][i] = shared.y[r][2 * i][threadIdx.x] | shared.y[r][2 * i + 1][threadIdx.x] << 16;
            }
        }
    }

    i64 column = tile[ORIGIN + 2] + scale * half_x;
    at = (const u8*)tile[PLANES + 3] + (tile[ORIGIN + 3] + scale * half_y) * chroma_row + 2 * column;
    if (fast && pairs && tile[PLANES + 5] == 2 && (((i64)at | chroma_row) & 8 * scale - 1) == 0) {
        if (mode == MODE_COPY) {
            uint2 eight = *(const uint2*)at;
            fresh.uv[0] = low_pair(eight.x), fresh.uv[1] = high_pair(eight.x);
            fresh.uv[2] = low_pair(eight.y), fresh.uv[3] = high_pair(eight.y);
        } else {
            halve_chroma(fresh, at, chroma_row, column == 0);
        }
    } else {
        sample_chroma(shared, tile, tables, pairs, half_x, half_y, (right - left) / 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) fresh.uv[i] = shared.uv[i][threadIdx.x];
    }

    if (tile[COLOUR] >= 0) {
        const int* k = colours + 10 * tile[COLOUR];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int a = fresh.uv[i] & 0xffff, b = fresh.uv[i] >> 16, chroma = k[1] * a + k[2] * b + k[3];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                fresh.y[r][i] = clamped(k[0] * (int)(fresh.y[r][i] & 0xffff) + chroma)
                              | clamped(k[0] * (int)(fresh.y[r][i] >> 16) + chroma) << 16;
            }
            fresh.uv[i] = clamped(k[4] * a + k[5] * b + k[6]) | clamped(k[7] * a + k[8] * b + k[9]) << 16;
        }
    }
    unsigned opacity = (unsigned)tile[OPACITY];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + 2 * i < left || x + 2 * i >= right) continue;
        if (opacity == 255) {
            cell.y[0][i] = fresh.y[0][i], cell.y[1][i] = fresh.y[1][i], cell.uv[i] = fresh.uv[i];
            continue;
        }
        cell.y[0][i] = mix(cell.y[0][i], fresh.y[0][i], opacity);
        cell.y[1][i] = mix(cell.y[1][i], fresh.y[1][i], opacity);
        cell.uv[i] = mix(cell.uv[i], fresh.uv[i], opacity);
    }
}

// Coverage of a LINE at luma samples, 0..255: float, in the order of _line_row of primitives_cpu.py.
struct Line {
    float ax, ay, dx, dy, scale, edge;

    __device__ __forceinline__ explicit Line(const Row& row)
    {
        ax = (float)row.x0 * 0.0625f, ay = (float)row.y0 * 0.0625f;
        dx = (float)(row.x1 - row.x0) * 0.0625f, dy = (float)(row.y1 - row.y0) * 0.0625f;
        float length = dx * dx + dy * dy;
        scale = length > 0.0f ? 1.0f / length : 0.0f;
        edge = (float)(row.ab & 0xffff) * 0.0625f * 0.5f + 0.5f;
    }

    __device__ __forceinline__ int coverage(int x, int y) const
    {
        float px = (float)x + 0.5f - ax, py = (float)y + 0.5f - ay;
        float along = fminf(fmaxf((px * dx + py * dy) * scale, 0.0f), 1.0f);
        float ex = px - along * dx, ey = py - along * dy;
        float inside = fminf(fmaxf(edge - sqrtf(ex * ex + ey * ey), 0.0f), 1.0f);
        return (int)(inside * 255.0f + 0.5f);
    }
};

// Bits begin..end - 1 of eight, both relative to a cell's first column.
__device__ __forceinline__ unsigned columns(int begin, int end)
{
    begin = min(max(begin, 0), 8), end = min(max(end, 0), 8);
    return begin < end ? (1u << end) - (1u << begin) : 0u;
}

// Blend a chroma sample and its four luma samples with the weights c[row * 2 + column].
__device__ __forceinline__ void blend(Cell& cell, int i, const unsigned* c, unsigned luma, unsigned chroma)
{
    cell.y[0][i] = mix(cell.y[0][i], luma, c[0], c[1]);
    cell.y[1][i] = mix(cell.y[1][i], luma, c[2], c[3]);
    cell.uv[i] = mix(cell.uv[i], chroma, (c[0] + c[1] + c[2] + c[3] + 2) >> 2);
}

// x0, y0, x1, y1: the clipped bounds of the row. x, y: the cell's first sample.
__device__ __forceinline__ void draw_row(Cell& cell, const Row& row, int x0, int y0, int x1, int y1, const u8* atlas,
                                         int atlas_pitch, int x, int y)
{
    unsigned alpha = row.colour >> 24, luma = row.colour & 255, kind = row.ab >> 30;
    unsigned chroma = row.colour >> 8 & 255 | (row.colour >> 16 & 255) << 16;
    int a = row.ab & 0xffff, b = row.ab >> 16 & 0x3fff;
    unsigned wide = columns(x0 - x, x1 - x);
    unsigned within[2] = {y >= y0 && y < y1 ? wide : 0u, y + 1 >= y0 && y + 1 < y1 ? wide : 0u};
    if (kind == FRAME) {
        unsigned hole = columns(row.x0 + a - x, row.x1 - a - x);
        if (y >= row.y0 + a && y < row.y1 - a) within[0] &= ~hole;
        if (y + 1 >= row.y0 + a && y + 1 < row.y1 - a) within[1] &= ~hole;
    }
    if (!(within[0] | within[1])) return;
    if (kind <= FRAME) {
        if ((within[0] & within[1]) == 255u) {
            unsigned both = luma * 0x10001u;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                cell.y[0][i] = mix(cell.y[0][i], both, alpha);
                cell.y[1][i] = mix(cell.y[1][i], both, alpha);
                cell.uv[i] = mix(cell.uv[i], chroma, alpha);
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned c[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) c[k] = within[k >> 1] >> (2 * i + (k & 1)) & 1 ? alpha : 0;
            blend(cell, i, c, luma, chroma);
        }
    } else if (kind == GLYPH) {
        const u8* at = atlas + (y - row.y0 + b) * atlas_pitch + a + x - row.x0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned c[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                int column = 2 * i + (k & 1);
                c[k] = within[k >> 1] >> column & 1 ? (at[(k >> 1) * atlas_pitch + column] * alpha + 127) / 255 : 0;
            }
            if (c[0] | c[1] | c[2] | c[3]) blend(cell, i, c, luma, chroma);
        }
    } else {
        Line line(row);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned c[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                int column = 2 * i + (k & 1);
                bool inside = within[k >> 1] >> column & 1;
                c[k] = inside ? (line.coverage(x + column, y + (k >> 1)) * alpha + 127) / 255 : 0;
            }
            if (c[0] | c[1] | c[2] | c[3]) blend(cell, i, c, luma, chroma);
        }
    }
}

// Draw rows [begin, end), in order. Every lane of the warp takes part; the warp covers 64 x 8 from (left, top).
__device__ __forceinline__ void draw_rows(Cell& cell, const Row* rows, const Bounds* bounds, const Bounds* groups,
                                          int begin, int end, const u8* atlas, int atlas_pitch, int x, int y, int left,
                                          int top)
{
    int lane = threadIdx.x & 31, last = (end + 31) >> 5;
    for (int first = begin >> 5; first < last; first += 32) {
        bool met = first + lane < last && meet(groups[first + lane], left, top, left + 64, top + 8);
        unsigned met_groups = __ballot_sync(~0u, met);
        while (met_groups) {
            int n = (first + __ffs(met_groups) - 1) * 32 + lane;
            met_groups &= met_groups - 1;
            Bounds mine = {0, 0, 0, 0, 0, 0, 0, 0};
            if (n >= begin && n < end) mine = bounds[n];
            bool hit = meet(mine, left, top, left + 64, top + 8);
            unsigned hits = __ballot_sync(~0u, hit);
            uint4 upper = make_uint4(0, 0, 0, 0), lower = upper;
            if (hit) {   // all at once: then each row is handed round without waiting for memory
                upper = ((const uint4*)(rows + n))[0];
                lower = ((const uint4*)(rows + n))[1];
            }
            int corner0 = (unsigned short)mine.x0 | mine.y0 << 16, corner1 = (unsigned short)mine.x1 | mine.y1 << 16;
            while (hits) {
                int of = __ffs(hits) - 1;
                hits &= hits - 1;
                Row row;
                row.colour = __shfl_sync(~0u, upper.x, of);
                row.x0 = __shfl_sync(~0u, upper.y, of), row.y0 = __shfl_sync(~0u, upper.z, of);
                row.x1 = __shfl_sync(~0u, upper.w, of), row.y1 = __shfl_sync(~0u, lower.x, of);
                row.ab = __shfl_sync(~0u, lower.y, of);
                int c0 = __shfl_sync(~0u, corner0, of), c1 = __shfl_sync(~0u, corner1, of);
                int x0 = c0 & 0xffff, y0 = c0 >> 16, x1 = c1 & 0xffff, y1 = c1 >> 16;
                if (x + 8 > x0 && x < x1 && y + 2 > y0 && y < y1) {
                    draw_row(cell, row, x0, y0, x1, y1, atlas, atlas_pitch, x, y);
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
compose(u8* nv12, int width, int height, unsigned background, const i64* tiles, int tile_count, const int* tables,
        const Row* rows, const Bounds* bounds, const Bounds* groups, const u8* atlas, int atlas_pitch,
        const int* colours)
{
    __shared__ Fresh fresh;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int left = blockIdx.x * BLOCK_WIDTH + warp % WARPS_ACROSS * 64;
    int top = blockIdx.y * BLOCK_HEIGHT + warp / WARPS_ACROSS * 8;
    if (left >= width || top >= height) return;   // the whole warp
    int x = left + (lane & 7) * 8, y = top + (lane >> 3) * 2;
    Cell cell;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        cell.y[0][i] = cell.y[1][i] = (background & 255) * 0x10001u;
        cell.uv[i] = background >> 8 & 255 | (background >> 16 & 255) << 16;
    }

    for (int first = 0; first < tile_count; first += 32) {
        bool met = false;
        if (first + lane < tile_count) {
            i64 reach = tiles[(first + lane) * TILE_COLUMNS + REACH];
            met = (short)reach < left + 64 && (short)(reach >> 32) > left && (short)(reach >> 16) < top + 8
               && (short)(reach >> 48) > top;
        }
        unsigned met_tiles = __ballot_sync(~0u, met);
        while (met_tiles) {
            const i64* tile = tiles + (first + __ffs(met_tiles) - 1) * TILE_COLUMNS;
            met_tiles &= met_tiles - 1;
#pragma unroll 1
            for (int part = UNDER; part < END; ++part) {   // [UNDER, OVER), the picture, [OVER, END)
                draw_rows(cell, rows, bounds, groups, (int)tile[part], (int)tile[part + 1], atlas, atlas_pitch, x, y,
                          left, top);
                if (part == UNDER && tile[PLANES]) draw_picture(cell, fresh, tile, tables, colours, x, y);
            }
        }
    }

    if (y >= height || x >= width) return;
    u8* luma = nv12 + (i64)y * width + x;
    u8* chroma = nv12 + (i64)width * height + (i64)(y >> 1) * width + x;
    if ((width & 7) == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            *(uint2*)(luma + (i64)r * width) = make_uint2(__byte_perm(cell.y[r][0], cell.y[r][1], 0x6420),
                                                          __byte_perm(cell.y[r][2], cell.y[r][3], 0x6420));
        }
        *(uint2*)chroma = make_uint2(__byte_perm(cell.uv[0], cell.uv[1], 0x6420),
                                     __byte_perm(cell.uv[2], cell.uv[3], 0x6420));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (x + i >= width) continue;
        int shift = 16 * (i & 1);
        luma[i] = cell.y[0][i / 2] >> shift;
        luma[width + i] = cell.y[1][i / 2] >> shift;
        chroma[i] = cell.uv[i / 2] >> shift;
    }
}
