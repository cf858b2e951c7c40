"""The call log of the emulated driver, read back: calls by their name, and what a client did wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Log = list[dict[str, Any]]
FORCE_IDR = 2
"""NV_ENC_PIC_FLAG_FORCEIDR"""
_PAIRS = (
    ("RegisterResource", "UnregisterResource"),
    ("MapInputResource", "UnmapInputResource"),
    ("LockBitstream", "UnlockBitstream"),
    ("CreateBitstreamBuffer", "DestroyBitstreamBuffer"),
)


def read(path: Path) -> Log:
    """The lines of a log; none when there is no file, because nothing was called."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def of(log: Log, name: str) -> Log:
    """The calls of one function, such as "EncodePicture", in order."""
    return [line for line in log if line["call"] == f"nvEnc{name}"]


def pictures(log: Log) -> Log:
    """The pictures that were given: EncodePicture without the end of the stream and the one that opens a session."""
    return [line for line in of(log, "EncodePicture") if line.get("pts", -1) >= 0]


def faults(log: Log) -> list[str]:
    """What no client may do, also one whose session was lost: two sessions at a time, or one that is never ended.

    Returns:
        One line for each; none when all is well.
    """
    found = [f"{line['call']}: {line['problem']}" for line in log if "problem" in line]
    opened = [line for line in of(log, "OpenEncodeSessionEx") if line["status"] == 0]
    found += [f"{line['live']} sessions at a time" for line in opened if line["live"] != 1]
    ended = len(of(log, "DestroyEncoder"))
    if ended != len(opened):
        found.append(f"{len(opened)} sessions opened, {ended} ended")
    return found


def leftovers(log: Log) -> list[str]:
    """What one session that was not lost has left behind, and calls of it without their counterpart; see `faults`."""
    initialised = len(of(log, "InitializeEncoder"))
    found = [] if initialised == 1 else [f"{initialised} sessions initialised"]
    for line in of(log, "DestroyEncoder"):
        found += [f"{count} {what} left in session {line['session']}" for what, count in line["left"].items() if count]
    for one, other in _PAIRS:
        first, second = len(of(log, one)), len(of(log, other))
        if first != second or not first:
            found.append(f"{first} {one}, {second} {other}")
    return found


def told(log: Log) -> dict[str, Any]:
    """What the one session was initialised with, in plain names.

    Raises:
        ValueError: none was initialised, or several were.
    """
    (line,) = of(log, "InitializeEncoder")
    init, config, own = line["init"], line["config"], line["codecConfig"]
    rates = config["rcParams"]
    vui = own if line["codec"] == "av1" else own[f"{line['codec']}VUIParameters"]
    colour = (
        vui.get("colourPrimaries") or vui["colorPrimaries"],
        vui["transferCharacteristics"],
        vui.get("colourMatrix") or vui["matrixCoefficients"],
        vui.get("videoFullRangeFlag", vui.get("colorRange")),
    )
    return {
        "codec": line["codec"],
        "size": [init["encodeWidth"], init["encodeHeight"]],
        "fps": [init["frameRateNum"], init["frameRateDen"]],
        "preset": init["presetGUID"].removeprefix("NV_ENC_PRESET_").removesuffix("_GUID"),
        "tuning": init["tuningInfo"].removeprefix("NV_ENC_TUNING_INFO_"),
        "split": init["splitEncodeMode"],
        "profile": config["profileGUID"],
        "gop": config["gopLength"],
        "idr_period": own["idrPeriod"],
        "b_frames": config["frameIntervalP"] - 1,
        "rate_control": rates["rateControlMode"].removeprefix("NV_ENC_PARAMS_RC_"),
        "average": rates["averageBitRate"],
        "maximum": rates["maxBitRate"],
        "buffer": rates["vbvBufferSize"],
        "quality": rates["targetQuality"],
        "lookahead": rates["enableLookahead"],
        "zero_delay": rates["zeroReorderDelay"],
        "colour": [value.rpartition("_")[2] if isinstance(value, str) else value for value in colour],
        "signalled": vui.get("videoSignalTypePresentFlag", 1) & vui.get("colourDescriptionPresentFlag", 1),
        "repeats": own["repeatSeqHdr" if line["codec"] == "av1" else "repeatSPSPPS"],
    }
