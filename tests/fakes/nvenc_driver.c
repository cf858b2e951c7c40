/* An NVIDIA driver without a GPU: as much of libcuda and libnvidia-encode (API 13.0) as FFmpeg's NVENC
 * encoders call, so that the real PyAV runs and shows what it asks of the driver.
 *
 * Device memory is host memory. A picture is read as late as the interface allows: when its own packet is
 * locked. What a session is told and does goes to the file NVENC_LOG, one JSON object a line. The packets hold
 * no video. Behaviour comes from the environment, read at each call:
 *   NVENC_API     version the driver speaks, major << 4 | minor (default 13.0)
 *   NVENC_OPEN    status of nvEncOpenEncodeSessionEx     NVENC_INIT  status of nvEncInitializeEncoder
 *   NVENC_B       B-frames of the chip (default 4)       NVENC_AV1   0: the chip has no AV1 encoder
 *   NVENC_EXTRA   pictures held back beyond what the parameters say
 *   NVENC_PRESET_LOOKAHEAD  depth that the preset brings along
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
#define AT(type, base, offset) (*(type *)((u8 *)(base) + (offset)))

static int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

static void note(const char *text) {
    FILE *file = fopen(getenv("NVENC_LOG"), "a");
    fprintf(file, "%s\n", text);
    fclose(file);
}
#define NOTE(...) do { char line[1024]; snprintf(line, sizeof line, __VA_ARGS__); note(line); } while (0)

/* libcuda. FFmpeg's loader wants every symbol; those that are never called succeed and do nothing. */
#define STUB(name) int name(void) { return 0; }
STUB(cuInit) STUB(cuCtxSetLimit) STUB(cuCtxCreate_v2) STUB(cuCtxDestroy_v2) STUB(cuCtxGetDevice)
STUB(cuDevicePrimaryCtxRelease) STUB(cuDevicePrimaryCtxReset) STUB(cuDevicePrimaryCtxRetain)
STUB(cuDevicePrimaryCtxSetFlags) STUB(cuDevicePrimaryCtxGetState)
STUB(cuDeviceGetAttribute) STUB(cuDeviceGetByPCIBusId) STUB(cuDeviceGetLuid) STUB(cuDeviceGetPCIBusId)
STUB(cuDeviceGetUuid) STUB(cuDeviceGetUuid_v2)
STUB(cuStreamCreate) STUB(cuStreamDestroy_v2) STUB(cuStreamQuery) STUB(cuStreamSynchronize) STUB(cuStreamAddCallback)
STUB(cuStreamWaitEvent) STUB(cuEventCreate) STUB(cuEventDestroy_v2) STUB(cuEventQuery) STUB(cuEventRecord)
STUB(cuEventSynchronize)
STUB(cuMemAlloc_v2) STUB(cuMemAllocPitch_v2) STUB(cuMemAllocManaged) STUB(cuMemFree_v2) STUB(cuMemsetD8Async)
STUB(cuMemcpy) STUB(cuMemcpyAsync) STUB(cuMemcpy2D_v2) STUB(cuMemcpy2DAsync_v2) STUB(cuMemcpyHtoD_v2)
STUB(cuMemcpyHtoDAsync_v2) STUB(cuMemcpyDtoH_v2) STUB(cuMemcpyDtoHAsync_v2) STUB(cuMemcpyDtoD_v2)
STUB(cuMemcpyDtoDAsync_v2)
STUB(cuModuleLoadData) STUB(cuModuleUnload) STUB(cuModuleGetFunction) STUB(cuModuleGetGlobal) STUB(cuLaunchKernel)
STUB(cuLinkCreate) STUB(cuLinkAddData) STUB(cuLinkComplete) STUB(cuLinkDestroy)
STUB(cuTexObjectCreate) STUB(cuTexObjectDestroy) STUB(cuGLGetDevices_v2) STUB(cuGraphicsGLRegisterImage)
STUB(cuGraphicsMapResources) STUB(cuGraphicsUnmapResources) STUB(cuGraphicsUnregisterResource)
STUB(cuGraphicsResourceGetMappedPointer_v2) STUB(cuGraphicsSubResourceGetMappedArray)
STUB(cuImportExternalMemory) STUB(cuDestroyExternalMemory) STUB(cuExternalMemoryGetMappedBuffer)
STUB(cuExternalMemoryGetMappedMipmappedArray) STUB(cuImportExternalSemaphore) STUB(cuDestroyExternalSemaphore)
STUB(cuSignalExternalSemaphoresAsync) STUB(cuWaitExternalSemaphoresAsync)
STUB(cuMipmappedArrayGetLevel) STUB(cuMipmappedArrayDestroy) STUB(cuArrayCreate_v2) STUB(cuArray3DCreate_v2)
STUB(cuArrayDestroy) STUB(cuEGLStreamProducerConnect) STUB(cuEGLStreamProducerDisconnect)
STUB(cuEGLStreamConsumerDisconnect) STUB(cuEGLStreamProducerPresentFrame) STUB(cuEGLStreamProducerReturnFrame)

static void *const context = (void *)0xC0DE;
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Emulated"); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 9; return 0; }
int cuCtxGetCurrent(void **current) { *current = context; return 0; }
int cuCtxPushCurrent_v2(void *pushed) { return pushed == context ? 0 : 201; }
int cuCtxPopCurrent_v2(void **popped) { if (popped) *popped = context; return 0; }
int cuGetErrorName(int error, const char **text) { *text = "CUDA_ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "emulated"; return 0; }

/* libnvidia-encode. Offsets are those of API 13.0 on x86-64. */
enum { SUCCESS = 0, NEED_MORE_INPUT = 17, GENERIC = 20, P = 0, B = 1, IDR = 3, FORCE_IDR = 2, EOS = 8, MANY = 4096 };

typedef struct { u64 time, duration, after; const u8 *pixels; u32 pitch; int type; } Picture;

static struct {
    u32 width, height, gop;
    int interval, since_idr, submitted, waiting_count, encoded_count;
    Picture waiting[MANY], encoded[MANY];
    void *stream;
} session;
static int order_of[MANY];  /* bitstream buffer -> index of the picture it was given with */
static int buffers;
static u64 (*length_of)(u64 stream);
static void (*run_stream)(u64 stream, u64 length);

/* The real NVENC reads a picture after what was on its input stream when the picture came: the test runs that. */
void nvenc_streams(u64 (*length)(u64 stream), void (*run)(u64 stream, u64 length)) {
    length_of = length;
    run_stream = run;
}

static const u8 H264[16] = {0x62, 0x27, 0xc8, 0x6b, 0x63, 0x4e, 0xa4, 0x4c, 0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf};
static const u8 HEVC[16] = {0x88, 0xdc, 0x0c, 0x79, 0x22, 0x45, 0x7b, 0x4d, 0x94, 0x25, 0xbd, 0xa9, 0x97, 0x5f, 0x76, 0x03};
static const u8 AV1[16] = {0x89, 0x22, 0x35, 0x0a, 0xa7, 0x0a, 0x59, 0x47, 0x86, 0x2d, 0x5d, 0x15, 0xcd, 0x16, 0xd2, 0x54};

int NvEncodeAPIGetMaxSupportedVersion(u32 *version) { *version = setting("NVENC_API", 13 << 4); return SUCCESS; }

static int open_session(void *parameters, void **encoder) {
    int status = setting("NVENC_OPEN", SUCCESS);
    NOTE("{\"call\": \"open\", \"status\": %d}", status);
    if (status == SUCCESS) { memset(&session, 0, sizeof session); buffers = 0; *encoder = &session; }
    return status;
}

static int count_codecs(void *encoder, u32 *count) { *count = setting("NVENC_AV1", 1) ? 3 : 2; return SUCCESS; }

static int list_codecs(void *encoder, u8 *guids, u32 room, u32 *count) {
    memcpy(guids, H264, 16);
    memcpy(guids + 16, HEVC, 16);
    if (setting("NVENC_AV1", 1)) memcpy(guids + 32, AV1, 16);
    return count_codecs(encoder, count);
}

static int capability(void *encoder, u64 codec, u64 codec_end, void *query, int *value) {
    int number = AT(u32, query, 4);
    if (number == 0) *value = setting("NVENC_B", 4);
    else if (number == 16 || number == 17) *value = 4096;  /* width and height */
    else *value = 1;
    return SUCCESS;
}

static int preset_config(void *encoder, u64 c0, u64 c1, u64 p0, u64 p1, u32 tuning, u8 *preset) {
    u8 *config = preset + 8, *rate = config + 40;
    AT(u32, config, 20) = 250;  /* gopLength */
    AT(u32, config, 24) = 4;    /* frameIntervalP */
    AT(u32, rate, 20) = 10000000;
    int depth = setting("NVENC_PRESET_LOOKAHEAD", 0);
    if (depth) { AT(u32, rate, 36) |= 1u << 5; AT(uint16_t, rate, 90) = depth; }
    return SUCCESS;
}

static int initialize(void *encoder, u8 *init) {
    u8 *codec = init + 4, *preset = init + 20, *config = AT(u8 *, init, 88), *rate = config + 40, *own = config + 168;
    int av1 = !memcmp(codec, AV1, 16), h264 = !memcmp(codec, H264, 16);
    u8 *vui = own + (h264 ? 72 : 64);
    session.width = AT(u32, init, 36);
    session.height = AT(u32, init, 40);
    session.gop = AT(u32, config, 20);
    session.interval = AT(u32, config, 24);
    NOTE("{\"call\": \"initialize\", \"codec\": \"%s\", \"preset\": \"%02x%02x%02x%02x\", \"profile\": \"%02x%02x%02x%02x\","
         " \"size\": [%u, %u], \"fps\": [%u, %u], \"tuning\": %u, \"split\": %u, \"gop\": %u, \"idr_period\": %u,"
         " \"b_frames\": %d, \"rate_control\": %u, \"average\": %u, \"maximum\": %u, \"buffer\": %u, \"quality\": %u,"
         " \"lookahead\": %u, \"zero_delay\": %u, \"colour\": [%u, %u, %u, %u], \"signalled\": %u, \"repeats\": %u}",
         av1 ? "av1" : h264 ? "h264" : "hevc", preset[0], preset[1], preset[2], preset[3],
         config[4], config[5], config[6], config[7], session.width, session.height, AT(u32, init, 52), AT(u32, init, 56),
         AT(u32, init, 136), (AT(u32, init, 68) >> 5) & 15, session.gop, AT(u32, own, h264 ? 8 : 20),
         session.interval - 1, AT(u32, rate, 4), AT(u32, rate, 20), AT(u32, rate, 24), AT(u32, rate, 28), rate[88],
         (AT(u32, rate, 36) >> 5) & 1, (AT(u32, rate, 36) >> 9) & 1,
         AT(u32, av1 ? own + 68 : vui + 24, 0), AT(u32, av1 ? own + 72 : vui + 28, 0),
         AT(u32, av1 ? own + 76 : vui + 32, 0), AT(u32, av1 ? own + 80 : vui + 16, 0),
         av1 ? 1 : AT(u32, vui, 8) & AT(u32, vui, 20),
         h264 ? (AT(u32, own, 0) >> 12) & 1 : (AT(u32, own, 16) >> (av1 ? 5 : 7)) & 1);
    return setting("NVENC_INIT", SUCCESS);
}

static int set_streams(void *encoder, void **input, void **output) { session.stream = *input; return SUCCESS; }
static int create_bitstream(void *encoder, u8 *made) { AT(void *, made, 16) = &order_of[buffers++]; return SUCCESS; }

static int register_resource(void *encoder, u8 *resource) {
    Picture *registered = calloc(1, sizeof *registered);
    registered->pixels = AT(u8 *, resource, 24);
    registered->pitch = AT(u32, resource, 16);
    AT(void *, resource, 32) = registered;
    NOTE("{\"call\": \"register\", \"pitch\": %u}", registered->pitch);
    return SUCCESS;
}

static int map_resource(void *encoder, u8 *map) { AT(void *, map, 24) = AT(void *, map, 16); AT(u32, map, 32) = 1; return SUCCESS; }

static void finish(int from, int to, int type) {
    for (int i = from; i < to; i++) {
        session.waiting[i].type = type;
        session.encoded[session.encoded_count++] = session.waiting[i];
    }
}

/* A group is encoded when its reference picture has come: the last one first, then those between. */
static int encode_picture(void *encoder, u8 *parameters) {
    u32 flags = AT(u32, parameters, 16);
    if (flags & EOS) {
        finish(0, session.waiting_count, P);
        session.waiting_count = 0;
        return SUCCESS;
    }
    Picture picture = *AT(Picture *, parameters, 40);
    picture.time = AT(u64, parameters, 24);
    picture.duration = AT(u64, parameters, 32);
    NOTE("{\"call\": \"encode\", \"pts\": %ld, \"flags\": %u}", (long)picture.time, flags);
    picture.after = length_of((u64)session.stream);
    *AT(int *, parameters, 48) = session.submitted;
    int idr = (flags & FORCE_IDR) || session.submitted == 0 || session.since_idr >= (int)session.gop;
    session.submitted++;
    if (idr) {
        finish(0, session.waiting_count, P);
        session.waiting[0] = picture;
        session.waiting_count = session.since_idr = 0;
        finish(0, 1, IDR);
    } else {
        session.waiting[session.waiting_count++] = picture;
        if (session.waiting_count >= session.interval + setting("NVENC_EXTRA", 0)) {
            int last = session.waiting_count - 1;
            finish(last, last + 1, P);
            finish(0, last, B);
            session.waiting_count = 0;
        }
    }
    session.since_idr++;
    return session.encoded_count == session.submitted ? SUCCESS : NEED_MORE_INPUT;
}

static int lock_bitstream(void *encoder, u8 *lock) {
    static u8 data[6] = {0, 0, 0, 1, 0x65, 0x80};
    int index = *AT(int *, lock, 8);
    if (index >= session.encoded_count) return GENERIC;
    Picture *picture = &session.encoded[index];
    run_stream((u64)session.stream, picture->after);
    u32 rows = session.height * 3 / 2;
    NOTE("{\"call\": \"packet\", \"pts\": %ld, \"type\": %d, \"first\": %u, \"last\": %u}", (long)picture->time,
         picture->type, picture->pixels[0], picture->pixels[picture->pitch * (rows - 1) + session.width - 1]);
    AT(u32, lock, 36) = sizeof data;
    AT(u64, lock, 40) = picture->time;
    AT(u64, lock, 48) = picture->duration;
    AT(u8 *, lock, 56) = data;
    AT(u32, lock, 64) = picture->type;
    AT(u32, lock, 72) = 20;  /* frameAvgQP */
    return SUCCESS;
}

static int succeed(void) { return SUCCESS; }
static int destroy(void *encoder) { NOTE("{\"call\": \"destroy\"}"); return SUCCESS; }
static const char *last_error(void *encoder) { return "emulated"; }

int NvEncodeAPICreateInstance(u8 *functions) {
    for (int offset = 8; offset <= 344; offset += 8)
        if (offset != 272) AT(void *, functions, offset) = succeed;
    AT(void *, functions, 16) = count_codecs;
    AT(void *, functions, 40) = list_codecs;
    AT(void *, functions, 64) = capability;
    AT(void *, functions, 96) = initialize;
    AT(void *, functions, 120) = create_bitstream;
    AT(void *, functions, 136) = encode_picture;
    AT(void *, functions, 144) = lock_bitstream;
    AT(void *, functions, 208) = map_resource;
    AT(void *, functions, 224) = destroy;
    AT(void *, functions, 240) = open_session;
    AT(void *, functions, 248) = register_resource;
    AT(void *, functions, 304) = last_error;
    AT(void *, functions, 312) = set_streams;
    AT(void *, functions, 320) = preset_config;
    return SUCCESS;
}
