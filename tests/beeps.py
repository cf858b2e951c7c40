"""Clips that flash white and beep at the same moments, and where a file flashes and beeps."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import av.error
import numpy as np

from tiler import stages
from tiler.config.loader import load
from tiler.observe.run import RunObserver
from tiler.pipeline import Run

FPS = 25
RATE_HZ = 48_000
FLASHES = (10, 33, 55, 80)
"""Pictures that are white while it beeps, for two pictures each."""


def write(
    path: Path, pictures: int = 100, *, flashes: tuple[int, ...] = FLASHES, codec: str | None = "aac",
    sound_s: float | None = None, container: str | None = None,
) -> Path:  # fmt: skip
    """A clip of 160x96 at 25 fps; its sound ends after `sound_s`, with the pictures when absent."""
    with av.open(str(path), "w", format=container) as out:
        video: Any = out.add_stream("libx264", rate=FPS, options={"g": "25", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        rate = 8000 if codec == "pcm_alaw" else RATE_HZ
        audio: Any = out.add_stream(codec, rate=rate) if codec is not None else None
        size = 400
        if audio is not None:
            audio.layout = "mono" if codec == "pcm_alaw" else "stereo"
            audio.format = "s16" if codec == "pcm_alaw" else "fltp"
            out.start_encoding()
            size = audio.codec_context.frame_size or size
        samples = round((pictures / FPS if sound_s is None else sound_s) * rate) if audio is not None else 0
        heard = np.zeros(-(-samples // size) * size, np.float32)
        for flash in flashes:
            times = np.arange(2 * rate // FPS)
            begin = flash * rate // FPS
            piece = heard[begin : begin + len(times)]
            piece[:] = 0.7 * np.sin(2 * np.pi * 1000 * times / rate)[: len(piece)]
        at = 0
        for index in range(pictures):
            luma = 235 if any(flash <= index < flash + 2 for flash in flashes) else 16
            picture = av.VideoFrame.from_ndarray(np.concatenate(
                [np.full((96, 160), luma, np.uint8), np.full((48, 160), 128, np.uint8)]), format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(picture))
            while at < min(len(heard), (index + 1) * rate // FPS):
                out.mux(audio.encode(_frame(heard[at : at + size], audio, at)))
                at += size
        while at < len(heard):
            out.mux(audio.encode(_frame(heard[at : at + size], audio, at)))
            at += size
        for stream in (video, audio):
            out.mux(stream.encode() if stream is not None else [])
    return path


def _frame(mono: np.ndarray, audio: Any, at: int) -> av.AudioFrame:
    form, channels = audio.codec_context.format.name, audio.codec_context.layout.nb_channels
    values = (mono * 32767).astype(np.int16) if form.startswith("s16") else mono
    rows = np.stack([values] * channels)
    if not form.endswith("p"):
        rows = rows.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), format=form, layout=audio.codec_context.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = audio.rate, at, Fraction(1, audio.rate)
    return frame


class Broadcast:
    """A clip sent in real time, round and round, as MPEG-TS to everybody who connects."""

    def __init__(self, path: Path, length_s: float) -> None:
        self._path, self._length_s = path, length_s
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._accept, self._send)]
        for thread in self._threads:
            thread.start()

    def write(self, data: bytes) -> int:
        """What the muxer calls."""
        for client in list(self._clients):
            try:
                client.sendall(data)
            except OSError:
                self._clients.remove(client)
                client.close()
        return len(data)

    def disconnect(self) -> None:
        """Hang up on everybody; they may come again."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):  # it has gone by itself
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                self._clients.append(self._server.accept()[0])
            except OSError:
                return

    def _send(self) -> None:
        options = {"flush_packets": "1", "pat_period": "0.2", "max_interleave_delta": "1"}
        with av.open(str(self._path)) as source, av.open(self, "w", format="mpegts", options=options) as out:
            pieces = [(p.stream, bytes(p), p.dts * p.time_base, p.pts * p.time_base) for p in source.demux() if p.size]
            streams = {stream: out.add_stream_from_template(stream) for stream in source.streams}
            sound = Fraction(1024, RATE_HZ)  # a piece of sound is sent when it is over
            pieces.sort(key=lambda piece: piece[2] + (sound if piece[0].type == "audio" else 0))
            begin_s, last = time.monotonic(), dict.fromkeys(streams, -1)
            base = Fraction(1, 90000)
            lap = 0
            while True:
                for stream, data, dts, pts in pieces:
                    offset = Fraction(lap * self._length_s) + 1
                    due_s = begin_s + float(dts + offset - 1 + (sound if stream.type == "audio" else 0))
                    if self._ended.wait(max(0.0, due_s - time.monotonic())):
                        return
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = streams[stream], base
                    packet.pts, packet.dts = round((pts + offset) / base), round((dts + offset) / base)
                    if packet.dts > last[stream]:
                        last[stream] = packet.dts
                        out.mux(packet)
                lap += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.disconnect()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()


def flashes_of(path: Path, **options: Any) -> list[float]:
    """Times in s at which the picture turns white."""
    found, white = [], False
    with av.open(str(path), **options) as container:
        for frame in container.decode(video=0):
            now = float(frame.to_ndarray(format="gray").mean()) > 120
            if now and not white:
                found.append(float(frame.time))
            white = now
    return found


def beeps_of(path: Path, **options: Any) -> list[float]:
    """Times in s at which it becomes loud after 100 ms of silence."""
    found, quiet_since = [], -1.0
    with av.open(str(path), **options) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            if not frame.format.is_planar:
                values = values.reshape(-1, frame.layout.nb_channels).T
            loud = np.abs(values[0].astype(np.float32)) > (3000 if values.dtype == np.int16 else 0.1)
            begin = float(frame.pts * frame.time_base)
            for index in np.flatnonzero(loud):
                at = begin + index / frame.sample_rate
                if at - quiet_since > 0.1:
                    found.append(at)
                quiet_since = at
    return found


def write_all(folder: Path) -> Path:
    """100 pictures each: with sound as long as they, shorter and longer; in other containers; and without."""
    for name in ("a.mp4", "a.mkv", "a.ts"):
        write(folder / name)
    write(folder / "short.mp4", sound_s=3.5)
    write(folder / "long.mp4", sound_s=6.0)
    write(folder / "mp3.mp4", codec="mp3")
    write(folder / "camera.mov", codec="pcm_alaw")
    write(folder / "still.mp4", codec=None)
    return folder


def text(clips: Path, outputs: str, *, clip: str = "a.mp4", audio: str = "codec: aac", source: str = "",
         more: str = "") -> str:  # fmt: skip
    return (
        f"sources: [{{id: a, uri: {clips / clip}{source}}}]\nmosaic: {{width: 160, height: 96, fps: {FPS}}}\n"
        f"detector: none\noverlay: {{titles: false}}\naudio: {{source: a, {audio}}}\n{more}\noutputs: [{outputs}]\n"
    )


def run(folder: Path, config: str) -> dict[str, Any]:
    """A whole run; gives the report."""
    path = folder / "c.yaml"
    path.write_text(config, encoding="utf-8")
    loaded = load(path)
    built = stages.build(loaded)
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
    with Run(loaded, built, observer) as runner:
        runner.start()
        runner.wait()
    return observer.report()
