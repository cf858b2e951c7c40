// Compose: N pictures and their overlays -> every byte of one NV12 mosaic, written once.
//
// The maths is Note [Compose] of compose_cpu.py and Note [Blending] of primitives.py, all of it
// integer but for the coverage of a LINE; compiled without contraction, so that it rounds alike. Where
// this file does the same in floats, what comes out is the same whole number: see MAGIC.
//
// A thread has 8 x 2 luma samples and their 4 chroma pairs, which it keeps in registers from the background to the last
// picture; a warp covers a bin of 64 x 8 and works for itself alone. What it has to draw is listed for it beforehand, by
// compose_plan.py: the primitives that touch its bin, in drawing order.
//
// Most warps lie within one picture that is copied or halved, and look for nothing else. The others take the tiles that
// reach them one after the other, and from the list what lies under and over each one's picture.
//
// Primitives are small beside 64 x 8, so for them the samples go to shared memory, and from there, 16 x 8 of them at a
// time, back to registers: a lane has 2 x 2, with their chroma, while one primitive after the other is drawn over them.
// What can be said of a primitive beforehand, one lane says for each.
// Nothing waits for another warp. Strides are in bytes. The mosaic's pitch is its width.

// Flags of a Tile.
#define PICTURE 1        // it has one
#define QUICK_LUMA 2     // whole words can be read of it: 1:1 or 2:1
#define QUICK_CHROMA 4
#define HALF 8           // 2:1
#define PAIRS 16         // u and v lie side by side on even addresses

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
#define SIDES 4   // of a FRAME, where nothing of its upper and lower edge is and no clip cuts it

#define EDGE 0x00808010u   // the colour of a frame's dark edges

#define THREADS 128    // four warps, of 2 x 2 bins; few, since a block keeps its place until the busiest has ended
#define MIN_BLOCKS 8   // that a multiprocessor shall hold: leaves a thread 64 registers
#define READY 32       // primitives that a warp makes ready at once, one a lane
#define PARTS 4        // of a warp's samples, 16 x 8 each: 2 x 2 a lane
#define PITCH 40       // quads from strip to strip in shared memory: a strip on, the same quad is in another bank
#define BESIDE 8       // rows of memory before and behind the atlas: BESIDE_ATLAS of compose_table.py

typedef unsigned char u8;
typedef long long i64;

#define LANES 0x00ff00ffu   // the bits of two samples in a register

// A primitive as it travels, 32 bytes: see pack_rows of compose_table.py.
struct __align__(16) Row {
    unsigned colour;        // luma, cb, cr, alpha: one byte each, luma lowest
    int x0, y0, x1;
    int y1;
    unsigned shape;         // LINE: width, 16 bits; FRAME: width, 14, alpha of its edges, 8; GLYPH: x, 10, y, 12;
                            // from bit 22 on: rows of its stroke before it, 5; kind, 2 (the highest)
    short clip_x0, clip_y0, clip_x1, clip_y1;

    __device__ __forceinline__ unsigned kind() const { return shape >> 30; }
    __device__ __forceinline__ int after() const { return shape >> 22 & 31; }
    __device__ __forceinline__ int line_width() const { return shape & 0xffff; }
    __device__ __forceinline__ int frame_width() const { return shape & 0x3fff; }
    __device__ __forceinline__ int edge_alpha() const { return shape >> 14 & 255; }
    __device__ __forceinline__ int atlas_x() const { return shape & 0x3ff; }
    __device__ __forceinline__ int atlas_y() const { return shape >> 10 & 0xfff; }
};

// Half-open.
struct __align__(16) Box {
    int x0, y0, x1, y1;
};

struct __align__(8) Corners {
    short x0, y0, x1, y1;
};

// A rectangle of bins, the x of a bin in the lower half and its y in the upper: the first, and the last with the highest
// bit of each half set. Below 0x8000 both.
struct __align__(8) Bins {
    unsigned first, last;

    __device__ __forceinline__ bool holds(unsigned bin) const
    {
        return !(~((bin | 0x80008000u) - first & last - bin) & 0x80008000u);   // no half has borrowed from its highest bit
    }
};

// How a picture is read in whole words.
struct __align__(16) Quick {
    int flags;
    int left_end;                 // HALF: the mosaic's x at which the picture's first sample is shown
    const u8 *luma, *chroma;      // QUICK_: the sample that would lie on the mosaic's first
    int luma_row, chroma_row;     // bytes
};

// A tile as it travels: see pack_tiles of compose_table.py.
struct __align__(16) Tile {
    Bins met, whole;              // those in which it draws anything, and in which there is nothing but its picture, read
                                  // in whole words
    Corners box;                  // the visible part of the picture, on even samples
    int over, end;                // of all primitives: its first after the picture, and the first that is not its own
    Quick quick;
    int opacity, colour;          // 0..255; row of `colours`, -1 for none
    i64 planes[9];                // for y, u, v: address of the first sample, bytes to the next row and to the next sample
    int axes[4];                  // where luma x, luma y, chroma x, chroma y begin in `tables`
};

// What a primitive may touch.
__device__ __forceinline__ Box touched(const Row& row)
{
    Box box = {row.x0, row.y0, row.x1, row.y1};
    if (row.kind() == LINE) {
        int reach = row.line_width() / 2 + 16;
        box = Box{min(row.x0, row.x1) - reach >> 4, min(row.y0, row.y1) - reach >> 4,
                  (max(row.x0, row.x1) + reach >> 4) + 1, (max(row.y0, row.y1) + reach >> 4) + 1};
    }
    return Box{max(box.x0, (int)row.clip_x0), max(box.y0, (int)row.clip_y0), min(box.x1, (int)row.clip_x1),
               min(box.y1, (int)row.clip_y1)};
}

// A LINE, see Note [Blending]: the weight at a distance of 0, were it not clamped, how it falls with the square of the
// distance, and alpha. Float, in the order of `_line_row` of primitives_cpu.py.
struct __align__(16) Line {
    float ax, ay, nx, ny, length, most, fall, alpha;

    __device__ __forceinline__ float weight(float px, float py, float along_y) const
    {
        float along = fminf(fmaxf(fmaf(px, nx, along_y), 0.0f), length);
        float ex = fmaf(-along, nx, px), ey = fmaf(-along, ny, py);
        return fminf(fmaf(fmaf(ey, ey, ex * ex), -fall, most), alpha);
    }
};

__device__ __forceinline__ Line line_of(const Row& row)
{
    float dx = (float)(row.x1 - row.x0) * 0.0625f, dy = (float)(row.y1 - row.y0) * 0.0625f;
    float width = (float)row.line_width() * 0.0625f, alpha = (float)(row.colour >> 24);
    float length = sqrtf(fmaf(dx, dx, dy * dy)), share = length > 0.0f ? 1.0f / length : 0.0f;
    float fall = alpha / fmaxf(width, 1.0f), edge = 0.5f * width + 0.5f;
    return Line{(float)row.x0 * 0.0625f, (float)row.y0 * 0.0625f, dx * share, dy * share, length, edge * edge * fall, fall,
                alpha};
}

// A FRAME: its rectangle; its line's width, and of that where what is not edge begins and how wide it is; alpha of the
// edges.
struct __align__(16) Ring {
    int x0, y0, x1, y1;
    int width, first, wide;
    float edge;
};

union Detail {
    Line line;
    Ring ring;
    int texel;   // of a GLYPH: from the first byte of the atlas' memory to what would lie on the mosaic's first sample
};

// A primitive as a warp draws it.
struct __align__(16) Ready {
    unsigned kind_rows;    // kind, 8 bits; then a bit for each row of the warp's samples that it touches; of a LINE, each
                           // that its clip holds
    unsigned left, right;  // the same for the columns, in halves
    unsigned colour;

    __device__ __forceinline__ unsigned kind() const { return kind_rows & 255; }
};

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
            Ready ready[READY];
            Detail details[READY];
        };
    };
    uint2 quads[4][PITCH];          // 2 x 2 luma samples, then u and v in the lower half: a byte each
};

// One for each warp of a block.
__shared__ Desk desks[THREADS / 32];

__device__ __forceinline__ Desk& own_desk() { return desks[threadIdx.x >> 5]; }

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
    bool pairs = tile.quick.flags & PAIRS;
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
__device__ __forceinline__ void read_luma(Cell& out, const Quick& quick, int x, int y)
{
    int row = quick.luma_row;
    const u8* at = quick.luma + (y * row + x);
    out.y[0] = __ldg((const uint2*)at), out.y[1] = __ldg((const uint2*)(at + row));
}

__device__ __forceinline__ void read_chroma(Cell& out, const Quick& quick, int x, int y)
{
    out.uv = __ldg((const uint2*)(quick.chroma + ((y >> 1) * quick.chroma_row + x)));
}

__device__ __forceinline__ Cell read_cell(const Quick& quick, int x, int y)
{
    Cell out;
    read_luma(out, quick, x, y), read_chroma(out, quick, x, y);
    return out;
}

// What they are made of 2:1: rows of luma and chroma, and the pair before those of chroma.
struct Raw {
    uint4 luma[4], chroma[2];
    unsigned before[2];
};

__device__ __forceinline__ void read_half_luma(Raw& out, const Quick& quick, int x, int y)
{
    int row = quick.luma_row;
    const u8* at = quick.luma + 2 * (y * row + x);
#pragma unroll
    for (int k = 0; k < 4; ++k) out.luma[k] = __ldg((const uint4*)(at + k * row));
}

__device__ __forceinline__ void read_half_chroma(Raw& out, const Quick& quick, int x, int y)
{
    int row = quick.chroma_row, back = x == quick.left_end ? 0 : 2;   // the sample before the first is the first
    const u8* at = quick.chroma + (y * row + 2 * x);
#pragma unroll
    for (int k = 0; k < 2; ++k, at += row) {
        out.chroma[k] = __ldg((const uint4*)at);
        out.before[k] = __ldg((const unsigned short*)(at - back));
    }
}

__device__ __forceinline__ Raw read_half(const Quick& quick, int x, int y)
{
    Raw out;
    read_half_luma(out, quick, x, y), read_half_chroma(out, quick, x, y);
    return out;
}

// 2:1. Luma is the mean of 2 x 2. Chroma is left-sited on both sides: across, its samples count 1, 4 and 3
// eighths, which is what the tables say.

// The mean of two above and two below, in the second byte: that of 64 times their sum.
__device__ __forceinline__ unsigned quarter(unsigned above, unsigned below, int pair)
{
    return __dp4a(__byte_perm(above, below, pair ? 0x7632 : 0x5410), 0x40404040u, 128u);
}

__device__ __forceinline__ unsigned halved_word(unsigned above0, unsigned above1, unsigned below0, unsigned below1)
{
    unsigned low = __byte_perm(quarter(above0, below0, 0), quarter(above0, below0, 1), 0x0051);
    return __byte_perm(low, __byte_perm(quarter(above1, below1, 0), quarter(above1, below1, 1), 0x0051), 0x5410);
}

__device__ __forceinline__ void halve_luma(Cell& out, const Raw& raw)
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        uint4 a = raw.luma[2 * r], b = raw.luma[2 * r + 1];
        out.y[r] = make_uint2(halved_word(a.x, a.y, b.x, b.y), halved_word(a.z, a.w, b.z, b.w));
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
        four[k] = last + 4 * middle + 3 * next + 0x00080008u >> 4;
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

// Note [Compose] for one thread's samples in shared memory, of any picture; x and y are the mosaic's.
__device__ __noinline__ void draw_picture(const Tile& tile, const int* tables, const int* colours, int x, int y)
{
    Desk& desk = own_desk();
    Corners box = tile.box;   // even
    Quick quick = tile.quick;
    int flags = quick.flags, left = box.x0, right = box.x1, lane = threadIdx.x & 31;
    if (!(flags & PICTURE) || y < box.y0 || y >= box.y1 || x + 8 <= left || x >= right) return;
    bool inner = x >= left && x + 8 <= right, luma = inner && flags & QUICK_LUMA, chroma = inner && flags & QUICK_CHROMA;
    Cell fresh, cell;
    if (!luma) sample_luma(desk.fresh, tile, tables, x - left, y - box.y0, right - left);
    if (!chroma) sample_chroma(desk.fresh, tile, tables, (x - left) / 2, (y - box.y0) >> 1, (right - left) / 2);
    Raw raw;
    if (!luma) {
        fresh.y[0] = *(const uint2*)desk.fresh.y[0][lane], fresh.y[1] = *(const uint2*)desk.fresh.y[1][lane];
    } else if (flags & HALF) {
        read_half_luma(raw, quick, x, y), halve_luma(fresh, raw);
    } else {
        read_luma(fresh, quick, x, y);
    }
    if (!chroma) {
        fresh.uv = *(const uint2*)desk.fresh.uv[lane];
    } else if (flags & HALF) {
        read_half_chroma(raw, quick, x, y), halve_chroma(fresh, raw);
    } else {
        read_chroma(fresh, quick, x, y);
    }

    take(cell, desk.quads);
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
    put(desk.quads, narrowed(old));
}

// Bits from the n-th on: all for n <= 0, none for n >= 32.
__device__ __forceinline__ unsigned from_bit(int n) { return __funnelshift_lc(0, ~0u, max(n, 0)); }

// A bit for each column of a warp's samples, in halves, that lies in [x0, x1).
struct Columns {
    unsigned left, right;

    __device__ __forceinline__ Columns(int x0, int x1)
        : left(from_bit(x0) & ~from_bit(x1)), right(from_bit(x0 - 32) & ~from_bit(x1 - 32))
    {
    }
};

__device__ __forceinline__ unsigned rows_of(int y0, int y1) { return from_bit(y0) & ~from_bit(y1) & 255; }

// Make a primitive ready; the columns in which it draws anything.
__device__ __forceinline__ Columns prepare(Ready& out, Detail& detail, const Row& row, int atlas_pitch, int left, int top)
{
    unsigned kind = row.kind();
    Box box = touched(row);
    Columns columns(box.x0 - left, box.x1 - left), within = columns;
    unsigned rows = rows_of(box.y0 - top, box.y1 - top);
    if (kind == LINE) {
        within = Columns(row.clip_x0 - left, row.clip_x1 - left), rows = rows_of(row.clip_y0 - top, row.clip_y1 - top);
        detail.line = line_of(row);
    } else if (kind == GLYPH) {
        detail.texel = (row.atlas_y() + BESIDE - row.y0) * atlas_pitch + row.atlas_x() - row.x0;
    } else if (kind == FRAME) {
        int width = row.frame_width(), edge = row.edge_alpha();
        detail.ring = Ring{row.x0, row.y0, row.x1, row.y1,
                           width, edge ? 1 : 0, edge ? max(width - 2, 0) : width, (float)edge};
        if (row.y0 + width <= top && top + 8 <= row.y1 - width && rows == 255) {
            Columns hole(row.x0 + width - left, row.x1 - width - left);
            columns.left &= ~hole.left, columns.right &= ~hole.right;
            if (box.x0 == row.x0 && box.x1 == row.x1) kind = SIDES;
        }
    }
    out = Ready{kind | rows << 8, within.left, within.right, row.colour};
    return columns;
}

// What a warp has made ready: the first has the highest bit, which is found at once.
struct Batch {
    unsigned left, right;   // the columns of the lane's own primitive, in halves
    unsigned begins;        // which begin a stroke
};

// The primitive of a list that a lane makes ready.
__device__ __forceinline__ int own_number(const int* list, int count)
{
    int own = 31 - (threadIdx.x & 31);
    return own < count ? list[own] : 0;
}

// Make the first primitives of a list ready, a lane each: `count`, or READY if there are more. Then the last stroke, to
// which more may belong, is left for the next time, and `count` is without it.
__device__ __forceinline__ Batch make_ready(Desk& desk, int number, int& count, const Row* rows, int atlas_pitch,
                                            int left, int top)
{
    int lane = threadIdx.x & 31, own = 31 - lane, began = -1;
    Batch out = {};
    if (own < count) {
        Row row = rows[number];
        began = number - row.after();
        Columns columns = prepare(desk.ready[lane], desk.details[lane], row, atlas_pitch, left, top);
        out.left = columns.left, out.right = columns.right;
    }
    int before = __shfl_down_sync(~0u, began, 1);
    out.begins = __ballot_sync(~0u, own == 0 || began != before);
    if (count > READY) {
        count = 32 - __ffs(out.begins);   // where the last stroke begins; none is longer than READY
        if (!count) count = READY;
        if (own >= count) out.left = out.right = 0;
    }
    return out;
}

// What a lane draws over: its samples, of which the first is (x, y) in the mosaic.
struct Spot {
    Quad quad;
    int x, y;
    int part, column, row;   // of the warp's samples; of the part's

    // The bits for the half in which the part lies.
    __device__ __forceinline__ unsigned columns_of(const Ready& ready) const { return part & 2 ? ready.right : ready.left; }

    // Which of the samples a primitive touches.
    struct Touched {
        bool across[2], down[2];
    };

    __device__ __forceinline__ Touched touched(const Ready& ready) const
    {
        unsigned columns = columns_of(ready) >> column, rows = ready.kind_rows >> row;
        return Touched{{(columns & 1) != 0, (columns & 2) != 0}, {(rows & 1) != 0, (rows & 2) != 0}};
    }
};

// Towards `value`, both MAGIC more than they are. (old * (255 - c) + value * c + 127) / 255, rounded down, is
// old + (value - old) * c / 255, rounded to the nearest: there are no ties, and what floats lose is far less than 1 / 510.
__device__ __forceinline__ void mix(float& old, float value, float share) { old = fmaf(share, value - old, old); }

// The c of Note [Blending] at a lane's luma samples.
struct Weights {
    float c[2][2];

};

// The share of a chroma sample: `sum` is 2 more than that of its four c.
__device__ __forceinline__ float mean_share(float sum) { return (__fmaf_rd(sum, 0.25f, MAGIC) - MAGIC) * (1.0f / 255); }

__device__ __forceinline__ void blend(Quad& quad, const Weights& weights, unsigned colour)
{
    float luma = magic(colour, 0), sum = 2.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            mix(quad.y[r][i], luma, weights.c[r][i] * (1.0f / 255));
            sum += weights.c[r][i];
        }
    }
    float share = mean_share(sum);
    mix(quad.u, magic(colour, 1), share), mix(quad.v, magic(colour, 2), share);
}

__device__ __forceinline__ float alpha_of(const Ready& ready) { return magic(ready.colour, 3) - MAGIC; }

__device__ __forceinline__ void draw_fill(Spot& spot, const Ready& ready)
{
    float alpha = alpha_of(ready);
    if ((spot.columns_of(ready) >> (spot.part & 1) * 16 & 0xffff) == 0xffff && ready.kind_rows >> 8 == 255) {
        float share = alpha * (1.0f / 255), luma = magic(ready.colour, 0);
        Quad& quad = spot.quad;
        mix(quad.y[0][0], luma, share), mix(quad.y[0][1], luma, share);
        mix(quad.y[1][0], luma, share), mix(quad.y[1][1], luma, share);
        mix(quad.u, magic(ready.colour, 1), share), mix(quad.v, magic(ready.colour, 2), share);
        return;
    }
    Spot::Touched in = spot.touched(ready);
    float left = in.across[0] ? alpha : 0.0f, right = in.across[1] ? alpha : 0.0f;
    blend(spot.quad, Weights{{{in.down[0] ? left : 0.0f, in.down[0] ? right : 0.0f},
                              {in.down[1] ? left : 0.0f, in.down[1] ? right : 0.0f}}}, ready.colour);
}

// Where a sample lies in a frame, by how deep in its rectangle.
struct Depth {
    bool line, edge;

    __device__ __forceinline__ Depth(const Ring& ring, int deep)
    {
        line = (unsigned)(deep - ring.first) < (unsigned)ring.wide, edge = (unsigned)deep < (unsigned)ring.width & !line;
    }
};

// The chroma of a frame: its edges first, then what is between them. Sums as `mean_share` takes them.
__device__ __forceinline__ void blend_frame(Quad& quad, unsigned colour, float edges, float lines)
{
    float share = mean_share(edges);
    mix(quad.u, magic(EDGE, 1), share), mix(quad.v, magic(EDGE, 2), share);
    share = mean_share(lines);
    mix(quad.u, magic(colour, 1), share), mix(quad.v, magic(colour, 2), share);
}

// Where rows do not matter.
__device__ __forceinline__ void draw_sides(Spot& spot, const Ready& ready, const Ring& ring)
{
    float alpha = alpha_of(ready), edge = ring.edge, share = alpha * (1.0f / 255), edge_share = edge * (1.0f / 255);
    float luma = magic(ready.colour, 0), dark = magic(EDGE, 0), lines = 2.0f, edges = 2.0f;
    int from_left = spot.x - ring.x0, to_right = ring.x1 - 1 - spot.x;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        Depth depth(ring, min(from_left + i, to_right - i));
        float own = depth.line ? share : depth.edge ? edge_share : 0.0f, value = depth.line ? luma : dark;
        mix(spot.quad.y[0][i], value, own), mix(spot.quad.y[1][i], value, own);
        if (depth.line) lines += alpha + alpha;
        if (depth.edge) edges += edge + edge;
    }
    blend_frame(spot.quad, ready.colour, edges, lines);
}

__device__ __forceinline__ void draw_frame(Spot& spot, const Ready& ready, const Ring& ring)
{
    Spot::Touched in = spot.touched(ready);
    float alpha = alpha_of(ready), lines = 2.0f, edges = 2.0f;
    int from_left = spot.x - ring.x0, to_right = ring.x1 - 1 - spot.x;
    int from_top = spot.y - ring.y0, to_bottom = ring.y1 - 1 - spot.y;
    int deep_x[2] = {in.across[0] ? min(from_left, to_right) : -1, in.across[1] ? min(from_left + 1, to_right - 1) : -1};
    int deep_y[2] = {in.down[0] ? min(from_top, to_bottom) : -1, in.down[1] ? min(from_top + 1, to_bottom - 1) : -1};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            Depth depth(ring, min(deep_x[i], deep_y[r]));
            float line = depth.line ? alpha : 0.0f, edge = depth.edge ? ring.edge : 0.0f;
            mix(spot.quad.y[r][i], magic(depth.line ? ready.colour : EDGE, 0), (line + edge) * (1.0f / 255));
            lines += line, edges += edge;
        }
    }
    blend_frame(spot.quad, ready.colour, edges, lines);
}

// The rows of a stroke are numbered by the bits of `stroke`; `ready` is one of them. `atlas` is the memory that begins
// BESIDE rows before the atlas, and ends as many behind it: all of it may be read.
__device__ __forceinline__ void draw_glyphs(Spot& spot, const Ready& ready, const Desk& desk, unsigned stroke,
                                            const u8* atlas, int atlas_pitch)
{
    int most[2][2] = {};
    int own = spot.y * atlas_pitch + spot.x;
#pragma unroll 2
    do {
        int n = __ffs(stroke) - 1;
        const u8 *upper = atlas + (unsigned)(own + desk.details[n].texel), *lower = upper + (unsigned)atlas_pitch;
        int texels[2][2] = {{__ldg(upper), __ldg(upper + 1)}, {__ldg(lower), __ldg(lower + 1)}};
        const Ready& glyph = desk.ready[n];
        unsigned columns = spot.columns_of(glyph) >> spot.column, rows = glyph.kind_rows >> spot.row;
        unsigned in[2] = {rows & 1 ? columns : 0, rows & 2 ? columns : 0};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                most[r][i] = max(most[r][i], in[r] & 1 << i ? texels[r][i] : 0);
            }
        }
        stroke &= stroke - 1;
    } while (stroke);
    Weights weights;
    float share = alpha_of(ready) * (1.0f / 255);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) weights.c[r][i] = fmaf((float)most[r][i], share, MAGIC) - MAGIC;
    }
    blend(spot.quad, weights, ready.colour);
}

__device__ __forceinline__ void draw_lines(Spot& spot, const Ready& ready, const Desk& desk, unsigned stroke)
{
    Weights weights = {};
    float middle_x = (float)spot.x + 0.5f, middle_y = (float)spot.y + 0.5f;
#pragma unroll 1
    do {
        Line line = desk.details[__ffs(stroke) - 1].line;
        float px[2] = {middle_x - line.ax, middle_x + 1.0f - line.ax};
        float py[2] = {middle_y - line.ay, middle_y + 1.0f - line.ay};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float along_y = py[r] * line.ny;
#pragma unroll
            for (int i = 0; i < 2; ++i) weights.c[r][i] = fmaxf(weights.c[r][i], line.weight(px[i], py[r], along_y));
        }
        stroke &= stroke - 1;
    } while (stroke);
    Spot::Touched in = spot.touched(ready);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) weights.c[r][i] = (in.across[i] & in.down[r] ? weights.c[r][i] : 0.0f) + MAGIC - MAGIC;
    }
    blend(spot.quad, weights, ready.colour);
}

// Draw what is ready over the warp's samples in shared memory, in order: for each part of these, all that touch it.
__device__ __forceinline__ void draw_ready(Desk& desk, Batch batch, const u8* atlas, int atlas_pitch, int left, int top)
{
    int lane = threadIdx.x & 31;
    uint2* at = &desk.quads[lane >> 3][lane & 7];
    Spot spot;
    spot.x = left + (lane & 7) * 2, spot.y = top + (lane >> 3) * 2, spot.row = 8 + (lane >> 3) * 2;
#pragma unroll 1
    for (int part = 0; part < PARTS; ++part, at += 8, spot.x += 16) {
        unsigned those = __ballot_sync(~0u, batch.left & 0xffff);
        batch.left = __funnelshift_r(batch.left, batch.right, 16), batch.right >>= 16;
        if (!those) continue;
        spot.part = part, spot.column = (part & 1) * 16 + (lane & 7) * 2;
        uint2 samples = *at;
        spot.quad = Quad{{{magic(samples.x, 0), magic(samples.x, 1)}, {magic(samples.x, 2), magic(samples.x, 3)}},
                         magic(samples.y, 0), magic(samples.y, 1)};
#pragma unroll 1
        do {
            int n = 31 - __clz(those);
            Ready ready = desk.ready[n];
            unsigned kind = ready.kind();
            those ^= 1u << n;
            if (kind == FILL) {
                draw_fill(spot, ready);
            } else if (kind == SIDES) {
                draw_sides(spot, ready, desk.details[n].ring);
            } else if (kind == FRAME) {
                draw_frame(spot, ready, desk.details[n].ring);
            } else {
                // The rest of its stroke: those before the next one's beginning.
                unsigned later = batch.begins & (1u << n) - 1, rest = those;
                if (later) rest &= ~((2u << 31 - __clz(later)) - 1);
                those ^= rest, rest |= 1u << n;
                if (kind == LINE) {
                    draw_lines(spot, ready, desk, rest);
                } else {
                    draw_glyphs(spot, ready, desk, rest, atlas, atlas_pitch);
                }
            }
        } while (those);
        const Quad& quad = spot.quad;
        unsigned upper = __byte_perm(__float_as_uint(quad.y[0][0]), __float_as_uint(quad.y[0][1]), 0x0040);
        unsigned lower = __byte_perm(__float_as_uint(quad.y[1][0]), __float_as_uint(quad.y[1][1]), 0x0040);
        unsigned chroma = __byte_perm(__float_as_uint(quad.u), __float_as_uint(quad.v), 0x0040);
        *at = make_uint2(__byte_perm(upper, lower, 0x5410), chroma);
    }
    __syncwarp();   // whoever has the samples next reads them from other lanes
}

// Draw a list of primitives over the warp's samples in shared memory, in order. Every lane of the warp takes part.
__device__ __noinline__ void draw_list(const int* list, int count, const Row* rows, const u8* atlas, int atlas_pitch,
                                       int left, int top)
{
    Desk& desk = own_desk();
#pragma unroll 1
    while (count) {
        int drawn = count;
        Batch batch = make_ready(desk, own_number(list, count), drawn, rows, atlas_pitch, left, top);
        __syncwarp();
        draw_ready(desk, batch, atlas, atlas_pitch, left, top);
        list += drawn, count -= drawn;
    }
}

// How many primitives at the head of a list come before one, the numbers of the listed being in order.
__device__ __forceinline__ int listed_before(const int* list, int count, int end)
{
    int lane = threadIdx.x & 31, n = 0;
#pragma unroll 1
    while (n < count) {
        int before = __popc(__ballot_sync(~0u, n + lane < count && list[n + lane] < end));
        n += before;
        if (before < 32) break;
    }
    return n;
}

// Have the second-level cache read a line.
__device__ __forceinline__ void prefetch(const u8* at)
{
#ifdef __CUDA_ARCH__   // this file is C++ too, see tests/kernel_on_host.py
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#endif
}

// A lane's samples to the mosaic.
__device__ __forceinline__ void store(u8* nv12, int width, int height, const Cell& cell, int x, int y)
{
    if (y >= height || x >= width) return;
    u8* upper = nv12 + (y * width + x);
    u8* below = nv12 + ((height + (y >> 1)) * width + x);
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

// All that a warp may meet: any tiles, one over the other, whatever their pictures are, from the background on.
__device__ __noinline__ void compose_any(u8* nv12, int width, int height, unsigned background, const Tile* tiles,
                                         int tile_count, const int* tables, const Row* rows, const int* list, int count,
                                         const u8* atlas, int atlas_pitch, const int* colours, int left, int top)
{
    int lane = threadIdx.x & 31, x = left + (lane & 7) * 8, y = top + (lane >> 3) * 2;
    Desk& desk = own_desk();
    unsigned luma = __byte_perm(background, 0, 0x0000), chroma = __byte_perm(background, 0, 0x2121);
    put(desk.quads, Cell{{make_uint2(luma, luma), make_uint2(luma, luma)}, make_uint2(chroma, chroma)});
    __syncwarp();
    unsigned bin = left / 64 | top / 8 << 16;
    for (int first = 0; first < tile_count; first += 32) {
        unsigned met = __ballot_sync(~0u, first + lane < tile_count && tiles[first + lane].met.holds(bin));
#pragma unroll 1
        for (; met; met &= met - 1) {
            const Tile& tile = tiles[first + __ffs(met) - 1];
            int ends[2] = {tile.over, tile.end};
#pragma unroll 1
            for (int k = 0; k < 2; ++k) {
                int own = listed_before(list, count, ends[k]);
                draw_list(list, own, rows, atlas, atlas_pitch, left, top);
                list += own, count -= own;
                if (!k) draw_picture(tile, tables, colours, x, y);
                __syncwarp();
            }
        }
    }
    Cell cell;
    take(cell, desk.quads);
    store(nv12, width, height, cell, x, y);
}

// The tile that is alone in a bin, whose `whole` holds it: 1 more than its number, or 0.
__device__ __forceinline__ int alone_in(unsigned bin, const Tile* tiles, int tile_count)
{
    int lane = threadIdx.x & 31, count = 0, only = 0;
#pragma unroll 1
    for (int first = 0; first < tile_count; first += 32) {
        bool meets = false, holds = false;
        if (first + lane < tile_count) {
            Bins met = tiles[first + lane].met, whole = tiles[first + lane].whole;
            meets = met.holds(bin), holds = whole.holds(bin);
        }
        unsigned met = __ballot_sync(~0u, meets), held = __ballot_sync(~0u, holds);
        if (met) count += __popc(met), only = met == held ? first + __ffs(met) : 0;
    }
    return count == 1 ? only : 0;
}

// plan: for each block where it draws, in blocks: x, 8 bits (the lowest), and y, 10; then the tile that is alone there,
// whose `whole` holds it all: 1 more than its number, or 0. From there on, in `told` bytes, is all that the launch is
// told: heads, lists, tiles and rows too.
// heads: for `drawn` blocks from `lead` on, where the lists of their four bins begin, which follow one another, and how
// long each is, a byte each. Where one is longer than a byte says, all are 255, and there, before the lists, is for each
// where it begins, from there on, and how long it is.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
compose(u8* nv12, int width, int height, unsigned background, const unsigned* plan, unsigned told, int lead, int drawn,
        const uint2* heads, const int* lists, const Tile* tiles, int tile_count, const int* tables, const Row* rows,
        const u8* atlas, int atlas_pitch, const int* colours)
{
    // One thing names the next, so each is asked for as early as it is known; and the first blocks ask for all.
    unsigned place = plan[blockIdx.x], rank = blockIdx.x - lead, ahead = (blockIdx.x * THREADS + threadIdx.x) * 128u;
    uint2 head = make_uint2(0, 0);
    if (rank < (unsigned)drawn) head = heads[rank];
    if (ahead < told) prefetch((const u8*)plan + ahead);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, only = place >> 18;
    int left = (place & 255) * 128 + warp % 2 * 64, top = (place >> 8 & 1023) * 16 + warp / 2 * 8;
    if (left >= width || top >= height) return;   // the whole warp
    unsigned first = head.x;
    int count = head.y >> warp * 8 & 255;
    if (head.y != ~0u) {
        first += __dp4a(head.y & (1u << warp * 8) - 1, 0x01010101u, 0u);
    } else {
        count = lists[first + warp * 2 + 1], first += lists[first + warp * 2];
    }
    if (!only) {   // tiles may meet within the block, but not in this bin
        only = alone_in(left / 64 | top / 8 << 16, tiles, tile_count);
        int hidden = only ? listed_before(lists + first, count, tiles[only - 1].over) : 0;
        first += hidden, count -= hidden;
    }
    if (!only || width & 7) {
        compose_any(nv12, width, height, background, tiles, tile_count, tables, rows, lists + first, count, atlas,
                    atlas_pitch, colours, left, top);
        return;
    }
    int number = own_number(lists + first, count);
    Quick quick = tiles[only - 1].quick;
    int x = left + (lane & 7) * 8, y = top + (lane >> 3) * 2;
    // Within one picture, of which nothing is to be computed or little: so it is for most warps of most mosaics.
    Raw raw;
    Cell cell;
    bool half = quick.flags & HALF;
    if (half) {
        raw = read_half(quick, x, y);
    } else {
        cell = read_cell(quick, x, y);
    }
    // What is listed is made ready while the picture is on its way.
    Desk& desk = desks[warp];
    int ready = count;
    Batch batch;
    if (count) batch = make_ready(desk, number, ready, rows, atlas_pitch, left, top);
    if (half) cell = halved(raw);
    if (count) {
        put(desk.quads, cell);
        __syncwarp();
        draw_ready(desk, batch, atlas, atlas_pitch, left, top);
        if (count > ready) draw_list(lists + first + ready, count - ready, rows, atlas, atlas_pitch, left, top);
        take(cell, desk.quads);
    }
    store(nv12, width, height, cell, x, y);
}
