"""What the lens, the sensor and a recorder do to a picture, and RGB to limited-range BT.709.

Kernels work in uint8 with fixed-point or float64 arithmetic: the same on every machine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

UInt8 = npt.NDArray[np.uint8]


@njit(nogil=True, cache=True, error_model="numpy")
def convolve(rgb: Any, out: Any, dx: Any, dy: Any, weights: Any) -> None:
    """out = sum of weights[i] / 256 * rgb shifted by dx[i], dy[i]; integer weights, edges repeat."""
    height, width = rgb.shape[0], rgb.shape[1]
    taps = dx.shape[0]
    for y in range(height):
        for x in range(width):
            a, b, c = 128, 128, 128
            for i in range(taps):
                sy = min(height - 1, max(0, y + dy[i]))
                sx = min(width - 1, max(0, x + dx[i]))
                w = weights[i]
                a += w * rgb[sy, sx, 0]
                b += w * rgb[sy, sx, 1]
                c += w * rgb[sy, sx, 2]
            out[y, x, 0] = a >> 8
            out[y, x, 1] = b >> 8
            out[y, x, 2] = c >> 8


def _integer_weights(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    scaled = np.floor(weights / weights.sum() * 256 + 0.5).astype(np.int64)
    scaled[len(scaled) // 2] += 256 - scaled.sum()
    return np.asarray(scaled)


def blur(rgb: UInt8, sigma: float) -> UInt8:
    """Gaussian blur, separable, of a (H, W, 3) picture."""
    radius = max(1, math.ceil(2.2 * sigma))
    at = np.arange(-radius, radius + 1)
    weights = _integer_weights(np.exp(-0.5 * (at / sigma) ** 2))
    still = np.zeros_like(at)
    first, second = np.empty_like(rgb), np.empty_like(rgb)
    convolve(rgb, first, at, still, weights)
    convolve(first, second, still, at, weights)
    return second


def motion_blur(rgb: UInt8, length: float, angle: float) -> UInt8:
    """Average along a line of `length` px at `angle` radians."""
    taps = max(3, round(length) | 1)
    at = np.linspace(-length / 2, length / 2, taps)
    out = np.empty_like(rgb)
    convolve(rgb, out, np.rint(at * math.cos(angle)).astype(np.int64),
             np.rint(at * math.sin(angle)).astype(np.int64),
             _integer_weights(np.ones(taps)))  # fmt: skip
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def finish(rgb: Any, curve: Any, matrix: Any, vignette: float, noise: Any, amount: float, chroma: float,
           ox: int, oy: int) -> None:  # fmt: skip
    """In place: colour matrix, tone curve (256,), vignette and sensor noise.

    noise (512, 512) float32 of unit deviation, `amount` in levels at mid grey; `chroma`
    is the share of it that differs between the channels.
    """
    height, width = rgb.shape[0], rgb.shape[1]
    cx, cy = 0.5 * width, 0.5 * height
    far = 1.0 / (cx * cx + cy * cy)
    for y in range(height):
        for x in range(width):
            edge = 1.0 - vignette * ((x - cx) * (x - cx) + (y - cy) * (y - cy)) * far
            red, green, blue = float(rgb[y, x, 0]), float(rgb[y, x, 1]), float(rgb[y, x, 2])
            grain = amount * noise[(y + oy) & 511, (x + ox) & 511]
            for c in range(3):
                value = (matrix[c, 0] * red + matrix[c, 1] * green + matrix[c, 2] * blue) * edge
                value = curve[int(min(255.0, max(0.0, value)))]
                value += grain + amount * chroma * noise[(y + oy + 171 * c) & 511, (x + ox + 89 * c) & 511]
                rgb[y, x, c] = np.uint8(min(255.0, max(0.0, value + 0.5)))


def _dct_matrix() -> npt.NDArray[np.float64]:
    k = np.arange(8)
    matrix = np.sqrt(2 / 8) * np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / 16)
    matrix[0] /= math.sqrt(2)
    return np.asarray(np.ascontiguousarray(matrix))


_DCT = _dct_matrix()


@njit(nogil=True, cache=True, error_model="numpy")
def _compress(rgb: Any, dct: Any, step: float) -> None:
    height, width = rgb.shape[0], rgb.shape[1]
    block, half = np.empty((8, 8)), np.empty((8, 8))
    for by in range(0, height - 7, 8):
        for bx in range(0, width - 7, 8):
            for i in range(8):
                for j in range(8):
                    red, green, blue = rgb[by + i, bx + j, 0], rgb[by + i, bx + j, 1], rgb[by + i, bx + j, 2]
                    block[i, j] = 0.299 * red + 0.587 * green + 0.114 * blue
            for i in range(8):
                for j in range(8):
                    s = 0.0
                    for k in range(8):
                        s += dct[i, k] * block[k, j]
                    half[i, j] = s
            for i in range(8):
                for j in range(8):
                    s = 0.0
                    for k in range(8):
                        s += half[i, k] * dct[j, k]
                    q = step * (1.0 + 0.5 * (i + j))
                    kept = math.floor(s / q + 0.5) * q
                    block[i, j] = kept - s
            for i in range(8):
                for j in range(8):
                    s = 0.0
                    for k in range(8):
                        s += dct[k, i] * block[k, j]
                    half[i, j] = s
            for i in range(8):
                for j in range(8):
                    s = 0.0
                    for k in range(8):
                        s += half[i, k] * dct[k, j]
                    for c in range(3):
                        rgb[by + i, bx + j, c] = np.uint8(min(255.0, max(0.0, rgb[by + i, bx + j,
                            c] + s + 0.5)))


def compress(rgb: UInt8, step: float) -> None:
    """In place: quantise the luma of 8x8 blocks as a hard-pressed recorder would."""
    _compress(rgb, _DCT, step)


def unit_noise() -> npt.NDArray[np.float32]:
    """(512, 512) float32 noise of unit deviation, slightly smooth, as after a camera's demosaicing."""
    noise = np.random.default_rng(77001).normal(0, 1, (512, 512))
    noise = noise + 0.5 * np.roll(noise, 1, 1) + 0.4 * np.roll(noise, 1, 0)
    return np.asarray(noise / noise.std(), np.float32)


NOISE = unit_noise()


@njit(nogil=True, cache=True, error_model="numpy")
def to_yuv(rgb: Any, y_plane: Any, u_plane: Any, v_plane: Any, vignette: float, tiles: Any,
           side: int) -> None:
    """RGB to 4:2:0 BT.709 limited range in 16-bit fixed point, darker to the corners.

    Only where `tiles` (one bool a block of side x side) is set; width and height are even.
    """
    height, width = rgb.shape[0], rgb.shape[1]
    cx, cy = 0.5 * width, 0.5 * height
    far = 1.0 / (cx * cx + cy * cy)
    for tj in range(tiles.shape[0]):
        for ti in range(tiles.shape[1]):
            if not tiles[tj, ti]:
                continue
            for y in range(tj * side, min(height, (tj + 1) * side), 2):
                for x in range(ti * side, min(width, (ti + 1) * side), 2):
                    edge = int(256.0 * (1.0 - vignette * ((x - cx) * (x - cx) + (y - cy) * (y - cy)) * far))
                    cb, cr = 0, 0
                    for j in range(2):
                        for i in range(2):
                            red = (int(rgb[y + j, x + i, 0]) * edge) >> 8
                            green = (int(rgb[y + j, x + i, 1]) * edge) >> 8
                            blue = (int(rgb[y + j, x + i, 2]) * edge) >> 8
                            y_plane[y + j,
                                    x + i] = (11966 * red + 40254 * green + 4064 * blue + 1081344) >> 16
                            cb += -6596 * red - 22189 * green + 28785 * blue
                            cr += 28785 * red - 26145 * green - 2640 * blue
                    u_plane[y >> 1, x >> 1] = (cb + (128 << 18) + (1 << 17)) >> 18
                    v_plane[y >> 1, x >> 1] = (cr + (128 << 18) + (1 << 17)) >> 18


@njit(nogil=True, cache=True, error_model="numpy")
def add_luma_noise(source: Any, out: Any, noise: Any, ox: int, oy: int) -> None:
    """out = source + noise from row oy, column ox; noise is int8 (512, >= W + 512) and repeats downwards."""
    height, width = source.shape
    for y in range(height):
        line = noise[(y + oy) & 511, ox : ox + width]
        for x in range(width):
            value = np.int16(source[y, x]) + np.int16(line[x])
            out[y, x] = min(np.int16(235), max(np.int16(16), value))
