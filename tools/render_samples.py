"""Contact sheets of the sample scenes and of training pictures, to look at after a change.

    python tools/render_samples.py OUT_FOLDER [plaza duo ... training]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tiler.samples import describe, names
from tiler.samples.render import SceneRenderer, render_training_frame

COLUMNS, ROWS = 3, 4


def _sheet(pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]], width: int, height: int) -> Image.Image:
    sheet = Image.new("RGB", (COLUMNS * width, ROWS * height))
    for i, (rgb, boxes, visibility) in enumerate(pictures):
        picture = Image.fromarray(rgb)
        draw = ImageDraw.Draw(picture)
        for box, seen in zip(boxes.tolist(), visibility.tolist(), strict=True):
            draw.rectangle(box, outline=(0, 255, 0) if seen >= 0.3 else (255, 0, 0))
        sheet.paste(picture.resize((width, height)), (i % COLUMNS * width, i // COLUMNS * height))
    return sheet


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or [*names(), "training"]:
        pictures = []
        width, height = 640, 384
        if name == "training":
            seeds = range(COLUMNS * ROWS)
            pictures = [render_training_frame(np.random.default_rng(seed), width, height) for seed in seeds]
        else:
            spec = describe(f"sample://{name}")
            renderer = SceneRenderer(name, (spec.width, spec.height), spec.seconds, spec.seed)
            width, height = spec.width // 3, spec.height // 3
            for i in range(COLUMNS * ROWS):
                truth = renderer.draw(spec.seconds * i / (COLUMNS * ROWS))
                pictures.append((renderer.rgb.copy(), truth.xyxy, truth.visibility))
        _sheet(pictures, width, height).save(out / f"{name}.png")


if __name__ == "__main__":
    main()
