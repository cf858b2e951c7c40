"""NVENC, whichever library drives it: the memory it takes, and why it did not open, in words that say what to do."""

from __future__ import annotations

import re

from tiler.encode.parameters import Settings
from tiler.errors import InputError

DELAY = 2
"""Packets that FFmpeg may hold back without low latency, so that a picture is submitted while another is encoded."""
_NO_DEVICE = (1, 2)  # NV_ENC_ERR_NO_ENCODE_DEVICE, NV_ENC_ERR_UNSUPPORTED_DEVICE
_OUT_OF_MEMORY = 10  # NV_ENC_ERR_OUT_OF_MEMORY
_OLD_DRIVER = 15  # NV_ENC_ERR_INVALID_VERSION
_NO_SESSION = 21  # NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY
_STATUS = re.compile(r"(?:error|error code)\s*:?\s+([0-9]+)\b|\(([0-9]+)\):", re.IGNORECASE)
_NO_LIBRARY = re.compile(r"libnvidia-encode|nvenc library|libcuda\.so", re.IGNORECASE)
_TOO_OLD = re.compile(
    r"does not support the required nvenc api|does not support this NvEncodeAPI|driver version is too old",
    re.IGNORECASE,
)


def device_buffers(settings: Settings) -> int:
    """Buffers of the size of a mosaic (H * 3 / 2 * W bytes of device memory) that an NVENC session of ours takes.

    Through PyAV: at low latency the one picture that opens the session, else those that wait inside for their
    packets. PyNvVideoCodec takes four of its own.
    """
    return 1 if settings.low_latency else settings.b_frames + DELAY


class NvencMissingError(Exception):
    """NVENC cannot be used through this library here.

    Args:
        reason: why, in one line.
        final: True when no other library can do better: the chip or the driver has no NVENC.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


def failure(text: str, codec: str) -> InputError | NvencMissingError:
    """What a library said when the session did not open, as the error to raise.

    Args:
        text: its messages, in order, as they came.
        codec: h264 | hevc | av1.

    >>> failure("OpenEncodeSessionEx failed: unsupported device (2): (no details)", "h264")
    NvencMissingError('this GPU has no NVENC (OpenEncodeSessionEx failed: unsupported device (2): (no details))')
    """
    said = " ".join(text.split()) or "no message"
    status = next((int(found[1] or found[2]) for found in _STATUS.finditer(said)), None)
    opening = "OpenEncodeSession" in said
    if _NO_LIBRARY.search(said):
        return NvencMissingError(
            "the NVIDIA driver's libnvidia-encode.so.1 is not found; in a container, "
            f"NVIDIA_DRIVER_CAPABILITIES must have `video` ({said})",
            final=True,
        )
    if _TOO_OLD.search(said) or status == _OLD_DRIVER:
        return NvencMissingError(f"the NVIDIA driver is too old for it ({said})", final=False)
    if status in _NO_DEVICE or "no capable devices found" in said.lower():
        return NvencMissingError(f"this GPU has no NVENC ({said})", final=True)
    if status == _NO_SESSION or (status == _OUT_OF_MEMORY and opening):
        return InputError(
            "encoder: no NVENC session is left: other programs (OBS, Plex, a second tiler) hold all that the driver "
            "grants, or the GPU's memory is full; end one of them, or set encoder.driver: x264 to encode on the CPU "
            f"({said})"
        )
    if "codec not supported" in said.lower():
        return InputError(
            f"encoder.codec: this GPU's NVENC has no {codec} encoder; accepted: another codec, such as h264 ({said})"
        )
    return InputError(f"encoder: NVENC refuses these parameters: {said}")
