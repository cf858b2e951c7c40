/* Pictures as H.264 that loses nothing: macroblocks of raw samples (I_PCM, ITU-T H.264 7.3.5). */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { H264_P = 0, H264_B = 1, H264_I = 2 };

typedef struct {
    uint32_t width, height;  /* of the picture; the coded size is the next multiple of 16 */
    uint32_t profile, level; /* profile_idc, level_idc */
    int reorders;            /* B-pictures follow the picture that they precede */
    uint32_t aspect_width, aspect_height; /* shape of a sample; 0: not said */
    int signal_present, video_format, full_range, colour_present, primaries, transfer, matrix;
    int chroma_location_present, chroma_top, chroma_bottom;
    int timing_present;
    uint32_t units_in_tick, time_scale;
    int restriction_present;
} H264Stream;

typedef struct {
    int type, idr;           /* H264_P, H264_B, H264_I */
    uint32_t frame_number;   /* reference pictures since the IDR picture */
    uint32_t order;          /* display position since the IDR picture */
    uint32_t idr_number;     /* different for neighbouring IDR pictures */
} H264Picture;

/* Bytes that a packet may take at most. */
size_t h264_room(const H264Stream *stream);

/* Lowest level that holds the size and rate; 62 when none does. */
uint32_t h264_level(uint32_t width, uint32_t height, uint32_t fps_num, uint32_t fps_den);

/* Parameter sets as an Annex B stream; returns the bytes written. */
size_t h264_parameter_sets(const H264Stream *stream, uint8_t *out);

/* An access unit delimiter for a picture of a type; returns the bytes written. */
size_t h264_delimiter(int type, uint8_t *out);

/* One picture, Annex B. nv12 has the coded size, without pitch: luma rows, then rows of u, v, u, v.
 * Returns the bytes written. */
size_t h264_picture(const H264Stream *stream, const H264Picture *picture, const uint8_t *nv12, uint8_t *out);
