// Compose: N pictures and their overlays -> every byte of one NV12 mosaic, written once.
//
// The maths is Note [Compose] of compose_cpu.py and Note [Blending] of primitives.py, all of it
// integer but for the coverage of a LINE; compiled without contraction, so that it rounds alike.
//
// Two kernels, launched one after the other on one stream:
//
//   bound_rows   one thread per primitive: its clipped bounding box, and one box per 32 of them
//   compose      one thread per 8 x 2 luma samples and their 4 chroma pairs, kept in registers from
//                the background to the last primitive; a block of 32 x 8 threads covers 256 x 16
//
// A block looks at the tiles in drawing order. Of a tile's primitives it tests the boxes of 32 first,
// then those of the groups that met it, and draws what is left in order: cost follows what is drawn.
// Strides are in bytes. The mosaic's pitch is its width. Nothing is read outside what the tables name.

// Columns of the tile table, int64: for y, u, v: address of the first sample (0: no picture), bytes
// to the next row and to the next sample. See compose_cuda.py, which fills it.
#define PLANES 0
#define TABLE 9      // where the axes luma x, luma y, chroma x, chroma y begin in `tables`
#define BOX 13       // x, y, width, height of the visible part, mosaic samples, even
#define OPACITY 17
#define COLOUR 18    // row of `colours`, -1 for none
#define MODE 19      // 0: by the tables; 1: 1:1; 2: the mean of 2 x 2 luma samples; PAIRS: u, v side by side
#define UNDER 20     // primitives [UNDER, OVER) before the picture, [OVER, END) after it
#define OVER 21
#define END 22
#define REACH 23     // x0, y0, x1, y1 outside of which the tile draws nothing
#define TILE_COLUMNS 27

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

typedef unsigned char u8;
typedef long long i64;

// A primitive as it travels, 32 bytes: see pack_rows of compose_cuda.py.
struct __align__(16) Row {
    unsigned colour;        // luma, cb, cr, alpha: one byte each, luma lowest
    int x0, y0, x1;
    int y1;
    unsigned ab;            // a: 16 bits, b: 14 bits, kind: 2 bits
    short clip_x0, clip_y0, clip_x1, clip_y1;
};

struct __align__(8) Bounds {
    short x0, y0, x1, y1;   // half-open; empty when x0 >= x1
};

__device__ __forceinline__ int kind_of(const Row& row) { return row.ab >> 30; }
__device__ __forceinline__ int a_of(const Row& row) { return row.ab & 0xffff; }
__device__ __forceinline__ int b_of(const Row& row) { return row.ab >> 16 & 0x3fff; }

__device__ __forceinline__ bool meet(const Bounds& a, int x0, int y0, int x1, int y1)
{
    return a.x0 < x1 && a.x1 > x0 && a.y0 < y1 && a.y1 > y0;
}

__device__ __forceinline__ int floor_div16(int v) { return v >> 4; }

// One thread per primitive; blockDim.x is a multiple of 32. groups: one Bounds per 32 rows.
extern "C" __global__ void bound_rows(const Row* rows, int count, int width, int height, Bounds* bounds,
                                      Bounds* groups)
{
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    int x0 = 32767, y0 = 32767, x1 = -1, y1 = -1;
    if (n < count) {
        Row row = rows[n];
        int left = row.x0, above = row.y0, right = row.x1, below = row.y1;
        if (kind_of(row) == LINE) {
            int reach = a_of(row) / 2 + 16;
            left = floor_div16(min(row.x0, row.x1) - reach);
            right = floor_div16(max(row.x0, row.x1) + reach) + 1;
            above = floor_div16(min(row.y0, row.y1) - reach);
            below = floor_div16(max(row.y0, row.y1) + reach) + 1;
        }
        left = max(max(left, (int)row.clip_x0), 0);
        right = min(min(right, (int)row.clip_x1), width);
        above = max(max(above, (int)row.clip_y0), 0);
        below = min(min(below, (int)row.clip_y1), height);
        if (left < right && above < below && row.colour >> 24) {
            x0 = left, y0 = above, x1 = right, y1 = below;
        }
        bounds[n] = Bounds{(short)x0, (short)y0, (short)x1, (short)y1};
    }
    for (int step = 16; step; step >>= 1) {
        x0 = min(x0, __shfl_xor_sync(~0u, x0, step));
        y0 = min(y0, __shfl_xor_sync(~0u, y0, step));
        x1 = max(x1, __shfl_xor_sync(~0u, x1, step));
        y1 = max(y1, __shfl_xor_sync(~0u, y1, step));
    }
    if (n < count && (threadIdx.x & 31) == 0) {
        groups[n >> 5] = Bounds{(short)x0, (short)y0, (short)x1, (short)y1};
    }
}

// The samples of one thread.
struct Cell {
    int luma[2][8];
    int u[4], v[4];
};

__device__ __forceinline__ int mix(int old, int value, int c)
{
    unsigned w = (unsigned)old * (255u - c) + (unsigned)value * c + 127u;
    return (w + 1u + (w >> 8)) >> 8;
}

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

// The same for u and v at once, where they lie side by side on an even address.
__device__ __forceinline__ void scaled_pair(const u8* plane, i64 row_step, int step, const int* across,
                                            const int* down, int x, int y, int* u, int* v)
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
    *u = total_u >> 21;
    *v = total_v >> 21;
}

// Byte k of eight that are loaded at once.
__device__ __forceinline__ int byte_of(uint2 eight, int k)
{
    return (k < 4 ? eight.x >> 8 * k : eight.y >> 8 * (k - 4)) & 255;
}

// Sums of neighbouring bytes: 8 of 16 bytes as packed 16-bit pairs.
__device__ __forceinline__ void add_pairs(uint4 bytes, unsigned* sums)
{
    unsigned word[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        sums[k] += (word[k] & 0x00ff00ffu) + (word[k] >> 8 & 0x00ff00ffu);
    }
}

#define THREADS 256
#define WARPS (THREADS / 32)

// What a thread samples by the tables: a loop may write it, which registers do not allow.
struct Fresh {
    u8 luma[2][8][THREADS];
    u8 u[4][THREADS], v[4][THREADS];
};

// Samples by the tables, one after the other: any ratio, rotation, depth and edge.
__device__ __forceinline__ void sample_luma(Fresh& fresh, int thread, const i64* tile, const int* tables, int x, int y,
                                            int width)
{
    const u8* plane = (const u8*)tile[PLANES];
    const int* across = tables + tile[TABLE];
    const int* down = tables + tile[TABLE + 1];
#pragma unroll 1
    for (int k = 0; k < 16; ++k) {
        int i = k & 7, r = k >> 3;
        if (x + i < 0 || x + i >= width) continue;
        fresh.luma[r][i][thread] = scaled(plane, tile[PLANES + 1], (int)tile[PLANES + 2], across, down, x + i, y + r);
    }
}

__device__ __forceinline__ void sample_chroma(Fresh& fresh, int thread, const i64* tile, const int* tables, bool pairs,
                                              int x, int y, int width)
{
    const u8* plane = (const u8*)tile[PLANES + 3];
    const int* across = tables + tile[TABLE + 2];
    const int* down = tables + tile[TABLE + 3];
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
        if (x + i < 0 || x + i >= width) continue;
        int u, v;
        if (pairs) {
            scaled_pair(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y, &u, &v);
        } else {
            u = scaled(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y);
            v = scaled((const u8*)tile[PLANES + 6], tile[PLANES + 7], (int)tile[PLANES + 8], across, down, x + i, y);
        }
        fresh.u[i][thread] = u;
        fresh.v[i][thread] = v;
    }
}

// Note [Compose] for one thread's samples; x and y are the mosaic's.
__device__ __forceinline__ void draw_picture(Cell& cell, Fresh& fresh, const i64* tile, const int* tables,
                                             const int* colours, int x, int y)
{
    int left = (int)tile[BOX], top = (int)tile[BOX + 1];
    int right = left + (int)tile[BOX + 2], bottom = top + (int)tile[BOX + 3];
    if (x + 8 <= left || x >= right || y < top || y >= bottom) return;   // rows come in pairs, as boxes are even
    int thread = threadIdx.y * 32 + threadIdx.x;
    int mode = (int)tile[MODE] & MODE_MASK;
    bool pairs = (int)tile[MODE] & PAIRS;
    bool whole = x >= left && x + 8 <= right;
    int luma[2][8], u[4], v[4];

    const int* across = tables + tile[TABLE];
    const int* down = tables + tile[TABLE + 1];
    i64 row_step = tile[PLANES + 1];
    int scale = mode == MODE_HALF ? 2 : 1;
    const u8* at = (const u8*)tile[PLANES] + (down[AXIS_FIRST] + scale * (y - top)) * row_step
                 + across[AXIS_FIRST] + scale * (x - left);
    bool aligned = (((i64)at | row_step) & (8 * scale - 1)) == 0;
    if (whole && aligned && mode == MODE_COPY && tile[PLANES + 2] == 1) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            uint2 eight = *(const uint2*)(at + r * row_step);
#pragma unroll
            for (int i = 0; i < 8; ++i) luma[r][i] = byte_of(eight, i);
        }
    } else if (whole && aligned && mode == MODE_HALF && tile[PLANES + 2] == 1) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            unsigned sums[4] = {0x00020002u, 0x00020002u, 0x00020002u, 0x00020002u};
            add_pairs(*(const uint4*)(at + 2 * r * row_step), sums);
            add_pairs(*(const uint4*)(at + (2 * r + 1) * row_step), sums);
#pragma unroll
            for (int i = 0; i < 8; ++i) luma[r][i] = (sums[i >> 1] >> 16 * (i & 1) & 0xffff) >> 2;
        }
    } else {
        sample_luma(fresh, thread, tile, tables, x - left, y - top, right - left);
#pragma unroll
        for (int i = 0; i < 16; ++i) luma[i >> 3][i & 7] = fresh.luma[i >> 3][i & 7][thread];
    }

    int half_x = (x - left) / 2, half_y = (y - top) >> 1;   // x - left is even; may be negative
    at = (const u8*)tile[PLANES + 3] + (tables[tile[TABLE + 3] + AXIS_FIRST] + half_y) * tile[PLANES + 4]
       + (i64)(tables[tile[TABLE + 2] + AXIS_FIRST] + half_x) * 2;
    if (whole && pairs && mode == MODE_COPY && tile[PLANES + 5] == 2 && ((i64)at & 7) == 0) {
        uint2 eight = *(const uint2*)at;
#pragma unroll
        for (int i = 0; i < 4; ++i) u[i] = byte_of(eight, 2 * i), v[i] = byte_of(eight, 2 * i + 1);
    } else {
        sample_chroma(fresh, thread, tile, tables, pairs, half_x, half_y, (right - left) / 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) u[i] = fresh.u[i][thread], v[i] = fresh.v[i][thread];
    }

    if (tile[COLOUR] >= 0) {
        const int* k = colours + 10 * tile[COLOUR];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int a = u[i], b = v[i], chroma = k[1] * a + k[2] * b + k[3];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                luma[r][2 * i] = clamped(k[0] * luma[r][2 * i] + chroma);
                luma[r][2 * i + 1] = clamped(k[0] * luma[r][2 * i + 1] + chroma);
            }
            u[i] = clamped(k[4] * a + k[5] * b + k[6]);
            v[i] = clamped(k[7] * a + k[8] * b + k[9]);
        }
    }
    int opacity = (int)tile[OPACITY];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + 2 * i < left || x + 2 * i >= right) continue;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            int r = k >> 1, n = 2 * i + (k & 1);
            cell.luma[r][n] = mix(cell.luma[r][n], luma[r][n], opacity);
        }
        cell.u[i] = mix(cell.u[i], u[i], opacity);
        cell.v[i] = mix(cell.v[i], v[i], opacity);
    }
}

// Coverage of a LINE at a luma sample, 0..255: float, in the order of _line_row of primitives_cpu.py.
__device__ __forceinline__ int line_coverage(const Row& row, int x, int y)
{
    float ax = (float)row.x0 * 0.0625f, ay = (float)row.y0 * 0.0625f;
    float dx = (float)(row.x1 - row.x0) * 0.0625f, dy = (float)(row.y1 - row.y0) * 0.0625f;
    float length = dx * dx + dy * dy;
    float scale = length > 0.0f ? 1.0f / length : 0.0f;
    float edge = (float)a_of(row) * 0.0625f * 0.5f + 0.5f;
    float px = (float)x + 0.5f - ax, py = (float)y + 0.5f - ay;
    float along = fminf(fmaxf((px * dx + py * dy) * scale, 0.0f), 1.0f);
    float ex = px - along * dx, ey = py - along * dy;
    float inside = fminf(fmaxf(edge - sqrtf(ex * ex + ey * ey), 0.0f), 1.0f);
    return (int)(inside * 255.0f + 0.5f);
}

__device__ __forceinline__ void draw_row(Cell& cell, const Row& row, const Bounds& bounds, const u8* atlas, int atlas_pitch, int x,
                         int y)
{
    int alpha = row.colour >> 24, luma = row.colour & 255, cb = row.colour >> 8 & 255, cr = row.colour >> 16 & 255;
    int kind = kind_of(row), a = a_of(row), b = b_of(row);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        int sum = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            int r = k >> 1, at_x = x + i + (k & 1), at_y = y + r;
            if (at_x < bounds.x0 || at_x >= bounds.x1 || at_y < bounds.y0 || at_y >= bounds.y1) continue;
            int c = alpha;
            if (kind == GLYPH) {
                c = (atlas[(at_y - row.y0 + b) * atlas_pitch + a + at_x - row.x0] * alpha + 127) / 255;
            } else if (kind == LINE) {
                c = (line_coverage(row, at_x, at_y) * alpha + 127) / 255;
            } else if (kind == FRAME) {
                bool edge = at_x < row.x0 + a || at_x >= row.x1 - a || at_y < row.y0 + a || at_y >= row.y1 - a;
                c = edge ? alpha : 0;
            }
            sum += c;
            cell.luma[r][i + (k & 1)] = mix(cell.luma[r][i + (k & 1)], luma, c);
        }
        int c = (sum + 2) >> 2;
        cell.u[i / 2] = mix(cell.u[i / 2], cb, c);
        cell.v[i / 2] = mix(cell.v[i / 2], cr, c);
    }
}

struct Lists {
    int groups[THREADS];         // groups of 32 rows that meet the block
    int hits[THREADS];           // rows of WARPS of these groups that do
    int counts[WARPS];
};

// Where this thread's item goes in an ordered list of the block, and the length of the list.
__device__ __forceinline__ int rank_in_block(bool wanted, int* counts, int* total)
{
    int warp = threadIdx.y, lane = threadIdx.x;
    unsigned vote = __ballot_sync(~0u, wanted);
    __syncthreads();             // the readers of the last list are done
    if (lane == 0) counts[warp] = __popc(vote);
    __syncthreads();
    int before = 0, all = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        before += w < warp ? counts[w] : 0;
        all += counts[w];
    }
    *total = all;
    return before + __popc(vote & ((1u << lane) - 1));
}

// Draw rows [begin, end), in order. Every thread of the block takes part.
__device__ __forceinline__ void draw_rows(Cell& cell, const Row* rows, const Bounds* bounds, const Bounds* groups, int begin, int end,
                          const u8* atlas, int atlas_pitch, int x, int y, int block_x, int block_y, Lists& lists)
{
    if (begin >= end) return;    // the same for the whole block
    int thread = threadIdx.y * 32 + threadIdx.x;
    int block_x1 = block_x + 256, block_y1 = block_y + 16;
    int last = (end + 31) >> 5;
    for (int first = begin >> 5; first < last; first += THREADS) {
        int group = first + thread;
        bool met = group < last && meet(groups[group], block_x, block_y, block_x1, block_y1);
        int found;
        int place = rank_in_block(met, lists.counts, &found);
        if (met) lists.groups[place] = group;
        __syncthreads();
        for (int taken = 0; taken < found; taken += WARPS) {
            int mine = taken + threadIdx.y;
            int n = mine < found ? lists.groups[mine] * 32 + threadIdx.x : end;
            bool hit = n >= begin && n < end && meet(bounds[n], block_x, block_y, block_x1, block_y1);
            int count;
            int at = rank_in_block(hit, lists.counts, &count);
            if (hit) lists.hits[at] = n;
            __syncthreads();
            for (int h = 0; h < count; ++h) {
                int number = lists.hits[h];
                Bounds box = bounds[number];
                if (meet(box, x, y, x + 8, y + 2)) draw_row(cell, rows[number], box, atlas, atlas_pitch, x, y);
            }
        }
    }
}

#ifndef MIN_BLOCKS
#define MIN_BLOCKS 3        // blocks a multiprocessor shall hold: bounds the registers of a thread
#endif

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
compose(u8* nv12, int width, int height, unsigned background, const i64* tiles, int tile_count, const int* tables,
        const Row* rows, const Bounds* bounds, const Bounds* groups, const u8* atlas, int atlas_pitch,
        const int* colours)
{
    __shared__ Lists lists;
    __shared__ Fresh fresh;
    int block_x = blockIdx.x * 256, block_y = blockIdx.y * 16;
    int x = block_x + threadIdx.x * 8, y = block_y + threadIdx.y * 2;
    Cell cell;
#pragma unroll
    for (int i = 0; i < 8; ++i) cell.luma[0][i] = cell.luma[1][i] = background & 255;
#pragma unroll
    for (int i = 0; i < 4; ++i) cell.u[i] = background >> 8 & 255, cell.v[i] = background >> 16 & 255;

    for (int n = 0; n < tile_count; ++n) {
        const i64* tile = tiles + n * TILE_COLUMNS;
        if (tile[REACH] >= block_x + 256 || tile[REACH + 2] <= block_x || tile[REACH + 1] >= block_y + 16
            || tile[REACH + 3] <= block_y) continue;
#pragma unroll 1
        for (int part = UNDER; part < END; ++part) {   // [UNDER, OVER), the picture, [OVER, END)
            draw_rows(cell, rows, bounds, groups, (int)tile[part], (int)tile[part + 1], atlas, atlas_pitch, x, y,
                      block_x, block_y, lists);
            if (part == UNDER && tile[PLANES]) draw_picture(cell, fresh, tile, tables, colours, x, y);
        }
    }

    if (y >= height || x >= width) return;
    u8* chroma = nv12 + (i64)width * height + (i64)(y >> 1) * width + x;
    if (x + 8 <= width && (width & 7) == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            unsigned word[2];
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const int* four = cell.luma[r] + 4 * k;
                word[k] = four[0] | four[1] << 8 | four[2] << 16 | four[3] << 24;
            }
            *(uint2*)(nv12 + (i64)(y + r) * width + x) = make_uint2(word[0], word[1]);
        }
        *(uint2*)chroma = make_uint2(cell.u[0] | cell.v[0] << 8 | cell.u[1] << 16 | cell.v[1] << 24,
                                     cell.u[2] | cell.v[2] << 8 | cell.u[3] << 16 | cell.v[3] << 24);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (x + i >= width) continue;
        nv12[(i64)y * width + x + i] = cell.luma[0][i];
        nv12[(i64)(y + 1) * width + x + i] = cell.luma[1][i];
        chroma[i] = i & 1 ? cell.v[i / 2] : cell.u[i / 2];
    }
}
