// Appearance: crops of any pictures -> unit vectors, in one launch. The maths is Note [Appearance] of
// appearance_cpu.py; the histograms are equal to the bit, the vectors but for the order of their sums.
//
// One block per crop, whatever picture it is of. A thread takes a cell in turn; counts are integers in shared
// memory. Strides are in bytes and may be negative: a picture is read upright.
//
// `tables`, all int32: bins (3, 256), columns (COLUMNS), rows (ROWS, 3), then scale (STRIPES) float32.

#ifndef ROWS
#define ROWS 64          // cells of a crop
#define COLUMNS 32
#define STRIPES 12
#define LUMA 10          // bins of each kind
#define CHROMA 10
#define STEP 4
#define PART 64          // parts in which a sample is shared between two bins
#define VECTOR 128       // length of what comes out
#endif

#define BINS (LUMA + 2 * (CHROMA + STEP))
#define FEATURES (STRIPES * BINS)
#define THREADS 256

typedef unsigned char u8;
typedef long long i64;

// A row of `places`; see PLACE_COLUMNS of appearance.py.
struct Place {
    i64 y, u, v;
    i64 luma_x, luma_y, chroma_x, chroma_y;
    i64 width, height;
};

__device__ __forceinline__ int sample(float low, float step, float at, int size)
{
    return min(max((int)floorf(low + at * step), 0), size - 1);
}

// `share` of a bin table goes to the two bins from `first` on, in the two stripes of a row of cells.
__device__ __forceinline__ void add(int* counts, int first, int share, int upper, int lower)
{
    int* at = counts + first + share / PART;
    int part = share % PART;
    atomicAdd(at, upper * (PART - part));
    if (part) atomicAdd(at + 1, upper * part);
    if (lower) {
        atomicAdd(at + BINS, lower * (PART - part));
        if (part) atomicAdd(at + BINS + 1, lower * part);
    }
}

// places: (n), boxes: (n, 4) x0, y0, x1, y1 in samples of luma, matrix: (FEATURES + 1, VECTOR),
// vectors: (n, VECTOR).
extern "C" __global__ void __launch_bounds__(THREADS)
appearance(const Place* places, const float* boxes, const int* tables, const float* matrix, float* vectors)
{
    __shared__ int luma[ROWS * COLUMNS];
    __shared__ int counts[FEATURES + BINS];
    __shared__ float histogram[FEATURES];
    __shared__ float squares[VECTOR];
    const int* bins = tables;
    const int* columns = bins + 3 * 256;
    const int* rows = columns + COLUMNS;
    const float* scale = (const float*)(rows + 3 * ROWS);
    Place place = places[blockIdx.x];
    const float* box = boxes + 4 * blockIdx.x;
    int width = (int)place.width, height = (int)place.height;
    float x0 = box[0], y0 = box[1];
    float step_x = (box[2] - x0) / (float)COLUMNS, step_y = (box[3] - y0) / (float)ROWS;
    const u8* y = (const u8*)place.y;
    const u8* u = (const u8*)place.u;
    const u8* v = (const u8*)place.v;

    for (int cell = threadIdx.x; cell < ROWS * COLUMNS; cell += THREADS) {
        int i = cell / COLUMNS, j = cell % COLUMNS;
        i64 left = sample(x0, step_x, j + 0.25f, width) * place.luma_x;
        i64 right = sample(x0, step_x, j + 0.75f, width) * place.luma_x;
        const u8* above = y + sample(y0, step_y, i + 0.25f, height) * place.luma_y;
        const u8* below = y + sample(y0, step_y, i + 0.75f, height) * place.luma_y;
        luma[cell] = (above[left] + above[right] + below[left] + below[right] + 2) >> 2;
    }
    for (int k = threadIdx.x; k < FEATURES + BINS; k += THREADS) counts[k] = 0;
    __syncthreads();

    for (int cell = threadIdx.x; cell < ROWS * COLUMNS; cell += THREADS) {
        int i = cell / COLUMNS, j = cell % COLUMNS, here = luma[cell];
        i64 at = sample(y0, step_y, i + 0.5f, height) / 2 * place.chroma_y
            + sample(x0, step_x, j + 0.5f, width) / 2 * place.chroma_x;
        int across = abs(luma[i * COLUMNS + min(j + 1, COLUMNS - 1)] - here);
        int down = abs(luma[min(i + 1, ROWS - 1) * COLUMNS + j] - here);
        int upper = rows[3 * i + 1] * columns[j], lower = rows[3 * i + 2] * columns[j];
        int* stripe = counts + rows[3 * i] * BINS;
        add(stripe, 0, bins[here], upper, lower);
        add(stripe, LUMA, bins[256 + u[at]], upper, lower);
        add(stripe, LUMA + CHROMA, bins[256 + v[at]], upper, lower);
        add(stripe, LUMA + 2 * CHROMA, bins[512 + across], upper, lower);
        add(stripe, LUMA + 2 * CHROMA + STEP, bins[512 + down], upper, lower);
    }
    __syncthreads();

    for (int k = threadIdx.x; k < FEATURES; k += THREADS) histogram[k] = sqrtf((float)counts[k] * scale[k / BINS]);
    __syncthreads();

    float value = 0.0f;
    if (threadIdx.x < VECTOR) {
        value = matrix[FEATURES * VECTOR + threadIdx.x];
        for (int f = 0; f < FEATURES; ++f) value = fmaf(histogram[f], matrix[f * VECTOR + threadIdx.x], value);
        squares[threadIdx.x] = value * value;
    }
    for (int half = VECTOR / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) squares[threadIdx.x] += squares[threadIdx.x + half];
    }
    __syncthreads();
    if (threadIdx.x < VECTOR) {
        float square = squares[0];
        vectors[blockIdx.x * VECTOR + threadIdx.x] = square > 0.0f ? value * (1.0f / sqrtf(square)) : 0.0f;
    }
}
