"""The control API against its own OpenAPI document, by schemathesis: whatever it makes up is answered as the
document says, nothing breaks, and the picture goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the web extra is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import av
from served import served

from tiler.preview.access import Allowance

TOKEN = "correct-horse-battery"


def test_the_api_holds_what_its_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Allowance, "take", lambda self, peer: True)  # or nearly all answers were: too many requests
    preview = f"{{port: 0, token: {TOKEN}, recordings: rec}}"
    with served(tmp_path, preview, "outputs: [{clip: 'clip-{time}.mp4'}]\n") as run:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{run.server.url}openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--max-examples", "25", "--no-color"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:]
        assert "No issues found" in done.stdout
        paths = _document(run.server.url)["paths"]
        assert f"Tested: {sum(len(methods) for methods in paths.values())}" in done.stdout
        frames, last_s = run.observer.frames, time.monotonic() + 20
        while run.observer.frames < frames + 25:
            assert time.monotonic() < last_s, "the run stands still"
            time.sleep(0.02)
    files = [*(tmp_path / "rec").iterdir(), *tmp_path.glob("clip-*.mp4")]
    assert files
    assert all(path.name.startswith(("tiler-", "clip-")) for path in files)
    for path in files:
        if path.stat().st_size:  # one may have ended before its first keyframe
            with av.open(str(path)) as container:
                assert next(container.decode(video=0)).width == 320


def _document(url: str) -> dict[str, dict[str, dict[str, object]]]:
    request = urllib.request.Request(f"{url}openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        document: dict[str, dict[str, dict[str, object]]] = json.load(answer)
    return document
