/* libnvidia-encode.so.1 without an encoder chip: the NVENC 13.0 interface, checked as a driver checks it and logged,
 * on pictures that are read from CUDA memory and written as H.264 without loss. README.md says what is and what is
 * not emulated; what is commented "ours" is not known of the real driver.
 *
 * A picture is read as late as the interface allows, when its packet is locked: memory that a client hands back too
 * early shows as a wrong picture every time.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

enum { API_MAJOR = 13, API_MINOR = 0 };

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

/* Opening. */

static int open_session_ex(NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS *params, void **encoder) {
    Line *line = begin("nvEncOpenEncodeSessionEx", 0);
    Session *session = NULL;
    VERSION(params, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER);
    int forced = failure("nvEncOpenEncodeSessionEx");
    CHECK(!forced, forced, "as NVENC_EMULATOR_FAIL says");
    CHECK((params->apiVersion & 0xff) == API_MAJOR && params->apiVersion >> 24 == API_MINOR, NV_ENC_ERR_INVALID_VERSION,
          "API version");
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

static int get_preset_config_ex(void *encoder, GUID codec, GUID preset, u32 tuning, NV_ENC_PRESET_CONFIG *params) {
    CALL("nvEncGetEncodePresetConfigEx");
    VERSION(params, NV_ENC_PRESET_CONFIG_VER);
    NV_ENC_CONFIG *config = &params->presetCfg;
    CHECK(config->version == NV_ENC_CONFIG_VER, NV_ENC_ERR_INVALID_VERSION, "version of presetCfg");
    int index = codec_of(&codec);
    CHECK(index >= 0, NV_ENC_ERR_UNSUPPORTED_PARAM, "codec");
    CHECK(is_preset(&preset), NV_ENC_ERR_UNSUPPORTED_PARAM, "preset");
    CHECK(tuning > NV_ENC_TUNING_INFO_UNDEFINED && tuning < NV_ENC_TUNING_INFO_COUNT, NV_ENC_ERR_INVALID_PARAM,
          "tuning");
    fill_preset(config, index, tuning);
    return end(line, NV_ENC_SUCCESS);
}

/* Initialising. */

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

static int set_streams(void *encoder, void **input, void **output) {
    CALL("nvEncSetIOCudaStreams");
    CHECK(input && output, NV_ENC_ERR_INVALID_PTR, "no stream");
    session->input_stream = *input;
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
    CHECK(params->resourceType == NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR, NV_ENC_ERR_UNIMPLEMENTED, "not a pointer");
    CHECK(is_format(params->bufferFormat), NV_ENC_ERR_UNSUPPORTED_PARAM, "format");
    CHECK(params->bufferUsage == NV_ENC_INPUT_IMAGE, NV_ENC_ERR_UNSUPPORTED_PARAM, "usage");
    CHECK(address, NV_ENC_ERR_INVALID_PARAM, "no address");
    CHECK(params->width >= session->init.encodeWidth && params->height >= session->init.encodeHeight,
          NV_ENC_ERR_INVALID_PARAM, "smaller than the picture");
    u32 row = params->width * bytes_of(params->bufferFormat);
    CHECK(params->pitch >= row, NV_ENC_ERR_INVALID_PARAM, "pitch below width");
    size_t size = 0;
    u64 needed = (u64)params->pitch * params->height;
    if (params->bufferFormat == NV_ENC_BUFFER_FORMAT_NV12) needed += needed / 2;
    void *popped;
    cuda.push(session->context);
    int found = cuda.range(&base, &size, address) == 0;
    cuda.pop(&popped);
    CHECK(!found || address + needed - (params->pitch - row) <= base + size, NV_ENC_ERR_INVALID_PARAM,
          "reaches past its memory");
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
    for (u32 i = 0; i < session->waiting_count; i++)
        if (session->waiting[i].resource == resource) problem(line, "unmapped with a picture that waits");
    resource->mapped = 0;
    return end(line, NV_ENC_SUCCESS);
}

/* Pictures. */

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
    int unsaid = !params->inputWidth && !params->inputHeight; /* FFmpeg says none of CUDA memory */
    int fits = params->inputWidth == session->init.encodeWidth && params->inputHeight == session->init.encodeHeight;
    CHECK(unsaid || fits, NV_ENC_ERR_INVALID_PARAM, "not the size of the session");
    CHECK(params->pictureStruct == NV_ENC_PIC_STRUCT_FRAME, NV_ENC_ERR_INVALID_PARAM, "not a frame");
    CHECK(session->given_count < WAITING, NV_ENC_ERR_ENCODER_BUSY, "too many inside");
    if (resource->inside) problem(line, "the input still holds a picture whose packet is not out");
    session->ended = 0;
    u32 period = session->period;
    int due = period != INFINITE_GOP && period && session->since_idr >= period;
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
    int major = API_MAJOR, minor = API_MINOR;
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
    CHECK(api_version() >= (API_MAJOR << 4 | API_MINOR), NV_ENC_ERR_INVALID_VERSION, "NVENC_EMULATOR_API is older");
    void **at = (void **)((u8 *)list + offsetof(NV_ENCODE_API_FUNCTION_LIST, nvEncOpenEncodeSession));
    void **last = (void **)((u8 *)list + offsetof(NV_ENCODE_API_FUNCTION_LIST, nvEncLookaheadPicture));
    while (at <= last) *at++ = (void *)unimplemented;
    list->nvEncOpenEncodeSessionEx = (void *)open_session_ex;
    list->nvEncGetEncodeGUIDCount = (void *)get_guid_count;
    list->nvEncGetEncodeGUIDs = (void *)get_guids;
    list->nvEncGetEncodeCaps = (void *)get_caps;
    list->nvEncGetEncodePresetConfigEx = (void *)get_preset_config_ex;
    list->nvEncInitializeEncoder = (void *)initialize;
    list->nvEncSetIOCudaStreams = (void *)set_streams;
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
