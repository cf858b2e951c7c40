"""Which encoder a run on CUDA gets: PyAV's NVENC, else PyNvVideoCodec's, else libx264 on what is read back."""

from __future__ import annotations

from collections.abc import Callable

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.base import Encoder
from tiler.encode.nvenc import NvencMissingError
from tiler.encode.parameters import BACKEND_NAMES, Backend, check_libx264
from tiler.errors import InputError, StageError
from tiler.observe.copies import Copies


def open_cuda_encoder(
    mosaic: MosaicConfig, config: EncoderConfig, threads: int, device: int, copies: Copies
) -> tuple[Encoder, str, str]:
    """Open the one session of a run.

    Both profiles try PyAV first: it honours every key and gives each packet with its picture, where
    PyNvVideoCodec drops some keys and keeps three pictures back (docs/adr/004_encode_through_pyav_first.md).

    Args:
        mosaic: size and rate of the pictures.
        config: `driver` fixes the choice; `auto` goes down the ladder.
        threads: of libx264, where it comes to that.
        device: index of the CUDA device.
        copies: the ledger; only libx264's read-back moves pictures to the host.

    Returns:
        The encoder, its name for plan and report, and the reason for it.

    Raises:
        InputError: parameters refused, no session left, or the driver asked for cannot run here.
    """
    missing: list[str] = []
    for driver, open_driver in _drivers(config):
        try:
            encoder = open_driver(mosaic, config, device)
        except NvencMissingError as error:
            missing.append(f"{BACKEND_NAMES[driver]}: {error}")
            if error.final:
                break
            continue
        return _checked(encoder, "; ".join(missing) or "NVENC, from the mosaic's device memory")
    reason = "; ".join(missing) or "encoder.driver: x264"
    if config.driver not in ("auto", "x264"):
        raise InputError(f"encoder.driver: {config.driver} cannot be used: {reason}; accepted here: auto, x264")
    check_libx264(config, reason)
    from tiler.encode.readback_cuda import ReadbackEncoder

    return _checked(ReadbackEncoder(mosaic, config, threads, device, copies), reason)


def _checked(encoder: Encoder, reason: str) -> tuple[Encoder, str, str]:
    if encoder.sessions != 1:
        raise StageError("encode", f"{encoder.name} opened {encoder.sessions} sessions; one is what a run may have")
    return encoder, encoder.name, reason


def _drivers(
    config: EncoderConfig,
) -> list[tuple[Backend, Callable[[MosaicConfig, EncoderConfig, int], Encoder]]]:
    """The NVENC drivers to try, in order."""
    ladder: list[tuple[Backend, Callable[[MosaicConfig, EncoderConfig, int], Encoder]]] = [
        ("pyav", _open_pyav),
        ("pynvvideocodec", _open_pynvc),
    ]
    return [rung for rung in ladder if config.driver in ("auto", rung[0])]


def _open_pyav(mosaic: MosaicConfig, config: EncoderConfig, device: int) -> Encoder:
    from tiler.encode.pyav_nvenc_cuda import PyavNvencEncoder

    return PyavNvencEncoder(mosaic, config, device)


def _open_pynvc(mosaic: MosaicConfig, config: EncoderConfig, device: int) -> Encoder:
    from tiler.encode.pynvc_nvenc_cuda import PynvcNvencEncoder

    return PynvcNvencEncoder(mosaic, config, device)
