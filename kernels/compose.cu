// Compose: N pictures and their overlays -> every byte of one NV12 mosaic, written once.
//
// The maths is Note [Compose] of compose_cpu.py and Note [Blending] of primitives.py, all of it
// integer but for the coverage of a LINE; compiled without contraction, so that it rounds alike.
//
// Two kernels, launched one after the other on one stream:
//
//   bin_rows   a few threads per primitive mark it in the bins that it touches, which are what a warp covers
//   compose    one thread per 8 x 2 luma samples and their 4 chroma pairs, kept in registers from the
//              background to the last picture; a warp covers 64 x 8 and works for itself alone
//
// A tile has a grid of bins over its REACH, and a bin has a bit for each of the tile's primitives: 64 to a word, the
// lowest first. The bins of a row of the grid lie side by side, and its rows one after the other, from word MASKS of
// `masks` on. compose clears what it reads, so all words are 0 before and after the two; every bin is some warp's.
//
// A warp looks for the tiles that reach it, draws them in order, and of each the primitives that are marked in its bin.
// These are small beside 64 x 8, so for them the samples go to shared memory, and the warp's lanes spread over the
// columns of one primitive after the other; what can be said of a primitive beforehand, one lane says for each.
// Nothing waits for another warp. Strides are in bytes. The mosaic's pitch is its width.
//
// Samples are kept two to a register, 16 bits each: every product of this kernel's blending fits.

// Columns of the tile table, int64: for y, u, v: address of the first sample (0: no picture), bytes
// to the next row and to the next sample. See compose_table.py, which fills it.
#define PLANES 0
#define TABLE 9      // where the axes luma x, luma y, chroma x, chroma y begin in `tables`
#define BOX 13       // x, y, width, height of the visible part, mosaic samples, even
#define OPACITY 17
#define COLOUR 18    // row of `colours`, -1 for none
#define MODE 19      // 0: by the tables; 1: 1:1; 2: 2:1; PAIRS: u, v side by side on even addresses
#define REACH 20     // and MASKS, UNDER, OVER, END: a Head
#define END 24
#define ORIGIN 25    // modes 1 and 2: source samples of the box's top left: luma x, luma y, chroma x, chroma y
#define TILE_COLUMNS 30

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
#define FLAT 4      // made ready only: a large FILL or edge of a FRAME, which each lane draws over its own 8 x 2

#define THREADS 128        // of compose: few, since a block keeps its place until the busiest of its warps has ended
#define BIN_THREADS 128    // of bin_rows
#define SHARE 8            // its lanes that mark one primitive; 1, 2, 4 .. 32
#define LARGE (8 * SHARE)  // bins that they mark at most: the rest are for the whole warp
#define WARPS_ACROSS 2
#define BLOCK_WIDTH (64 * WARPS_ACROSS)
#define BLOCK_HEIGHT (8 * THREADS / 32 / WARPS_ACROSS)

#define BITS 64      // primitives to a word of a mask
#define CHUNK (32 * BITS)   // primitives whose marks a warp has before it at once, a word a lane
#define FOUND 128    // primitives that a warp lists before it draws
#define PITCH 68     // columns from strip to strip in shared memory: a strip on, the same column is in another bank

#define READY 16     // primitives that are made ready at once, at most 32
#define FLAT_FROM 97 // columns of a FLAT, at least: it takes about as many instructions as three turns
#define DEPTH 2      // turns that are weighed before the first of them is blended
#define MIN_BLOCKS (768 / THREADS)   // blocks that a multiprocessor shall hold: bounds the registers of a thread

typedef unsigned char u8;
typedef long long i64;
typedef unsigned long long u64;

#define LANES 0x00ff00ffu   // the eight bits of both samples of a register

// A primitive as it travels, 32 bytes: see pack_rows of compose_table.py.
struct __align__(16) Row {
    unsigned colour;        // luma, cb, cr, alpha: one byte each, luma lowest
    int x0, y0, x1;
    int y1;
    unsigned ab;            // a: 16 bits, b: 14 bits, kind: 2 bits
    short clip_x0, clip_y0, clip_x1, clip_y1;
};

// What a warp must know of a tile first.
struct __align__(16) Head {
    short x0, y0, x1, y1;      // REACH: outside of it the tile draws nothing; within the mosaic
    i64 masks;                 // where its masks begin
    i64 under, over, end;      // primitives [under, over) before the picture, [over, end) after it
    i64 unused;

    // The grid of its bins, and the words of a bin.
    __device__ __forceinline__ int left() const { return x0 >> 6; }
    __device__ __forceinline__ int top() const { return y0 >> 3; }
    __device__ __forceinline__ int across() const { return (x1 + 63 >> 6) - left(); }
    __device__ __forceinline__ int down() const { return (y1 + 7 >> 3) - top(); }
    __device__ __forceinline__ int words() const { return (int)((unsigned)((int)end - (int)under + BITS - 1) / BITS); }

    // The first word of the bin at a place in the mosaic.
    __device__ __forceinline__ u64* bin(u64* all, int x, int y) const
    {
        return all + masks + (i64)(((y >> 3) - top()) * across() + (x >> 6) - left()) * words();
    }
};

__device__ __forceinline__ Head head_of(const i64* tile) { return *(const Head*)(tile + REACH); }

// Half-open.
struct Box {
    int x0, y0, x1, y1;
};

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

// The bins that a primitive touches: of `total` from (x0, y0) on, `wide` to a row, those outside of `hole`. Counted
// from the tile's first.
struct Marks {
    int x0, y0, wide, total;
    Box hole;
    int across, words;   // of the grid, of a bin
    u64 bit;
    u64* at;             // the word of the grid's first bin

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
            if (!hollow) atomicOr(at + (i64)(row * across + column) * words, bit);
            x += right, y += down;
            if (x >= wide) x -= wide, ++y;
        }
    }
};

__device__ __forceinline__ Marks marks_of(const Row& row, const Head& head, int bit, u64* masks)
{
    Box box = touched(row), inner = hole(row);
    int left = head.left(), top = head.top();
    Marks out;
    out.x0 = max((box.x0 >> 6) - left, 0), out.y0 = max((box.y0 >> 3) - top, 0);
    out.wide = max(min((box.x1 + 63 >> 6) - left, head.across()) - out.x0, 0);
    out.total = out.wide * max(min((box.y1 + 7 >> 3) - top, head.down()) - out.y0, 0);
    if (box.x0 >= box.x1 || box.y0 >= box.y1 || !(row.colour >> 24)) out.total = 0;
    out.hole = Box{(inner.x0 + 63 >> 6) - left, (inner.y0 + 7 >> 3) - top, (inner.x1 >> 6) - left,
                   (inner.y1 >> 3) - top};
    out.across = head.across(), out.words = head.words();
    out.bit = 1ull << bit % BITS, out.at = masks + head.masks + bit / BITS;
    return out;
}

// SHARE lanes per primitive; those of all tiles lie one after the other, in the order of the tiles. The boxes of all
// people of a tile do as well, so that a lane to each would leave all the work to a few warps.
extern "C" __global__ void __launch_bounds__(BIN_THREADS)
bin_rows(const Row* rows, int count, const i64* tiles, int tile_count, u64* masks)
{
    __shared__ Marks large[BIN_THREADS / SHARE];
    int lane = threadIdx.x & 31, own = threadIdx.x / SHARE, n = blockIdx.x * (BIN_THREADS / SHARE) + own;
    Row row = n < count ? rows[n] : Row{};
    int warps_first = n - lane / SHARE, tile = 0;
    for (int first = 0; first < tile_count; first += 32) {
        bool before = first + lane < tile_count && tiles[(first + lane) * TILE_COLUMNS + END] <= warps_first;
        tile += __popc(__ballot_sync(~0u, before));
    }
    Marks marks;
    marks.total = 0;
    if (n < count) {
        while (tiles[tile * TILE_COLUMNS + END] <= n) ++tile;
        Head head = head_of(tiles + tile * TILE_COLUMNS);
        marks = marks_of(row, head, n - (int)head.under, masks);
        marks.mark(lane % SHARE, SHARE, min(marks.total, LARGE));
        if (marks.total > LARGE && lane % SHARE == 0) large[own] = marks;
    }
    unsigned lanes = __ballot_sync(~0u, marks.total > LARGE && lane % SHARE == 0);
    __syncwarp();   // what the lanes have written is there for all
    for (; lanes; lanes &= lanes - 1) {
        const Marks& shared = large[(threadIdx.x - lane + __ffs(lanes) - 1) / SHARE];
        shared.mark(LARGE + lane, 32, shared.total);
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

// The same with a weight for each half: what one half's difference borrows is made good by its 255-fold.
__device__ __forceinline__ unsigned mix_each(unsigned old, unsigned value, unsigned weights)
{
    unsigned low = (value - (old & 0xffffu)) * (weights & 0xffffu);
    unsigned high = (value - (old >> 16)) * (weights & 0xffff0000u);
    return divided(old * 255u + 0x007f007fu + low + high);
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

// What the threads of a warp sample by the tables: a loop may write it, which registers do not allow.
struct Fresh {
    u8 y[2][32][8], uv[32][8];
};

// The square root as IEEE 754 rounds it, of 2^-100 and more: what sqrtf does there, without its way out for the rest,
// which would keep the compiler from working at two roots at once.
__device__ __forceinline__ float root(float v)
{
    float y = rsqrtf(v), s = v * y;
    return fmaf(fmaf(-s, s, v), 0.5f * y, s);
}

// Coverage of a LINE at luma samples, 0..255: float, in the order of _line_row of primitives_cpu.py.
struct __align__(8) Line {
    float ax, ay, dx, dy, scale, edge;

    __device__ __forceinline__ int coverage(float px, float py) const
    {
        float along = fminf(fmaxf((px * dx + py * dy) * scale, 0.0f), 1.0f);
        float ex = px - along * dx, ey = py - along * dy;
        float distance = root(fmaxf(ex * ex + ey * ey, 1e-20f));   // less would leave `edge`, 1/2 or more, as it is too
        float inside = fminf(fmaxf(edge - distance, 0.0f), 1.0f);
        return (int)(inside * 255.0f + 0.5f);
    }
};

__device__ __forceinline__ Line line_of(const Row& row)
{
    float dx = (float)(row.x1 - row.x0) * 0.0625f, dy = (float)(row.y1 - row.y0) * 0.0625f;
    float length = dx * dx + dy * dy;
    return Line{(float)row.x0 * 0.0625f, (float)row.y0 * 0.0625f, dx, dy, length > 0.0f ? 1.0f / length : 0.0f,
                (float)(row.ab & 0xffff) * 0.0625f * 0.5f + 0.5f};
}

// Where a primitive lies, counted from the warp's first sample. Its columns, of two luma samples and a byte of chroma
// each, are numbered strip by strip within its bounds made even; those from `split` on lie `gap` further right, so that
// the inside of a frame takes no turns.
struct __align__(16) Place {
    int total, width, reciprocal, strip;   // columns in all; of a strip; 65536 over that, rounded up; the first strip
    int x0, y0, wide, high;                // the bounds
    int split, gap, kind;
    unsigned colour;
};

struct __align__(16) Hole {
    int x0, y0, wide, high;
};

// A primitive as a warp draws it.
struct Ready {
    Place place;
    union {
        Hole hole;          // FILL, FRAME
        int texel;          // GLYPH: from the atlas' first byte to that of the warp's first sample
        Line line;          // LINE
    };
};

// What a warp has in shared memory.
struct Desk {
    union {                         // a picture and primitives are never drawn at once
        Fresh fresh;
        Ready ready[READY];
    };
    unsigned columns[4][PITCH];     // of a strip's two luma rows: upper, chroma, lower: a byte each, lowest first
    unsigned short found[FOUND];
    u8 turns[8 * READY];            // to draw: which of `ready` in the low 5 bits, which 32 columns of it above
};

// A lane's own samples to shared memory, and back: 8 x 2 of the warp's 64 x 8.
__device__ __forceinline__ void put(unsigned (*columns)[PITCH], const Cell& cell)
{
    uint4* at = (uint4*)&columns[threadIdx.x >> 3 & 3][(threadIdx.x & 7) * 8];
    unsigned out[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[2 * i] = __byte_perm(__byte_perm(cell.y[0][i], cell.y[1][i], 0x5410), cell.uv[i], 0x3240);
        out[2 * i + 1] = __byte_perm(__byte_perm(cell.y[0][i], cell.y[1][i], 0x7632), cell.uv[i], 0x3260);
    }
    at[0] = make_uint4(out[0], out[1], out[2], out[3]), at[1] = make_uint4(out[4], out[5], out[6], out[7]);
}

__device__ __forceinline__ void take(Cell& cell, const unsigned (*columns)[PITCH])
{
    const uint4* at = (const uint4*)&columns[threadIdx.x >> 3 & 3][(threadIdx.x & 7) * 8];
    uint4 a = at[0], b = at[1];
    unsigned in[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {   // the highest byte of a column is 0
        cell.y[0][i] = __byte_perm(in[2 * i], in[2 * i + 1], 0x3430);
        cell.y[1][i] = __byte_perm(in[2 * i], in[2 * i + 1], 0x3632);
        cell.uv[i] = __byte_perm(in[2 * i], in[2 * i + 1], 0x3531);
    }
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
__device__ __forceinline__ void sample_luma(Fresh& fresh, const i64* tile, const int* tables, int x, int y, int width)
{
    const int* across = tables + tile[TABLE];
    const int* down = tables + tile[TABLE + 1];
#pragma unroll 1
    for (int k = 0; k < 16; ++k) {
        int i = k & 7, r = k >> 3;
        if (x + i < 0 || x + i >= width) continue;
        fresh.y[r][threadIdx.x & 31][i] = scaled((const u8*)tile[PLANES], tile[PLANES + 1], (int)tile[PLANES + 2],
                                                 across, down, x + i, y + r);
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
        u8* out = &fresh.uv[threadIdx.x & 31][2 * i];
        if (pairs) {
            unsigned both = scaled_pair(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y);
            out[0] = both, out[1] = both >> 16;
        } else {
            out[0] = scaled(plane, tile[PLANES + 4], (int)tile[PLANES + 5], across, down, x + i, y);
            out[1] = scaled((const u8*)tile[PLANES + 6], tile[PLANES + 7], (int)tile[PLANES + 8], across, down, x + i,
                            y);
        }
    }
}

// Where the samples of one thread lie in a tile's picture, and whether they can be read as whole words.
struct Source {
    const u8 *luma, *chroma;
    int luma_row, chroma_row;
    bool shown, luma_fast, chroma_fast, half, first;   // half: 2:1; first: no chroma sample lies before it
};

// x and y are the mosaic's. What lies in a picture lies less than 2 GB apart. No && where something is loaded: one load
// would wait for the other.
__device__ __forceinline__ Source source_of(const i64* tile, int x, int y)
{
    Source out;
    int left = (int)tile[BOX], top = (int)tile[BOX + 1], mode = (int)tile[MODE];
    int right = left + (int)tile[BOX + 2], bottom = top + (int)tile[BOX + 3];
    int luma_step = (int)tile[PLANES + 2], chroma_step = (int)tile[PLANES + 5];
    out.half = (mode & MODE_MASK) == MODE_HALF;
    int column = (int)tile[ORIGIN + 2] + ((x - left) / 2 << out.half);   // x - left is even; may be negative
    int row = (int)tile[ORIGIN + 1] + (y - top << out.half);
    int chroma_row = (int)tile[ORIGIN + 3] + ((y - top >> 1) << out.half);
    out.shown = (tile[PLANES] != 0) & (x + 8 > left) & (x < right) & (y >= top) & (y < bottom);   // boxes are even
    out.first = column == 0;
    out.luma_row = (int)tile[PLANES + 1], out.chroma_row = (int)tile[PLANES + 4];
    out.luma = (const u8*)tile[PLANES] + (row * out.luma_row + (int)tile[ORIGIN] + (x - left << out.half));
    out.chroma = (const u8*)tile[PLANES + 3] + (chroma_row * out.chroma_row + 2 * column);
    bool fast = out.shown & (x >= left) & (x + 8 <= right) & ((mode & MODE_MASK) != 0);
    int unaligned = out.half ? 15 : 7;
    out.luma_fast = fast & (luma_step == 1) & ((((int)(i64)out.luma | out.luma_row) & unaligned) == 0);
    out.chroma_fast = fast & ((mode & PAIRS) != 0) & (chroma_step == 2)
                    & ((((int)(i64)out.chroma | out.chroma_row) & unaligned) == 0);
    return out;
}

// What is read of it: rows of luma and chroma, 8 bytes of each 1:1, 16 bytes 2:1, and the pair before those of chroma.
struct Raw {
    uint4 luma[4], chroma[2];
    unsigned before[2];
};

__device__ __forceinline__ uint4 read(const u8* at, bool half)
{
    if (half) return __ldg((const uint4*)at);
    uint2 eight = __ldg((const uint2*)at);
    return make_uint4(eight.x, eight.y, 0, 0);
}

__device__ __forceinline__ Raw read(const Source& source)
{
    Raw raw = {};
    if (source.luma_fast) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k < 2 || source.half) raw.luma[k] = read(source.luma + k * source.luma_row, source.half);
        }
    }
    if (source.chroma_fast) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (k && !source.half) continue;
            const u8* at = source.chroma + k * source.chroma_row;
            raw.chroma[k] = read(at, source.half);
            if (source.half) raw.before[k] = __ldg((const unsigned short*)(source.first ? at : at - 2));
        }
    }
    return raw;
}

// 2:1. Luma is the mean of 2 x 2. Chroma is left-sited on both sides: across, its samples count 1, 4 and 3
// eighths, which is what the tables say; the sample before the first is the first.
__device__ __forceinline__ void halve_luma(Cell& out, const Raw& raw)
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        uint4 a = raw.luma[2 * r], b = raw.luma[2 * r + 1];
        unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            unsigned sum = (above[k] & LANES) + (above[k] >> 8 & LANES) + (below[k] & LANES) + (below[k] >> 8 & LANES);
            out.y[r][k] = sum + 0x00020002u >> 2 & LANES;
        }
    }
}

__device__ __forceinline__ void halve_chroma(Cell& out, const Raw& raw)
{
    uint4 a = raw.chroma[0], b = raw.chroma[1];
    unsigned above[4] = {a.x, a.y, a.z, a.w}, below[4] = {b.x, b.y, b.z, b.w};
    unsigned last = low_pair(raw.before[0]) + low_pair(raw.before[1]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        unsigned middle = low_pair(above[k]) + low_pair(below[k]), next = high_pair(above[k]) + high_pair(below[k]);
        out.uv[k] = last + 4 * middle + 3 * next + 0x00080008u >> 4 & LANES;
        last = next;
    }
}

// Note [Compose] for one thread's samples; x and y are the mosaic's.
__device__ __forceinline__ void draw_picture(Cell& cell, Desk& desk, const Source& source, Raw raw,
                                             const i64* tile, const int* tables, const int* colours, int x, int y)
{
    if (!source.shown) return;
    int left = (int)tile[BOX], top = (int)tile[BOX + 1], right = left + (int)tile[BOX + 2];
    int lane = threadIdx.x & 31;
    Cell fresh;
    if (!source.luma_fast || !source.chroma_fast) {   // takes many registers: what else is there leaves them meanwhile
        put(desk.columns, cell);
        if (!source.luma_fast) sample_luma(desk.fresh, tile, tables, x - left, y - top, right - left);
        if (!source.chroma_fast) {
            sample_chroma(desk.fresh, tile, tables, (int)tile[MODE] & PAIRS, (x - left) / 2, (y - top) >> 1,
                          (right - left) / 2);
        }
        take(cell, desk.columns);
        raw = read(source_of(tile, x, y));
    }

    if (!source.luma_fast) {
#pragma unroll
        for (int r = 0; r < 2; ++r) spread(fresh.y[r], *(const uint2*)desk.fresh.y[r][lane]);
    } else if (source.half) {
        halve_luma(fresh, raw);
    } else {
#pragma unroll
        for (int r = 0; r < 2; ++r) spread(fresh.y[r], make_uint2(raw.luma[r].x, raw.luma[r].y));
    }
    if (!source.chroma_fast) {
        spread(fresh.uv, *(const uint2*)desk.fresh.uv[lane]);
    } else if (source.half) {
        halve_chroma(fresh, raw);
    } else {
        spread(fresh.uv, make_uint2(raw.chroma[0].x, raw.chroma[0].y));
    }

    if (tile[COLOUR] >= 0) {
        const int* k = colours + 10 * tile[COLOUR];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int a = fresh.uv[i] & 0xffff, b = fresh.uv[i] >> 16, shift = k[1] * a + k[2] * b + k[3];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                fresh.y[r][i] = clamped(k[0] * (int)(fresh.y[r][i] & 0xffff) + shift)
                              | clamped(k[0] * (int)(fresh.y[r][i] >> 16) + shift) << 16;
            }
            fresh.uv[i] = clamped(k[4] * a + k[5] * b + k[6]) | clamped(k[7] * a + k[8] * b + k[9]) << 16;
        }
    }
    unsigned opacity = (unsigned)tile[OPACITY];
    if (opacity == 255 && x >= left && x + 8 <= right) {
        cell = fresh;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (x + 2 * i < left || x + 2 * i >= right) continue;
        cell.y[0][i] = mix(cell.y[0][i], fresh.y[0][i], opacity);
        cell.y[1][i] = mix(cell.y[1][i], fresh.y[1][i], opacity);
        cell.uv[i] = mix(cell.uv[i], fresh.uv[i], opacity);
    }
}

__device__ __forceinline__ int within(int v, int end) { return min(max(v, 0), end); }

__device__ __forceinline__ void prepare(Ready& out, const Row& row, int atlas_pitch, int left, int top)
{
    int kind = row.ab >> 30, a = row.ab & 0xffff, b = row.ab >> 16 & 0x3fff;
    Box box = touched(row), inner = hole(row);
    int x0 = within(box.x0 - left, 64), x1 = within(box.x1 - left, 64);
    int y0 = within(box.y0 - top, 8), y1 = within(box.y1 - top, 8);
    int hole_x0 = within(inner.x0 - left, 64), hole_x1 = within(inner.x1 - left, 64);
    int hole_y0 = within(inner.y0 - top, 8), hole_y1 = within(inner.y1 - top, 8);
    int split = 64, gap = 0;
    if (hole_y0 <= y0 && y1 <= hole_y1) {          // only the sides of a frame
        if (hole_x0 <= x0) {
            x0 = max(x0, hole_x1);
        } else if (x1 <= hole_x1) {
            x1 = min(x1, hole_x0);
        } else {
            int begin = hole_x0 + 1 & ~1, end = hole_x1 & ~1;
            if (begin < end) split = begin, gap = end - begin;
        }
    } else if (hole_x0 <= x0 && x1 <= hole_x1) {   // only its upper or lower edge
        if (hole_y0 <= y0) {
            y0 = max(y0, hole_y1);
        } else if (y1 <= hole_y1) {
            y1 = min(y1, hole_y0);
        }
    }
    bool empty = x0 >= x1 || y0 >= y1;
    int width = empty ? 2 : (x1 + 1 & ~1) - (x0 & ~1) - gap, strips = (y1 + 1 >> 1) - (y0 >> 1);
    Place& place = out.place;
    place.total = empty ? 0 : width * strips, place.width = width;
    bool whole = hole_x0 >= x1 || hole_x1 <= x0 || hole_y0 >= y1 || hole_y1 <= y0;   // nothing of it is hollow
    if (kind <= FRAME && whole && place.total >= FLAT_FROM) kind = FLAT, place.total = 32;
    place.reciprocal = 65536u / (unsigned)width + 1, place.strip = y0 >> 1;
    place.x0 = x0, place.y0 = y0, place.wide = x1 - x0, place.high = y1 - y0;
    place.split = split, place.gap = gap, place.kind = kind, place.colour = row.colour;
    if (kind == LINE) {
        out.line = line_of(row);
    } else if (kind == GLYPH) {
        out.texel = (top - row.y0 + b) * atlas_pitch + a + left - row.x0;
    } else {
        out.hole = Hole{hole_x0, hole_y0, max(hole_x1 - hole_x0, 0), max(hole_y1 - hole_y0, 0)};
    }
}

// Whether v lies in [begin, begin + size).
__device__ __forceinline__ bool inside(int v, int begin, int size) { return (unsigned)(v - begin) < (unsigned)size; }

// A lane's part in one turn: a column of a primitive, and how much of its two luma samples that covers, 0..255.
struct Stroke {
    int at;                 // in `columns`
    unsigned upper, lower;
    unsigned colour;
    bool flat;              // the lane's own eight columns: a bit of `upper` for each, and in `lower` what they weigh
};

// Needs nothing of what was drawn before, so that several are on their way at once. A chroma sample's two columns lie
// in lanes 2n, 2n + 1. Lanes without a column in a primitive's last turn cover nothing, nor does any if not `live`.
__device__ __forceinline__ Stroke weigh(const Ready& row, int turn, bool live, const u8* atlas, int atlas_pitch,
                                        int left, int top)
{
    Place place = row.place;
    int n = (threadIdx.x & 31) + 32 * turn;
    int strip = n * place.reciprocal >> 16, x = n - strip * place.width + (place.x0 & ~1);
    if (x >= place.split) x += place.gap;
    strip += place.strip;
    int y = 2 * strip;
    bool across = live & inside(x, place.x0, place.wide);
    bool upper = across & inside(y, place.y0, place.high), lower = across & inside(y + 1, place.y0, place.high);
    Stroke out = {strip * PITCH + x, 0, 0, place.colour, place.kind == FLAT};
    if (place.kind == FLAT) {
        int own = (n & 7) * 8, alpha = place.colour >> 24;
        strip = n >> 3, y = 2 * strip, out.at = strip * PITCH + own;
        upper = live & inside(y, place.y0, place.high), lower = live & inside(y + 1, place.y0, place.high);
        out.upper = (1 << within(place.x0 + place.wide - own, 8)) - (1 << within(place.x0 - own, 8));
        out.lower = (upper ? alpha : 0) | (lower ? alpha << 16 : 0);
    } else if (place.kind == GLYPH) {
        const u8* at = atlas + (row.texel + y * atlas_pitch + x);
        if (upper) out.upper = __ldg(at);
        if (lower) out.lower = __ldg(at + atlas_pitch);
    } else if (place.kind == LINE) {
        Line line = row.line;
        float px = (float)(left + x) + 0.5f - line.ax;
        float py = (float)(top + y) + 0.5f - line.ay, below = (float)(top + y + 1) + 0.5f - line.ay;
        int first = line.coverage(px, py), second = line.coverage(px, below);
        out.upper = upper ? first : 0, out.lower = lower ? second : 0;
    } else {
        Hole hole = row.hole;
        bool hollow = inside(x, hole.x0, hole.wide);
        out.upper = upper & !(hollow & inside(y, hole.y0, hole.high)) ? 255 : 0;
        out.lower = lower & !(hollow & inside(y + 1, hole.y0, hole.high)) ? 255 : 0;
    }
    return out;
}

__device__ __forceinline__ void blend_flat(unsigned* columns, const Stroke& stroke)
{
    if (!stroke.upper || !stroke.lower) return;
    unsigned luma = stroke.colour & 255, chroma = __byte_perm(stroke.colour, 0, 0x4241);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {   // once in the code, which is there for each turn that is under way
        uint4* at = (uint4*)(columns + stroke.at) + half;
        uint4 four = *at;
        unsigned old[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            unsigned first = stroke.upper >> 4 * half + i & 1 ? stroke.lower : 0;
            unsigned second = stroke.upper >> 4 * half + i + 1 & 1 ? stroke.lower : 0;
            unsigned sum = first + second;
            unsigned pair = mix(__byte_perm(old[i], old[i + 1], 0x3531), chroma, (sum & 0xffff) + (sum >> 16) + 2 >> 2);
            old[i] = mix_each(old[i] & LANES, luma, first) | (pair & 0xffff) << 8;
            old[i + 1] = mix_each(old[i + 1] & LANES, luma, second) | pair >> 16 << 8;
        }
        *at = make_uint4(old[0], old[1], old[2], old[3]);
    }
}

__device__ __forceinline__ void blend(unsigned* columns, const Stroke& stroke)
{
    if (stroke.flat) return blend_flat(columns, stroke);   // with every lane
    unsigned weights = divided((stroke.upper | stroke.lower << 16) * (stroke.colour >> 24) + 0x007f007fu);
    unsigned sum = weights + __shfl_xor_sync(~0u, weights, 1);
    sum = (sum & 0xffff) + (sum >> 16);
    if (sum) {
        unsigned* column = columns + stroke.at;
        unsigned old = *column, chroma = __byte_perm(stroke.colour, 0, 0x4441 + (threadIdx.x & 1));
        *column = mix_each(old & LANES, stroke.colour & 255, weights) | mix(old >> 8 & 255, chroma, sum + 2 >> 2) << 8;
    }
}

// Draw the listed primitives, counted from `rows`, over the warp's samples in shared memory, in order: 32 columns of
// one primitive a turn.
__device__ __forceinline__ void draw_found(Desk& desk, int count, const Row* rows, const u8* atlas, int atlas_pitch,
                                           int left, int top)
{
    int lane = threadIdx.x & 31;
#pragma unroll 1
    for (int first = 0; first < count; first += READY) {
        __syncwarp();   // what is listed is there, and nobody needs what lay where primitives are made ready
        int own = 0, before = 0, turns = 0;   // of a lane's primitive, of those before it, of all
        if (lane < min(count - first, READY)) {
            prepare(desk.ready[lane], rows[desk.found[first + lane]], atlas_pitch, left, top);
            own = desk.ready[lane].place.total + 31 >> 5;
        }
#pragma unroll
        for (int bit = 0; bit < 4; ++bit) {   // at most 64 x 4 columns: 8 turns
            unsigned lanes = __ballot_sync(~0u, own >> bit & 1);
            before += __popc(lanes & (1u << lane) - 1) << bit, turns += __popc(lanes) << bit;
        }
        for (int k = 0; k < own; ++k) desk.turns[before + k] = lane | k << 5;
        __syncwarp();
#pragma unroll 1
        for (int n = 0; n < turns; n += DEPTH) {
            Stroke strokes[DEPTH];
#pragma unroll
            for (int k = 0; k < DEPTH; ++k) {
                bool live = n + k < turns;
                int turn = desk.turns[live ? n + k : n];
                strokes[k] = weigh(desk.ready[turn & 31], turn >> 5, live, atlas, atlas_pitch, left, top);
            }
#pragma unroll
            for (int k = 0; k < DEPTH; ++k) {
                blend(desk.columns[0], strokes[k]);
                __syncwarp();   // the next one may lie over this one, on other lanes
            }
        }
    }
}

// The lowest n bits, of an n that may be outside of 0 .. 64.
__device__ __forceinline__ u64 lowest(int n) { return n >= BITS ? ~0ull : n <= 0 ? 0 : (1ull << n) - 1; }

// Draw those of a tile's primitives that lie under its picture or over it and are marked in the warp's bin, in order.
// Every lane of the warp takes part; it covers 64 x 8 from (left, top). marks: word `lane` of the bin. What lies over
// the picture comes last, and clears the bin.
__device__ __forceinline__ void draw_marked(Cell& cell, Desk& desk, const i64* tile, bool over, u64* masks, u64 marks,
                                            const Row* rows, const u8* atlas, int atlas_pitch, int left, int top)
{
    Head head = head_of(tile);
    int lane = threadIdx.x & 31;
    int begin = over ? (int)(head.over - head.under) : 0, end = (int)((over ? head.end : head.over) - head.under);
    unsigned lanes_before = (1u << lane) - 1;
    u64* bin = head.bin(masks, left, top);
    rows += head.under;
    put(desk.columns, cell);
#pragma unroll 1
    for (int first = 0; first < end; first += CHUNK) {
        int n = first + lane * BITS, count = 0;   // n: this lane's lowest bit
        if (first) marks = n < end ? bin[n / BITS] : 0;
        if (over && marks) bin[n / BITS] = 0;
        marks &= lowest(end - n) & ~lowest(begin - n);
        unsigned lanes = __ballot_sync(~0u, marks != 0);
#pragma unroll 1
        while (lanes) {
            int from = __ffs(lanes) - 1;
            u64 word = __shfl_sync(~0u, marks, from);
            lanes &= lanes - 1;
#pragma unroll
            for (int k = 0; k < BITS; k += 32) {
                unsigned half = word >> k;
                if (half >> lane & 1) desk.found[count + __popc(half & lanes_before)] = from * BITS + k + lane;
                count += __popc(half);
            }
            if (!lanes || count > FOUND - BITS) {
                draw_found(desk, count, rows + first, atlas, atlas_pitch, left, top);
                count = 0;
            }
        }
    }
    take(cell, desk.columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
compose(u8* nv12, int width, int height, unsigned background, const i64* tiles, int tile_count, const int* tables,
        const Row* rows, u64* masks, const u8* atlas, int atlas_pitch, const int* colours)
{
    __shared__ Desk desks[THREADS / 32];
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
            const i64* tile = tiles + (first + lane) * TILE_COLUMNS;
            Head head = head_of(tile);
            met = (head.x0 < left + 64) & (head.x1 > left) & (head.y0 < top + 8) & (head.y1 > top)
                & ((tile[PLANES] != 0) | (head.under < head.end));
        }
        unsigned met_tiles = __ballot_sync(~0u, met);
#pragma unroll 1
        for (; met_tiles; met_tiles &= met_tiles - 1) {
            const i64* tile = tiles + (first + __ffs(met_tiles) - 1) * TILE_COLUMNS;
            Head head = head_of(tile);
            int words = head.words(), under = (int)head.over - (int)head.under;
            u64 marks = lane < words ? head.bin(masks, left, top)[lane] : 0;
            Source source = source_of(tile, x, y);
            Raw raw = read(source);
            bool marked = words > 32 || __ballot_sync(~0u, marks != 0);
            if (under && (under > CHUNK || __ballot_sync(~0u, (marks & lowest(under - lane * BITS)) != 0))) {
                draw_marked(cell, desks[warp], tile, false, masks, marks, rows, atlas, atlas_pitch, left, top);
                raw = read(source_of(tile, x, y));   // again: it is not kept in registers meanwhile
            }
            draw_picture(cell, desks[warp], source, raw, tile, tables, colours, x, y);
            if (marked) draw_marked(cell, desks[warp], tile, true, masks, marks, rows, atlas, atlas_pitch, left, top);
        }
    }

    if (y >= height || x >= width) return;
    u8* luma = nv12 + (i64)y * width + x;
    u8* chroma = nv12 + (i64)width * height + (i64)(y >> 1) * width + x;
    if ((width & 7) == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            *(uint2*)(luma + (i64)r * width) = gathered(cell.y[r]);
        }
        *(uint2*)chroma = gathered(cell.uv);
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
