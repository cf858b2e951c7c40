// Detector heads + NMS: raw outputs of N pictures -> at most `limit` boxes each, compacted for one copy down.
//
// The maths is Note [Heads] of decode_heads_cpu.py and nms_cpu.py. Two kernels on one stream:
//
//   select     one thread per anchor, blockIdx.y is the picture: candidates in any order
//   suppress   one block per picture: sort by score (of equal ones the lower anchor first), then greedy
//
// `counts` must be zero before `select`; `suppress` leaves it so.

#include <cuda_fp16.h>

#ifndef IN
#define IN __half        // element of the head: __half or float
#endif
#ifndef CAPACITY
#define CAPACITY 4096    // candidates of a picture that are sorted, a power of two; more are counted, not kept
#endif

#define YOLOX 0
#define YOLOV8 1

struct __align__(8) Candidate {
    float x0, y0, x1, y1, score;
    int class_id, anchor, unused;
};

struct Found {
    float x0, y0, x1, y1, score;
    int class_id;
};

// sx, sy, dx, dy of the letterbox, then picture width and height.
struct Place {
    float sx, sy, dx, dy;
    int width, height;
};

__device__ __forceinline__ float load(const __half* at) { return __half2float(*at); }
__device__ __forceinline__ float load(const float* at) { return *at; }

// The box of a candidate in picture pixels; false when there is nothing of it in the picture.
__device__ __forceinline__ bool place_box(Candidate& out, double cx, double cy, double w, double h, const Place& p)
{
    double x0 = (cx - 0.5 * w - p.dx) / p.sx, x1 = (cx + 0.5 * w - p.dx) / p.sx;
    double y0 = (cy - 0.5 * h - p.dy) / p.sy, y1 = (cy + 0.5 * h - p.dy) / p.sy;
    if (!(isfinite(x0) && isfinite(x1) && isfinite(y0) && isfinite(y1))) return false;
    out.x0 = (float)x0, out.y0 = (float)y0, out.x1 = (float)x1, out.y1 = (float)y1;
    return fminf(out.x1, (float)p.width) > fmaxf(out.x0, 0.0f)
        && fminf(out.y1, (float)p.height) > fmaxf(out.y0, 0.0f);
}

extern "C" __global__ void __launch_bounds__(256)
select(const IN* heads, int kind, int anchors, int classes, int input_width, float min_score,
       const unsigned char* keep, const Place* places, Candidate* candidates, int* counts)
{
    int anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= anchors) return;
    int picture = blockIdx.y;
    Place place = places[picture];
    Candidate found;
    int best = 0;
    float value;
    double cx, cy, w, h;
    if (kind == YOLOX) {
        const IN* cell = heads + ((long long)picture * anchors + anchor) * (5 + classes);
        value = load(cell + 4);
        if (!(value >= min_score)) return;      // no class score is above 1
        if (classes > 0) {
            float top = load(cell + 5);
            for (int c = 1; c < classes; ++c) {
                float score = load(cell + 5 + c);
                if (score > top) top = score, best = c;
            }
            value *= top;
        }
        if (!(value >= min_score) || !keep[best]) return;
        int columns = input_width / 8, rows = anchors * 16 / (21 * columns);
        int stride = 8, level = anchor, width = columns;
        for (int cells = rows * columns; level >= cells && stride < 32;) {
            level -= cells;
            stride *= 2, width /= 2, rows /= 2;
            cells = rows * width;
        }
        cx = ((double)(level % width) + load(cell)) * stride;
        cy = ((double)(level / width) + load(cell + 1)) * stride;
        w = (double)expf(load(cell + 2)) * stride;
        h = (double)expf(load(cell + 3)) * stride;
    } else {
        const IN* row = heads + (long long)picture * (4 + classes) * anchors + anchor;
        value = load(row + 4LL * anchors);
        for (int c = 1; c < classes; ++c) {
            float score = load(row + (4LL + c) * anchors);
            if (score > value) value = score, best = c;
        }
        if (!(value >= min_score) || !keep[best]) return;
        cx = load(row), cy = load(row + anchors), w = load(row + 2LL * anchors), h = load(row + 3LL * anchors);
    }
    if (!place_box(found, cx, cy, w, h, place)) return;
    found.score = value, found.class_id = best, found.anchor = anchor, found.unused = 0;
    int at = atomicAdd(counts + picture, 1);
    if (at < CAPACITY) candidates[(long long)picture * CAPACITY + at] = found;
}

// One block per picture. Shared: CAPACITY keys, then `limit` places of kept candidates.
// found: (pictures, limit); totals: (pictures, 2) boxes kept, and candidates that there were.
extern "C" __global__ void __launch_bounds__(1024)
suppress(const Candidate* candidates, int* counts, const Place* places, double iou_limit, int limit, Found* found,
         int* totals)
{
    extern __shared__ unsigned long long keys[];
    int* kept = (int*)(keys + CAPACITY);
    int picture = blockIdx.x;
    int all = counts[picture], count = min(all, CAPACITY);
    const Candidate* mine = candidates + (long long)picture * CAPACITY;

    // Bitonic sort of as many keys as the candidates need: score (positive, so its bits are in order), then
    // anchor, highest key first. A key's low bits say where its candidate lies.
    int size = 32;
    while (size < count) size *= 2;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        unsigned long long key = 0;
        if (i < count) {
            key = (unsigned long long)__float_as_uint(mine[i].score) << 32
                | (unsigned)(0x7ffff - mine[i].anchor) << 13 | (unsigned)i;
        }
        keys[i] = key;
    }
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size; i += blockDim.x) {
                int other = i ^ step;
                if (other > i && (keys[i] < keys[other]) == ((i & run) == 0)) {
                    unsigned long long swap = keys[i];
                    keys[i] = keys[other];
                    keys[other] = swap;
                }
            }
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) counts[picture] = 0;
    if (threadIdx.x >= 32) return;

    // Greedy, by one warp: each candidate against all that were kept.
    int lane = threadIdx.x, taken = 0;
    Place place = places[picture];
    for (int i = 0; i < count && taken < limit; ++i) {
        Candidate box = mine[keys[i] & 0x1fff];
        float area = (box.x1 - box.x0) * (box.y1 - box.y0);
        bool covered = false;
        for (int k = lane; k < taken && !covered; k += 32) {
            const Candidate& other = mine[kept[k]];
            if (other.class_id != box.class_id) continue;
            float width = fminf(box.x1, other.x1) - fmaxf(box.x0, other.x0);
            float height = fminf(box.y1, other.y1) - fmaxf(box.y0, other.y0);
            if (width <= 0 || height <= 0) continue;
            float shared = width * height, rest = (other.x1 - other.x0) * (other.y1 - other.y0);
            covered = (double)shared > iou_limit * (double)(area + rest - shared);
        }
        if (__any_sync(~0u, covered)) continue;
        if (lane == 0) {
            kept[taken] = (int)(keys[i] & 0x1fff);
            float right = (float)place.width, bottom = (float)place.height;
            found[(long long)picture * limit + taken] = Found{
                fminf(fmaxf(box.x0, 0.0f), right), fminf(fmaxf(box.y0, 0.0f), bottom),
                fminf(fmaxf(box.x1, 0.0f), right), fminf(fmaxf(box.y1, 0.0f), bottom), box.score, box.class_id};
        }
        ++taken;
        __syncwarp();
    }
    if (lane == 0) totals[2 * picture] = taken, totals[2 * picture + 1] = all;
}
