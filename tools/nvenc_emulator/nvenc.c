/* libnvidia-encode.so.1 without an encoder chip: the NVENC 13.0 interface, checked as a driver checks it and logged,
 * on pictures that are read from CUDA memory and written as H.264 without loss. README.md says what is and what is
 * not emulated; what is commented "ours" is not known of the real driver.
 *
 * A picture is read as late as the interface allows, when its packet is locked: memory that a client hands back too
 * early shows as a wrong picture every time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "h264.h"
#include "nvenc_abi.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { API_VERSION = 13 << 4, WAITING = 256, INFINITE_GOP = -1 };

/* What the caller of a test sets. */

static const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value && *value ? atoi(value) : otherwise;
}

static int listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length])) return 1;
    return 0;
}

/* NVENC_EMULATOR_FAIL: "CALL=STATUS" or "CALL@N=STATUS", with commas between; @N: from the Nth call on. */
static int failure(const char *call) {
    enum { CALLS = 64 };
    static struct { const char *call; int count; } counted[CALLS];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *list = text("NVENC_EMULATOR_FAIL", "");
    if (!*list) return NV_ENC_SUCCESS;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < CALLS - 1 && counted[i].call && strcmp(counted[i].call, call)) i++;
    counted[i].call = call;
    int count = ++counted[i].count;
    pthread_mutex_unlock(&lock);
    size_t length = strlen(call);
    for (const char *at = list; (at = strstr(at, call)); at += length) {
        if (at != list && at[-1] != ',') continue;
        int from = 1, status = 0;
        if (sscanf(at + length, "=%d", &status) == 1 || sscanf(at + length, "@%d=%d", &from, &status) == 2)
            if (count >= from) return status;
    }
    return NV_ENC_SUCCESS;
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* The log: one JSON object a call. */

typedef struct {
    size_t length;
    char said[512];
    char json[1 << 16];
} Line;

static void __attribute__((format(printf, 2, 3))) add(Line *line, const char *format, ...) {
    va_list values;
    va_start(values, format);
    size_t room = sizeof line->json - line->length;
    int count = vsnprintf(line->json + line->length, room, format, values);
    va_end(values);
    if (count > 0 && (size_t)count < room) line->length += (size_t)count;
}

static Line *begin(const char *call, int session) {
    static _Thread_local Line line;
    line.length = 0;
    line.said[0] = 0;
    add(&line, "{\"call\": \"%s\", \"ms\": %.3f, \"session\": %d", call, now_ms(), session);
    return &line;
}

static int end(Line *line, int status) {
    const char *path = getenv("NVENC_EMULATOR_LOG");
    if (line->said[0]) add(line, ", \"why\": \"%s\"", line->said);
    add(line, ", \"status\": %d}\n", status);
    if (path && *path) {
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (file >= 0) {
            if (write(file, line->json, line->length) < 0) perror(path);
            close(file);
        }
    }
    return status;
}

static void add_field(Line *line, const u8 *base, const AbiField *field);

static void add_fields(Line *line, const void *base, const AbiField *fields) {
    add(line, "{");
    for (const AbiField *field = fields; field->name; field++) {
        add(line, "%s\"%s\": ", field == fields ? "" : ", ", field->name);
        add_field(line, base, field);
    }
    add(line, "}");
}

static void add_field(Line *line, const u8 *base, const AbiField *field) {
    u64 value = 0;
    if (field->kind == ABI_STRUCT) {
        add_fields(line, base + field->bit / 8, field->fields);
        return;
    }
    if (field->kind == ABI_GUID) {
        for (size_t i = 0; abi_guids[i].name; i++)
            if (!memcmp(base + field->bit / 8, &abi_guids[i].guid, sizeof(GUID))) {
                add(line, "\"%s\"", abi_guids[i].name);
                return;
            }
        add(line, "\"unknown\"");
        return;
    }
    for (u32 i = 0; i < field->bits; i++) value |= (u64)(base[(field->bit + i) / 8] >> (field->bit + i) % 8 & 1) << i;
    if (field->kind == ABI_ENUM)
        for (const AbiName *name = field->names; name->name; name++)
            if (name->value == value) {
                add(line, "\"%s\"", name->name);
                return;
            }
    if (field->kind == ABI_SIGNED && value >> (field->bits - 1) & 1 && field->bits < 64) value |= ~0ull << field->bits;
    if (field->kind == ABI_SIGNED) add(line, "%lld", (long long)value);
    else add(line, "%llu", (unsigned long long)value);
}

/* The CUDA driver: the real one, or the one of cuda_host.c. */

typedef struct {
    size_t source_x, source_y;
    u32 source_type;
    const void *source_host;
    u64 source_device;
    void *source_array;
    size_t source_pitch, target_x, target_y;
    u32 target_type;
    void *target_host;
    u64 target_device;
    void *target_array;
    size_t target_pitch, width, height;
} Copy2D;
enum { HOST = 1, DEVICE = 2, NON_BLOCKING = 1, BLOCKING_WAIT = 1, NO_TIMING = 2 };

static struct {
    int (*push)(void *context);
    int (*pop)(void **context);
    int (*make_event)(void **event, u32 flags);
    int (*free_event)(void *event);
    int (*record)(void *event, void *stream);
    int (*wait)(void *event);
    int (*make_stream)(void **stream, u32 flags);
    int (*free_stream)(void *stream);
    int (*wait_stream)(void *stream);
    int (*copy)(const Copy2D *copy, void *stream);
    int (*take_pinned)(void **memory, size_t size);
    int (*free_pinned)(void *memory);
    int (*range)(u64 *base, size_t *size, u64 address);
} cuda;

static int load_cuda(void) {
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

/* Sessions and what they hold. */

typedef struct Resource {
    struct Resource *next;
    u64 address;
    u32 width, height, pitch, format;
    int inside; /* pictures in it that are not read yet */
    int mapped; /* its address is the handle of the mapping */
} Resource;

typedef struct {
    Resource *resource;
    void *ready; /* event: the client's work on the picture is done */
    u64 time, duration, watched;
    u32 flags, index;
    int idr, sets, type;
    H264Picture h264;
    double done_ms;
} Picture;

enum { FREE, GIVEN, READY, LOCKED };

typedef struct Bitstream {
    struct Bitstream *next;
    int state, read;
    Picture picture;
    u8 *data;
    size_t size, room;
} Bitstream;

typedef struct Session {
    struct Session *next;
    int number, initialised, ended, codec;
    void *context, *stream, *input_stream;
    GUID guid;
    NV_ENC_INITIALIZE_PARAMS init;
    NV_ENC_CONFIG config;
    H264Stream h264;
    u32 period, interval, lookahead;
    u32 since_idr, submitted, references, order, idrs;
    Picture waiting[WAITING];
    u32 waiting_count;
    Bitstream *given[WAITING]; /* in the order of the pictures: packet k goes to the kth */
    u32 given_count;
    Resource *resources;
    Bitstream *bitstreams;
    u8 *picture, *raw; /* pinned: the picture as NV12 of the coded size; ARGB as it came */
    double free_ms;    /* when the engine is done with what it has */
    char error[512];
} Session;

enum { H264, HEVC, AV1, CODECS };
static const struct { const char *name; const GUID *guid; } codecs[CODECS] = {
    {"h264", &NV_ENC_CODEC_H264_GUID}, {"hevc", &NV_ENC_CODEC_HEVC_GUID}, {"av1", &NV_ENC_CODEC_AV1_GUID},
};

static Session *sessions;
static int opened;
static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;

static Session *session_of(const void *encoder) {
    pthread_mutex_lock(&sessions_lock);
    Session *session = sessions;
    while (session && session != encoder) session = session->next;
    pthread_mutex_unlock(&sessions_lock);
    return session;
}

static int refuse(Line *line, Session *session, int status, const char *why) {
    snprintf(line->said, sizeof line->said, "%s", why);
    if (session) snprintf(session->error, sizeof session->error, "%s", why);
    return end(line, status);
}

/* What a driver may not notice, but a client must not do. */
static void problem(Line *line, const char *what) { add(line, ", \"problem\": \"%s\"", what); }

/* The head of every call on a session: `line`, `session`, and the reasons to go no further. */
#define CALL(name)                                                                             \
    Session *session = session_of(encoder);                                                    \
    Line *line = begin(name, session ? session->number : 0);                                   \
    if (!session) return refuse(line, NULL, NV_ENC_ERR_INVALID_ENCODERDEVICE, "no such session"); \
    for (int forced = failure(name); forced;) return refuse(line, session, forced, "as NVENC_EMULATOR_FAIL says")
#define REFUSE(status, why) return refuse(line, session, status, why)
#define CHECK(condition, status, why) \
    if (!(condition)) REFUSE(status, why)
#define VERSION(params, expected)                                                  \
    CHECK(params, NV_ENC_ERR_INVALID_PTR, "no parameters");                         \
    CHECK((params)->version == (expected), NV_ENC_ERR_INVALID_VERSION, "version of the structure")
#define INITIALISED CHECK(session->initialised, NV_ENC_ERR_ENCODER_NOT_INITIALIZED, "not initialised")

static int same(const GUID *one, const GUID *other) { return !memcmp(one, other, sizeof(GUID)); }

static int codec_of(const GUID *guid) {
    const char *list = text("NVENC_EMULATOR_CODECS", "h264,hevc,av1");
    for (int i = 0; i < CODECS; i++)
        if (same(codecs[i].guid, guid)) return listed(list, codecs[i].name) ? i : -1;
    return -1;
}

static int in_table(const GUID *guid, const GUID *const *table, int count) {
    for (int i = 0; i < count; i++)
        if (same(table[i], guid)) return 1;
    return 0;
}

static const GUID *const presets[] = {
    &NV_ENC_PRESET_P1_GUID, &NV_ENC_PRESET_P2_GUID, &NV_ENC_PRESET_P3_GUID, &NV_ENC_PRESET_P4_GUID,
    &NV_ENC_PRESET_P5_GUID, &NV_ENC_PRESET_P6_GUID, &NV_ENC_PRESET_P7_GUID,
};
static const GUID *const profiles[CODECS][5] = {
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_H264_PROFILE_BASELINE_GUID, &NV_ENC_H264_PROFILE_MAIN_GUID,
     &NV_ENC_H264_PROFILE_HIGH_GUID, NULL},
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_HEVC_PROFILE_MAIN_GUID, &NV_ENC_HEVC_PROFILE_MAIN10_GUID,
     &NV_ENC_HEVC_PROFILE_FREXT_GUID, NULL},
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_AV1_PROFILE_MAIN_GUID, NULL, NULL, NULL},
};
static const u32 formats[] = {NV_ENC_BUFFER_FORMAT_NV12, NV_ENC_BUFFER_FORMAT_ARGB, NV_ENC_BUFFER_FORMAT_ABGR};
enum { PRESETS = 7, FORMATS = 3 };

static u32 bytes_of(u32 format) { return format == NV_ENC_BUFFER_FORMAT_NV12 ? 1 : 4; }

/* Opening. */

static int open_session_ex(NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS *params, void **encoder) {
    Line *line = begin("nvEncOpenEncodeSessionEx", 0);
    Session *session = NULL;
    VERSION(params, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER);
    int forced = failure("nvEncOpenEncodeSessionEx");
    CHECK(!forced, forced, "as NVENC_EMULATOR_FAIL says");
    CHECK((params->apiVersion & 0xff) == 13 && params->apiVersion >> 24 == 0, NV_ENC_ERR_INVALID_VERSION, "API version");
    CHECK(params->deviceType == NV_ENC_DEVICE_TYPE_CUDA, NV_ENC_ERR_UNSUPPORTED_DEVICE, "not a CUDA device");
    CHECK(params->device, NV_ENC_ERR_INVALID_DEVICE, "no CUDA context");
    CHECK(load_cuda(), NV_ENC_ERR_NO_ENCODE_DEVICE, "no CUDA driver");
    pthread_mutex_lock(&sessions_lock);
    int live = 0;
    for (Session *one = sessions; one; one = one->next) live++;
    if (live < number("NVENC_EMULATOR_SESSIONS", 8)) { /* of this process: the real limit is the machine's */
        session = calloc(1, sizeof *session);
        session->context = params->device;
        session->number = ++opened;
        session->next = sessions;
        sessions = session;
    }
    pthread_mutex_unlock(&sessions_lock);
    CHECK(session, NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY, "no session is left");
    add(line, ", \"opened\": %d, \"live\": %d", session->number, live + 1);
    *encoder = session;
    return end(line, NV_ENC_SUCCESS);
}

static int open_session(void *device, u32 type, void **encoder) {
    (void)device, (void)type, (void)encoder;
    return refuse(begin("nvEncOpenEncodeSession", 0), NULL, NV_ENC_ERR_UNIMPLEMENTED, "nvEncOpenEncodeSessionEx it is");
}

/* What the chip can do. */

static int get_guid_count(void *encoder, u32 *count) {
    CALL("nvEncGetEncodeGUIDCount");
    *count = 0;
    for (int i = 0; i < CODECS; i++) *count += codec_of(codecs[i].guid) >= 0;
    return end(line, NV_ENC_SUCCESS);
}

static int get_guids(void *encoder, GUID *guids, u32 room, u32 *count) {
    CALL("nvEncGetEncodeGUIDs");
    *count = 0;
    for (int i = 0; i < CODECS; i++)
        if (codec_of(codecs[i].guid) >= 0 && *count < room) guids[(*count)++] = *codecs[i].guid;
    return end(line, NV_ENC_SUCCESS);
}

static int get_profile_guids(void *encoder, GUID codec, GUID *guids, u32 room, u32 *count) {
    CALL("nvEncGetEncodeProfileGUIDs");
    int index = codec_of(&codec);
    CHECK(index >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    for (*count = 0; profiles[index][*count] && *count < room; (*count)++) guids[*count] = *profiles[index][*count];
    return end(line, NV_ENC_SUCCESS);
}

static int get_profile_count(void *encoder, GUID codec, u32 *count) {
    GUID guids[5];
    return get_profile_guids(encoder, codec, guids, 5, count);
}

static int get_preset_guids(void *encoder, GUID codec, GUID *guids, u32 room, u32 *count) {
    CALL("nvEncGetEncodePresetGUIDs");
    CHECK(codec_of(&codec) >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    for (*count = 0; *count < PRESETS && *count < room; (*count)++) guids[*count] = *presets[*count];
    return end(line, NV_ENC_SUCCESS);
}

static int get_preset_count(void *encoder, GUID codec, u32 *count) {
    GUID guids[PRESETS];
    return get_preset_guids(encoder, codec, guids, PRESETS, count);
}

static int get_formats(void *encoder, GUID codec, u32 *out, u32 room, u32 *count) {
    CALL("nvEncGetInputFormats");
    CHECK(codec_of(&codec) >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    for (*count = 0; *count < FORMATS && *count < room; (*count)++) out[*count] = formats[*count];
    return end(line, NV_ENC_SUCCESS);
}

static int get_format_count(void *encoder, GUID codec, u32 *count) {
    u32 out[FORMATS];
    return get_formats(encoder, codec, out, FORMATS, count);
}

static int capability(int codec, u32 what) {
    switch (what) {
    case NV_ENC_CAPS_NUM_MAX_BFRAMES: return number("NVENC_EMULATOR_B_FRAMES", 4);
    case NV_ENC_CAPS_SUPPORTED_RATECONTROL_MODES: return 63;
    case NV_ENC_CAPS_WIDTH_MAX:
    case NV_ENC_CAPS_HEIGHT_MAX: return codec == H264 ? 4096 : 8192;
    case NV_ENC_CAPS_WIDTH_MIN: return codec == H264 ? 145 : 129;
    case NV_ENC_CAPS_HEIGHT_MIN: return codec == H264 ? 49 : 33;
    case NV_ENC_CAPS_MB_NUM_MAX: return codec == H264 ? 65536 : 262144;
    case NV_ENC_CAPS_MB_PER_SEC_MAX: return 983040;
    case NV_ENC_CAPS_LEVEL_MAX: return codec == H264 ? NV_ENC_LEVEL_H264_62 : codec == HEVC ? NV_ENC_LEVEL_HEVC_62 : 23;
    case NV_ENC_CAPS_LEVEL_MIN: return codec == H264 ? NV_ENC_LEVEL_H264_1 : codec == HEVC ? NV_ENC_LEVEL_HEVC_1 : 0;
    case NV_ENC_CAPS_ASYNC_ENCODE_SUPPORT:
    case NV_ENC_CAPS_SUPPORT_FIELD_ENCODING:
    case NV_ENC_CAPS_SUPPORT_MONOCHROME:
    case NV_ENC_CAPS_SUPPORT_MVHEVC_ENCODE:
    case NV_ENC_CAPS_SUPPORT_YUV422_ENCODE: return 0;
    case NV_ENC_CAPS_NUM_ENCODER_ENGINES: return 1;
    default: return 1;
    }
}

static int get_caps(void *encoder, GUID codec, NV_ENC_CAPS_PARAM *params, int *value) {
    CALL("nvEncGetEncodeCaps");
    VERSION(params, NV_ENC_CAPS_PARAM_VER);
    int index = codec_of(&codec);
    CHECK(index >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    CHECK(params->capsToQuery < NV_ENC_CAPS_EXPOSED_COUNT, NV_ENC_ERR_INVALID_PARAM, "capability");
    *value = capability(index, params->capsToQuery);
    add(line, ", \"capability\": \"%s\", \"value\": %d", NV_ENC_CAPS_names[params->capsToQuery].name, *value);
    return end(line, NV_ENC_SUCCESS);
}

/* Presets: the values are ours, plausible ones that a client should override. */
static int get_preset_config_ex(void *encoder, GUID codec, GUID preset, u32 tuning, NV_ENC_PRESET_CONFIG *params) {
    CALL("nvEncGetEncodePresetConfigEx");
    VERSION(params, NV_ENC_PRESET_CONFIG_VER);
    NV_ENC_CONFIG *config = &params->presetCfg;
    CHECK(config->version == NV_ENC_CONFIG_VER, NV_ENC_ERR_INVALID_VERSION, "version of presetCfg");
    int index = codec_of(&codec);
    CHECK(index >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    CHECK(in_table(&preset, presets, PRESETS), NV_ENC_ERR_UNSUPPORTED_PARAM, "preset");
    CHECK(tuning > NV_ENC_TUNING_INFO_UNDEFINED && tuning < NV_ENC_TUNING_INFO_COUNT, NV_ENC_ERR_INVALID_PARAM, "tuning");
    int quick = tuning == NV_ENC_TUNING_INFO_LOW_LATENCY || tuning == NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY;
    int depth = number("NVENC_EMULATOR_PRESET_LOOKAHEAD", 0);
    memset(config, 0, sizeof *config);
    config->version = NV_ENC_CONFIG_VER;
    config->profileGUID = NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID;
    config->gopLength = quick ? (u32)INFINITE_GOP : 250;
    config->frameIntervalP = quick ? 1 : 4;
    config->frameFieldMode = NV_ENC_PARAMS_FRAME_FIELD_MODE_FRAME;
    config->rcParams.version = NV_ENC_RC_PARAMS_VER;
    config->rcParams.rateControlMode = quick ? NV_ENC_PARAMS_RC_CBR : NV_ENC_PARAMS_RC_VBR;
    config->rcParams.averageBitRate = 10000000;
    config->rcParams.enableLookahead = depth > 0;
    config->rcParams.lookaheadDepth = (uint16_t)depth;
    if (index == H264) {
        config->encodeCodecConfig.h264Config.idrPeriod = config->gopLength;
        config->encodeCodecConfig.h264Config.chromaFormatIDC = 1;
    } else if (index == HEVC) {
        config->encodeCodecConfig.hevcConfig.idrPeriod = config->gopLength;
        config->encodeCodecConfig.hevcConfig.chromaFormatIDC = 1;
    } else {
        config->encodeCodecConfig.av1Config.idrPeriod = config->gopLength;
        config->encodeCodecConfig.av1Config.chromaFormatIDC = 1;
    }
    return end(line, NV_ENC_SUCCESS);
}

static int get_preset_config(void *encoder, GUID codec, GUID preset, NV_ENC_PRESET_CONFIG *params) {
    return get_preset_config_ex(encoder, codec, preset, NV_ENC_TUNING_INFO_HIGH_QUALITY, params);
}

/* Initialising. */

static u32 divisor(u32 a, u32 b) { return b ? divisor(b, a % b) : a; }

static const char *set_h264(Session *session) {
    const NV_ENC_INITIALIZE_PARAMS *init = &session->init;
    const NV_ENC_CONFIG *config = &session->config;
    const NV_ENC_CONFIG_H264 *own = &config->encodeCodecConfig.h264Config;
    const NV_ENC_CONFIG_H264_VUI_PARAMETERS *vui = &own->h264VUIParameters;
    H264Stream *out = &session->h264;
    u32 lowest = h264_level(init->encodeWidth, init->encodeHeight, init->frameRateNum, init->frameRateDen);
    int baseline = same(&config->profileGUID, &NV_ENC_H264_PROFILE_BASELINE_GUID);
    if (baseline && config->frameIntervalP > 1) return "Baseline has no B-frames";
    if (own->level && own->level < lowest) return "level too low for the size and rate";
    if (own->chromaFormatIDC > 1) return "chroma format";
    *out = (H264Stream){
        .width = init->encodeWidth,
        .height = init->encodeHeight,
        .profile = baseline ? 66 : same(&config->profileGUID, &NV_ENC_H264_PROFILE_MAIN_GUID) ? 77 : 100,
        .level = own->level ? own->level : lowest,
        .reorders = session->interval > 1,
        .signal_present = vui->videoSignalTypePresentFlag != 0,
        .video_format = (int)vui->videoFormat,
        .full_range = vui->videoFullRangeFlag != 0,
        .colour_present = vui->colourDescriptionPresentFlag != 0,
        .primaries = (int)vui->colourPrimaries,
        .transfer = (int)vui->transferCharacteristics,
        .matrix = (int)vui->colourMatrix,
        .chroma_location_present = vui->chromaSampleLocationFlag != 0,
        .chroma_top = (int)vui->chromaSampleLocationTop,
        .chroma_bottom = (int)vui->chromaSampleLocationBot,
        .timing_present = vui->timingInfoPresentFlag != 0,
        .units_in_tick = vui->numUnitInTicks,
        .time_scale = vui->timeScale,
        .restriction_present = vui->bitstreamRestrictionFlag != 0,
    };
    if (init->darWidth && init->darHeight) {
        u64 across = (u64)init->darWidth * init->encodeHeight, down = (u64)init->darHeight * init->encodeWidth;
        u32 common = across < 1u << 31 && down < 1u << 31 ? divisor((u32)across, (u32)down) : 1;
        out->aspect_width = (u32)(across / common);
        out->aspect_height = (u32)(down / common);
        if (out->aspect_width > 65535 || out->aspect_height > 65535) return "aspect ratio";
    }
    return NULL;
}

static const char *wrong_parameter(Session *session) {
    const NV_ENC_INITIALIZE_PARAMS *init = &session->init;
    const NV_ENC_CONFIG *config = &session->config;
    int codec = session->codec;
    if (!in_table(&init->presetGUID, presets, PRESETS)) return "preset";
    if (init->tuningInfo <= NV_ENC_TUNING_INFO_UNDEFINED || init->tuningInfo >= NV_ENC_TUNING_INFO_COUNT) return "tuning";
    if ((int)init->encodeWidth > capability(codec, NV_ENC_CAPS_WIDTH_MAX)) return "width too large";
    if ((int)init->encodeHeight > capability(codec, NV_ENC_CAPS_HEIGHT_MAX)) return "height too large";
    if ((int)init->encodeWidth < capability(codec, NV_ENC_CAPS_WIDTH_MIN)) return "width too small";
    if ((int)init->encodeHeight < capability(codec, NV_ENC_CAPS_HEIGHT_MIN)) return "height too small";
    if (init->encodeWidth % 2 || init->encodeHeight % 2) return "odd size";
    if (!init->frameRateNum || !init->frameRateDen) return "frame rate";
    if (init->enableEncodeAsync) return "events are for Windows";
    if (!init->enablePTD) return "picture types must be left to the driver"; /* ours */
    if (init->enableMEOnlyMode || init->enableSubFrameWrite || init->enableOutputInVidmem) return "mode"; /* ours */
    int known = 0;
    for (int i = 0; i < 5 && profiles[codec][i]; i++) known |= same(profiles[codec][i], &config->profileGUID);
    if (!known) return "profile";
    if (config->frameIntervalP < 0 || config->frameIntervalP - 1 > capability(codec, NV_ENC_CAPS_NUM_MAX_BFRAMES))
        return "more B-frames than the chip has";
    if (config->gopLength != (u32)INFINITE_GOP && (u32)config->frameIntervalP > config->gopLength)
        return "frameIntervalP is larger than the GOP";
    if (config->rcParams.rateControlMode > NV_ENC_PARAMS_RC_CBR) return "rate control";
    if (config->rcParams.maxBitRate && config->rcParams.averageBitRate > config->rcParams.maxBitRate)
        return "average bit rate above the maximum";
    if (config->rcParams.targetQuality > (codec == AV1 ? 63 : 51)) return "target quality";
    if (config->rcParams.lookaheadDepth + config->frameIntervalP >= WAITING) return "lookahead";
    return NULL;
}

static void apply(Session *session) {
    const NV_ENC_CONFIG *config = &session->config;
    const NV_ENC_CODEC_CONFIG *own = &config->encodeCodecConfig;
    u32 idr = session->codec == H264 ? own->h264Config.idrPeriod
              : session->codec == HEVC ? own->hevcConfig.idrPeriod : own->av1Config.idrPeriod;
    session->period = idr ? idr : config->gopLength;
    session->interval = config->frameIntervalP > 0 ? (u32)config->frameIntervalP : 1;
    session->lookahead = config->rcParams.enableLookahead ? config->rcParams.lookaheadDepth : 0;
}

static void add_parameters(Line *line, const Session *session) {
    const NV_ENC_CODEC_CONFIG *own = &session->config.encodeCodecConfig;
    add(line, ", \"codec\": \"%s\", \"init\": ", codecs[session->codec].name);
    add_fields(line, &session->init, NV_ENC_INITIALIZE_PARAMS_fields);
    add(line, ", \"config\": ");
    add_fields(line, &session->config, NV_ENC_CONFIG_fields);
    add(line, ", \"codecConfig\": ");
    if (session->codec == H264) add_fields(line, &own->h264Config, NV_ENC_CONFIG_H264_fields);
    else if (session->codec == HEVC) add_fields(line, &own->hevcConfig, NV_ENC_CONFIG_HEVC_fields);
    else add_fields(line, &own->av1Config, NV_ENC_CONFIG_AV1_fields);
}

static int initialize(void *encoder, NV_ENC_INITIALIZE_PARAMS *params) {
    CALL("nvEncInitializeEncoder");
    VERSION(params, NV_ENC_INITIALIZE_PARAMS_VER);
    CHECK(!session->initialised, NV_ENC_ERR_INVALID_CALL, "initialised already");
    CHECK(params->encodeConfig, NV_ENC_ERR_UNIMPLEMENTED, "encodeConfig must be given"); /* ours */
    const NV_ENC_CONFIG *config = params->encodeConfig;
    CHECK(config->version == NV_ENC_CONFIG_VER, NV_ENC_ERR_INVALID_VERSION, "version of encodeConfig");
    session->codec = codec_of(&params->encodeGUID);
    CHECK(session->codec >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    session->init = *params;
    session->config = *config;
    apply(session);
    add_parameters(line, session);
    const char *wrong = wrong_parameter(session);
    if (!wrong && session->codec == H264) wrong = set_h264(session);
    CHECK(!wrong, NV_ENC_ERR_INVALID_PARAM, wrong);
    if (session->codec == H264 && params->splitEncodeMode && params->splitEncodeMode != NV_ENC_SPLIT_DISABLE_MODE)
        problem(line, "H.264 cannot be split");
    size_t columns = (params->encodeWidth + 15) / 16 * 16, rows = (params->encodeHeight + 15) / 16 * 16;
    void *memory = NULL, *raw = NULL, *popped;
    cuda.push(session->context);
    int failed = cuda.take_pinned(&memory, columns * rows * 3 / 2) || cuda.take_pinned(&raw, columns * rows * 4)
                 || cuda.make_stream(&session->stream, NON_BLOCKING);
    cuda.pop(&popped);
    session->picture = memory;
    session->raw = raw;
    CHECK(!failed, NV_ENC_ERR_OUT_OF_MEMORY, "no pinned memory for a picture");
    session->initialised = 1;
    return end(line, NV_ENC_SUCCESS);
}

static int reconfigure(void *encoder, NV_ENC_RECONFIGURE_PARAMS *params) {
    CALL("nvEncReconfigureEncoder");
    VERSION(params, NV_ENC_RECONFIGURE_PARAMS_VER);
    INITIALISED;
    const NV_ENC_INITIALIZE_PARAMS *init = &params->reInitEncodeParams;
    CHECK(init->version == NV_ENC_INITIALIZE_PARAMS_VER, NV_ENC_ERR_INVALID_VERSION, "version of reInitEncodeParams");
    CHECK(init->encodeWidth == session->init.encodeWidth && init->encodeHeight == session->init.encodeHeight,
          NV_ENC_ERR_UNSUPPORTED_PARAM, "another size"); /* ours */
    const NV_ENC_CONFIG *config = init->encodeConfig;
    if (config) {
        CHECK(config->frameIntervalP == session->config.frameIntervalP, NV_ENC_ERR_INVALID_PARAM, "frameIntervalP");
        session->config = *config;
    }
    apply(session);
    add_parameters(line, session);
    if (params->forceIDR) session->since_idr = 0;
    return end(line, NV_ENC_SUCCESS);
}

static int set_streams(void *encoder, void **input, void **output) {
    CALL("nvEncSetIOCudaStreams");
    CHECK(input && output, NV_ENC_ERR_INVALID_PTR, "no stream");
    session->input_stream = *input;
    return end(line, NV_ENC_SUCCESS);
}

static int get_sequence_params(void *encoder, NV_ENC_SEQUENCE_PARAM_PAYLOAD *params) {
    CALL("nvEncGetSequenceParams");
    VERSION(params, NV_ENC_SEQUENCE_PARAM_PAYLOAD_VER);
    INITIALISED;
    u8 sets[1024];
    u32 size = session->codec == H264 ? (u32)h264_parameter_sets(&session->h264, sets) : 0;
    CHECK(params->spsppsBuffer && params->outSPSPPSPayloadSize, NV_ENC_ERR_INVALID_PTR, "no buffer");
    CHECK(params->inBufferSize >= size, NV_ENC_ERR_INVALID_PARAM, "buffer too small");
    memcpy(params->spsppsBuffer, sets, size);
    memcpy(params->outSPSPPSPayloadSize, &size, sizeof size);
    return end(line, NV_ENC_SUCCESS);
}

/* Memory. */

static Bitstream *bitstream_of(Session *session, const void *handle) {
    Bitstream *one = session->bitstreams;
    while (one && one != handle) one = one->next;
    return one;
}

static Resource *resource_of(Session *session, const void *handle) {
    Resource *one = session->resources;
    while (one && one != handle) one = one->next;
    return one;
}

static Resource *mapping_of(Session *session, const void *handle) {
    Resource *one = session->resources;
    while (one && (const void *)&one->mapped != handle) one = one->next;
    return one && one->mapped ? one : NULL;
}

static int create_bitstream(void *encoder, NV_ENC_CREATE_BITSTREAM_BUFFER *params) {
    CALL("nvEncCreateBitstreamBuffer");
    VERSION(params, NV_ENC_CREATE_BITSTREAM_BUFFER_VER);
    INITIALISED;
    Bitstream *made = calloc(1, sizeof *made);
    made->next = session->bitstreams;
    session->bitstreams = made;
    params->bitstreamBuffer = made;
    return end(line, NV_ENC_SUCCESS);
}

static void drop_picture(Picture *picture) {
    if (picture->ready) cuda.free_event(picture->ready);
    picture->ready = NULL;
}

static int destroy_bitstream(void *encoder, void *handle) {
    CALL("nvEncDestroyBitstreamBuffer");
    Bitstream *bitstream = bitstream_of(session, handle);
    CHECK(bitstream, NV_ENC_ERR_INVALID_PARAM, "no such bitstream buffer");
    CHECK(bitstream->state != LOCKED, NV_ENC_ERR_LOCK_BUSY, "locked");
    if (bitstream->state == GIVEN && !session->ended) problem(line, "destroyed with a packet to come");
    for (Bitstream **at = &session->bitstreams; *at; at = &(*at)->next)
        if (*at == bitstream) {
            *at = bitstream->next;
            break;
        }
    for (u32 i = 0; i < session->given_count; i++)
        if (session->given[i] == bitstream) session->given[i] = NULL;
    drop_picture(&bitstream->picture);
    free(bitstream->data);
    free(bitstream);
    return end(line, NV_ENC_SUCCESS);
}

static int register_resource(void *encoder, NV_ENC_REGISTER_RESOURCE *params) {
    CALL("nvEncRegisterResource");
    VERSION(params, NV_ENC_REGISTER_RESOURCE_VER);
    INITIALISED;
    u64 address = (u64)params->resourceToRegister, base = 0;
    add(line, ", \"address\": %llu, \"width\": %u, \"height\": %u, \"pitch\": %u, \"format\": %u",
        (unsigned long long)address, params->width, params->height, params->pitch, params->bufferFormat);
    int known = 0;
    for (int i = 0; i < FORMATS; i++) known |= formats[i] == params->bufferFormat;
    CHECK(params->resourceType == NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR, NV_ENC_ERR_UNIMPLEMENTED, "not a pointer");
    CHECK(known, NV_ENC_ERR_UNSUPPORTED_PARAM, "format");
    CHECK(params->bufferUsage == NV_ENC_INPUT_IMAGE, NV_ENC_ERR_UNSUPPORTED_PARAM, "usage");
    CHECK(address, NV_ENC_ERR_INVALID_PARAM, "no address");
    CHECK(params->width >= session->init.encodeWidth && params->height >= session->init.encodeHeight,
          NV_ENC_ERR_INVALID_PARAM, "smaller than the picture");
    CHECK(params->pitch >= params->width * bytes_of(params->bufferFormat), NV_ENC_ERR_INVALID_PARAM, "pitch below width");
    size_t size = 0;
    u64 needed = (u64)params->pitch * params->height;
    if (params->bufferFormat == NV_ENC_BUFFER_FORMAT_NV12) needed += needed / 2;
    void *popped;
    cuda.push(session->context);
    int found = cuda.range(&base, &size, address) == 0;
    cuda.pop(&popped);
    CHECK(!found || address + needed - (params->pitch - params->width * bytes_of(params->bufferFormat)) <= base + size,
          NV_ENC_ERR_INVALID_PARAM, "reaches past its memory");
    for (Resource *one = session->resources; one; one = one->next)
        if (one->address == address) problem(line, "registered already");
    Resource *made = calloc(1, sizeof *made);
    *made = (Resource){.next = session->resources, .address = address, .width = params->width,
                       .height = params->height, .pitch = params->pitch, .format = params->bufferFormat};
    session->resources = made;
    params->registeredResource = made;
    return end(line, NV_ENC_SUCCESS);
}

static int unregister_resource(void *encoder, void *handle) {
    CALL("nvEncUnregisterResource");
    Resource *resource = resource_of(session, handle);
    CHECK(resource, NV_ENC_ERR_RESOURCE_NOT_REGISTERED, "not registered");
    CHECK(!resource->mapped, NV_ENC_ERR_INVALID_CALL, "still mapped");
    for (Resource **at = &session->resources; *at; at = &(*at)->next)
        if (*at == resource) {
            *at = resource->next;
            break;
        }
    for (Bitstream *one = session->bitstreams; one; one = one->next)
        if (one->picture.resource == resource) one->picture.resource = NULL;
    for (u32 i = 0; i < session->waiting_count; i++)
        if (session->waiting[i].resource == resource) session->waiting[i].resource = NULL;
    free(resource);
    return end(line, NV_ENC_SUCCESS);
}

static int map_resource(void *encoder, NV_ENC_MAP_INPUT_RESOURCE *params) {
    CALL("nvEncMapInputResource");
    VERSION(params, NV_ENC_MAP_INPUT_RESOURCE_VER);
    Resource *resource = resource_of(session, params->registeredResource);
    CHECK(resource, NV_ENC_ERR_RESOURCE_NOT_REGISTERED, "not registered");
    CHECK(!resource->mapped, NV_ENC_ERR_MAP_FAILED, "mapped already");
    resource->mapped = 1;
    params->mappedResource = &resource->mapped;
    params->mappedBufferFmt = resource->format;
    return end(line, NV_ENC_SUCCESS);
}

static int unmap_resource(void *encoder, void *handle) {
    CALL("nvEncUnmapInputResource");
    Resource *resource = mapping_of(session, handle);
    CHECK(resource, NV_ENC_ERR_RESOURCE_NOT_MAPPED, "not mapped");
    if (resource->inside && !session->ended) problem(line, "unmapped with a picture inside");
    resource->mapped = 0;
    return end(line, NV_ENC_SUCCESS);
}

/* Pictures. */

static void copy_rows(Session *session, const Picture *picture, u64 row, u8 *to, u32 bytes, u32 rows, u32 to_pitch) {
    Copy2D copy = {.source_type = DEVICE, .source_device = picture->resource->address + row * picture->resource->pitch,
                   .source_pitch = picture->resource->pitch, .target_type = HOST, .target_host = to,
                   .target_pitch = to_pitch, .width = bytes, .height = rows};
    if (cuda.copy(&copy, session->stream)) fprintf(stderr, "nvenc emulator: the picture cannot be copied\n");
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
static int read_picture(Session *session, const Picture *picture) {
    const Resource *resource = picture->resource;
    u32 width = session->init.encodeWidth, height = session->init.encodeHeight;
    u32 pitch = (width + 15) / 16 * 16, rows = (height + 15) / 16 * 16;
    u8 *luma = session->picture, *chroma = luma + (size_t)pitch * rows;
    if (!resource) return 0;
    void *popped;
    cuda.push(session->context);
    int failed = cuda.wait(picture->ready);
    if (resource->format == NV_ENC_BUFFER_FORMAT_NV12) {
        copy_rows(session, picture, 0, luma, width, height, pitch);
        copy_rows(session, picture, resource->height, chroma, width, height / 2, pitch);
        failed |= cuda.wait_stream(session->stream);
    } else {
        copy_rows(session, picture, 0, session->raw, 4 * width, height, 4 * width);
        failed |= cuda.wait_stream(session->stream);
        convert(session->raw, resource->format == NV_ENC_BUFFER_FORMAT_ARGB ? 0 : 2, width, height, luma, chroma, pitch);
    }
    cuda.pop(&popped);
    pad(luma, pitch, width, height, rows, 1);
    pad(chroma, pitch, width, height / 2, rows / 2, 2);
    return !failed;
}

static u64 hash_picture(const Session *session) {
    size_t count = (size_t)((session->init.encodeWidth + 15) / 16) * ((session->init.encodeHeight + 15) / 16) * 384;
    u64 hash = 14695981039346656037u;
    for (size_t i = 0; i < count; i += 8) {
        u64 word;
        memcpy(&word, session->picture + i, 8);
        hash = (hash ^ word) * 1099511628211u;
    }
    return hash;
}

static void emit(Session *session, Picture picture, int type) {
    picture.type = type;
    if (picture.idr) {
        session->references = 0;
        session->order = picture.index;
        session->idrs++;
    }
    picture.h264 = (H264Picture){
        .type = type == NV_ENC_PIC_TYPE_IDR ? H264_I : type == NV_ENC_PIC_TYPE_B ? H264_B : H264_P,
        .idr = picture.idr,
        .frame_number = session->references,
        .order = picture.index - session->order,
        .idr_number = session->idrs,
    };
    if (type != NV_ENC_PIC_TYPE_B) session->references++;
    double start = now_ms();
    if (start < session->free_ms) start = session->free_ms;
    picture.done_ms = session->free_ms = start + number("NVENC_EMULATOR_SLOW_MS", 0);
    Bitstream *bitstream = session->given[0];
    memmove(session->given, session->given + 1, --session->given_count * sizeof *session->given);
    if (!bitstream) {
        drop_picture(&picture);
        return;
    }
    bitstream->picture = picture;
    bitstream->state = READY;
    bitstream->read = 0;
}

/* Encodes what need not wait: a group when its last picture has come, and `ahead` more. Returns the packets made. */
static int drain(Session *session, u32 ahead, int flush) {
    int made = 0;
    while (session->waiting_count > ahead) {
        u32 count = 1;
        if (!session->waiting[0].idr) {
            while (count < session->interval && count < session->waiting_count && !session->waiting[count].idr) count++;
            int cut = count < session->waiting_count && session->waiting[count].idr;
            if (count < session->interval && !cut && !flush) break;
            if (count + ahead > session->waiting_count) break;
        }
        emit(session, session->waiting[count - 1], session->waiting[0].idr ? NV_ENC_PIC_TYPE_IDR : NV_ENC_PIC_TYPE_P);
        for (u32 i = 0; i + 1 < count; i++) emit(session, session->waiting[i], NV_ENC_PIC_TYPE_B);
        session->waiting_count -= count;
        memmove(session->waiting, session->waiting + count, session->waiting_count * sizeof *session->waiting);
        made += (int)count;
    }
    return made;
}

static int encode_picture(void *encoder, NV_ENC_PIC_PARAMS *params) {
    CALL("nvEncEncodePicture");
    VERSION(params, NV_ENC_PIC_PARAMS_VER);
    INITIALISED;
    u32 flags = params->encodePicFlags;
    add(line, ", \"flags\": %u", flags);
    if (flags & NV_ENC_PIC_FLAG_EOS) {
        session->ended = 1;
        add(line, ", \"packets\": %d", drain(session, 0, 1));
        return end(line, NV_ENC_SUCCESS);
    }
    add(line, ", \"pts\": %lld, \"duration\": %lld, \"index\": %u", (long long)params->inputTimeStamp,
        (long long)params->inputDuration, session->submitted);
    Resource *resource = mapping_of(session, params->inputBuffer);
    Bitstream *bitstream = bitstream_of(session, params->outputBitstream);
    CHECK(resource, NV_ENC_ERR_RESOURCE_NOT_MAPPED, "the input is not mapped");
    CHECK(bitstream, NV_ENC_ERR_INVALID_PARAM, "no such bitstream buffer");
    CHECK(bitstream->state == FREE, NV_ENC_ERR_INVALID_PARAM, "the bitstream buffer still has a packet");
    CHECK(params->bufferFmt == resource->format, NV_ENC_ERR_INVALID_PARAM, "not the format that was registered");
    CHECK(params->inputWidth == session->init.encodeWidth && params->inputHeight == session->init.encodeHeight,
          NV_ENC_ERR_INVALID_PARAM, "not the size of the session");
    CHECK(params->pictureStruct == NV_ENC_PIC_STRUCT_FRAME, NV_ENC_ERR_INVALID_PARAM, "not a frame");
    CHECK(session->waiting_count < WAITING && session->given_count < WAITING, NV_ENC_ERR_ENCODER_BUSY, "too many inside");
    if (resource->inside) problem(line, "the input still holds a picture whose packet is not out");
    session->ended = 0;
    u32 period = session->period;
    int due = period != (u32)INFINITE_GOP && period && session->since_idr >= period;
    Picture picture = {.resource = resource, .time = params->inputTimeStamp, .duration = params->inputDuration,
                       .flags = flags, .index = session->submitted};
    picture.idr = (flags & NV_ENC_PIC_FLAG_FORCEIDR) || session->since_idr == 0 || due;
    picture.sets = (flags & NV_ENC_PIC_FLAG_OUTPUT_SPSPPS) || session->submitted == 0;
    void *popped;
    cuda.push(session->context);
    int failed = cuda.make_event(&picture.ready, BLOCKING_WAIT | NO_TIMING)
                 || cuda.record(picture.ready, session->input_stream);
    cuda.pop(&popped);
    CHECK(!failed, NV_ENC_ERR_GENERIC, "the input stream cannot be waited for");
    if (number("NVENC_EMULATOR_WATCH", 0) && read_picture(session, &picture)) picture.watched = hash_picture(session);
    session->since_idr = picture.idr ? 1 : session->since_idr + 1;
    session->submitted++;
    resource->inside++;
    bitstream->state = GIVEN;
    session->given[session->given_count++] = bitstream;
    session->waiting[session->waiting_count++] = picture;
    int held = number("NVENC_EMULATOR_HOLD", 0), made = 0;
    if (!held || session->waiting_count >= session->interval + (u32)held) made = drain(session, session->lookahead, 0);
    add(line, ", \"idr\": %d, \"packets\": %d", picture.idr, made);
    return end(line, made ? NV_ENC_SUCCESS : NV_ENC_ERR_NEED_MORE_INPUT);
}

static int repeats(const Session *session) {
    const NV_ENC_CODEC_CONFIG *own = &session->config.encodeCodecConfig;
    return own->h264Config.repeatSPSPPS && !own->h264Config.disableSPSPPS;
}

/* HEVC and AV1: parsers take it for a stream, decoders find no picture in it. */
static size_t placeholder(int codec, u8 *out) {
    static const u8 delimiter[] = {0, 0, 0, 1, 0x46, 1, 0x50}, temporal[] = {0x12, 0};
    memcpy(out, codec == HEVC ? delimiter : temporal, codec == HEVC ? sizeof delimiter : sizeof temporal);
    return codec == HEVC ? sizeof delimiter : sizeof temporal;
}

static size_t write_packet(Session *session, const Picture *picture, u8 *out) {
    if (session->codec != H264) return placeholder(session->codec, out);
    u8 *at = out;
    const NV_ENC_CONFIG_H264 *own = &session->config.encodeCodecConfig.h264Config;
    if (own->outputAUD) at += h264_delimiter(picture->h264.type, at);
    if (picture->sets || (picture->idr && repeats(session))) at += h264_parameter_sets(&session->h264, at);
    at += h264_picture(&session->h264, &picture->h264, session->picture, at);
    return (size_t)(at - out);
}

static void sleep_until(double ms) {
    double left = ms - now_ms();
    if (left > 0) usleep((useconds_t)(left * 1e3));
}

static int lock_bitstream(void *encoder, NV_ENC_LOCK_BITSTREAM *params) {
    CALL("nvEncLockBitstream");
    VERSION(params, NV_ENC_LOCK_BITSTREAM_VER);
    Bitstream *bitstream = bitstream_of(session, params->outputBitstream);
    CHECK(bitstream, NV_ENC_ERR_INVALID_PARAM, "no such bitstream buffer");
    CHECK(bitstream->state != LOCKED, NV_ENC_ERR_LOCK_BUSY, "locked already");
    CHECK(bitstream->state == READY, NV_ENC_ERR_INVALID_PARAM, "nothing is encoded in it yet");
    Picture *picture = &bitstream->picture;
    CHECK(!params->doNotWait || now_ms() >= picture->done_ms, NV_ENC_ERR_LOCK_BUSY, "not done yet");
    sleep_until(picture->done_ms);
    if (!bitstream->read) {
        CHECK(read_picture(session, picture), NV_ENC_ERR_GENERIC, "the picture cannot be read any more");
        if (!bitstream->data) {
            bitstream->room = h264_room(&session->h264);
            bitstream->data = malloc(bitstream->room);
        }
        CHECK(bitstream->data, NV_ENC_ERR_OUT_OF_MEMORY, "no memory for the packet");
        if (picture->watched && picture->watched != hash_picture(session)) problem(line, "rewritten while in use");
        bitstream->size = write_packet(session, picture, bitstream->data);
        bitstream->read = 1;
        if (picture->resource) picture->resource->inside--;
        drop_picture(picture);
    }
    u32 columns = (session->init.encodeWidth + 15) / 16 * 16, rows = (session->init.encodeHeight + 15) / 16 * 16;
    add(line, ", \"pts\": %lld, \"index\": %u, \"type\": \"%s\", \"bytes\": %zu, \"corners\": [%u, %u]",
        (long long)picture->time, picture->index,
        picture->type == NV_ENC_PIC_TYPE_IDR ? "IDR" : picture->type == NV_ENC_PIC_TYPE_B ? "B" : "P", bitstream->size,
        session->picture[0], session->picture[columns * (size_t)rows * 3 / 2 - 1]);
    bitstream->state = LOCKED;
    params->numSlices = 1;
    params->frameIdx = picture->h264.order;
    params->frameIdxDisplay = picture->index;
    params->bitstreamSizeInBytes = (u32)bitstream->size;
    params->bitstreamBufferPtr = bitstream->data;
    params->outputTimeStamp = picture->time;
    params->outputDuration = picture->duration;
    params->pictureType = (u32)picture->type;
    params->pictureStruct = NV_ENC_PIC_STRUCT_FRAME;
    params->frameAvgQP = 0;
    return end(line, NV_ENC_SUCCESS);
}

static int unlock_bitstream(void *encoder, void *handle) {
    CALL("nvEncUnlockBitstream");
    Bitstream *bitstream = bitstream_of(session, handle);
    CHECK(bitstream && bitstream->state == LOCKED, NV_ENC_ERR_INVALID_PARAM, "not locked");
    bitstream->state = FREE;
    return end(line, NV_ENC_SUCCESS);
}

/* The end. */

static int destroy(void *encoder) {
    CALL("nvEncDestroyEncoder");
    int registered = 0, mapped = 0, buffers = 0, locked = 0;
    for (Resource *one = session->resources, *next; one; one = next) {
        next = one->next;
        registered++, mapped += one->mapped;
        free(one);
    }
    for (Bitstream *one = session->bitstreams, *next; one; one = next) {
        next = one->next;
        buffers++, locked += one->state == LOCKED;
        drop_picture(&one->picture);
        free(one->data);
        free(one);
    }
    add(line, ", \"left\": {\"registered\": %d, \"mapped\": %d, \"bitstreams\": %d, \"locked\": %d, \"pictures\": %u}",
        registered, mapped, buffers, locked, session->waiting_count);
    for (u32 i = 0; i < session->waiting_count; i++) drop_picture(&session->waiting[i]);
    void *popped;
    cuda.push(session->context);
    if (session->picture) cuda.free_pinned(session->picture);
    if (session->raw) cuda.free_pinned(session->raw);
    if (session->stream) cuda.free_stream(session->stream);
    cuda.pop(&popped);
    pthread_mutex_lock(&sessions_lock);
    for (Session **at = &sessions; *at; at = &(*at)->next)
        if (*at == session) {
            *at = session->next;
            break;
        }
    pthread_mutex_unlock(&sessions_lock);
    free(session);
    return end(line, NV_ENC_SUCCESS);
}

static const char *last_error(void *encoder) {
    Session *session = session_of(encoder);
    return session && session->error[0] ? session->error : "";
}

static int unimplemented(void) {
    return refuse(begin("unimplemented", 0), NULL, NV_ENC_ERR_UNIMPLEMENTED, "not emulated");
}

/* What the library exports. */

#define EXPORT __attribute__((visibility("default")))

static int api_version(void) {
    int major = API_VERSION >> 4, minor = API_VERSION & 15;
    sscanf(text("NVENC_EMULATOR_API", ""), "%d.%d", &major, &minor);
    return major << 4 | minor;
}

EXPORT int NvEncodeAPIGetMaxSupportedVersion(u32 *version) {
    Line *line = begin("NvEncodeAPIGetMaxSupportedVersion", 0);
    if (!version) return end(line, NV_ENC_ERR_INVALID_PTR);
    *version = (u32)api_version();
    add(line, ", \"version\": %u", *version);
    return end(line, NV_ENC_SUCCESS);
}

EXPORT int NvEncodeAPICreateInstance(NV_ENCODE_API_FUNCTION_LIST *list) {
    Line *line = begin("NvEncodeAPICreateInstance", 0);
    Session *session = NULL;
    VERSION(list, NV_ENCODE_API_FUNCTION_LIST_VER);
    CHECK(api_version() >= API_VERSION, NV_ENC_ERR_INVALID_VERSION, "NVENC_EMULATOR_API is older");
    void **first = &list->nvEncOpenEncodeSession, **last = &list->nvEncLookaheadPicture;
    for (void **at = first; at <= last; at++) *at = (void *)unimplemented;
    list->nvEncOpenEncodeSession = (void *)open_session;
    list->nvEncOpenEncodeSessionEx = (void *)open_session_ex;
    list->nvEncGetEncodeGUIDCount = (void *)get_guid_count;
    list->nvEncGetEncodeGUIDs = (void *)get_guids;
    list->nvEncGetEncodeProfileGUIDCount = (void *)get_profile_count;
    list->nvEncGetEncodeProfileGUIDs = (void *)get_profile_guids;
    list->nvEncGetEncodePresetCount = (void *)get_preset_count;
    list->nvEncGetEncodePresetGUIDs = (void *)get_preset_guids;
    list->nvEncGetInputFormatCount = (void *)get_format_count;
    list->nvEncGetInputFormats = (void *)get_formats;
    list->nvEncGetEncodeCaps = (void *)get_caps;
    list->nvEncGetEncodePresetConfig = (void *)get_preset_config;
    list->nvEncGetEncodePresetConfigEx = (void *)get_preset_config_ex;
    list->nvEncInitializeEncoder = (void *)initialize;
    list->nvEncReconfigureEncoder = (void *)reconfigure;
    list->nvEncSetIOCudaStreams = (void *)set_streams;
    list->nvEncGetSequenceParams = (void *)get_sequence_params;
    list->nvEncCreateBitstreamBuffer = (void *)create_bitstream;
    list->nvEncDestroyBitstreamBuffer = (void *)destroy_bitstream;
    list->nvEncRegisterResource = (void *)register_resource;
    list->nvEncUnregisterResource = (void *)unregister_resource;
    list->nvEncMapInputResource = (void *)map_resource;
    list->nvEncUnmapInputResource = (void *)unmap_resource;
    list->nvEncEncodePicture = (void *)encode_picture;
    list->nvEncLockBitstream = (void *)lock_bitstream;
    list->nvEncUnlockBitstream = (void *)unlock_bitstream;
    list->nvEncDestroyEncoder = (void *)destroy;
    list->nvEncGetLastErrorString = (void *)last_error;
    return end(line, NV_ENC_SUCCESS);
}
