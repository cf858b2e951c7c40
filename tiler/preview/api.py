"""The control API: JSON in, JSON out.

A change lands at the next tick. What takes long or touches the disk is done on a thread of its own, one after the
other, so that no handler holds the video up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

from aiohttp import web
from pydantic import ValidationError

from tiler.compose.layout import numbered_tiles
from tiler.config.added import added_source
from tiler.config.models import Config
from tiler.config.outputs import ClipOutput
from tiler.control import Control
from tiler.errors import InputError, StageError, mask_uri
from tiler.lineup import Lineup
from tiler.observe.run import RunObserver
from tiler.preview.access import Allowance, problem
from tiler.preview.answers import (
    AddRequest,
    ClipAnswer,
    LayoutRequest,
    MosaicAnswer,
    OutputAnswer,
    OverlayRequest,
    RecordingRequest,
    ReportAnswer,
    SourceAnswer,
    SourceRequest,
    StageAnswer,
    StateAnswer,
    TileAnswer,
)
from tiler.preview.openapi import MAX_NUMBER, SNAPSHOT, SOURCE, TILE, Operation, document
from tiler.preview.recording import Recorder
from tiler.preview.snapshot import snapshot
from tiler.preview.viewers import Audience

_OVERLAY = tuple(OverlayRequest.model_fields)
_TOO_MANY_MOVES = "too many sources come and go: one in two seconds"


class Api:
    """The handlers. All run on the server's thread."""

    def __init__(
        self, config: Config, control: Control, lineup: Lineup, observer: RunObserver, audience: Audience,
        recorder: Recorder, request_keyframe: Callable[[], None], webrtc: str | None,
    ) -> None:  # fmt: skip
        """
        Args:
            config: as the run began.
            control, lineup, observer, audience, recorder: what the handlers work on.
            request_keyframe: makes the next picture an IDR picture.
            webrtc: why WebRTC cannot be used; None when it can.
        """
        assert config.preview is not None
        self._control, self._lineup, self._observer = control, lineup, observer
        self._audience, self._recorder = audience, recorder
        self._clock: Literal["live", "offline"] = "live" if config.live else "offline"
        self._request_keyframe = request_keyframe
        self._webrtc, self._max_viewers = webrtc, config.preview.max_viewers
        self._locked = config.preview.token is not None
        self._clip = any(isinstance(output, ClipOutput) for output in config.outputs)
        self._pictures, self._disk = ThreadPoolExecutor(1, "tiler-snapshot"), ThreadPoolExecutor(1, "tiler-disk")
        self._waiting = 0
        self._files, self._decodes = Allowance(burst=10, per_s=0.5), Allowance(burst=10, per_s=2)
        self._moves = Allowance(burst=10, per_s=0.5)
        get, put, post, patch = "GET", "PUT", "POST", "PATCH"
        self._operations = (
            Operation(get, "/api/state", "state", "All that the page shows", self._state, answer=StateAnswer),
            Operation(get, "/api/report", "report", "The run's numbers", self._report, answer=ReportAnswer),
            Operation(put, "/api/layout", "layout", "Place the tiles anew", self._layout, LayoutRequest, StateAnswer),
            Operation(post, "/api/tiles/{tile}/promote", "promote", "Show a tile large: it changes places with the "
                      "largest one", self._promote, None, StateAnswer, (TILE,)),
            Operation(patch, "/api/overlay", "overlay", "Show or hide parts of the overlay", self._overlay,
                      OverlayRequest, StateAnswer),
            Operation(patch, "/api/sources/{source}", "source", "Rename, pause or resume a source", self._source,
                      SourceRequest, StateAnswer, (SOURCE,)),
            Operation(post, "/api/sources", "add", "Add a source; its tile waits for the first picture", self._add,
                      AddRequest, StateAnswer),
            Operation("DELETE", "/api/sources/{source}", "remove", "Remove a source and its tiles", self._remove,
                      None, StateAnswer, (SOURCE,)),
            Operation(post, "/api/keyframe", "keyframe", "Make the next picture a keyframe", self._keyframe,
                      None, StateAnswer),
            Operation(put, "/api/recording", "recording", "Start or stop recording, in the folder of the config",
                      self._record, RecordingRequest, StateAnswer),
            Operation(post, "/api/clip", "clip", "Write the last seconds, kept by a `clip` output", self._save_clip,
                      None, ClipAnswer),
            Operation(get, "/api/snapshot", "snapshot", "The newest picture, or a tile of it, as a file",
                      self._snapshot, parameters=SNAPSHOT),
        )  # fmt: skip

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        routes = [web.route(o.method, o.path, self._checked(o)) for o in self._operations]
        return [*routes, web.get("/openapi.json", self._document)]

    def close(self) -> None:
        """End the threads."""
        for pool in (self._pictures, self._disk):
            pool.shutdown(wait=False, cancel_futures=True)

    def _checked(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = None
            if operation.body is not None:
                if request.content_type != "application/json":
                    return problem(415, "expected Content-Type: application/json")
                try:
                    body = operation.body.model_validate_json(await request.read())
                except ValidationError as error:
                    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
                    return problem(400, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
            try:
                return await operation.handle(request, body)
            except (InputError, StageError) as error:
                return problem(409, mask_uri(str(error)))

        return handle

    # Reading

    async def _state(self, request: web.Request, body: None) -> web.Response:
        return web.Response(text=self.state().model_dump_json(), content_type="application/json")

    async def _report(self, request: web.Request, body: None) -> web.Response:
        return web.Response(text=json.dumps(_masked(self._observer.report())), content_type="application/json")

    def state(self) -> StateAnswer:
        """The run now."""
        wanted, seen = self._control.wanted, self._observer
        shown = {stream.source.id: stream.tile for stream in seen.streams}  # before what is counted: it was read then
        config, report = wanted.config, seen.report()
        mosaic, stages = config.mosaic, report["stages"]
        rows = {row["id"]: row for row in report["streams"]}
        return StateAnswer(
            mosaic=MosaicAnswer(
                width=mosaic.width, height=mosaic.height, fps=float(mosaic.fps), codec=config.encoder.codec,
                clock=self._clock,
            ),
            layout=wanted.layout,
            tiles=[
                TileAnswer(tile=i, source=config.sources[t.source].id, title=t.title, x=t.x, y=t.y, width=t.w,
                           height=t.h, z=t.z)
                for i, t in enumerate(numbered_tiles(config))
            ],
            overlay={name: getattr(config.overlay, name) for name in _OVERLAY},
            sources=[
                SourceAnswer(
                    id=source.id, title=source.title, state=now.state.name.lower(), fps=round(now.fps, 1),
                    age_ms=None if now.age_s is None else round(now.age_s * 1000, 1), tracks=row["tracks_now"],
                    failure=mask_uri(row["failure"]) if row["failure"] else None, paused=source.id in wanted.paused,
                    **{key: row[key] for key in ("read", "skipped", "repeated", "dropped", "reconnects", "errors",
                                                 "decoder")},
                )
                for source in config.sources
                for row, now in ((rows[source.id], shown[source.id]),)
            ],
            spare=self._control.spare,
            stages={
                name: StageAnswer(**{key: stage[key] for key in StageAnswer.model_fields})
                for name, stage in stages.items()
            },
            cpu_fallback=report["cpu_fallback"],
            encoder=report["encoder"]["name"],
            encoder_sessions=report["encoder"]["sessions"],
            frames=report["frames"],
            fps=report["fps"],
            dropped_ticks=report["dropped_ticks"],
            latency_p50_ms=report["end_to_end"]["p50_ms"],
            latency_p95_ms=report["end_to_end"]["p95_ms"],
            viewers=len(self._audience.viewers),
            max_viewers=self._max_viewers,
            webrtc=self._webrtc,
            recording=self._recorder.state(),
            clip=self._clip,
            outputs=[
                OutputAnswer(**{key: row[key] for key in OutputAnswer.model_fields})
                for row in report["outputs"]
                if row["state"] != "stopped" or row["error"]
            ],
        )  # fmt: skip

    async def _snapshot(self, request: web.Request, body: None) -> web.Response:
        kind, tile = request.query.get("format", "png"), request.query.get("tile")
        if kind not in ("png", "jpeg"):
            return problem(400, "format: accepted: png, jpeg")
        config, crop, name = self._control.wanted.config, None, "mosaic"
        if tile is not None:
            number, tiles = _number(tile), numbered_tiles(config)
            if number is None:
                return problem(400, "tile: expected a number from 0")
            if number >= len(tiles):
                return problem(404, f"tile {number}: there is none")
            t, mosaic = tiles[number], config.mosaic
            crop = max(0, t.x), max(0, t.y), min(t.x + t.w, mosaic.width), min(t.y + t.h, mosaic.height)
            name = config.sources[t.source].id
        if self._waiting >= 4 or not self._decodes.take(""):
            return problem(429, "too many snapshots: two a second")
        self._waiting += 1
        try:
            make = partial(snapshot, self._audience.group, config.encoder.codec, crop, kind)
            data = await asyncio.get_running_loop().run_in_executor(self._pictures, make)
        except ValueError as error:
            return problem(409, str(error))
        finally:
            self._waiting -= 1
        headers = {"Content-Disposition": f'attachment; filename="{name}.{"jpg" if kind == "jpeg" else kind}"'}
        return web.Response(body=data, content_type=f"image/{kind}", headers=headers)

    # Changing

    async def _layout(self, request: web.Request, body: LayoutRequest) -> web.Response:
        self._control.arrange(body.layout)
        return await self._state(request, None)

    async def _promote(self, request: web.Request, body: None) -> web.Response:
        number = _number(request.match_info["tile"])
        if number is None:
            return problem(400, "tile: expected a number from 0")
        if number >= len(numbered_tiles(self._control.wanted.config)):
            return problem(404, f"tile {number}: there is none")
        self._control.promote(number)
        return await self._state(request, None)

    async def _overlay(self, request: web.Request, body: OverlayRequest) -> web.Response:
        self._control.overlay(**body.model_dump(exclude_none=True))
        return await self._state(request, None)

    async def _source(self, request: web.Request, body: SourceRequest) -> web.Response:
        source = request.match_info["source"]
        if source not in [s.id for s in self._control.wanted.config.sources]:
            return problem(404, "there is no such source")
        if body.label is not None:
            self._control.rename(source, body.label.strip() or None)
        if body.paused is not None:
            self._control.pause(source, body.paused)
        return await self._state(request, None)

    async def _add(self, request: web.Request, body: AddRequest) -> web.Response:
        if not self._moves.take(""):
            return problem(429, _TOO_MANY_MOVES)
        source = added_source(body.id, body.uri, (body.label or "").strip() or None)
        await asyncio.get_running_loop().run_in_executor(self._disk, self._lineup.add, source)
        return await self._state(request, None)

    async def _remove(self, request: web.Request, body: None) -> web.Response:
        source = request.match_info["source"]
        if source not in [s.id for s in self._control.wanted.config.sources]:
            return problem(404, "there is no such source")
        if not self._moves.take(""):
            return problem(429, _TOO_MANY_MOVES)
        await asyncio.get_running_loop().run_in_executor(self._disk, self._lineup.remove, source)
        return await self._state(request, None)

    async def _keyframe(self, request: web.Request, body: None) -> web.Response:
        self._request_keyframe()
        return await self._state(request, None)

    async def _record(self, request: web.Request, body: RecordingRequest) -> web.Response:
        if not self._files.take(""):
            return problem(429, "too many files: one in two seconds")
        change = self._recorder.start if body.recording else self._recorder.stop
        await asyncio.get_running_loop().run_in_executor(self._disk, change)
        return await self._state(request, None)

    async def _save_clip(self, request: web.Request, body: None) -> web.Response:
        if not self._files.take(""):
            return problem(429, "too many files: one in two seconds")
        names = await asyncio.get_running_loop().run_in_executor(self._disk, self._recorder.clip)
        return web.Response(text=ClipAnswer(files=names).model_dump_json(), content_type="application/json")

    # The document

    async def _document(self, request: web.Request) -> web.Response:
        return web.json_response(document(self._operations, self._locked))


def _number(text: str) -> int | None:
    """A tile's number as it stands in a URL; None when it is no such number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_NUMBER else None


def _masked(value: Any) -> Any:
    """Plain data without the secrets of URIs, wherever a text is: after it is JSON, a mask would take quotes along."""
    if isinstance(value, str):
        return mask_uri(value)
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list | tuple) else value
