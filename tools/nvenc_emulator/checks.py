"""What must be true of a run on the emulated encoder: each check gives what is wrong, one line each."""

from __future__ import annotations

from collections.abc import Callable

from tools.nvenc_emulator import calls
from tools.nvenc_emulator.runs import FPS, GOP, Result

Check = Callable[[Result], list[str]]
_CLOCK_HZ = 90000
_BT709_LIMITED = (1, 1, 1, 1)
_SMALL_BYTES = 64_000
"""What a stream may cost a tick in copies to the host: detections, no picture."""
LAG = {("pyav", "low_latency"): 0, ("pyav", "quality"): 4, ("pynvvideocodec", "low_latency"): 3,
       ("pynvvideocodec", "quality"): 3}  # fmt: skip
"""Packets that may be missing when a picture has been given: its own and those before. Exact but for B-frames."""
_B_FRAMES = {("pyav", "quality"): 2}
_SLOW_MS = 40
"""What `slow` is given; 30 pictures a second leave 33."""


def whole(result: Result) -> list[str]:
    """The run succeeded, and its file is what was composed, picture by picture, in one session that ended well."""
    count = len(result.seen)
    found = _ended(result, 0, "")
    found += _same(result, count) + _times(result) + _session(result) + _landed(result)
    found += calls.faults(result.log) + calls.leftovers(result.log)
    if result.report.get("frames") != count:
        found.append(f"the report says {result.report.get('frames')} pictures, {count} were given")
    if not result.case.live and count != result.case.pictures:
        found.append(f"{count} of {result.case.pictures} pictures were composed")
    return found


def refused(exit_code: int, *texts: str) -> Check:
    """The run did not begin: exit code, message, and no file."""

    def check(result: Result) -> list[str]:
        found = _ended(result, exit_code, *texts)
        if result.seen or result.played:
            found.append("something was encoded")
        return found + calls.faults(result.log)

    return check


def fallen_back(*texts: str) -> Check:
    """No NVENC: libx264 took over, the message says why, and the ledger has the mosaics that it read."""

    def check(result: Result) -> list[str]:
        found = _ended(result, 0, *texts)
        if result.report.get("encoder", {}).get("name") != "libx264":
            found.append(f"{result.report.get('encoder')} encoded, libx264 was expected")
        if "mosaic for libx264" not in result.report.get("copies", {}).get("by_name", {}):
            found.append("the ledger lacks the mosaics that libx264 read")
        if len(result.played) != result.case.pictures:
            found.append(f"{len(result.played)} pictures in the file")
        return found + calls.faults(result.log)

    return check


def lost(after: int) -> Check:
    """The session was lost: exit code 1, the stage is named, and what had come out by then plays, to the bit."""

    def check(result: Result) -> list[str]:
        library, profile = result.case.library, result.case.profile
        found = _ended(result, 1, "encode: h264_nvenc", "failed")
        if len(result.seen) != after:
            found.append(f"{len(result.seen)} pictures were taken, {after} were expected")
        sent = sum(len(one["packets"]) for one in result.seen) + len(result.flushed)
        if sent < after - LAG[library, profile]:
            found.append(f"only {sent} packets of {after} pictures came out")
        found += _same(result, sent)
        if result.report.get("encoder", {}).get("sessions") != 1:
            found.append("the report does not say one session")
        return found + calls.faults(result.log)

    return check


def slow(result: Result) -> list[str]:
    """The engine takes 40 ms a picture: nothing is lost or late in its time, and the report says who waits for whom.

    Offline the run takes as long as the encoder; live, pictures of the mosaic are left out, and time goes on.
    """
    found = whole(result)
    encoder, stages = result.report.get("encoder", {}), result.report.get("stages", {})
    rate = result.report.get("fps", 0)
    if rate > 1000 / _SLOW_MS * 1.05:
        found.append(f"{rate} pictures a second, {1000 // _SLOW_MS} can be encoded")
    spent_ms = stages.get("encode", {}).get("p50_ms", 0)
    if spent_ms < _SLOW_MS - 1 and not LAG[result.case.library, result.case.profile]:
        found.append(f"encode takes {spent_ms} ms, {_SLOW_MS} were put in")
    dropped = result.report.get("dropped_ticks", 0)
    wait_ms = encoder.get("queue_wait_ms", {}).get("p50_ms", 0)
    others_ms = max((row["p50_ms"] for name, row in stages.items() if name != "encode"), default=0)
    if wait_ms < _SLOW_MS / 2 and others_ms < _SLOW_MS / 2:  # a busy machine may have a slower stage than that
        found.append(f"composed pictures wait {wait_ms} ms for an encoder that is the slowest stage")
    if result.case.live and (not dropped or dropped + len(result.seen) != result.case.pictures):
        found.append(f"{dropped} dropped and {len(result.seen)} given of {result.case.pictures} ticks")
    if not result.case.live and dropped:
        found.append(f"{dropped} pictures dropped of a run that has time")
    return found


# The parts


def _ended(result: Result, exit_code: int, *texts: str) -> list[str]:
    found = []
    if result.exit_code != exit_code:
        found.append(f"exit code {result.exit_code}, not {exit_code}: {result.said.strip()[-400:]}")
    found += [f"it does not say {text!r}: {result.said.strip()[-400:]}" for text in texts if text not in result.said]
    if "Traceback" in result.said:
        found.append(f"a traceback: {result.said.strip()[-400:]}")
    return found


def _same(result: Result, count: int) -> list[str]:
    """The file holds the first `count` composed pictures, each sample as it was."""
    composed = [(one["tick"] * _CLOCK_HZ // FPS, one["sum"]) for one in result.seen][:count]
    found = [(picture.pts, picture.sum) for picture in result.played]
    if not count:
        return ["nothing was encoded"]
    if len(found) != count:
        return [f"{len(found)} pictures in the file, {count} packets came out"]
    wrong = [index for index, (one, other) in enumerate(zip(composed, found, strict=True)) if one != other]
    return [f"{len(wrong)} of {count} pictures are not the composed ones at their times: {wrong[:5]}"] if wrong else []


def _times(result: Result) -> list[str]:
    """Durations, keyframes and colour of the file."""
    found = []
    tick = _CLOCK_HZ // FPS
    if not result.case.live and set(result.durations) != {tick}:
        found.append(f"durations {sorted(set(result.durations))}, not {tick}")
    wanted = keyframes([one["tick"] for one in result.seen], result.case.keyframes)
    expected = [given * tick for given in wanted]
    if sorted(result.keyframes) != expected:
        found.append(f"keyframes of the file at {[pts // tick for pts in result.keyframes]}, not {wanted}")
    if [picture.pts for picture in result.played if picture.keyframe] != expected:
        found.append("pictures that decode as keyframes are not those of the file")
    if result.colour != _BT709_LIMITED:
        found.append(f"colour {result.colour}, not BT.709 limited")
    return found


def keyframes(ticks: list[int], asked: tuple[int, ...]) -> list[int]:
    """The pictures that must be keyframes: the first, each that was asked for, and GOP pictures after one."""
    wanted: list[int] = []
    since = GOP
    for tick in ticks:
        if since >= GOP or tick in asked:
            wanted.append(tick)
            since = 0
        since += 1
    return wanted


def _session(result: Result) -> list[str]:
    """One session on the GPU, its parameters, its lag and its forced keyframes, and no mosaic on the host."""
    case, report = result.case, result.report
    key = (case.library, case.profile)
    found = []
    encoder = report.get("encoder", {})
    named = {"pyav": "PyAV", "pynvvideocodec": "PyNvVideoCodec"}[case.library]
    if encoder.get("sessions") != 1 or named not in encoder.get("name", ""):
        found.append(f"the report's encoder is {encoder.get('name')}, {encoder.get('sessions')} sessions")
    copies = report.get("copies", {}).get("by_name", {})
    found += [
        f"{name}: {row['bytes_per_tick']} bytes a tick go to the host" for name, row in copies.items()
        if row["direction"] == "down" and row["bytes_per_tick"] > _SMALL_BYTES * case.streams
    ]  # fmt: skip
    for line in calls.of(result.log, "InitializeEncoder"):
        b_frames, rates = line["config"]["frameIntervalP"] - 1, line["config"]["rcParams"]
        if b_frames != _B_FRAMES.get(key, 0) or rates["enableLookahead"] or rates["lookaheadDepth"]:
            found.append(f"{b_frames} B-frames, lookahead {rates['lookaheadDepth']}")
    given = calls.pictures(result.log)
    forced = [line["index"] for line in given if line["flags"] & calls.FORCE_IDR]
    opening = 1 if case.library == "pyav" else 0  # PyAV opens the session with a picture, and one of ours follows
    expected = [index + opening for index, one in enumerate(result.seen) if one["tick"] in case.keyframes]
    if [index for index in forced if index != opening or index in expected] != expected:
        found.append(f"IDR forced at pictures {forced}, not {expected}")
    return found + _lag(result, given)


def _landed(result: Result) -> list[str]:
    """On a GPU every stage that works on pixels is there, and NVDEC decodes."""
    report, found = result.report, []
    if result.case.yaml()["device"] != "cuda":
        return []
    if report.get("cpu_fallback") != []:
        found.append(f"on the CPU: {report.get('cpu_fallback')}")
    decoders = {str(stream["decoder"]).split(" ")[0] for stream in report.get("streams", [])}
    if decoders != {"nvdec"}:
        found.append(f"decoded by {sorted(decoders)}")
    if not report.get("stages", {}).get("infer", {}).get("count"):
        found.append("nothing was detected on")
    return found


def _lag(result: Result, given: calls.Log) -> list[str]:
    """Packets come as late as is documented, and not one picture later."""
    key = (result.case.library, result.case.profile)
    lag, found = LAG[key], []
    if key == ("pyav", "low_latency"):
        own = [[packet[0] for packet in one["packets"]] == [one["tick"]] for one in result.seen]
        if not all(own) or result.flushed:
            found.append(f"{own.count(False)} pictures came without their packet")
        if any(line["packets"] != 1 for line in given):
            found.append("the driver did not give one packet for each picture")
    sent = 0
    for index, one in enumerate(result.seen, start=1):
        sent += len(one["packets"])
        held = index - sent
        if held > lag or (held != min(index, lag) and not _B_FRAMES.get(key)):
            found.append(f"{held} packets are missing after picture {one['tick']}, {lag} are documented")
            break
    return found
