"""The script that most people write first, kept honest: it is what `bench_gpu.py baseline` compares with.

For each stream, on a thread of its own: decode on the CPU to BGR, resize and normalise on the host, one inference
of one picture, suppress, track, draw with OpenCV, encode to a file of its own. Threads, because a loop over the
streams would be slower still; model, runtime (ONNX Runtime's CUDA provider, FP16) and tracker are tiler's.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime as ort

from tiler.config.models import DetectorConfig, TrackerConfig
from tiler.engines.registry import load_model
from tiler.infer.heads import HeadDecoder
from tiler.track.bytetrack import ByteTracker
from tiler.types import Batch


def run_script(clips: list[Path], out: Path | None) -> float:
    """Run it on the clips; decoded pictures a second. Files go to `out`, None for no encoding."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    spec = load_model("person-nano", Path())
    half = spec.path.with_name(f"{spec.path.stem}-fp16.onnx")
    session = ort.InferenceSession(str(half), providers=["CUDAExecutionProvider"])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise SystemExit("ONNX Runtime has no CUDA here: nothing to compare")
    session.run(None, {"images": np.zeros((1, 3, 384, 640), np.float16)})
    done = [0] * len(clips)
    threads = [
        threading.Thread(target=_stream, args=(session, spec, clip, out / f"s{i}.mp4" if out else None, done, i))
        for i, clip in enumerate(clips)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def _stream(session: Any, spec: Any, clip: Path, out: Path | None, done: list[int], index: int) -> None:
    heads = HeadDecoder(spec, DetectorConfig(), 0.1)
    tracker = ByteTracker(TrackerConfig(), 0.35)
    writer = encoder = None
    with av.open(str(clip)) as container:
        for picture in container.decode(video=0):
            bgr = picture.to_ndarray(format="bgr24")
            height, width = bgr.shape[:2]
            scale = min(640 / width, 384 / height)
            w, h = round(width * scale), round(height * scale)
            dx, dy = (640 - w) // 2, (384 - h) // 2
            canvas = np.full((384, 640, 3), 114, np.uint8)
            canvas[dy : dy + h, dx : dx + w] = cv2.resize(bgr, (w, h), interpolation=cv2.INTER_AREA)
            tensor = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None], np.float16) / np.float16(255)
            raw = session.run(None, {"images": tensor})[0]
            place = np.array([[w / width, h / height, dx, dy]], np.float32)
            batch = Batch(None, place, np.array([[width, height]], np.int32), (index,))
            tracks = tracker.update(heads.decode(raw.astype(np.float32), batch)[0], done[index] * 3000)
            for box, name, score in zip(tracks.xyxy.astype(int), tracks.track_id, tracks.score, strict=True):
                cv2.rectangle(bgr, (box[0], box[1]), (box[2], box[3]), (80, 200, 80), 3)
                cv2.putText(bgr, f"#{name} person {score:.2f}", (box[0], box[1] - 6), 0, 0.7, (80, 200, 80), 2)
            done[index] += 1
            if out is None:
                continue
            if writer is None:
                writer = av.open(str(out), "w")
                encoder = writer.add_stream("libx264", rate=30)
                encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
                encoder.options = {"preset": "ultrafast"}
            writer.mux(encoder.encode(av.VideoFrame.from_ndarray(bgr, format="bgr24")))
    if writer is not None and encoder is not None:
        writer.mux(encoder.encode(None))
        writer.close()
