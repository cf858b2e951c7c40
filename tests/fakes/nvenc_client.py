"""A client of NVENC that speaks its binary interface itself: what well-behaved libraries never do, and ARGB.

    LD_LIBRARY_PATH=FOLDERS python -m fakes.nvenc_client FOLDER

Writes `nv12.h264` and `argb.h264`, each of one picture with a pitch (see `PICTURES`), and prints what the driver
answered to each misuse.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools.nvenc_emulator.header import ABI

_ABI = json.loads(ABI.read_text(encoding="utf-8"))
_STATUS = {value: name.removeprefix("NV_ENC_").removeprefix("ERR_")
           for name, value in _ABI["enums"]["NVENCSTATUS"].items()}  # fmt: skip
WIDTH, HEIGHT, PITCH = 182, 98, 256


def pictures() -> dict[str, np.ndarray]:
    """Rows of bytes with a pitch: NV12 (HEIGHT * 3 / 2, PITCH), and B, G, R, A (HEIGHT, 4 * PITCH)."""
    random = np.random.default_rng(7)
    return {
        "nv12": random.integers(0, 256, (HEIGHT * 3 // 2, PITCH), np.uint8),
        "argb": random.integers(0, 256, (HEIGHT, 4 * PITCH), np.uint8),
    }


class Guid(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * 16),)

    @classmethod
    def named(cls, name: str) -> Guid:
        return cls.from_buffer_copy(bytes.fromhex(_ABI["guids"][name]))


class Struct:
    """A structure by its name; fields by `inner.field`."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.name = name
        self.data = (ctypes.c_uint8 * _ABI["structs"][name]["size"])()
        if f"{name}_VER" in _ABI["versions"]:
            self["version"] = _ABI["versions"][f"{name}_VER"]
        for key, value in fields.items():
            self[key] = value

    def _at(self, path: str) -> tuple[int, int]:
        name, at, size = self.name, 0, 0
        for key in path.split("."):
            field = _ABI["structs"][name]["fields"][key]
            at, size, name = at + field["offset"], field["size"], field["type"].rpartition(" ")[2]
        return at, size

    def __setitem__(self, path: str, value: Any) -> None:
        at, size = self._at(path)
        data = bytes(value) if isinstance(value, Guid) else int(value or 0).to_bytes(size, "little")
        self.data[at : at + size] = data

    def __getitem__(self, path: str) -> int:
        at, size = self._at(path)
        return int.from_bytes(bytes(self.data[at : at + size]), "little")


class Client:
    """The functions of the driver; each call gives the name of its status."""

    def __init__(self) -> None:
        self._functions = Struct("NV_ENCODE_API_FUNCTION_LIST")
        self.encoder: ctypes.c_void_p = ctypes.c_void_p()
        library = ctypes.CDLL("libnvidia-encode.so.1")
        assert library.NvEncodeAPICreateInstance(self._functions.data) == 0

    def raw(self, function: str, *values: Any) -> str:
        given = [value.data if isinstance(value, Struct) else value for value in values]
        call = ctypes.CFUNCTYPE(ctypes.c_int)(self._functions[f"nvEnc{function}"])
        return _STATUS[call(*(ctypes.c_void_p(value) if isinstance(value, int) else value for value in given))]

    def __call__(self, function: str, *values: Any) -> str:
        return self.raw(function, self.encoder, *values)

    def open(self) -> str:
        context = ctypes.c_void_p()
        ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context))
        parameters = Struct("NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS", deviceType=1, device=context.value, apiVersion=13)
        return self.raw("OpenEncodeSessionEx", parameters, ctypes.byref(self.encoder))


def configured(**fields: Any) -> tuple[Struct, Struct]:
    """Parameters of an H.264 session that is fine, but for what is said."""
    config = Struct("NV_ENC_CONFIG", profileGUID=Guid.named("NV_ENC_H264_PROFILE_MAIN_GUID"), gopLength=30,
                    frameIntervalP=1)  # fmt: skip
    init = Struct("NV_ENC_INITIALIZE_PARAMS", encodeGUID=Guid.named("NV_ENC_CODEC_H264_GUID"),
                  presetGUID=Guid.named("NV_ENC_PRESET_P1_GUID"), encodeWidth=WIDTH, encodeHeight=HEIGHT,
                  frameRateNum=30, frameRateDen=1, enablePTD=1, tuningInfo=1)  # fmt: skip
    init["encodeConfig"] = ctypes.addressof(config.data)
    for key, value in fields.items():
        (config if key in _ABI["structs"]["NV_ENC_CONFIG"]["fields"] else init)[key] = value
    return init, config


def resource(memory: np.ndarray, **fields: Any) -> Struct:
    argb = memory.shape[0] == HEIGHT
    return Struct("NV_ENC_REGISTER_RESOURCE", **{
        "resourceType": 1, "width": WIDTH, "height": HEIGHT, "pitch": memory.shape[1],
        "resourceToRegister": memory.ctypes.data, "bufferFormat": 0x1000000 if argb else 1, **fields,
    })  # fmt: skip


def main(folder: Path) -> None:
    driver, said = Client(), {}
    said["an unknown session"] = driver("DestroyEncoder")
    said["opened"] = driver.open()
    init, _config = configured(version=1)
    said["another version of a structure"] = driver("InitializeEncoder", init)
    said["a bitstream buffer before initialising"] = driver(
        "CreateBitstreamBuffer", Struct("NV_ENC_CREATE_BITSTREAM_BUFFER")
    )
    wrong: dict[str, dict[str, Any]] = {
        "preset": {"presetGUID": Guid()},
        "tuning": {"tuningInfo": 9},
        "codec": {"encodeGUID": Guid()},
        "profile": {"profileGUID": Guid.named("NV_ENC_HEVC_PROFILE_MAIN_GUID")},
        "width": {"encodeWidth": 5000},
        "B-frames": {"frameIntervalP": 6},
        "rate": {"frameRateDen": 0},
    }
    for name, fields in wrong.items():
        init, _config = configured(**fields)
        said[f"wrong {name}"] = driver("InitializeEncoder", init)
    init, _config = configured()
    said["initialised"] = driver("InitializeEncoder", init)
    said["initialised twice"] = driver("InitializeEncoder", init)

    memory = pictures()
    said["pitch below width"] = driver("RegisterResource", resource(memory["nv12"], pitch=WIDTH - 2))
    said["smaller than the picture"] = driver("RegisterResource", resource(memory["nv12"], height=HEIGHT - 2))
    said["no format"] = driver("RegisterResource", resource(memory["nv12"], bufferFormat=3))
    block = ctypes.c_uint64()
    ctypes.CDLL("libcuda.so.1").cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(PITCH * HEIGHT))
    said["past its memory"] = driver("RegisterResource", resource(memory["nv12"], resourceToRegister=block.value))

    output = Struct("NV_ENC_CREATE_BITSTREAM_BUFFER")
    said["bitstream buffer"] = driver("CreateBitstreamBuffer", output)
    buffer = output["bitstreamBuffer"]
    for name, rows in memory.items():
        registered = resource(rows)
        said[f"{name} registered"] = driver("RegisterResource", registered)
        handle = registered["registeredResource"]
        mapped = Struct("NV_ENC_MAP_INPUT_RESOURCE", registeredResource=handle)
        picture = Struct("NV_ENC_PIC_PARAMS", inputWidth=WIDTH, inputHeight=HEIGHT, inputBuffer=handle,
                         outputBitstream=buffer, bufferFmt=registered["bufferFormat"], pictureStruct=1,
                         encodePicFlags=2 | 4)  # an IDR picture, with its parameter sets  # fmt: skip
        said[f"{name} not mapped"] = driver("EncodePicture", picture)
        said[f"{name} mapped"] = driver("MapInputResource", mapped)
        said[f"{name} mapped twice"] = driver("MapInputResource", mapped)
        said[f"{name} unregistered while mapped"] = driver("UnregisterResource", handle)
        picture["inputBuffer"] = mapped["mappedResource"]
        lock = Struct("NV_ENC_LOCK_BITSTREAM", outputBitstream=buffer)
        said[f"{name} locked too early"] = driver("LockBitstream", lock)
        picture["bufferFmt"] = 0x10000000
        said[f"{name} in another format"] = driver("EncodePicture", picture)
        picture["bufferFmt"] = registered["bufferFormat"]
        said[f"{name} encoded"] = driver("EncodePicture", picture)
        said[f"{name} into a full buffer"] = driver("EncodePicture", picture)
        said[f"{name} locked"] = driver("LockBitstream", lock)
        said[f"{name} locked twice"] = driver("LockBitstream", lock)
        data = ctypes.string_at(lock["bitstreamBufferPtr"], lock["bitstreamSizeInBytes"])
        (folder / f"{name}.h264").write_bytes(data)
        said[f"{name} unlocked"] = driver("UnlockBitstream", buffer)
        said[f"{name} unmapped"] = driver("UnmapInputResource", mapped["mappedResource"])
        said[f"{name} unmapped twice"] = driver("UnmapInputResource", mapped["mappedResource"])
        said[f"{name} unregistered"] = driver("UnregisterResource", handle)
        said[f"{name} unregistered twice"] = driver("UnregisterResource", handle)
        said[f"{name} a session too many"] = Client().open()
    said["unknown buffer"] = driver("DestroyBitstreamBuffer", 42)
    said["destroyed"] = driver("DestroyEncoder")
    said["destroyed twice"] = driver("DestroyEncoder")
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
