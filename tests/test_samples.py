"""Sample scenes: reproducible pictures, truthful boxes, lasting identities, a safe cache."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from tiler import samples
from tiler.errors import InputError
from tiler.samples.render import SceneRenderer, Truth, render_training_frame

SIZE = (320, 180)
TINY = "sample://duo?seconds=0.4&size=128x72"


def _planes(renderer: SceneRenderer, frame: int) -> list[np.ndarray]:
    width, height = SIZE
    planes = [np.zeros((height // k, width // k), np.uint8) for k in (1, 2, 2)]
    renderer.write(frame, *planes)
    return planes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILER_CACHE", str(tmp_path))
    return tmp_path / "samples"


@pytest.mark.parametrize("name", samples.names())
def test_a_frame_is_the_same_whatever_was_drawn_before(name: str) -> None:
    first, second = (SceneRenderer(name, SIZE, 2.0, 3) for _ in range(2))
    for t in (0.1, 1.0, 1.7):
        first.draw(t)
    seen, again = first.draw(1.2), second.draw(1.2)
    assert len(seen.number) >= 1
    for a, b in zip(_planes(first, 5), _planes(second, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(seen.xyxy, again.xyxy)
    assert not np.array_equal(_planes(first, 5)[0], _planes(first, 6)[0]), "sensor noise must change"


def _check_against_pixels(renderer: SceneRenderer, truth: Truth) -> int:
    """Compare each wholly visible person's box with the pixels that show them; returns how many."""
    width, height = SIZE
    checked = 0
    for number, box, seen in zip(*truth, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        ys, xs = np.nonzero(renderer.shown == number)
        if seen == 0:
            assert len(xs) == 0
            continue
        assert x0 <= xs.min() <= xs.max() < x1
        assert y0 <= ys.min() <= ys.max() < y1
        if seen == 1.0:
            assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
            checked += 1
    return checked


def test_ground_truth_agrees_with_the_pixels() -> None:
    renderer = SceneRenderer("plaza", SIZE, 6.0, 1)
    checked = sum(_check_against_pixels(renderer, renderer.draw(float(t))) for t in range(5))
    assert checked >= 15


def test_who_is_behind_another_is_less_visible() -> None:
    renderer = SceneRenderer("duo", SIZE, 6.0, 1)
    found = [renderer.draw(float(t)) for t in np.arange(0.0, 6.0, 0.1)]
    both = [truth.visibility for truth in found if len(truth.number) == 2]
    assert any(seen.min() < 0.6 and seen.max() > 0.9 for seen in both)


@pytest.mark.parametrize("seed", [0, 5])
def test_people_of_duo_come_back_as_themselves(seed: int) -> None:
    renderer = SceneRenderer("duo", (160, 90), 16.0, seed)
    present = [set(renderer.draw(float(t)).number.tolist()) for t in np.arange(0.0, 16.0, 0.2)]
    assert set().union(*present) == {1, 2}
    for number in (1, 2):
        stays = "".join("x" if number in now else " " for now in present).split()
        assert len(stays) >= 2, f"person {number} should leave and return"


def test_other_seeds_give_other_people() -> None:
    pictures = []
    for seed in (1, 2):
        renderer = SceneRenderer("duo", SIZE, 4.0, seed)
        renderer.draw(0.8)
        pictures.append(renderer.rgb.copy())
    assert not np.array_equal(*pictures)


def test_training_frames_follow_from_the_generator_alone() -> None:
    for seed in range(8):
        rgb, boxes, visibility = render_training_frame(np.random.default_rng(seed), 320, 192)
        again = render_training_frame(np.random.default_rng(seed), 320, 192)
        np.testing.assert_array_equal(rgb, again[0])
        np.testing.assert_array_equal(boxes, again[1])
        assert rgb.shape == (192, 320, 3)
        assert rgb.dtype == np.uint8
        assert boxes.shape == (len(visibility), 4)
        assert boxes.dtype == visibility.dtype == np.float32
        assert ((visibility > 0) & (visibility <= 1)).all()
        if len(boxes):
            assert boxes.min() >= 0
            assert boxes[:, [0, 2]].max() <= 320
            assert boxes[:, [1, 3]].max() <= 192
            assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_training_needs_neither_codec_nor_config() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('av', 'pydantic', 'PIL'))); "
        "from tiler.samples.render import render_training_frame"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file://plaza", "expected sample://NAME"),
        ("sample://plazza", r"did you mean sample://plaza\?"),
        ("sample://", "plaza, duo, corridor, night, crowd"),
        ("sample://duo?sed=3", r"unknown parameter 'sed'; did you mean seed\?"),
        ("sample://duo?seed=-1", "seed is '-1'; accepted are seed=0..2147483647"),
        ("sample://duo?seconds=nan", "seconds is 'nan'; accepted are .*seconds=0.1..600"),
        ("sample://duo?size=641x360", "size is '641x360'; accepted are .*even, 64..4096"),
        ("sample://duo?size=640", "size is '640'"),
    ],
)
def test_a_bad_uri_says_what_is_accepted(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples.describe(uri)


def test_describe_reads_the_parameters() -> None:
    spec = samples.describe("sample://night?seed=7&seconds=4&size=640x360")
    assert (spec.width, spec.height, spec.seed, spec.frames, spec.codec) == (640, 360, 7, 60, "h264")
    assert samples.describe("sample://crowd").codec == "hevc"


def test_a_sample_is_rendered_once(cache: Path) -> None:
    done: list[float] = []
    sample = samples.resolve(TINY, progress=lambda uri, share: done.append(share))
    assert done == sorted(done)
    assert done[-1] == 1.0
    before = os.stat(sample.path).st_mtime_ns
    assert samples.resolve(TINY, progress=lambda uri, share: pytest.fail("rendered again")) == sample
    assert os.stat(sample.path).st_mtime_ns == before
    assert set(cache.iterdir()) == {sample.path, sample.ground_truth}
    assert samples.resolve(TINY + "&seed=1").path != sample.path


def test_the_video_is_what_was_described(cache: Path) -> None:
    sample = samples.resolve(TINY)
    with av.open(str(sample.path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate == 25
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height, len(frames)) == (128, 72, 10)
        assert int(frames[0].colorspace) == 1
        assert int(frames[0].color_range) == 1
    rows = np.loadtxt(sample.ground_truth, delimiter=",", ndmin=2)
    assert rows.shape[1] == 9
    assert set(rows[:, 0]) == set(range(1, 11))
    assert (rows[:, 4:6] >= 1).all()


def test_a_torn_cache_is_mended(cache: Path) -> None:
    sample = samples.resolve(TINY)
    sample.ground_truth.unlink()
    assert samples.resolve(TINY).ground_truth.is_file()


def test_two_at_once_both_get_the_whole_file(cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(samples.resolve, (TINY, TINY))
    assert first == second
    with av.open(str(first.path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    monkeypatch.setenv("TILER_CACHE", str(blocker))
    with pytest.raises(InputError, match=r"cannot write the sample to .*file.samples.*set TILER_CACHE"):
        samples.resolve(TINY)


def test_a_cache_that_may_not_be_entered_is_named(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILER_CACHE", str(closed))
    with pytest.raises(InputError, match=r"cannot write the sample to .*closed.samples: Permission denied; set TILER_"):
        samples.resolve(TINY)
