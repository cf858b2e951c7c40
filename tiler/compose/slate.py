"""What a tile shows beside its picture: caption, and slate or badge when the picture is not live."""

from __future__ import annotations

from tiler.compose.palette import ALERT, BLACK, DIM, MUTED, SLATE, SLATE_LINE, TEXT, WARNING
from tiler.compose.pen import CAP_HEIGHT, Pen, Rectangle, plate_height, plate_padding
from tiler.types import State

_BADGES = {
    State.STALE: ("STALE", WARNING),
    State.ENDED: ("ENDED", TEXT),
    State.PAUSED: ("PAUSED", TEXT),
}


def draw_caption(pen: Pen, area: Rectangle, title: str, fps: str, size: int) -> None:
    """Title and frame rate on a translucent plate at the top left; what has no room goes, fps first."""
    x0, y0, x1, _ = area
    margin = round(size * 0.5)
    room = x1 - x0 - 2 * margin
    texts = [text for text in (title, fps) if text]
    if len(texts) == 2 and pen.plate_width(texts, size) > room:
        texts = [title]
    if len(texts) == 1:
        texts = [pen.atlas.shorten(texts[0], room - 2 * plate_padding(size), size)]
    if any(texts):
        parts = [(text, TEXT if text != fps else MUTED) for text in texts]
        pen.plate(x0 + margin, y0 + margin, parts, size)


def draw_badge(pen: Pen, picture: Rectangle, area: Rectangle, state: State, size: int) -> None:
    """Dim the last picture and say why in its middle: STALE, ENDED or PAUSED."""
    pen.fill(*picture, BLACK, 128)
    text, colour = _BADGES[state]
    size = size if state is State.STALE else round(size * 1.2)
    cap, pad, height = round(size * CAP_HEIGHT), round(size * 0.6), plate_height(size) + round(size * 0.3)
    width = 2 * pad + cap + round(size * 0.45) + pen.atlas.layout_text(text, size).width
    x, y = (area[0] + area[2] - width) // 2, (area[1] + area[3] - height) // 2
    pen.fill(x, y, x + width, y + height, BLACK, 208)
    icon, baseline = x + pad, y + (height + cap) // 2
    if state is State.PAUSED:
        bar = max(1, round(cap * 0.32))
        pen.fill(icon, baseline - cap, icon + bar, baseline, colour)
        pen.fill(icon + cap - bar, baseline - cap, icon + cap, baseline, colour)
    elif state is State.ENDED:
        pen.fill(icon, baseline - cap, icon + cap, baseline, colour)
    else:
        middle = icon + cap / 2, baseline - cap / 2
        pen.line(*middle, *middle, cap * 0.8, colour)
    pen.text(icon + cap + round(size * 0.45), baseline, text, size, colour)


def draw_slate(pen: Pen, area: Rectangle, state: State, title: str, size: int) -> None:
    """Cover the whole tile: NO SIGNAL, or WAITING for the first picture."""
    x0, y0, x1, y1 = area
    pen.fill(*area, SLATE)
    pen.frame(*area, max(1, size // 12), SLATE_LINE)
    large = round(size * 1.5)
    lost = state is State.NO_SIGNAL
    heading = pen.atlas.shorten("NO SIGNAL" if lost else "WAITING", x1 - x0 - size, large)
    title = pen.atlas.shorten(title, x1 - x0 - size, size)
    icon, space = round(size * 2.2), round(size * 0.9)
    cap, title_cap = round(large * CAP_HEIGHT), round(size * CAP_HEIGHT)
    with_icon = y1 - y0 > icon + cap + title_cap + 4 * space
    height = cap + (space + title_cap) * bool(title) + (icon + space) * with_icon
    centre, y = (x0 + x1) // 2, (y0 + y1 - height) // 2
    if with_icon:
        (_lost_icon if lost else _waiting_icon)(pen, centre - icon // 2, y, icon)
        y += icon + space
    for text, text_size, colour in ((heading, large, TEXT), (title, size, MUTED)):
        y += round(text_size * CAP_HEIGHT)
        pen.text(centre - pen.atlas.layout_text(text, text_size).width // 2, y, text, text_size, colour)
        y += space


def draw_clock(pen: Pen, mosaic: Rectangle, clock: str, size: int) -> None:
    """The time on a translucent plate at the top right of the mosaic."""
    margin = round(size * 0.5)
    x = mosaic[2] - margin - pen.plate_width([clock], size)
    pen.plate(x, mosaic[1] + margin, [(clock, TEXT)], size)


def _lost_icon(pen: Pen, x: int, y: int, side: int) -> None:
    """Four bars of reception, none of them lit, struck through."""
    pitch = side / 4
    for i in range(4):
        left, top = x + round(i * pitch), y + round(side * (3 - i) / 4.6)
        pen.fill(left, top, left + max(2, round(pitch * 0.62)), y + side, DIM)
    pen.line(x, y + side * 0.04, x + side * 0.94, y + side * 0.96, max(2.0, side / 14), ALERT)


def _waiting_icon(pen: Pen, x: int, y: int, side: int) -> None:
    """Three dots."""
    for i in range(3):
        dot = x + side * (0.18 + 0.32 * i), y + side * 0.6
        pen.line(*dot, *dot, side * 0.17, MUTED)
