"""How wide a sample is: what is coded says so, unless the container does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from pictures import write
from reading import decode


def test_sample_aspect(tmp_path: Path) -> None:
    (frame,) = decode(write(tmp_path / "a.mkv", 1, sample_aspect=Fraction(16, 11)))
    assert frame.sample_aspect == Fraction(16, 11)


def test_sample_aspect_changes_with_the_stream(tmp_path: Path) -> None:
    """DVB switches between 4:3 and 16:9 with the programme, at the same size in samples."""
    path, aspects = tmp_path / "a.ts", (Fraction(16, 15), Fraction(64, 45), None)
    for aspect in aspects:
        part = write(tmp_path / "part.ts", 10, sample_aspect=aspect, options={"bf": "0"})
        with path.open("ab") as joined:
            joined.write(part.read_bytes())
    found = [frame.sample_aspect for frame in decode(path)]
    assert found[5::10] == [Fraction(16, 15), Fraction(64, 45), Fraction(1)]


def test_sample_aspect_of_a_container_overrules_what_is_coded(tmp_path: Path) -> None:
    coded, path = write(tmp_path / "a.ts", 5, sample_aspect=Fraction(16, 15)), tmp_path / "a.mp4"
    with av.open(str(coded)) as container, av.open(str(path), "w") as out:
        video = container.streams.video[0]
        stream = out.add_stream_from_template(video)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for packet in container.demux(video):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert {frame.sample_aspect for frame in decode(path)} == {Fraction(4, 3)}
