"""A WHIP push to a server whose WebRTC is a browser's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("aiortc", reason="the web extra is not installed")

from aiohttp import web
from test_push import Camera

from tools.chromium import PROGRAM, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium here: apt-get install chromium")

_ANSWER = """(async (sdp) => {
  const pc = new RTCPeerConnection(), stream = new MediaStream();
  window.video = Object.assign(document.createElement('video'), {muted: true, autoplay: true, srcObject: stream});
  pc.ontrack = (event) => stream.addTrack(event.track);
  await pc.setRemoteDescription({type: 'offer', sdp});
  await pc.setLocalDescription(await pc.createAnswer());
  while (pc.iceGatheringState !== 'complete') await new Promise((done) => pc.onicegatheringstatechange = done);
  return pc.localDescription.sdp; })(%s)"""


def test_a_browser_plays_what_is_pushed(tmp_path: Path) -> None:
    async def run() -> None:
        deleted = asyncio.Event()

        async def offer(request: web.Request) -> web.Response:
            answer = await page.evaluate(_ANSWER % json.dumps(await request.text()))
            return web.Response(status=201, text=answer, headers={"Location": "/session"})

        async def delete(request: web.Request) -> web.Response:
            deleted.set()
            return web.Response()

        async def empty(request: web.Request) -> web.Response:
            return web.Response(text="<body></body>", content_type="text/html")

        app = web.Application()
        app.add_routes([web.get("/", empty), web.post("/whip", offer), web.delete("/session", delete)])
        server = web.AppRunner(app)
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        port = server.addresses[0][1]
        async with chromium() as page:
            await page.open(f"http://127.0.0.1:{port}/")
            camera = Camera(tmp_path / "a.mp4", f"whip://127.0.0.1:{port}/whip", profile="low_latency")
            try:
                assert await page.until("video.getVideoPlaybackQuality().totalVideoFrames > 50")
                assert await page.evaluate("[video.videoWidth, video.videoHeight]") == [320, 192]
            finally:
                await asyncio.to_thread(camera.close)
            assert deleted.is_set()
        await server.cleanup()

    asyncio.run(run())
