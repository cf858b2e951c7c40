// Compose: N pictures and their overlays -> every byte of one NV12 mosaic, written once.
//
// The maths is Note [Compose] of compose_cpu.py and Note [Blending] of primitives.py, all of it
// integer but for the coverage of a LINE; compiled without contraction, so that it rounds alike. Where
// this file does the same in floats, what comes out is the same whole number: see MAGIC.
//
// Two kernels, launched one after the other on one stream:
//
//   bin_rows   a few threads per primitive mark it in the bins that it touches, which are what a warp covers
//   compose    one thread per 8 x 2 luma samples and their 4 chroma pairs, kept in registers from the
//              background to the last picture; a warp covers 64 x 8 and works for itself alone
//
// A tile has a grid of bins over its reach, and a bin has a bit for each of the tile's primitives: 64 to a word, the
// lowest first. The bins of a row of the grid lie side by side, its rows one after the other, the tiles' grids as well.
// compose clears what it reads, so all words are 0 before and after the two; every bin is some warp's.
//
// A warp looks for the tiles that reach it, draws them in order, and of each the primitives that are marked in its bin.
// These are small beside 64 x 8, so for them the samples go to shared memory, and from there, 16 x 8 of them at a time,
// back to registers: a lane has 2 x 2, with their chroma, while one primitive after the other is drawn over them. What
// can be said of a primitive beforehand, one lane says for each.
// Nothing waits for another warp. Strides are in bytes. The mosaic's pitch is its width.

// Flags of a Tile.
#define PICTURE 1        // it has one
#define QUICK_LUMA 2     // whole words can be read of it: 1:1 or 2:1
#define QUICK_CHROMA 4
#define HALF 8           // 2:1
#define PAIRS 16         // u and v lie side by side on even addresses
#define OPAQUE 32        // its samples are the mosaic's as they are read

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

#define THREADS 128        // of compose: few, since a block keeps its place until the busiest of its warps has ended
#define BIN_THREADS 128    // of bin_rows
#define SHARE 8            // its lanes that mark one primitive; 1, 2, 4 .. 32
#define LARGE (8 * SHARE)  // bins that they mark at most: the rest are for the whole warp
#define WARPS_ACROSS 2
#define BLOCK_WIDTH (64 * WARPS_ACROSS)
#define BLOCK_HEIGHT (8 * THREADS / 32 / WARPS_ACROSS)

#define BITS 64      // primitives to a word of a mask
#define CHUNK (32 * BITS)   // primitives whose marks a warp has before it at once, a word a lane
#define FOUND 32     // primitives that a warp lists and makes ready at once, one a lane
#define PARTS 4      // of a warp's samples, 16 x 8 each: 2 x 2 a lane
#define PITCH 40     // quads from strip to strip in shared memory: a strip on, the same quad is in another bank

#define MIN_BLOCKS (1024 / THREADS)   // blocks that a multiprocessor shall hold: leaves a thread 64 registers

typedef unsigned char u8;
typedef long long i64;
typedef unsigned long long u64;

#define LANES 0x00ff00ffu   // the bits of two samples in a register

// A primitive as it travels, 32 bytes: see pack_rows of compose_table.py.
struct __align__(16) Row {
    unsigned colour;        // luma, cb, cr, alpha: one byte each, luma lowest
    int x0, y0, x1;
    int y1;
    unsigned ab;            // a: 16 bits, b: 14 bits, kind: 2 bits
    short clip_x0, clip_y0, clip_x1, clip_y1;
};

// Half-open.
struct Box {
    int x0, y0, x1, y1;
};

struct __align__(8) Corners {
    short x0, y0, x1, y1;
};

// A tile as it travels: see pack_tiles of compose_table.py.
struct __align__(16) Tile {
    Corners reach;                // outside of it the tile draws nothing; within the mosaic; empty if it draws nothing
    Corners box;                  // the visible part of the picture, on even samples
    int masks, across, words;     // of its bins: where that of the mosaic's first samples would be, how many to a row
                                  // of its grid, and the words of each
    int first, over, count;       // its first primitive; of its own: the first after the picture, how many
    int flags;
    int left_end;                 // HALF: the mosaic's x at which the picture's first sample is shown
    const u8 *luma, *chroma;      // QUICK_: the sample that would lie on the mosaic's first
    int luma_row, chroma_row;     // bytes
    int opacity, colour;          // 0..255; row of `colours`, -1 for none
    i64 planes[9];                // for y, u, v: address of the first sample, bytes to the next row and to the next sample
    int axes[4];                  // where luma x, luma y, chroma x, chroma y begin in `tables`

    // The first word of the bin at a place in the mosaic.
    __device__ __forceinline__ u64* bin(u64* all, int x, int y) const
    {
        return all + (masks + ((y >> 3) * across + (x >> 6)) * words);
    }
};

// From compute capability 9.0 on compose begins while bin_rows still runs, and waits before it reads a mark.
__device__ __forceinline__ void let_compose_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void wait_for_marks()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// What a primitive may touch.
__device__ __forceinline__ Box touched(const Row& row)
{
    Box box = {row.x0, row.y0, row.x1, row.y1};
    if (row.ab >> 30 == LINE) {
        int reach = (int)(row.ab & 0xffff) / 2 + 16;
        box = Box{min(row.x0, row.x1) - reach >> 4, min(row.y0, row.y1) - reach >> 4,
                  (max(row.x0, row.x1) + reach >> 4) + 1, (max(row.y0, row.y1) + reach >> 4) + 1};
    }
    return Box{max(box.x0, (int)row.clip_x0), max(box.y0, (int)row.clip_y0), min(box.x1, (int)row.clip_x1),
               min(box.y1, (int)row.clip_y1)};
}

// The part of that which it leaves alone: the inside of a FRAME.
__device__ __forceinline__ Box hole(const Row& row)
{
    int a = row.ab & 0xffff;
    if (row.ab >> 30 != FRAME) return Box{1, 1, 0, 0};
    return Box{row.x0 + a, row.y0 + a, row.x1 - a, row.y1 - a};
}

// The bins that a primitive touches: of `total` from (x0, y0) on, `wide` to a row, those outside of `hole`.
struct Marks {
    int x0, y0, wide, total;
    Box hole;
    int across, words;   // of the tile
    u64 bit;
    u64* at;             // the word of the mosaic's first bin

    // Mark every step-th bin of [first, end).
    __device__ __forceinline__ void mark(int first, int step, int end) const
    {
        if (first >= end) return;
        int down = step / wide, right = step - down * wide;
        int y = first / wide, x = first - y * wide;
#pragma unroll 1
        for (int k = first; k < end; k += step) {
            int column = x0 + x, row = y0 + y;
            bool hollow = column >= hole.x0 && column < hole.x1 && row >= hole.y0 && row < hole.y1;
            if (!hollow) atomicOr(at + (row * across + column) * words, bit);
            x += right, y += down;
            if (x >= wide) x -= wide, ++y;
        }
    }
};

__device__ __forceinline__ Marks marks_of(const Row& row, const Tile& tile, int n, u64* masks)
{
    Box box = touched(row), inner = hole(row);
    Corners reach = tile.reach;
    Marks out;
    out.x0 = max(box.x0, (int)reach.x0) >> 6, out.y0 = max(box.y0, (int)reach.y0) >> 3;
    out.wide = max((min(box.x1, (int)reach.x1) + 63 >> 6) - out.x0, 0);
    out.total = out.wide * max((min(box.y1, (int)reach.y1) + 7 >> 3) - out.y0, 0);
    if (box.x0 >= box.x1 || box.y0 >= box.y1 || !(row.colour >> 24)) out.total = 0;
    out.hole = Box{inner.x0 + 63 >> 6, inner.y0 + 7 >> 3, inner.x1 >> 6, inner.y1 >> 3};
    out.across = tile.across, out.words = tile.words;
    out.bit = 1ull << n % BITS, out.at = masks + tile.masks + n / BITS;
    return out;
}

// SHARE lanes per primitive; those of all tiles lie one after the other, in the order of the tiles. The boxes of all
// people of a tile do as well, so that a lane to each would leave all the work to a few warps.
extern "C" __global__ void __launch_bounds__(BIN_THREADS)
bin_rows(const Row* rows, int count, const Tile* tiles, int tile_count, u64* masks)
{
    __shared__ Marks large[BIN_THREADS / SHARE];
    let_compose_begin();
    int lane = threadIdx.x & 31, group = threadIdx.x / SHARE, n = blockIdx.x * (BIN_THREADS / SHARE) + group;
    Row row = n < count ? rows[n] : Row{};
    int warps_first = n - lane / SHARE, tile = 0;
    for (int first = 0; first < tile_count; first += 32) {
        int own = first + lane;
        bool before = own < tile_count && tiles[own].first + tiles[own].count <= warps_first;
        tile += __popc(__ballot_sync(~0u, before));
    }
    Marks marks;
    marks.total = 0;
    if (n < count) {
        while (tiles[tile].first + tiles[tile].count <= n) ++tile;
        marks = marks_of(row, tiles[tile], n - tiles[tile].first, masks);
        marks.mark(lane % SHARE, SHARE, min(marks.total, LARGE));
        if (marks.total > LARGE && lane % SHARE == 0) large[group] = marks;
    }
    unsigned lanes = __ballot_sync(~0u, marks.total > LARGE && lane % SHARE == 0);
    __syncwarp();   // what the lanes have written is there for all
    for (; lanes; lanes &= lanes - 1) {
        const Marks& shared = large[(threadIdx.x - lane + __ffs(lanes) - 1) / SHARE];
        shared.mark(LARGE + lane, 32, shared.total);
    }
}

// The samples of one thread, a byte each: two rows of luma, and u and v by turns.
struct Cell {
    uint2 y[2], uv;
};

// The same, two to a register: y[r][i] holds luma 2i and 2i + 1 of row r, uv[i] the chroma below them.
struct Wide {
    unsigned y[2][4];
    unsigned uv[4];
};

// (v + 127) / 255 in both halves, for v + 127 <= 65152.
__device__ __forceinline__ unsigned divided(unsigned v)
{
    return (v + (v >> 8 & LANES) + 0x00010001u) >> 8 & LANES;
}

// Samples two to a register, 16 bits each, which hold every product: both towards those of `value` by c / 255.
__device__ __forceinline__ unsigned mix(unsigned old, unsigned value, unsigned c)
{
    return divided(old * (255u - c) + value * c + 0x007f007fu);
}

// Four bytes of a word, two to a register.
__device__ __forceinline__ unsigned low_pair(unsigned word) { return __byte_perm(word, 0, 0x4140); }
__device__ __forceinline__ unsigned high_pair(unsigned word) { return __byte_perm(word, 0, 0x4342); }

// Eight bytes as four registers, and back.
__device__ __forceinline__ void spread(unsigned* four, uint2 eight)
{
    four[0] = low_pair(eight.x), four[1] = high_pair(eight.x);
    four[2] = low_pair(eight.y), four[3] = high_pair(eight.y);
}

__device__ __forceinline__ uint2 gathered(const unsigned* four)
{
    return make_uint2(__byte_perm(four[0], four[1], 0x6420), __byte_perm(four[2], four[3], 0x6420));
}

__device__ __forceinline__ Wide widened(const Cell& cell)
{
    Wide out;
    spread(out.y[0], cell.y[0]), spread(out.y[1], cell.y[1]), spread(out.uv, cell.uv);
    return out;
}

__device__ __forceinline__ Cell narrowed(const Wide& wide)
{
    return Cell{{gathered(wide.y[0]), gathered(wide.y[1])}, gathered(wide.uv)};
}

// What the threads of a warp sample by the tables: a loop may write it, which registers do not allow.
struct Fresh {
    u8 y[2][32][8], uv[32][8];
};

// A whole number below 2^22 and MAGIC are a float whose lowest bits are that number, and to add MAGIC rounds to one: with
// these, a sample is blended in two instructions instead of some seven of integers.
#define MAGIC 12582912.0f
__device__ __forceinline__ float magic(unsigned word, int byte)
{
    return __uint_as_float(__byte_perm(word, 0x4b400000u, 0x7650 | byte));
}

// The square root as IEEE 754 rounds it, of 2^-100 and more: what sqrtf does there, without its way out for the rest,
// which would keep the compiler from working at two roots at once.
__device__ __forceinline__ float root(float v)
{
    float y = rsqrtf(v), s = v * y;
    return fmaf(fmaf(-s, s, v), 0.5f * y, s);
}

// Coverage of a LINE at luma samples, 0..255: float, in the order of _line_row of primitives_cpu.py.
struct __align__(16) Line {
    float ax, ay, dx, dy, scale, edge;

    __device__ __forceinline__ float coverage(float px, float py) const
    {
        float along = fminf(fmaxf((px * dx + py * dy) * scale, 0.0f), 1.0f);
        float ex = px - along * dx, ey = py - along * dy;
        float distance = root(fmaxf(ex * ex + ey * ey, 1e-20f));   // less would leave `edge`, 1/2 or more, as it is too
        float inside = fminf(fmaxf(edge - distance, 0.0f), 1.0f);
        return __fadd_rd(inside * 255.0f + 0.5f, MAGIC) - MAGIC;
    }
};

__device__ __forceinline__ Line line_of(const Row& row)
{
    float dx = (float)(row.x1 - row.x0) * 0.0625f, dy = (float)(row.y1 - row.y0) * 0.0625f;
    float length = dx * dx + dy * dy;
    return Line{(float)row.x0 * 0.0625f, (float)row.y0 * 0.0625f, dx, dy, length > 0.0f ? 1.0f / length : 0.0f,
                (float)(row.ab & 0xffff) * 0.0625f * 0.5f + 0.5f};
}

// A primitive as a warp draws it, counted from the warp's first sample. Bounds are x0, y0, x1, y1, a byte each.
struct __align__(16) Ready {
    unsigned kind, bounds, colour;
    union {
        unsigned hole;   // FRAME: the bounds of what is left alone
        int texel;       // GLYPH: from the atlas' first byte to that of the warp's first sample
    };
};

// A lane's part of the 16 x 8 samples that are drawn over at once: 2 x 2 luma samples and their chroma, each MAGIC more
// than it is. The lowest byte of such a float is the sample.
struct Quad {
    float y[2][2], u, v;
};

// What a warp has in shared memory.
struct Desk {
    union {                         // a picture and primitives are never drawn at once
        Fresh fresh;
        struct {
            Ready ready[FOUND];
            Line lines[FOUND];
        };
    };
    uint2 quads[4][PITCH];          // 2 x 2 luma samples, then u and v in the lower half: a byte each
    unsigned short found[FOUND];
};

// A lane's own samples to shared memory, and back: 8 x 2 of the warp's 64 x 8.
__device__ __forceinline__ void put(uint2 (*quads)[PITCH], const Cell& cell)
{
    uint4* at = (uint4*)&quads[threadIdx.x >> 3 & 3][(threadIdx.x & 7) * 4];
    at[0] = make_uint4(__byte_perm(cell.y[0].x, cell.y[1].x, 0x5410), cell.uv.x,
                       __byte_perm(cell.y[0].x, cell.y[1].x, 0x7632), cell.uv.x >> 16);
    at[1] = make_uint4(__byte_perm(cell.y[0].y, cell.y[1].y, 0x5410), cell.uv.y,
                       __byte_perm(cell.y[0].y, cell.y[1].y, 0x7632), cell.uv.y >> 16);
}

__device__ __forceinline__ void take(Cell& cell, const uint2 (*quads)[PITCH])
{
    const uint4* at = (const uint4*)&quads[threadIdx.x >> 3 & 3][(threadIdx.x & 7) * 4];
    uint4 a = at[0], b = at[1];
    cell.y[0] = make_uint2(__byte_perm(a.x, a.z, 0x5410), __byte_perm(b.x, b.z, 0x5410));
    cell.y[1] = make_uint2(__byte_perm(a.x, a.z, 0x7632), __byte_perm(b.x, b.z, 0x7632));
    cell.uv = make_uint2(__byte_perm(a.y, a.w, 0x5410), __byte_perm(b.y, b.w, 0x5410));
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

// Samples by the tables, one after the other: any ratio, rotation, depth and edge. x and y count from the
// box's top left, width is the box's.
__device__ __forceinline__ void sample_luma(Fresh& fresh, const Tile& tile, const int* tables, int x, int y, int width)
{
    const int *across = tables + tile.axes[0], *down = tables + tile.axes[1];
#pragma unroll 1
    for (int k = 0; k < 16; ++k) {
        int i = k & 7, r = k >> 3;
        if (x + i < 0 || x + i >= width) continue;
        fresh.y[r][threadIdx.x & 31][i] = scaled((const u8*)tile.planes[0], tile.planes[1], (int)tile.planes[2],
                                                 across, down, x + i, y + r);
    }
}

__device__ __forceinline__ void sample_chroma(Fresh& fresh, const Tile& tile, const int* tables, int x, int y, int width)
{
    const u8* plane = (const u8*)tile.planes[3];
    const int *across = tables + tile.axes[2], *down = tables + tile.axes[3];
    bool pairs = tile.flags & PAIRS;
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
        if (x + i < 0 || x + i >= width) continue;
        u8* out = &fresh.uv[threadIdx.x & 31][2 * i];
        if (pairs) {
            unsigned both = scaled_pair(plane, tile.planes[4], (int)tile.planes[5], across, down, x + i, y);
            out[0] = both, out[1] = both >> 16;
        } else {
            out[0] = scaled(plane, tile.planes[4], (int)tile.planes[5], across, down, x + i, y);
            out[1] = scaled((const u8*)tile.planes[6], tile.planes[7], (int)tile.planes[8], across, down, x + i, y);
        }
    }
}

// What 8 x 2 samples at (x, y) of the mosaic are in a QUICK_ picture 1:1.
__device__ __forceinline__ void read_luma(Cell& out, const Tile& tile, int x, int y)
{
    int row = tile.luma_row;
    const u8* at = tile.luma + ((i64)y * row + x);
    out.y[0] = __ldg((const uint2*)at), out.y[1] = __ldg((const uint2*)(at + row));
}

__device__ __forceinline__ void read_chroma(Cell& out, const Tile& tile, int x, int y)
{
    out.uv = __ldg((const uint2*)(tile.chroma + ((i64)(y >> 1) * tile.chroma_row + x)));
}

__device__ __forceinline__ Cell read_cell(const Tile& tile, int x, int y)
{
    Cell out;
    read_luma(out, tile, x, y), read_chroma(out, tile, x, y);
    return out;
}

// What they are made of 2:1: rows of luma and chroma, and the pair before those of chroma.
struct Raw {
    uint4 luma[4], chroma[2];
    unsigned before[2];
};

__device__ __forceinline__ void read_half_luma(Raw& out, const Tile& tile, int x, int y)
{
    int row = tile.luma_row;
    const u8* at = tile.luma + (2 * (i64)y * row + 2 * x);
#pragma unroll
    for (int k = 0; k < 4; ++k) out.luma[k] = __ldg((const uint4*)(at + k * row));
}

__device__ __forceinline__ void read_half_chroma(Raw& out, const Tile& tile, int x, int y)
{
    int row = tile.chroma_row, back = x == tile.left_end ? 0 : 2;   // the sample before the first is the first
    const u8* at = tile.chroma + ((i64)y * row + 2 * x);
#pragma unroll
    for (int k = 0; k < 2; ++k, at += row) {
        out.chroma[k] = __ldg((const uint4*)at);
        out.before[k] = __ldg((const unsigned short*)(at - back));
    }
}

__device__ __forceinline__ Raw read_half(const Tile& tile, int x, int y)
{
    Raw out;
    read_half_luma(out, tile, x, y), read_half_chroma(out, tile, x, y);
    return out;
}

// 2:1. Luma is the mean of 2 x 2. Chroma is left-sited on both sides: across, its samples count 1, 4 and 3
// eighths, which is what the tables say.
__device__ __forceinline__ void halve_luma(Cell& out, const Raw& raw)
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        uint4 a = raw.luma[2 * r], b = raw.luma[2 * r + 1];
        unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w}, four[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            unsigned sum = (above[k] & LANES) + (above[k] >> 8 & LANES) + (below[k] & LANES) + (below[k] >> 8 & LANES);
            four[k] = sum + 0x00020002u >> 2 & LANES;
        }
        out.y[r] = gathered(four);
    }
}

__device__ __forceinline__ void halve_chroma(Cell& out, const Raw& raw)
{
    uint4 a = raw.chroma[0], b = raw.chroma[1];
    unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w}, four[4];
    unsigned last = low_pair(raw.before[0]) + low_pair(raw.before[1]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        unsigned middle = low_pair(above[k]) + low_pair(below[k]), next = high_pair(above[k]) + high_pair(below[k]);
        four[k] = last + 4 * middle + 3 * next + 0x00080008u >> 4 & LANES;
        last = next;
    }
    out.uv = gathered(four);
}

__device__ __forceinline__ Cell halved(const Raw& raw)
{
    Cell out;
    halve_luma(out, raw), halve_chroma(out, raw);
    return out;
}

// Note [Compose] for one thread's samples, of any picture; x and y are the mosaic's.
__device__ __forceinline__ void draw_picture(Cell& cell, Desk& desk, const Tile& tile, const int* tables,
                                             const int* colours, int x, int y)
{
    Corners box = tile.box;   // even
    int flags = tile.flags, left = box.x0, right = box.x1, lane = threadIdx.x & 31;
    if (!(flags & PICTURE) || y < box.y0 || y >= box.y1 || x + 8 <= left || x >= right) return;
    bool inner = x >= left && x + 8 <= right, luma = inner && flags & QUICK_LUMA, chroma = inner && flags & QUICK_CHROMA;
    Cell fresh;
    if (!luma || !chroma) {   // takes many registers: what else is there leaves them meanwhile
        put(desk.quads, cell);
        if (!luma) sample_luma(desk.fresh, tile, tables, x - left, y - box.y0, right - left);
        if (!chroma) sample_chroma(desk.fresh, tile, tables, (x - left) / 2, (y - box.y0) >> 1, (right - left) / 2);
        take(cell, desk.quads);
    }
    Raw raw;
    if (!luma) {
        fresh.y[0] = *(const uint2*)desk.fresh.y[0][lane], fresh.y[1] = *(const uint2*)desk.fresh.y[1][lane];
    } else if (flags & HALF) {
        read_half_luma(raw, tile, x, y), halve_luma(fresh, raw);
    } else {
        read_luma(fresh, tile, x, y);
    }
    if (!chroma) {
        fresh.uv = *(const uint2*)desk.fresh.uv[lane];
    } else if (flags & HALF) {
        read_half_chroma(raw, tile, x, y), halve_chroma(fresh, raw);
    } else {
        read_chroma(fresh, tile, x, y);
    }

    unsigned opacity = tile.opacity;
    int colour = tile.colour;
    Wide wide = widened(fresh), old = widened(cell);
    if (colour >= 0) {
        const int* k = colours + 10 * colour;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int a = wide.uv[i] & 0xffff, b = wide.uv[i] >> 16, shift = k[1] * a + k[2] * b + k[3];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                wide.y[r][i] = clamped(k[0] * (int)(wide.y[r][i] & 0xffff) + shift)
                             | clamped(k[0] * (int)(wide.y[r][i] >> 16) + shift) << 16;
            }
            wide.uv[i] = clamped(k[4] * a + k[5] * b + k[6]) | clamped(k[7] * a + k[8] * b + k[9]) << 16;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + 2 * i < left || x + 2 * i >= right) continue;
        old.y[0][i] = mix(old.y[0][i], wide.y[0][i], opacity);
        old.y[1][i] = mix(old.y[1][i], wide.y[1][i], opacity);
        old.uv[i] = mix(old.uv[i], wide.uv[i], opacity);
    }
    cell = narrowed(old);
}

__device__ __forceinline__ int within(int v, int end) { return min(max(v, 0), end); }

// A box within the warp's region as four bytes, whose end is never before its beginning.
__device__ __forceinline__ unsigned packed(Box box, int left, int top)
{
    int x0 = within(box.x0 - left, 64), y0 = within(box.y0 - top, 8);
    int x1 = within(box.x1 - left, 64), y1 = within(box.y1 - top, 8);
    return x0 | y0 << 8 | max(x0, x1) << 16 | max(y0, y1) << 24;
}

__device__ __forceinline__ Box unpacked(unsigned bounds)
{
    return Box{(int)(bounds & 255), (int)(bounds >> 8 & 255), (int)(bounds >> 16 & 255), (int)(bounds >> 24)};
}

// Make a primitive ready; a bit for each part of the warp's samples in which it draws anything.
__device__ __forceinline__ unsigned prepare(Ready& out, Line& line, const Row& row, int atlas_pitch, int left, int top)
{
    unsigned kind = row.ab >> 30;
    int a = row.ab & 0xffff, b = row.ab >> 16 & 0x3fff;
    out.kind = kind, out.bounds = packed(touched(row), left, top), out.colour = row.colour;
    Box box = unpacked(out.bounds), inner = Box{0, 0, 0, 0};
    if (kind == LINE) {
        line = line_of(row);
    } else if (kind == GLYPH) {
        out.texel = (top - row.y0 + b) * atlas_pitch + a + left - row.x0;
    } else if (kind == FRAME) {
        out.hole = packed(hole(row), left, top);
        inner = unpacked(out.hole);
    }
    if (box.x0 >= box.x1 || box.y0 >= box.y1) return 0;
    unsigned parts = (2 << (box.x1 - 1 >> 4)) - (1 << (box.x0 >> 4));
    int first = inner.x0 + 15 >> 4, last = inner.x1 >> 4;
    if (inner.y0 <= box.y0 && box.y1 <= inner.y1 && first < last) parts &= ~((1u << last) - (1u << first));
    return parts;
}

// Whether v lies in [begin, end).
__device__ __forceinline__ bool inside(int v, int begin, int end) { return (unsigned)(v - begin) < (unsigned)(end - begin); }

// How much of a lane's luma samples a primitive covers, times alpha: the c of Note [Blending].
struct Stroke {
    float c[2][2];
};

// x and y: the lane's first sample, counted from the warp's; (middle_x, middle_y): its middle, in the mosaic.
__device__ __forceinline__ Stroke weigh(const Ready& ready, const Line& shared_line, const u8* atlas, int atlas_pitch, int x,
                                        int y, float middle_x, float middle_y)
{
    Box box = unpacked(ready.bounds);
    bool across[2] = {inside(x, box.x0, box.x1), inside(x + 1, box.x0, box.x1)};
    bool down[2] = {inside(y, box.y0, box.y1), inside(y + 1, box.y0, box.y1)};
    float alpha = magic(ready.colour, 3) - MAGIC;
    Stroke out;
    if (ready.kind <= FRAME) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 2; ++i) out.c[r][i] = across[i] & down[r] ? alpha : 0.0f;
        }
        if (ready.kind == FILL) return out;
        Box hole = unpacked(ready.hole);
        bool hollow[2] = {inside(x, hole.x0, hole.x1), inside(x + 1, hole.x0, hole.x1)};
        bool low[2] = {inside(y, hole.y0, hole.y1), inside(y + 1, hole.y0, hole.y1)};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (hollow[i] & low[r]) out.c[r][i] = 0.0f;
            }
        }
        return out;
    }
    if (ready.kind == GLYPH) {
        const u8* at = atlas + (ready.texel + y * atlas_pitch + x);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                unsigned texel = 0;
                if (across[i] & down[r]) texel = __ldg(at + r * atlas_pitch + i);
                out.c[r][i] = __uint_as_float(texel | 0x4b400000u) - MAGIC;
            }
        }
    } else {
        Line line = shared_line;
        float px[2] = {middle_x - line.ax, middle_x + 1.0f - line.ax};
        float py[2] = {middle_y - line.ay, middle_y + 1.0f - line.ay};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float covered = line.coverage(px[i], py[r]);
                out.c[r][i] = across[i] & down[r] ? covered : 0.0f;
            }
        }
    }
    float share = alpha * (1.0f / 255);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) out.c[r][i] = fmaf(out.c[r][i], share, MAGIC) - MAGIC;
    }
    return out;
}

// Towards `value`, both MAGIC more than they are. (old * (255 - c) + value * c + 127) / 255, rounded down, is
// old + (value - old) * c / 255, rounded to the nearest: there are no ties, and what floats lose is far less than 1 / 510.
__device__ __forceinline__ void mix(float& old, float value, float share) { old = fmaf(share, value - old, old); }

__device__ __forceinline__ void blend(Quad& quad, const Stroke& stroke, unsigned colour)
{
    float luma = magic(colour, 0), sum = 2.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            mix(quad.y[r][i], luma, stroke.c[r][i] * (1.0f / 255));
            sum += stroke.c[r][i];
        }
    }
    float share = (__fmaf_rd(sum, 0.25f, MAGIC) - MAGIC) * (1.0f / 255);
    mix(quad.u, magic(colour, 1), share), mix(quad.v, magic(colour, 2), share);
}

// Draw the listed primitives, at most FOUND and counted from `rows`, over the warp's samples in shared memory, in order:
// for each part of these, all that touch it.
__device__ __forceinline__ void draw_found(Desk& desk, int count, const Row* rows, const u8* atlas, int atlas_pitch,
                                           int left, int top)
{
    int lane = threadIdx.x & 31, own = 31 - lane;   // the first has the highest bit, which is found at once
    unsigned parts = 0;
    if (own < count) {
        parts = prepare(desk.ready[lane], desk.lines[lane], rows[desk.found[own]], atlas_pitch, left, top);
    }
    __syncwarp();
#pragma unroll 1
    for (int part = 0; part < PARTS; ++part) {
        unsigned those = __ballot_sync(~0u, parts >> part & 1);
        if (!those) continue;
        uint2* at = &desk.quads[lane >> 3][part * 8 + (lane & 7)];
        uint2 samples = *at;
        Quad quad = {{{magic(samples.x, 0), magic(samples.x, 1)}, {magic(samples.x, 2), magic(samples.x, 3)}},
                     magic(samples.y, 0), magic(samples.y, 1)};
        int x = part * 16 + (lane & 7) * 2, y = (lane >> 3) * 2;
        float middle_x = (float)(left + x) + 0.5f, middle_y = (float)(top + y) + 0.5f;
#pragma unroll 1
        do {
            int n = 31 - __clz(those);
            those ^= 1u << n;
            Ready ready = desk.ready[n];
            blend(quad, weigh(ready, desk.lines[n], atlas, atlas_pitch, x, y, middle_x, middle_y), ready.colour);
        } while (those);
        unsigned upper = __byte_perm(__float_as_uint(quad.y[0][0]), __float_as_uint(quad.y[0][1]), 0x0040);
        unsigned lower = __byte_perm(__float_as_uint(quad.y[1][0]), __float_as_uint(quad.y[1][1]), 0x0040);
        unsigned chroma = __byte_perm(__float_as_uint(quad.u), __float_as_uint(quad.v), 0x0040);
        *at = make_uint2(__byte_perm(upper, lower, 0x5410), chroma);
    }
    __syncwarp();   // whoever has the samples next reads them from other lanes
}

// The lowest n bits, of an n that may be outside of 0 .. 64.
__device__ __forceinline__ u64 lowest(int n) { return n >= BITS ? ~0ull : n <= 0 ? 0 : (1ull << n) - 1; }

// Draw those of a tile's primitives that lie under its picture or over it and are marked in the warp's bin, in order.
// Every lane of the warp takes part; it covers 64 x 8 from (left, top). marks: word `lane` of the bin. What lies over
// the picture comes last, and clears the bin.
__device__ __forceinline__ void draw_marked(Cell& cell, Desk& desk, const Tile& tile, bool over, u64* masks, u64 marks,
                                            const Row* rows, const u8* atlas, int atlas_pitch, int left, int top)
{
    int lane = threadIdx.x & 31, between = tile.over, end = over ? tile.count : between;
    u64* bin = tile.bin(masks, left, top);
    rows += tile.first;
    put(desk.quads, cell);
#pragma unroll 1
    for (int first = 0; first < end; first += CHUNK) {
        int n = first + lane * BITS;   // this lane's lowest bit
        if (first) marks = n < end ? bin[n / BITS] : 0;
        if (over && marks) bin[n / BITS] = 0;
        if (between) marks &= over ? ~lowest(between - n) : lowest(between - n);
        int at = __popcll(marks);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            int before = __shfl_up_sync(~0u, at, step);
            if (lane >= step) at += before;
        }
        int total = __shfl_sync(~0u, at, 31);
        at -= __popcll(marks);
#pragma unroll 1
        for (int base = 0; base < total; base += FOUND) {
#pragma unroll 1
            for (; marks && at < base + FOUND; marks &= marks - 1, ++at) {
                desk.found[at - base] = lane * BITS + __ffsll(marks) - 1;
            }
            __syncwarp();
            draw_found(desk, min(total - base, FOUND), rows + first, atlas, atlas_pitch, left, top);
        }
    }
    __syncwarp();
    take(cell, desk.quads);
}

// Word `lane` of the marks of a warp's bin.
__device__ __forceinline__ u64 marks_in(const Tile& tile, u64* masks, int left, int top)
{
    int lane = threadIdx.x & 31;
    wait_for_marks();
    return lane < tile.words ? tile.bin(masks, left, top)[lane] : 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
compose(u8* nv12, int width, int height, unsigned background, const Tile* tiles, int tile_count, const int* tables,
        const Row* rows, u64* masks, const u8* atlas, int atlas_pitch, const int* colours)
{
    __shared__ Desk desks[THREADS / 32];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int left = blockIdx.x * BLOCK_WIDTH + warp % WARPS_ACROSS * 64;
    int top = blockIdx.y * BLOCK_HEIGHT + warp / WARPS_ACROSS * 8;
    if (left >= width || top >= height) return;   // the whole warp
    int x = left + (lane & 7) * 8, y = top + (lane >> 3) * 2;
    Desk& desk = desks[warp];
    unsigned luma = __byte_perm(background, 0, 0x0000), chroma = __byte_perm(background, 0, 0x2121);
    Cell cell = {{make_uint2(luma, luma), make_uint2(luma, luma)}, make_uint2(chroma, chroma)};

    for (int first = 0; first < tile_count; first += 32) {
        bool met = false;
        if (first + lane < tile_count) {
            Corners reach = tiles[first + lane].reach;
            met = (reach.x0 < left + 64) & (reach.x1 > left) & (reach.y0 < top + 8) & (reach.y1 > top);
        }
        unsigned met_tiles = __ballot_sync(~0u, met);
#pragma unroll 1
        for (; met_tiles; met_tiles &= met_tiles - 1) {
            const Tile& tile = tiles[first + __ffs(met_tiles) - 1];
            Corners box = tile.box;
            int flags = tile.flags;
            u64 marks;
            if ((flags & OPAQUE) && box.x0 <= left && left + 64 <= box.x1 && box.y0 <= top && top + 8 <= box.y1) {
                // Nothing is left of what lies below, which saves most warps most of the work.
                if (flags & HALF) {
                    Raw raw = read_half(tile, x, y);
                    marks = marks_in(tile, masks, left, top);
                    cell = halved(raw);
                } else {
                    cell = read_cell(tile, x, y);
                    marks = marks_in(tile, masks, left, top);
                }
            } else {
                int under = tile.over;
                marks = marks_in(tile, masks, left, top);
                if (under && (under > CHUNK || __ballot_sync(~0u, (marks & lowest(under - lane * BITS)) != 0))) {
                    draw_marked(cell, desk, tile, false, masks, marks, rows, atlas, atlas_pitch, left, top);
                }
                draw_picture(cell, desk, tile, tables, colours, x, y);
            }
            if (tile.words > 32 || __ballot_sync(~0u, marks != 0)) {
                draw_marked(cell, desk, tile, true, masks, marks, rows, atlas, atlas_pitch, left, top);
            }
        }
    }

    if (y >= height || x >= width) return;
    u8* upper = nv12 + ((i64)y * width + x);
    u8* below = nv12 + ((i64)(height + (y >> 1)) * width + x);
    if ((width & 7) == 0) {
        *(uint2*)upper = cell.y[0], *(uint2*)(upper + width) = cell.y[1], *(uint2*)below = cell.uv;
        return;
    }
    Wide wide = widened(cell);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (x + i >= width) continue;
        int shift = 16 * (i & 1);
        upper[i] = wide.y[0][i / 2] >> shift;
        upper[width + i] = wide.y[1][i / 2] >> shift;
        below[i] = wide.uv[i / 2] >> shift;
    }
}
