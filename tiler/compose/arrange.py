"""The arrangements a mosaic can have: rectangles that share out an area, all edges even.

Edges are even because a chroma sample covers two luma pixels each way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tiler.config.models import MosaicConfig
from tiler.errors import InputError

Box = tuple[int, int, int, int]
"""x, y, width, height in mosaic pixels, all even."""

CONTENT = Fraction(16, 9)
"""The shape that nearly every camera delivers; arrangements are chosen to show it large."""


class LayoutError(InputError):
    """A layout that cannot be drawn.

    Attributes:
        key: path of the config key to correct, such as `tiles[2].rect`.
        problem: the message without the key.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def best_grid(count: int, width: int, height: int, gap: int = 0) -> tuple[int, int]:
    """Columns and rows that show `count` 16:9 pictures largest; ties: fewest empty cells, then wide."""

    def merit(columns: int) -> tuple[int, int, int]:
        rows = -(-count // columns)
        cell_w, cell_h = (width - (columns - 1) * gap) / columns, (height - (rows - 1) * gap) / rows
        return round(min(cell_w, cell_h * float(CONTENT))), -(columns * rows - count), columns

    columns = max(range(1, count + 1), key=merit)
    return columns, -(-count // columns)


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns and rows of even cells that fill an area exactly."""

    columns: tuple[tuple[int, int], ...]
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, mosaic: MosaicConfig, count: int) -> Grid:
        x, y, w, h = inner_area(mosaic)
        gap = _up_to_even(mosaic.gap_px)
        if mosaic.grid is None:
            columns, rows = best_grid(count, w, h, gap)
        else:
            columns, rows = mosaic.grid
            if not (1 <= columns <= 64 and 1 <= rows <= 64):
                raise LayoutError("mosaic.grid", f"got {mosaic.grid}; expected [columns, rows], each 1 to 64")
        return cls(_divide(x, w, columns, gap), _divide(y, h, rows, gap))

    def span(self, span: Box, key: str = "mosaic.grid") -> Box:
        """The rectangle of (column, row, columns, rows) cells."""
        column, row, columns, rows = span
        if column + columns > len(self.columns) or row + rows > len(self.rows):
            raise LayoutError(
                key,
                f"column {column + columns - 1}, row {row + rows - 1} is outside the grid of "
                f"{len(self.columns)}x{len(self.rows)}, counted from 0; set mosaic.grid to a larger one",
            )
        (x0, _), (y0, _) = self.columns[column], self.rows[row]
        (xn, w), (yn, h) = self.columns[column + columns - 1], self.rows[row + rows - 1]
        return x0, y0, xn + w - x0, yn + h - y0

    def free(self, count: int, taken: Iterable[Box]) -> list[Box]:
        """The first `count` cells, row by row, that no span covers.

        A last row that is not full stays on the left: columns line up, and no tile moves when a
        camera is added, so people find each camera where it was.
        """
        used = {(c + i, r + j) for c, r, w, h in taken for i in range(w) for j in range(h)}
        every = ((c, r) for r in range(len(self.rows)) for c in range(len(self.columns)))
        cells = [cell for cell in every if cell not in used]
        if count > len(cells):
            raise LayoutError(
                "mosaic.grid",
                f"{len(self.columns)}x{len(self.rows)} has {len(cells)} free cells for {count} tiles",
            )
        return [self.span((c, r, 1, 1)) for c, r in cells[:count]]


def _grid(area: Box, gap: int, count: int) -> list[Box]:
    x, y, w, h = area
    columns, rows = best_grid(count, w, h, gap)
    return Grid(_divide(x, w, columns, gap), _divide(y, h, rows, gap)).free(count, ())


def spotlight(area: Box, mosaic: MosaicConfig, count: int) -> list[Box]:
    """The first tile large at the top left, the rest around it row by row.

    With four or more others on a mosaic of a usual shape: a k x k grid whose corner of
    (k - depth)^2 cells is the large one, 1+5 and 1+7 with depth 1, 1+12 with depth 2, ...: all
    tiles have the mosaic's shape. Otherwise the large one takes one end and a grid the other.
    """
    if count < 2:
        return [area][:count]
    x, y, w, h = area
    gap = _up_to_even(mosaic.gap_px)
    shape, rest = Fraction(w, h), count - 1
    if shape < Fraction(6, 5):
        large = min(even(w / CONTENT), even(h * 0.75))
        return [(x, y, w, large), *_grid((x, y + large + gap, w, h - large - gap), gap, rest)]
    if rest <= 3 or shape > Fraction(12, 5):
        large = even(h * CONTENT if shape > Fraction(12, 5) else (w - gap) * 2 / 3)
        large = min(large, even(w * 0.75))
        return [(x, y, large, h), *_grid((x + large + gap, y, w - large - gap, h), gap, rest)]
    side, depth = next(
        (k, d) for k in range(3, 64) for d in range(1, k // 2 + 1) if k * k - (k - d) ** 2 >= rest
    )
    cells = Grid(_divide(x, w, side, gap), _divide(y, h, side, gap))
    first = (0, 0, side - depth, side - depth)
    return [cells.span(first), *cells.free(rest, [first])]


def pip(area: Box, mosaic: MosaicConfig, count: int) -> list[Box]:
    """The first tile full-size, the rest inset over it: from the bottom right upwards, then leftwards."""
    x, y, w, h = area
    share = next(k for k in range(4, 64) if (k - 1) * (k // 3) >= count - 1)
    inset_w = even(min(w / share, h / share * CONTENT))
    inset_h = even(min(h / share, w / share / CONTENT))
    margin = max(_up_to_even(mosaic.gap_px), even(min(w, h) / 60))
    margin = min(margin, even((h - (share - 1) * inset_h) / share - 1))
    boxes = [area]
    for i in range(count - 1):
        column, row = divmod(i, share - 1)
        left = x + w - (column + 1) * (inset_w + margin)
        boxes.append((left, y + h - (row + 1) * (inset_h + margin), inset_w, inset_h))
    return boxes[:count]


def inner_area(mosaic: MosaicConfig) -> Box:
    """The mosaic within its border."""
    border = _up_to_even(mosaic.border_px)
    w, h = mosaic.width - 2 * border, mosaic.height - 2 * border
    if min(w, h) < 2:
        raise LayoutError(
            "mosaic.border_px",
            f"{mosaic.border_px} leaves no room in {mosaic.width}x{mosaic.height}; "
            f"expected less than {min(mosaic.width, mosaic.height) // 2}",
        )
    return border, border, w, h


def _divide(start: int, length: int, parts: int, gap: int) -> tuple[tuple[int, int], ...]:
    """(start, length) of `parts` even pieces with gaps between them, at most 2 px different."""
    half = (length - (parts - 1) * gap) // 2
    edges = [2 * (half * i // parts) for i in range(parts + 1)]
    return tuple((start + edges[i] + i * gap, edges[i + 1] - edges[i]) for i in range(parts))


def explicit_box(rect: Sequence[int | float], mosaic: MosaicConfig, key: str) -> Box:
    """A `rect` of the config in pixels: integers are pixels, floats fractions; edges to the nearest even."""
    x, y, w, h = (
        value * full if isinstance(value, float) else value
        for value, full in zip(rect, (mosaic.width, mosaic.height) * 2, strict=True)
    )
    if w <= 0 or h <= 0:
        raise LayoutError(key, f"got {list(rect)}; expected a width and height above 0")
    left, top, right, bottom = even(x), even(y), even(x + w), even(y + h)
    if right - left < 2 or bottom - top < 2:
        raise LayoutError(key, f"got {list(rect)}; expected at least 2x2 pixels")
    if max(abs(value) for value in (left, top, right, bottom)) > 32768:
        raise LayoutError(key, f"got {list(rect)}; expected pixels within 32768 of the origin")
    if right <= 0 or bottom <= 0 or left >= mosaic.width or top >= mosaic.height:
        raise LayoutError(key, f"got {list(rect)}: all of it is outside {mosaic.width}x{mosaic.height}")
    return left, top, right - left, bottom - top


def cell_span(cell: Sequence[int], key: str) -> Box:
    if len(cell) == 3 or min(cell) < 0 or min([1, *cell[2:]]) < 1:
        raise LayoutError(
            key,
            f"got {list(cell)}; expected [column, row], counted from 0, or [column, row, columns, rows]",
        )
    column, row, columns, rows = (*cell, 1, 1) if len(cell) == 2 else cell
    return column, row, columns, rows


def even(value: float | Fraction) -> int:
    """The nearest even integer."""
    return 2 * int((value / 2 + Fraction(1, 2)) // 1)


def _up_to_even(value: int) -> int:
    return value + value % 2
