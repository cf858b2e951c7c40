"""Adding and removing sources by the API and by the page."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the web extra is not installed")

from colours import clip_server
from served import Served, served
from talking import Session, idle_run, settled, talk  # noqa: F401
from test_preview_browser import AT, drive

from tools.chromium import PROGRAM, Page


async def states(session: Session, source: str, wanted: str) -> dict[str, Any]:
    """The run's state once the source is in that one."""
    for _ in range(400):
        async with session.get("/api/state") as answer:
            state: dict[str, Any] = await answer.json()
        if any((one["id"], one["state"]) == (source, wanted) for one in state["sources"]):
            return state
        await asyncio.sleep(0.05)
    raise AssertionError(f"{source} is never {wanted}")


def test_a_source_is_added_and_removed_by_the_api(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO), clip_server(tmp_path / "clips") as server,
        served(tmp_path, "{port: 0, spare_sources: 1}") as run,
    ):  # fmt: skip
        uri = f"http://user:hunter2@{server}/yellow.mp4"

        async def test(session: Session) -> None:
            assert (await settled(session))["spare"] == 1
            async with session.post("/api/sources", json={"id": "yard", "uri": uri, "label": "Hof"}) as answer:
                assert answer.status == 200, await answer.text()
                state = await answer.json()
            assert state["spare"] == 0
            assert (state["tiles"][4]["source"], state["tiles"][4]["title"]) == ("yard", "Hof")
            assert state["sources"][4]["state"] in ("waiting", "live")
            state = await states(session, "yard", "live")
            assert state["sources"][4]["read"] > 0
            async with session.post("/api/sources", json={"id": "gate", "uri": uri}) as answer:
                assert answer.status == 409
                assert "all 5 places are taken" in (await answer.json())["error"]
            async with session.delete("/api/sources/yard") as answer:
                assert answer.status == 200
                state = await answer.json()
            assert [source["id"] for source in state["sources"]] == ["red", "green", "blue", "white"]
            assert len(state["tiles"]) == 4
            async with session.delete("/api/sources/yard") as answer:
                assert answer.status == 404
            async with session.get("/api/report") as answer:
                text = await answer.text()
            assert "yard" in [stream["id"] for stream in json.loads(text)["streams"]]
            assert "hunter2" not in text

        talk(run, test)
    assert "hunter2" not in caplog.text
    assert "http://user:***@127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"id": "gate", "uri": "file:///etc/passwd"}, 409, "uri: not a kind that can be added"),
        ({"id": "gate", "uri": "/etc/passwd"}, 409, "uri: not a kind that can be added"),
        ({"id": "gate", "uri": "tcp://host:1?listen=1"}, 409, "uri: options of tcp://"),
        ({"id": "red", "uri": "rtsp://host/main"}, 409, "another id"),
        ({"id": "../gate", "uri": "rtsp://host/main"}, 400, "id: String should match"),
        ({"id": "gate", "uri": "rtsp://host/main", "options": {"listen": 1}}, 400, "options: Extra inputs"),
        ({"id": "gate", "uri": "rtsp://host/main", "label": "x" * 65}, 400, "label"),
        ({"id": "gate"}, 400, "uri: Field required"),
    ],
)
def test_what_is_refused_says_why(spared: Served, body: dict[str, Any], status: int, says: str) -> None:
    async def test(session: Session) -> None:
        async with session.post("/api/sources", json=body) as answer:
            assert answer.status == status, await answer.text()
            assert says in (await answer.json())["error"]
        async with session.get("/api/state") as answer:
            assert len((await answer.json())["sources"]) == 4

    talk(spared, test)


@pytest.fixture(scope="module", name="spared")
def spared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A run that has room."""
    with served(tmp_path_factory.mktemp("spared"), "{port: 0, spare_sources: 2}") as run:
        yield run


def test_a_run_without_room_takes_none_and_says_which_key_to_set(idle: Served) -> None:
    async def test(session: Session) -> None:
        assert (await settled(session))["spare"] is None
        async with session.post("/api/sources", json={"id": "gate", "uri": "rtsp://host/main"}) as answer:
            assert answer.status == 409
            assert "preview.spare_sources" in (await answer.json())["error"]

    talk(idle, test)


def test_the_last_source_stays_and_changes_come_slowly(tmp_path: Path) -> None:
    with served(tmp_path, "{port: 0, spare_sources: 1}") as run:

        async def test(session: Session) -> None:
            for name in ("red", "green", "blue"):
                async with session.delete(f"/api/sources/{name}") as answer:
                    assert answer.status == 200
            async with session.delete("/api/sources/white") as answer:
                assert answer.status == 409
                assert "it is the last one" in (await answer.json())["error"]
            for _ in range(12):
                async with session.post("/api/sources", json={"id": "x", "uri": "/x"}) as answer:
                    status = answer.status
            assert status == 429
            state = await states(session, "white", "live")
            assert [(tile["source"], tile["width"]) for tile in state["tiles"]] == [("white", 320)]

        talk(run, test)


REFUSE = """(() => { window.fetched = window.fetch; window.fetch = (path, options) => options?.method === 'DELETE'
  ? Promise.resolve(new Response('{"error": "not now"}', { status: 409 })) : window.fetched(path, options); })()"""


@pytest.mark.skipif(PROGRAM is None, reason="no chromium here: apt-get install chromium")
def test_a_source_is_added_and_removed_on_the_page(tmp_path: Path) -> None:
    with clip_server(tmp_path / "clips") as server, served(tmp_path, "{port: 0, spare_sources: 1}") as run:
        uri = f"http://{server}/yellow.mp4"

        async def fill(page: Page, **fields: str) -> None:
            for name, text in fields.items():
                await page.evaluate(f"document.querySelector('#add [name={name}]').value = {text!r}")
            await page.click("#add button")

        async def test(page: Page) -> None:
            await page.size(390, 844, mobile=True)
            await page.open(run.server.url)
            await page.until("player.status.playing && !document.querySelector('#add').hidden")
            await page.click("#add summary")
            await fill(page, uri="/etc/passwd", id="yard")
            await page.until("document.querySelector('#add .failure').textContent.includes('not a kind')")
            await fill(page, uri=uri, id="yard", label="Yard")
            await page.until("document.querySelectorAll('#sources li').length === 5")
            await page.until("document.querySelector('#add [name=uri]').value === ''")
            assert await page.evaluate("document.querySelector('#add .failure').textContent") == ""
            assert await page.evaluate("document.querySelector('#add button').disabled")
            yellow = f"(([r, g, b]) => r > 180 && g > 180 && b < 120)({AT % (0.25, 0.83)})"
            await page.until(yellow)
            # A double click is one answer: the second half of it does not remove.
            button = "#sources li:nth-child(5) .remove"
            await page.click(button)
            await page.click(button)
            assert await page.evaluate(f"document.querySelector('{button}').textContent") == "Really?"
            await page.evaluate("new Promise((done) => setTimeout(done, 600))")
            assert await page.evaluate("document.querySelectorAll('#sources li').length") == 5
            await page.evaluate(REFUSE)
            await page.click(button)
            await page.until("document.querySelector('#sources li:nth-child(5) .failure').textContent === 'not now'")
            await page.evaluate("window.fetch = window.fetched")
            await page.click(button)
            await page.evaluate("new Promise((done) => setTimeout(done, 600))")
            await page.click(button)
            await page.until("document.querySelectorAll('#sources li').length === 4")
            await page.until(f"!{yellow}")
            await page.until("!document.querySelector('#add button').disabled")
            assert await page.evaluate("player.status.connects") == 1  # all of it in one stream
            assert await page.evaluate("document.body.scrollWidth <= innerWidth")

        drive(test)
        assert [s.id for s in run.runner.control.wanted.config.sources] == ["red", "green", "blue", "white"]
