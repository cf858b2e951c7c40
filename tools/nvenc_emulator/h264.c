#include "h264.h"

#include <string.h>

enum { MACROBLOCK = 384, HEADERS = 4096 };
enum { NAL_SLICE = 1, NAL_IDR = 5, NAL_SPS = 7, NAL_PPS = 8, NAL_DELIMITER = 9 };
enum { NUMBER_BITS = 16 }; /* of frame_num and of the picture order */

/* Bits, as the syntax tables have them. */

typedef struct {
    uint8_t bytes[512];
    size_t bit;
} Bits;

static void put(Bits *bits, uint32_t value, int count) {
    for (int i = count - 1; i >= 0; i--, bits->bit++)
        if (value >> i & 1) bits->bytes[bits->bit / 8] |= 0x80u >> bits->bit % 8;
}

static void put_ue(Bits *bits, uint32_t value) {
    int length = 0;
    while ((value + 1) >> (length + 1)) length++;
    put(bits, 0, length);
    put(bits, value + 1, length + 1);
}

static void end(Bits *bits) {
    put(bits, 1, 1);
    bits->bit = (bits->bit + 7) / 8 * 8;
}

/* Bytes, as they go out: 0 0 never comes before 0..3 (7.4.1). */

typedef struct {
    uint8_t *at;
    int zeros;
} Out;

static void escape(Out *out, const uint8_t *bytes, size_t count) {
    uint8_t *at = out->at;
    int zeros = out->zeros;
    for (size_t i = 0; i < count; i++) {
        if (zeros >= 2 && bytes[i] <= 3) {
            *at++ = 3;
            zeros = 0;
        }
        zeros = bytes[i] ? 0 : zeros + 1;
        *at++ = bytes[i];
    }
    out->at = at;
    out->zeros = zeros;
}

static void start(Out *out, int reference, int type) {
    static const uint8_t code[] = {0, 0, 0, 1};
    memcpy(out->at, code, sizeof code);
    out->at[4] = (uint8_t)(reference << 5 | type);
    out->at += 5;
    out->zeros = 0;
}

static void unit(Out *out, int reference, int type, const Bits *bits) {
    start(out, reference, type);
    escape(out, bits->bytes, bits->bit / 8);
}

/* Parameter sets. */

static uint32_t blocks(uint32_t size) { return (size + 15) / 16; }

size_t h264_room(const H264Stream *stream) {
    return HEADERS + (size_t)blocks(stream->width) * blocks(stream->height) * (MACROBLOCK + 2) * 3 / 2;
}

uint32_t h264_level(uint32_t width, uint32_t height, uint32_t fps_num, uint32_t fps_den) {
    /* Table A-1: level, macroblocks a second, macroblocks of a picture. */
    static const uint32_t table[][3] = {
        {10, 1485, 99}, {11, 3000, 396}, {12, 6000, 396}, {13, 11880, 396}, {20, 11880, 396}, {21, 19800, 792},
        {22, 20250, 1620}, {30, 40500, 1620}, {31, 108000, 3600}, {32, 216000, 5120}, {40, 245760, 8192},
        {42, 522240, 8704}, {50, 589824, 22080}, {51, 983040, 36864}, {52, 2073600, 36864}, {60, 4177920, 139264},
        {61, 8355840, 139264},
    };
    uint64_t picture = (uint64_t)blocks(width) * blocks(height);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (picture <= table[i][2] && picture * fps_num <= (uint64_t)table[i][1] * fps_den) return table[i][0];
    return 62;
}

static void put_vui(Bits *bits, const H264Stream *stream) {
    put(bits, stream->aspect_width != 0, 1);
    if (stream->aspect_width && stream->aspect_width == stream->aspect_height) {
        put(bits, 1, 8);
    } else if (stream->aspect_width) {
        put(bits, 255, 8);
        put(bits, stream->aspect_width, 16);
        put(bits, stream->aspect_height, 16);
    }
    put(bits, 0, 1); /* overscan */
    put(bits, stream->signal_present, 1);
    if (stream->signal_present) {
        put(bits, stream->video_format, 3);
        put(bits, stream->full_range, 1);
        put(bits, stream->colour_present, 1);
        if (stream->colour_present) {
            put(bits, stream->primaries, 8);
            put(bits, stream->transfer, 8);
            put(bits, stream->matrix, 8);
        }
    }
    put(bits, stream->chroma_location_present, 1);
    if (stream->chroma_location_present) {
        put_ue(bits, stream->chroma_top);
        put_ue(bits, stream->chroma_bottom);
    }
    put(bits, stream->timing_present, 1);
    if (stream->timing_present) {
        put(bits, stream->units_in_tick, 32);
        put(bits, stream->time_scale, 32);
        put(bits, 1, 1); /* fixed rate */
    }
    put(bits, 0, 3); /* HRD of NAL, HRD of VCL, structure of pictures */
    put(bits, stream->restriction_present, 1);
    if (stream->restriction_present) {
        put(bits, 1, 1);
        put_ue(bits, 0);
        put_ue(bits, 0);
        put_ue(bits, 16);
        put_ue(bits, 16);
        put_ue(bits, stream->reorders ? 1 : 0);
        put_ue(bits, stream->reorders ? 2 : 1);
    }
}

static void write_parameter_sets(const H264Stream *stream, Out *out) {
    Bits sps = {0}, pps = {0};
    put(&sps, stream->profile, 8);
    put(&sps, stream->profile < 100 ? 0x40 : 0, 8); /* valid for Main as well, and constrained if Baseline */
    put(&sps, stream->level, 8);
    put_ue(&sps, 0);
    if (stream->profile >= 100) {
        put_ue(&sps, 1); /* 4:2:0 */
        put_ue(&sps, 0);
        put_ue(&sps, 0);
        put(&sps, 0, 2);
    }
    put_ue(&sps, NUMBER_BITS - 4);
    put_ue(&sps, stream->reorders ? 0 : 2); /* order of display: written, or that of the stream */
    if (stream->reorders) put_ue(&sps, NUMBER_BITS - 4);
    put_ue(&sps, stream->reorders ? 2 : 1); /* reference pictures */
    put(&sps, 0, 1);
    put_ue(&sps, blocks(stream->width) - 1);
    put_ue(&sps, blocks(stream->height) - 1);
    put(&sps, 1, 1); /* frames */
    put(&sps, 1, 1); /* 8x8 inference */
    uint32_t right = blocks(stream->width) * 16 - stream->width, bottom = blocks(stream->height) * 16 - stream->height;
    put(&sps, right || bottom, 1);
    if (right || bottom) {
        put_ue(&sps, 0);
        put_ue(&sps, right / 2);
        put_ue(&sps, 0);
        put_ue(&sps, bottom / 2);
    }
    put(&sps, 1, 1);
    put_vui(&sps, stream);
    end(&sps);
    unit(out, 3, NAL_SPS, &sps);

    put_ue(&pps, 0);
    put_ue(&pps, 0);
    put(&pps, 0, 2);  /* CAVLC; no order of fields */
    put_ue(&pps, 0);  /* slice groups */
    put_ue(&pps, 0);  /* references, forward and backward */
    put_ue(&pps, 0);
    put(&pps, 0, 3);  /* weights */
    put_ue(&pps, 0);  /* quantisers: se(0) is ue(0) */
    put_ue(&pps, 0);
    put_ue(&pps, 0);
    put(&pps, 4, 3);  /* deblocking is said in the slice; the rest is off */
    end(&pps);
    unit(out, 3, NAL_PPS, &pps);
}

size_t h264_parameter_sets(const H264Stream *stream, uint8_t *bytes) {
    Out out = {bytes, 0};
    write_parameter_sets(stream, &out);
    return (size_t)(out.at - bytes);
}

/* Pictures. */

static void put_block_type(Bits *bits, int type) {
    if (type != H264_I) put_ue(bits, 0); /* none skipped */
    put_ue(bits, type == H264_I ? 25 : type == H264_P ? 30 : 48);
    bits->bit = (bits->bit + 7) / 8 * 8;
}

static void put_slice(Bits *bits, const H264Stream *stream, const H264Picture *picture) {
    int type = picture->type;
    put_ue(bits, 0);
    put_ue(bits, type);
    put_ue(bits, 0);
    put(bits, picture->frame_number & ((1u << NUMBER_BITS) - 1), NUMBER_BITS);
    if (picture->idr) put_ue(bits, picture->idr_number & 0xffff);
    if (stream->reorders) put(bits, 2 * picture->order & ((1u << NUMBER_BITS) - 1), NUMBER_BITS);
    if (type == H264_B) put(bits, 1, 1);
    if (type != H264_I) put(bits, 0, type == H264_B ? 3 : 2); /* usual references, in the usual order */
    if (picture->idr) put(bits, 0, 2);
    else if (type != H264_B) put(bits, 0, 1);
    put_ue(bits, 0); /* quantiser */
    put_ue(bits, 1); /* no deblocking */
}

/* Samples in the order of the syntax: 16 rows of luma, 8 of u, 8 of v. */
static void gather(uint8_t *block, const uint8_t *luma, const uint8_t *chroma, size_t pitch) {
    for (int row = 0; row < 16; row++) memcpy(block + 16 * row, luma + row * pitch, 16);
    for (int row = 0; row < 8; row++)
        for (int column = 0; column < 8; column++) {
            block[256 + 8 * row + column] = chroma[row * pitch + 2 * column];
            block[320 + 8 * row + column] = chroma[row * pitch + 2 * column + 1];
        }
}

static int has_zero(const uint8_t *block) {
    uint64_t found = 0;
    for (int i = 0; i < MACROBLOCK; i += 8) {
        uint64_t word;
        memcpy(&word, block + i, 8);
        found |= (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
    }
    return found != 0;
}

size_t h264_picture(const H264Stream *stream, const H264Picture *picture, const uint8_t *nv12, uint8_t *bytes) {
    Out out = {bytes, 0};
    Bits slice = {0}, type = {0};
    put_slice(&slice, stream, picture);
    put_block_type(&slice, picture->type); /* the first macroblock's begins amid a byte, the others' do not */
    put_block_type(&type, picture->type);
    unit(&out, picture->type == H264_B ? 0 : 3, picture->idr ? NAL_IDR : NAL_SLICE, &slice);

    uint32_t columns = blocks(stream->width), rows = blocks(stream->height);
    size_t pitch = 16 * (size_t)columns;
    const uint8_t *chroma = nv12 + pitch * 16 * rows;
    uint8_t block[MACROBLOCK];
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t column = 0; column < columns; column++) {
            if (row || column) escape(&out, type.bytes, type.bit / 8);
            gather(block, nv12 + 16 * row * pitch + 16 * column, chroma + 8 * row * pitch + 16 * column, pitch);
            if (has_zero(block)) {
                escape(&out, block, MACROBLOCK);
            } else { /* nothing to escape: at most one zero is before it */
                memcpy(out.at, block, MACROBLOCK);
                out.at += MACROBLOCK;
                out.zeros = 0;
            }
        }
    *out.at++ = 0x80;
    return (size_t)(out.at - bytes);
}

size_t h264_delimiter(int type, uint8_t *bytes) {
    Out out = {bytes, 0};
    Bits bits = {0};
    put(&bits, type == H264_I ? 0 : type == H264_P ? 1 : 2, 3);
    end(&bits);
    unit(&out, 0, NAL_DELIMITER, &bits);
    return (size_t)(out.at - bytes);
}
