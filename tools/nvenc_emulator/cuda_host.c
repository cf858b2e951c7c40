/* libcuda.so.1 without a GPU: as much of it as FFmpeg's NVENC encoders, PyNvVideoCodec's encoder and nvenc.c call.
 *
 * Device memory is host memory. Work on a stream is done when it is enqueued, unless a test has streams of its own
 * (`cuda_host_streams`): what a test enqueued there runs when something waits for it, as on a GPU that is late.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t u32;
typedef uint64_t u64;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, PITCH = 512 };

/* FFmpeg's loader wants every symbol; those that are never called here say "not supported". */
#define STUB(name) int name(void) { return 801; }
STUB(cuCtxSetLimit) STUB(cuDevicePrimaryCtxReset) STUB(cuDeviceGetByPCIBusId) STUB(cuDeviceGetLuid)
STUB(cuDeviceGetPCIBusId) STUB(cuDeviceGetUuid) STUB(cuDeviceGetUuid_v2) STUB(cuStreamAddCallback)
STUB(cuMemAllocManaged) STUB(cuMemcpy) STUB(cuMemcpyAsync) STUB(cuMemsetD8Async)
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

/* Device and contexts: the primary one is current on every thread, as CuPy leaves it. */

enum { DEPTH = 64 };
static char primary;
static _Thread_local void *stack[DEPTH] = {&primary};
static _Thread_local int top;

int cuInit(u32 flags) { return flags ? INVALID_VALUE : SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? INVALID_VALUE : SUCCESS; }

int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    snprintf(name, size, "Host memory");
    return SUCCESS;
}

int cuDeviceComputeCapability(int *major, int *minor, int device) {
    (void)device;
    *major = 8;
    *minor = 9;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)attribute, (void)device;
    *value = 0;
    return SUCCESS;
}

int cuDevicePrimaryCtxGetState(int device, u32 *flags, int *active) {
    (void)device;
    *flags = 0;
    *active = 1;
    return SUCCESS;
}

int cuDevicePrimaryCtxSetFlags(int device, u32 flags) { (void)device, (void)flags; return SUCCESS; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &primary; return SUCCESS; }
int cuDevicePrimaryCtxRelease(int device) { (void)device; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
int cuCtxGetCurrent(void **context) { *context = stack[top]; return SUCCESS; }
int cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }

int cuCtxPushCurrent_v2(void *context) {
    if (!context || top == DEPTH - 1) return INVALID_CONTEXT;
    stack[++top] = context;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void **context) {
    if (!top) return INVALID_CONTEXT;
    if (context) *context = stack[top];
    top--;
    return SUCCESS;
}

int cuCtxCreate_v2(void **context, u32 flags, int device) {
    (void)flags, (void)device;
    *context = malloc(1);
    return cuCtxPushCurrent_v2(*context);
}

int cuCtxDestroy_v2(void *context) {
    if (top && stack[top] == context) top--;
    free(context);
    return SUCCESS;
}

int cuGetErrorName(int error, const char **text) { *text = error ? "CUDA_ERROR" : "CUDA_SUCCESS"; return SUCCESS; }

int cuGetErrorString(int error, const char **text) {
    *text = error ? "error of the stand-in" : "no error";
    return SUCCESS;
}

/* Streams and events. */

static u64 (*length_of)(u64 stream);
static void (*run_stream)(u64 stream, u64 length);

/* Streams of a test: how much is enqueued on one, and how to do it up to there. */
void cuda_host_streams(u64 (*length)(u64 stream), void (*run)(u64 stream, u64 length)) {
    length_of = length;
    run_stream = run;
}

typedef struct { u64 stream, length; } Event;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
enum { MANY = 1024 };
static void *own_streams[MANY];

static int is_foreign(const void *stream) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MANY; i++) found |= own_streams[i] == stream;
    pthread_mutex_unlock(&lock);
    return stream && !found && length_of;
}

static int keep(void *old, void *new) {
    int done = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MANY && done; i++)
        if (own_streams[i] == old) {
            own_streams[i] = new;
            done = SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return done;
}

int cuStreamCreate(void **stream, u32 flags) { (void)flags; return keep(NULL, *stream = malloc(1)); }
int cuStreamGetCtx(void *stream, void **context) { (void)stream; *context = &primary; return SUCCESS; }
int cuStreamQuery(void *stream) { (void)stream; return SUCCESS; }

int cuStreamDestroy_v2(void *stream) {
    int status = keep(stream, NULL);
    if (!status) free(stream);
    return status;
}

int cuStreamSynchronize(void *stream) {
    if (is_foreign(stream)) run_stream((u64)stream, length_of((u64)stream));
    return SUCCESS;
}

int cuEventCreate(void **event, u32 flags) {
    (void)flags;
    *event = calloc(1, sizeof(Event));
    return *event ? SUCCESS : OUT_OF_MEMORY;
}

int cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
int cuEventQuery(void *event) { (void)event; return SUCCESS; }

int cuEventRecord(Event *event, void *stream) {
    int foreign = is_foreign(stream);
    *event = (Event){foreign ? (u64)stream : 0, foreign ? length_of((u64)stream) : 0};
    return SUCCESS;
}

int cuEventSynchronize(Event *event) {
    if (event->stream) run_stream(event->stream, event->length);
    return SUCCESS;
}

int cuStreamWaitEvent(void *stream, Event *event, u32 flags) {
    (void)stream, (void)flags;
    return cuEventSynchronize(event);
}

/* Memory. */

static struct { char *base; size_t size; } blocks[MANY];

static int take(u64 *address, size_t size) {
    char *base = malloc(size);
    pthread_mutex_lock(&lock);
    for (int i = 0; base && i < MANY; i++)
        if (!blocks[i].base) {
            blocks[i].base = base;
            blocks[i].size = size;
            break;
        }
    pthread_mutex_unlock(&lock);
    *address = (u64)base;
    return base ? SUCCESS : OUT_OF_MEMORY;
}

static int give(u64 address) {
    int status = address ? INVALID_VALUE : SUCCESS;
    pthread_mutex_lock(&lock);
    for (int i = 0; address && i < MANY && status; i++)
        if ((u64)blocks[i].base == address) {
            free(blocks[i].base);
            blocks[i].base = NULL;
            status = SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return status;
}

int cuMemGetAddressRange_v2(u64 *base, size_t *size, u64 address) {
    int status = NOT_FOUND;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MANY; i++)
        if (blocks[i].base && address >= (u64)blocks[i].base && address < (u64)blocks[i].base + blocks[i].size) {
            *base = (u64)blocks[i].base;
            *size = blocks[i].size;
            status = SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return status;
}

int cuMemAlloc_v2(u64 *address, size_t size) { return take(address, size); }
int cuMemFree_v2(u64 address) { return give(address); }
int cuMemAllocAsync(u64 *address, size_t size, void *stream) { (void)stream; return take(address, size); }
int cuMemFreeAsync(u64 address, void *stream) { cuStreamSynchronize(stream); return give(address); }
int cuMemAllocHost_v2(void **memory, size_t size) { *memory = malloc(size); return *memory ? SUCCESS : OUT_OF_MEMORY; }
int cuMemFreeHost(void *memory) { free(memory); return SUCCESS; }

int cuMemAllocPitch_v2(u64 *address, size_t *pitch, size_t width, size_t height, u32 element) {
    (void)element;
    *pitch = (width + PITCH - 1) / PITCH * PITCH;
    return take(address, *pitch * height);
}

/* CU_POINTER_ATTRIBUTE_CONTEXT, _MEMORY_TYPE (device), _DEVICE_POINTER, _DEVICE_ORDINAL */
int cuPointerGetAttribute(void *data, int attribute, u64 address) {
    switch (attribute) {
    case 1: *(void **)data = &primary; return SUCCESS;
    case 2: *(u32 *)data = 2; return SUCCESS;
    case 3: *(u64 *)data = address; return SUCCESS;
    case 9: *(int *)data = 0; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

typedef struct {
    size_t source_x, source_y;
    u32 source_type;
    const char *source_host;
    u64 source_device;
    void *source_array;
    size_t source_pitch, target_x, target_y;
    u32 target_type;
    char *target_host;
    u64 target_device;
    void *target_array;
    size_t target_pitch, width, height;
} Copy2D;

int cuMemcpy2D_v2(const Copy2D *copy) {
    const char *from = copy->source_type == 1 ? copy->source_host : (const char *)copy->source_device;
    char *to = copy->target_type == 1 ? copy->target_host : (char *)copy->target_device;
    if (!from || !to || copy->source_array || copy->target_array) return INVALID_VALUE;
    from += copy->source_y * copy->source_pitch + copy->source_x;
    to += copy->target_y * copy->target_pitch + copy->target_x;
    for (size_t row = 0; row < copy->height; row++)
        memcpy(to + row * copy->target_pitch, from + row * copy->source_pitch, copy->width);
    return SUCCESS;
}

int cuMemcpy2DAsync_v2(const Copy2D *copy, void *stream) {
    cuStreamSynchronize(stream);
    return cuMemcpy2D_v2(copy);
}

static int copy_bytes(void *to, const void *from, size_t size, void *stream) {
    cuStreamSynchronize(stream);
    memcpy(to, from, size);
    return SUCCESS;
}

int cuMemcpyHtoD_v2(u64 to, const void *from, size_t size) { return copy_bytes((void *)to, from, size, NULL); }
int cuMemcpyDtoH_v2(void *to, u64 from, size_t size) { return copy_bytes(to, (void *)from, size, NULL); }
int cuMemcpyDtoD_v2(u64 to, u64 from, size_t size) { return copy_bytes((void *)to, (void *)from, size, NULL); }

int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t size, void *stream) {
    return copy_bytes((void *)to, from, size, stream);
}

int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t size, void *stream) {
    return copy_bytes(to, (void *)from, size, stream);
}

int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t size, void *stream) {
    return copy_bytes((void *)to, (void *)from, size, stream);
}
