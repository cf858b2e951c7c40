"""Files made of files: the timestamps of the parts lie anywhere, the pictures follow on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from pictures import write
from reading import decode, numbers

WRAP_S = Fraction(2**33, 90_000)


def part(path: Path, at_s: Fraction | int, pictures: int, bf: str = "0") -> Path:
    """A transport stream whose timestamps begin at `at_s`."""
    times = [at_s + Fraction(index, 25) for index in range(pictures)]
    options = {"g": "12", "bf": bf, "crf": "4", "preset": "veryfast"}
    return write(path, pictures, times=times, options=options, mux={"mpegts_copyts": "1"})


@pytest.mark.parametrize(("first_s", "second_s"), [(3600, 1), (1, 3600), (3600, 3570), (1, 5)])
@pytest.mark.parametrize("start", [0, 5, 45])
def test_parts_of_a_transport_stream_follow_on(tmp_path: Path, first_s: int, second_s: int, start: int) -> None:
    parts = [part(tmp_path / f"{at_s}.ts", at_s, 40) for at_s in (first_s, second_s)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(each.read_bytes() for each in parts))
    gap = round((second_s - first_s - 1.6) * 25) if 0 < second_s - first_s < 10 else 0
    frames = decode(path, start_s=(start + (gap if start >= 40 else 0)) / 25)
    assert numbers(frames) == [*range(40), *range(40)][start:]
    places = [index + (gap if index >= 40 else 0) for index in range(start, 80)]
    assert [frame.pts for frame in frames] == [3600 * (place - places[0]) for place in places]


@pytest.mark.parametrize("bf", ["0", "3"])
@pytest.mark.parametrize("before", [1, 4, 50])
@pytest.mark.parametrize("start", [0, 75])
def test_a_clock_of_33_bits_that_begins_again_is_no_joint(tmp_path: Path, bf: str, before: int, start: int) -> None:
    path = part(tmp_path / "a.ts", WRAP_S - Fraction(before, 25), 100, bf)
    frames = decode(path, start_s=start / 25)
    assert numbers(frames) == list(range(start, 100))
    assert [frame.pts for frame in frames] == [3600 * index for index in range(100 - start)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_long_gap_stays_where_timestamps_do_not_begin_anew(tmp_path: Path, suffix: str) -> None:
    times = [Fraction(0), Fraction(1), Fraction(3601), Fraction(3602)]
    frames = decode(write(tmp_path / f"a.{suffix}", 4, times=times))
    assert [frame.pts for frame in frames] == [int(time * 90_000) for time in times]
