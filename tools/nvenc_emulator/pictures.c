#include <dlfcn.h>
#include <string.h>

#include "session.h"

Cuda cuda;

int load_cuda(void) {
    static const char *const names[] = {
        "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuEventCreate", "cuEventDestroy_v2", "cuEventRecord",
        "cuEventSynchronize", "cuStreamCreate", "cuStreamDestroy_v2", "cuStreamSynchronize", "cuMemcpy2DAsync_v2",
        "cuMemAllocHost_v2", "cuMemFreeHost", "cuMemGetAddressRange_v2",
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void **functions = (void **)&cuda;
    _Static_assert(sizeof cuda == sizeof names, "a name for each function");
    for (size_t i = 0; library && i < sizeof names / sizeof *names; i++)
        if (!(functions[i] = dlsym(library, names[i]))) return 0;
    return library != NULL;
}

static int copy_rows(Session *session, const Picture *picture, u64 row, u8 *to, u32 bytes, u32 rows, u32 to_pitch) {
    Copy2D copy = {.source_type = DEVICE, .source_device = picture->resource->address + row * picture->resource->pitch,
                   .source_pitch = picture->resource->pitch, .target_type = HOST, .target_host = to,
                   .target_pitch = to_pitch, .width = bytes, .height = rows};
    return cuda.copy(&copy, session->stream);
}

static u8 limit(int value) { return value < 0 ? 0 : value > 255 ? 255 : (u8)value; }

/* BT.709, limited range, chroma of four samples: ours. The word is A R G B (or A B G R) from its high byte on. */
static void convert(const u8 *raw, int blue_at, u32 width, u32 height, u8 *luma, u8 *chroma, u32 pitch) {
    for (u32 y = 0; y < height; y += 2)
        for (u32 x = 0; x < width; x += 2) {
            int sum[3] = {0};
            for (u32 i = 0; i < 4; i++) {
                const u8 *at = raw + 4 * ((y + i / 2) * (size_t)width + x + i % 2);
                int red = at[2 - blue_at], green = at[1], blue = at[blue_at];
                luma[(y + i / 2) * (size_t)pitch + x + i % 2] =
                    limit(16 + ((11966 * red + 40254 * green + 4064 * blue + 32768) >> 16));
                sum[0] += red, sum[1] += green, sum[2] += blue;
            }
            u8 *uv = chroma + y / 2 * (size_t)pitch + x;
            uv[0] = limit(128 + ((-6596 * sum[0] - 22189 * sum[1] + 28785 * sum[2] + 131072) >> 18));
            uv[1] = limit(128 + ((28785 * sum[0] - 26145 * sum[1] - 2640 * sum[2] + 131072) >> 18));
        }
}

static void pad(u8 *plane, u32 pitch, u32 width, u32 height, u32 rows, u32 step) {
    for (u32 y = 0; y < height; y++)
        for (u32 x = width; x < pitch; x++) plane[y * (size_t)pitch + x] = plane[y * (size_t)pitch + x - step];
    for (u32 y = height; y < rows; y++) memcpy(plane + y * (size_t)pitch, plane + (height - 1) * (size_t)pitch, pitch);
}

/* The picture as NV12 of the coded size in session->picture, once the client's work on it is done. */
int read_picture(Session *session, const Picture *picture) {
    const Resource *resource = picture->resource;
    u32 width = session->init.encodeWidth, height = session->init.encodeHeight;
    u32 pitch = (width + 15) / 16 * 16, rows = (height + 15) / 16 * 16;
    u8 *luma = session->picture, *chroma = luma + (size_t)pitch * rows;
    if (!resource) return 0;
    void *popped;
    cuda.push(session->context);
    int failed = cuda.wait(picture->ready);
    if (resource->format == NV_ENC_BUFFER_FORMAT_NV12) {
        failed |= copy_rows(session, picture, 0, luma, width, height, pitch);
        failed |= copy_rows(session, picture, resource->height, chroma, width, height / 2, pitch);
        failed |= cuda.wait_stream(session->stream);
    } else {
        failed |= copy_rows(session, picture, 0, session->raw, 4 * width, height, 4 * width);
        failed |= cuda.wait_stream(session->stream);
        int blue_at = resource->format == NV_ENC_BUFFER_FORMAT_ARGB ? 0 : 2;
        convert(session->raw, blue_at, width, height, luma, chroma, pitch);
    }
    cuda.pop(&popped);
    pad(luma, pitch, width, height, rows, 1);
    pad(chroma, pitch, width, height / 2, rows / 2, 2);
    return !failed;
}

u64 hash_picture(const Session *session) {
    size_t count = (size_t)((session->init.encodeWidth + 15) / 16) * ((session->init.encodeHeight + 15) / 16) * 384;
    u64 hash = 14695981039346656037u;
    for (size_t i = 0; i < count; i += 8) {
        u64 word;
        memcpy(&word, session->picture + i, 8);
        hash = (hash ^ word) * 1099511628211u;
    }
    return hash;
}
