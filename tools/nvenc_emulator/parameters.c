#include <string.h>

#include "session.h"

enum { PRESETS = 7, PROFILES = 4, FORMATS = 3 };

const Codec codecs[CODECS] = {
    {"h264", &NV_ENC_CODEC_H264_GUID}, {"hevc", &NV_ENC_CODEC_HEVC_GUID}, {"av1", &NV_ENC_CODEC_AV1_GUID},
};

static int same(const GUID *one, const GUID *other) { return !memcmp(one, other, sizeof(GUID)); }

int codec_of(const GUID *guid) {
    const char *list = text("NVENC_EMULATOR_CODECS", "h264,hevc,av1");
    for (int i = 0; i < CODECS; i++)
        if (same(codecs[i].guid, guid)) return listed(list, codecs[i].name) ? i : -1;
    return -1;
}

static int in_table(const GUID *guid, const GUID *const *table, int count) {
    for (int i = 0; i < count; i++)
        if (table[i] && same(table[i], guid)) return 1;
    return 0;
}

static const GUID *const presets[] = {
    &NV_ENC_PRESET_P1_GUID, &NV_ENC_PRESET_P2_GUID, &NV_ENC_PRESET_P3_GUID, &NV_ENC_PRESET_P4_GUID,
    &NV_ENC_PRESET_P5_GUID, &NV_ENC_PRESET_P6_GUID, &NV_ENC_PRESET_P7_GUID,
};
static const GUID *const profiles[CODECS][PROFILES] = {
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_H264_PROFILE_BASELINE_GUID, &NV_ENC_H264_PROFILE_MAIN_GUID,
     &NV_ENC_H264_PROFILE_HIGH_GUID},
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_HEVC_PROFILE_MAIN_GUID, &NV_ENC_HEVC_PROFILE_MAIN10_GUID,
     &NV_ENC_HEVC_PROFILE_FREXT_GUID},
    {&NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, &NV_ENC_AV1_PROFILE_MAIN_GUID},
};
static const u32 formats[] = {NV_ENC_BUFFER_FORMAT_NV12, NV_ENC_BUFFER_FORMAT_ARGB, NV_ENC_BUFFER_FORMAT_ABGR};

int is_preset(const GUID *guid) { return in_table(guid, presets, PRESETS); }

int is_format(u32 format) {
    for (int i = 0; i < FORMATS; i++)
        if (formats[i] == format) return 1;
    return 0;
}

u32 bytes_of(u32 format) { return format == NV_ENC_BUFFER_FORMAT_NV12 ? 1 : 4; }

int capability(int codec, u32 what) {
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

/* Presets: the values are ours, plausible ones that a client should override. */
void fill_preset(NV_ENC_CONFIG *config, int codec, u32 tuning) {
    int quick = tuning == NV_ENC_TUNING_INFO_LOW_LATENCY || tuning == NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY;
    int depth = number("NVENC_EMULATOR_PRESET_LOOKAHEAD", 0);
    memset(config, 0, sizeof *config);
    config->version = NV_ENC_CONFIG_VER;
    config->profileGUID = NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID;
    config->gopLength = quick ? INFINITE_GOP : 250;
    config->frameIntervalP = quick ? 1 : 4;
    config->frameFieldMode = NV_ENC_PARAMS_FRAME_FIELD_MODE_FRAME;
    config->rcParams.version = NV_ENC_RC_PARAMS_VER;
    config->rcParams.rateControlMode = quick ? NV_ENC_PARAMS_RC_CBR : NV_ENC_PARAMS_RC_VBR;
    config->rcParams.averageBitRate = 10000000;
    config->rcParams.enableLookahead = depth > 0;
    config->rcParams.lookaheadDepth = (uint16_t)depth;
    if (codec == H264) {
        config->encodeCodecConfig.h264Config.idrPeriod = config->gopLength;
        config->encodeCodecConfig.h264Config.chromaFormatIDC = 1;
    } else if (codec == HEVC) {
        config->encodeCodecConfig.hevcConfig.idrPeriod = config->gopLength;
        config->encodeCodecConfig.hevcConfig.chromaFormatIDC = 1;
    } else {
        config->encodeCodecConfig.av1Config.idrPeriod = config->gopLength;
        config->encodeCodecConfig.av1Config.chromaFormatIDC = 1;
    }
}

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

const char *wrong_parameter(Session *session) {
    const NV_ENC_INITIALIZE_PARAMS *init = &session->init;
    const NV_ENC_CONFIG *config = &session->config;
    int codec = session->codec;
    if (!is_preset(&init->presetGUID)) return "preset";
    if (init->tuningInfo == NV_ENC_TUNING_INFO_UNDEFINED || init->tuningInfo >= NV_ENC_TUNING_INFO_COUNT)
        return "tuning";
    if ((int)init->encodeWidth > capability(codec, NV_ENC_CAPS_WIDTH_MAX)) return "width too large";
    if ((int)init->encodeHeight > capability(codec, NV_ENC_CAPS_HEIGHT_MAX)) return "height too large";
    if ((int)init->encodeWidth < capability(codec, NV_ENC_CAPS_WIDTH_MIN)) return "width too small";
    if ((int)init->encodeHeight < capability(codec, NV_ENC_CAPS_HEIGHT_MIN)) return "height too small";
    if (init->encodeWidth % 2 || init->encodeHeight % 2) return "odd size";
    if (!init->frameRateNum || !init->frameRateDen) return "frame rate";
    if (init->enableEncodeAsync) return "events are for Windows";
    if (!init->enablePTD) return "picture types must be left to the driver"; /* ours */
    if (init->enableMEOnlyMode || init->enableSubFrameWrite || init->enableOutputInVidmem) return "mode"; /* ours */
    if (!in_table(&config->profileGUID, profiles[codec], PROFILES)) return "profile";
    if (config->frameIntervalP < 0 || config->frameIntervalP - 1 > capability(codec, NV_ENC_CAPS_NUM_MAX_BFRAMES))
        return "more B-frames than the chip has";
    if (config->gopLength != INFINITE_GOP && (u32)config->frameIntervalP > config->gopLength)
        return "frameIntervalP is larger than the GOP";
    if (config->rcParams.rateControlMode > NV_ENC_PARAMS_RC_CBR) return "rate control";
    if (config->rcParams.maxBitRate && config->rcParams.averageBitRate > config->rcParams.maxBitRate)
        return "average bit rate above the maximum";
    if (config->rcParams.targetQuality > (codec == AV1 ? 63 : 51)) return "target quality";
    if (config->rcParams.lookaheadDepth + config->frameIntervalP >= WAITING) return "lookahead";
    return codec == H264 ? set_h264(session) : NULL;
}
