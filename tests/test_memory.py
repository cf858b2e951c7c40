"""The plan of GPU memory: counted before a run, refused over the cap, with what to change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.config.models import Config, MosaicConfig, PreviewConfig, Source
from tiler.engines.registry import load_model
from tiler.errors import InputError
from tiler.memory import SURFACES, Picture, plan_memory, surface_bytes

GB = 1 << 30


def config(streams: int, **keys: object) -> Config:
    return Config(sources=[Source(id=f"s{i}", uri="x") for i in range(streams)], **keys)  # type: ignore[arg-type]


@given(st.integers(1, 64), st.integers(2, 4096), st.integers(2, 2304))
def test_more_streams_take_more_and_the_sum_is_what_is_listed(streams: int, width: int, height: int) -> None:
    few = plan_memory(config(streams), [Picture(width, height)] * streams, None, 24 * GB)
    more = plan_memory(config(streams), [Picture(width, height)] * (streams + 1), None, 24 * GB)
    assert few.needed_bytes == sum(size for _, size in few.items)
    assert more.needed_bytes - few.needed_bytes >= SURFACES * surface_bytes(width, height)


def test_a_detector_takes_memory_and_the_lines_say_how_much() -> None:
    model = load_model("person-nano", Path())
    plain = plan_memory(config(4), [Picture(1920, 1080)] * 4, None, 24 * GB)
    detecting = plan_memory(config(4), [Picture(1920, 1080)] * 4, model, 24 * GB)
    assert detecting.needed_bytes > plain.needed_bytes
    assert any("detector's weights" in line for line in detecting.render())
    assert detecting.render()[-1].endswith("of the GPU's 25.8 GB (at most 70%)")


def test_ten_bits_take_twice_as_much() -> None:
    eight, ten = (plan_memory(config(1), [Picture(640, 360, deep)], None, 8 * GB) for deep in (False, True))
    assert ten.needed_bytes - eight.needed_bytes >= SURFACES * surface_bytes(640, 360)


def test_a_plan_over_the_cap_is_refused_with_what_takes_most_and_what_to_change() -> None:
    wide = config(32, vram_fraction=0.5)
    plan = plan_memory(wide, [Picture(3840, 2160)] * 32, None, 8 * GB)
    with pytest.raises(InputError) as refused:
        plan.check(wide)
    message = str(refused.value)
    assert "may take 4295 MB (50% of 8.6 GB)" in message
    assert f"most of it: decoded pictures ({SURFACES} a stream)" in message or "decoders' own pictures" in message
    assert message.endswith("Change: fewer or smaller sources")  # 75 % would not do


ADVICE = {
    "the share": (config(1, vram_fraction=0.05), None, 8 * GB, "a smaller mosaic, vram_fraction up to 0.75"),
    "the mosaic": (config(1, mosaic=MosaicConfig(width=7680, height=4320)), None, 3 << 29, "a smaller mosaic"),
    "processes": (config(16, decode_processes=8), None, 8 * GB, "decode_processes: 0, vram_fraction up to 0.75"),
    "spare places": (config(1, preview=PreviewConfig(spare_sources=31)), None, GB, "fewer preview.spare_sources"),
    "the detector": (config(32), "person-small", 2 * GB, "fewer or smaller sources, a smaller detector.model"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_the_advice_is_for_what_takes_the_memory(name: str) -> None:
    asked, model, total, advice = ADVICE[name]
    spec = load_model(model, Path()) if model else None
    plan = plan_memory(asked, [Picture(640, 360)] * len(asked.sources), spec, total)
    with pytest.raises(InputError, match=re.escape(f"Change: {advice}") + "$"):
        plan.check(asked)


def test_an_image_takes_its_picture_and_no_decoder() -> None:
    logo = Picture(8000, 6000, still=True)
    without, plan = (plan_memory(config(n), [logo] * n, None, 8 * GB) for n in (1, 2))
    assert plan.needed_bytes - without.needed_bytes == 2 * surface_bytes(8000, 6000)


def test_activations_are_in_the_pool_from_which_tensorrt_takes_them() -> None:
    asked, pictures = config(16), [Picture(640, 360)] * 16
    plan = plan_memory(asked, pictures, load_model("person-small", Path()), 4 * GB)
    sizes = dict(plan.items)
    inside = sizes["detector's activations"] + sum(
        size for name, size in plan.items if name.startswith(("decoded", "mosaics", "detector's input", "candidate"))
    )
    assert plan.pool_bytes >= inside


def test_a_plan_within_the_cap_leaves_the_pool_what_is_not_taken_outside_it() -> None:
    small = config(2, mosaic=MosaicConfig(width=1280, height=720))
    plan = plan_memory(small, [Picture(1280, 720), None], None, 8 * GB)
    plan.check(small)
    assert 0 < plan.pool_bytes < plan.cap_bytes


def test_a_spare_place_takes_what_a_source_takes_that_nobody_knows() -> None:
    model = load_model("person-nano", Path())
    spare = config(2, preview=PreviewConfig(spare_sources=3))
    plan = plan_memory(spare, [Picture(640, 360)] * 2, model, 24 * GB)
    assert plan == plan_memory(config(5), [Picture(640, 360)] * 2 + [None] * 3, model, 24 * GB)


def test_the_cap_itself_is_capped() -> None:
    with pytest.raises(ValueError, match=r"less than or equal to 0\.75"):
        config(1, vram_fraction=0.9)


def test_pictures_that_are_decoded_small_take_less_but_their_decoders_do_not() -> None:
    large, small = (
        dict(plan_memory(config(1), [Picture(1920, 1080, False, size)], None, 8 * GB).items)
        for size in (None, (640, 360))
    )
    pictures = f"decoded pictures ({SURFACES} a stream)"
    assert small.pop(pictures) == SURFACES * surface_bytes(640, 360)
    assert large.pop(pictures) == SURFACES * surface_bytes(1920, 1080)
    assert small == large


def test_processes_that_decode_are_planned_for_unless_the_run_keeps_to_a_clock() -> None:
    pictures = [Picture(1920, 1080)] * 3
    inside, outside = (plan_memory(config(3, decode_processes=count), pictures, None, 24 * GB) for count in (0, 8))
    context = outside.needed_bytes - inside.needed_bytes
    assert context % 3 == 0
    assert context > 0
    surfaces = 3 * SURFACES * surface_bytes(1920, 1080)
    assert inside.pool_bytes - outside.pool_bytes == context + surfaces
    assert any("processes that decode" in line for line in outside.render())
    live = Config(sources=[Source(id="a", uri="rtsp://camera/1")], decode_processes=8)
    assert not any("processes" in name for name, _ in plan_memory(live, [None], None, 24 * GB).items)


@pytest.mark.parametrize(("streams", "ticks"), [(1, 4), (8, 4), (10, 3), (12, 2), (16, 2), (17, 1), (32, 1)])
def test_a_run_without_a_clock_detects_some_ticks_at_once(streams: int, ticks: int) -> None:
    model, pictures = load_model("person-nano", Path()), [Picture(1920, 1080)] * streams
    assert plan_memory(config(streams), pictures, model, 141 * GB).batch_ticks == ticks
    live = Config(sources=[Source(id=f"s{i}", uri="x", realtime=True) for i in range(streams)])
    assert plan_memory(live, pictures, model, 141 * GB).batch_ticks == 1


def test_as_many_ticks_are_in_a_batch_as_there_is_room_for() -> None:
    model, pictures = load_model("person-nano", Path()), [Picture(1920, 1080)] * 8
    plans = [plan_memory(config(8), pictures, model, size << 28) for size in range(8, 64)]
    assert [plan.batch_ticks for plan in plans] == sorted(plan.batch_ticks for plan in plans)
    assert {plan.batch_ticks for plan in plans} == {1, 2, 3, 4}
    assert all(plan.needed_bytes <= plan.cap_bytes for plan in plans if plan.batch_ticks > 1)
