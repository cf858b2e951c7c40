"""The page in a real browser: it plays, it controls, it comes back."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the web extra is not installed")

from PIL import Image
from served import COLOURS, served

from tools.chromium import PROGRAM, Page, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium here: apt-get install chromium")

# The colour of the video at a place, as fractions of it, whatever plays it.
AT = """(() => { const e = document.querySelector('#screen > *'), c = document.createElement('canvas');
  [c.width, c.height] = [e.videoWidth || e.width, e.videoHeight || e.height]; const g = c.getContext('2d');
  g.drawImage(e, 0, 0); return [...g.getImageData(%s * c.width, %s * c.height, 1, 1).data].slice(0, 3); })()"""


async def sees(page: Page, x: float, y: float, colour: str) -> None:
    wanted = list(COLOURS[colour])
    at = AT % (x, y)
    await page.until(f"{at}.every((value, i) => Math.abs(value - {wanted}[i]) < 30)")


def drive(test: Callable[[Page], Awaitable[None]], *flags: str) -> None:
    async def run() -> None:
        async with chromium(*flags) as page:
            await page.size(1280, 800)
            await test(page)
            assert page.errors == []

    asyncio.run(run())


@pytest.mark.parametrize(("way", "named"), [("webcodecs", "WebCodecs"), ("mse", "MSE"), ("webrtc", "WebRTC")])
def test_the_page_plays_and_says_how(tmp_path: Path, way: str, named: str) -> None:
    if way == "webrtc":
        pytest.importorskip("aiortc")
    with served(tmp_path) as run:

        async def test(page: Page) -> None:
            await page.open(f"{run.server.url}?way={way}")
            first = await page.until("player.status.decoded")
            await page.until(f"player.status.decoded > {first + 25}")
            await sees(page, 0.25, 0.25, "red")
            await sees(page, 0.75, 0.75, "white")
            await page.until(f"/{named} · (avc1\\.|H\\.264).* · (about )?\\d+ ms/.test(stream.textContent)")
            assert 0 < await page.evaluate("player.status.latencyMs") < 2000

        drive(test)


def test_a_click_promotes_a_tile_and_the_picture_follows(tmp_path: Path) -> None:
    with served(tmp_path) as run:

        async def test(page: Page) -> None:
            await page.open(run.server.url)
            await page.until("player.status.playing && document.querySelectorAll('#hits button').length === 4")
            await sees(page, 0.25, 0.75, "blue")
            await page.click("#hits button:nth-child(3)")
            await sees(page, 0.3, 0.3, "blue")
            await page.until("document.querySelector('[data-name=spotlight]').ariaPressed === 'true'")
            await page.until("document.querySelector('#hits button').title === 'Tile 1: blue'")
            await page.click("#hits button:nth-child(1)")  # again: back to the grid
            await sees(page, 0.25, 0.25, "red")
            await page.press("4")
            await sees(page, 0.3, 0.3, "white")
            await page.press("g")
            await sees(page, 0.25, 0.25, "red")
            assert await page.evaluate("player.status.connects") == 1  # all of it in one stream

        drive(test)


def test_controls_of_the_page_reach_the_run(tmp_path: Path) -> None:
    with served(tmp_path) as run:

        async def test(page: Page) -> None:
            await page.open(run.server.url)
            await page.until("document.querySelectorAll('#sources li').length === 4")
            await page.click("#sources li:nth-child(2) .pause")
            await page.until("document.querySelectorAll('[data-state=paused]').length === 1")
            await page.click("#overlays [data-name=clock]")
            await page.until("document.querySelector('#overlays [data-name=clock]').ariaPressed === 'true'")
            assert run.runner.control.wanted.paused == {"green"}
            assert run.runner.control.wanted.config.overlay.clock
            await page.evaluate(
                "(() => { const t = document.querySelector('#sources .title'); t.focus(); t.value = 'Gate <b>';"
                "t.dispatchEvent(new Event('change')); })()"
            )
            await page.until("document.querySelector('#hits button').title === 'Tile 1: Gate <b>'")
            assert await page.evaluate("document.querySelectorAll('b').length") == 0

        drive(test)


def test_a_snapshot_is_downloaded(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        downloads = tmp_path / "downloads"

        async def test(page: Page) -> None:
            await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
            await page.open(run.server.url)
            await page.until("player.status.playing")
            await page.click(".bar a[download]")
            await arrives(downloads / "mosaic.png")

        async def arrives(path: Path) -> None:
            for _ in range(200):
                if path.is_file() and path.stat().st_size:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("no download")

        drive(test)
        picture = Image.open(io.BytesIO((downloads / "mosaic.png").read_bytes()))
        assert picture.size == (320, 192)


def test_the_wall_comes_back_after_a_restart_of_the_server(tmp_path: Path) -> None:
    async def test(page: Page) -> None:
        with served(tmp_path) as run:
            port = run.server.port
            await page.open(f"{run.server.url}wall")
            await sees(page, 0.25, 0.25, "red")
            assert await page.evaluate("document.querySelectorAll('button, a, select').length") == 0
        await page.until("!player.status.playing && message.textContent !== ''")
        with served(tmp_path, f"{{port: {port}}}"):
            await page.until("player.status.playing && player.status.connects === 2")
            first = await page.evaluate("player.status.decoded")
            await page.until(f"player.status.decoded > {first + 10}")

    drive(test)


def test_a_page_that_is_not_secure_plays_by_mse_behind_the_token(tmp_path: Path) -> None:
    token = "correct horse battery"
    with served(tmp_path, f"{{port: 0, token: {token}}}") as run:

        async def test(page: Page) -> None:
            address = f"http://wall.test:{run.server.port}/"
            await page.open(address)
            assert await page.evaluate("document.querySelectorAll('form[action=\"/session\"]').length") == 1
            await page.evaluate(f"document.querySelector('input').value = {token!r}")
            await page.click("button")
            await page.until("location.pathname === '/' && player.status.decoded > 10")
            assert not await page.evaluate("isSecureContext")
            assert await page.evaluate("player.status.way") == "mse"
            assert token not in await page.evaluate("document.cookie + location.href")

        drive(test, "--host-resolver-rules=MAP wall.test 127.0.0.1")


@pytest.mark.parametrize(("codec", "says"), [("hvc1.1.6.L93.B0", "cannot play HEVC"), ("avc1.42c01f", "")])
@pytest.mark.parametrize("way", ["webcodecs", "mse"])
def test_a_codec_that_the_browser_cannot_play_is_said(tmp_path: Path, way: str, codec: str, says: str) -> None:
    with served(tmp_path) as run:
        assert run.server is not None

        async def test(page: Page) -> None:
            # What an HEVC encoder's head would say; there is none on this machine.
            await page.call(
                "Page.addScriptToEvaluateOnNewDocument",
                source=f"const parse = JSON.parse; JSON.parse = (text) => {{ const said = parse(text);"
                f"if (said?.hello) said.hello.codec = '{codec}'; return said; }};",
            )
            await page.open(f"{run.server.url}?way={way}")
            if says:
                await page.until(f"message.textContent.includes('{says}') && message.textContent.includes('h264')")
            else:
                await page.until("player.status.playing && message.textContent === ''")

        drive(test)
