"""The pictures of docs/preview.md: the page, the page on a phone and the wall, in Chromium.

    python -m tools.preview_pictures docs/pictures
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from PIL import Image

from tools.chromium import Page, chromium

_CONFIG = """
mosaic: {width: 1280, height: 720, fps: 15}
encoder: {profile: low_latency, bitrate: 16M}
preview: {port: 0, recordings: recordings, spare_sources: 2}
sources:
  - {id: plaza, uri: "sample://plaza", label: Plaza}
  - {id: duo, uri: "sample://duo", label: Duo}
  - {id: corridor, uri: "sample://corridor", label: Corridor}
  - {id: night, uri: "sample://night", label: Night}
outputs:
  - {clip: "clip-{time}.mp4", preroll_s: 10}
"""
_PICTURES = 90
"""Shown before a picture is taken: rates and percentiles have settled."""


async def _take(url: str, folder: Path) -> None:
    async with chromium() as page:
        await page.size(1280, 800)
        await _settled(page, url)
        await _save(page, folder / "preview_page.png")
        await page.size(390, 844, mobile=True)
        await page.open(url)
        await page.until("player.status.playing")
        await page.press("s")
        await page.until(f"player.status.decoded > {_PICTURES // 2}", 60)
        await _save(page, folder / "preview_phone.png")
        await page.press("c")
        await page.size(1280, 720)
        await _settled(page, f"{url}wall")
        await _save(page, folder / "preview_wall.png")


async def _settled(page: Page, url: str) -> None:
    await page.open(url)
    await page.until(f"player.status.decoded > {_PICTURES}", 120)


async def _save(page: Page, path: Path) -> None:
    Image.open(io.BytesIO(await page.screenshot())).convert("RGB").quantize(256).save(path, optimize=True)
    click.echo(path)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Take them, into FOLDER."""
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "preview.yaml"
        config.write_text(_CONFIG, encoding="utf-8")
        command = [sys.executable, "-c", "from tiler.cli import main; main()", "preview", "--no-browser", str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            try:
                url = next(line.split()[1] for line in run.stderr if line.startswith("preview: "))
                asyncio.run(_take(url, folder))
            finally:
                run.terminate()


if __name__ == "__main__":
    main()
