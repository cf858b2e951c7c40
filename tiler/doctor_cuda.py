"""What the GPU's half of tiler can do here: the device, its decoders and encoder, and the runtimes."""

from __future__ import annotations

from collections.abc import Callable

import cupy


def examine_cuda(index: int = 0) -> list[str]:
    """Lines for `tiler doctor`, `ok` or `no` in front of each."""
    with cupy.cuda.Device(index) as device:
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        free, total = device.mem_info
    driver = cupy.cuda.runtime.driverGetVersion()
    name, capability = properties["name"].decode(), f"{properties['major']}.{properties['minor']}"
    lines = [
        f"ok  cuda:{index}         {name}, compute capability {capability}, {free / 1e9:.1f} of "
        f"{total / 1e9:.1f} GB free, driver for CUDA {driver // 1000}.{driver % 1000 // 10}, CuPy {cupy.__version__}"
    ]
    probes: tuple[tuple[str, Callable[[], str]], ...] = (
        ("NVDEC", _nvdec),
        ("NVENC", lambda: _nvenc(index)),
        ("TensorRT", lambda: _tensorrt("tensorrt", capability)),
        ("TensorRT-RTX", lambda: _tensorrt("tensorrt-rtx", capability)),
        ("ONNX Runtime", _onnxruntime),
    )
    for what, probe in probes:
        try:
            lines.append(f"ok  {what:<14} {probe()}")
        except Exception as error:  # whatever it is, it is the finding
            lines.append(f"no  {what:<14} {' '.join(str(error).split())}")
    return lines


def _nvdec() -> str:
    from tiler.decode.keyframe import CODECS
    from tiler.decode.nvdec_session_cuda import library

    module = library()
    chroma = module.cudaVideoChromaFormat.__members__["420"]
    known = []
    for codec, name in CODECS.items():
        kind = module.cudaVideoCodec.__members__[name]
        caps = [module.GetDecoderCaps(gpuid=0, codec=kind, chromaformat=chroma, bitdepth=bits) for bits in (8, 10)]
        depths = [bits for bits, cap in zip((8, 10), caps, strict=True) if cap.get("supported", True)]
        if depths:
            engines = caps[0].get("num_decoder_engines", "?")
            known.append(f"{codec} ({' and '.join(map(str, depths))} bits, {engines} engines)")
    if not known:
        raise RuntimeError("this GPU decodes none of " + ", ".join(CODECS))
    return ", ".join(known)


def _nvenc(index: int) -> str:
    from tiler.config.models import EncoderConfig, MosaicConfig
    from tiler.encode.cuda import open_cuda_encoder
    from tiler.observe.copies import Copies

    mosaic = MosaicConfig(width=640, height=360)
    encoder, name, reason = open_cuda_encoder(mosaic, EncoderConfig(), 1, index, Copies())
    encoder.close()
    if "x264" in name:
        raise RuntimeError(f"{reason}; one picture a tick is read back for libx264")
    return name


def _tensorrt(flavour: str, capability: str) -> str:
    from tiler.engines.tensorrt import TensorRT

    runtime = TensorRT(flavour)  # type: ignore[arg-type]
    if problem := runtime.problem(int(capability.replace(".", ""))):
        raise RuntimeError(problem)
    return runtime.version


def _onnxruntime() -> str:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(f"{onnxruntime.__version__} has no CUDA provider: install onnxruntime-gpu in its place")
    return f"{onnxruntime.__version__} with CUDA"
