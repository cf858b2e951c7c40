/* Sessions of the emulated encoder, and what the files of it share. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "h264.h"
#include "log.h"
#include "nvenc_abi.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { WAITING = 256 };
#define INFINITE_GOP 0xffffffffu

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

typedef struct {
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
} Cuda;
extern Cuda cuda;

/* Looks the functions up; 0: there is no driver. */
int load_cuda(void);

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

/* Codecs, and what the chip and its presets say of them (parameters.c). */

enum { H264, HEVC, AV1, CODECS };
typedef struct { const char *name; const GUID *guid; } Codec;
extern const Codec codecs[CODECS];

int codec_of(const GUID *guid); /* -1: the chip has none such */
int is_preset(const GUID *guid);
int is_format(u32 format);
u32 bytes_of(u32 format); /* of a sample of the first plane */
int capability(int codec, u32 what);
void fill_preset(NV_ENC_CONFIG *config, int codec, u32 tuning);

/* What the driver would refuse in session->init and session->config; NULL: nothing, and session->h264 is set. */
const char *wrong_parameter(Session *session);

/* Pictures (pictures.c). */

/* The picture as NV12 of the coded size in session->picture, once the client's work on it is done; 0: it failed. */
int read_picture(Session *session, const Picture *picture);
u64 hash_picture(const Session *session);
