"""The control API against its own OpenAPI document, by schemathesis: whatever it makes up is answered as the
document says, nothing breaks, and the picture goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the web extra is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import av
from served import served

from tiler.output.outlet import Outlet, policy
from tiler.preview.access import Allowance
from tiler.types import Packet

TOKEN = "correct-horse-battery"
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = [400, 404, 409, 413, 415]   # 413: what it makes up may be too large to be looked at
"""


class Pictures:
    """An output that tells when so many have come."""

    def __init__(self, wanted: int) -> None:
        self.came = threading.Event()
        self._left = wanted

    def write(self, packet: Packet) -> None:
        self._left -= 1
        if self._left == 0:
            self.came.set()

    def close(self) -> None: ...


def test_the_api_holds_what_its_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Allowance, "take", lambda self, peer: True)  # or nearly all answers were: too many requests
    preview = f"{{port: 0, token: {TOKEN}, recordings: rec, spare_sources: 2}}"
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
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
        pictures = Pictures(25)
        run.runner.outputs.add(Outlet("test", "pictures", pictures, policy(live=True, network=False, fps=Fraction(25))))
        assert pictures.came.wait(20), "the run stands still"
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
