"""Domain randomisation on the training device: what cameras, codecs, weather and wardrobes do to a picture.

The pictures come from a renderer, real footage does not; a detector that only ever saw rendered texture looks for
it. Each function changes a random share of the batch, chosen by a permutation, so that no call waits for the
device. Images are (N, 3, H, W) float16 in 0..1 and are changed in place.

Style changes that keep edges: random convolutions (RandConv, Xu et al. 2021), replacement of Fourier amplitudes
(FACT, Xu et al. 2021), two different gradings of one picture blended through smooth noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

CALM = 0.3
_LUMA = (0.299, 0.587, 0.114)
_JPEG_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


class Augmenter:
    """All pixel changes, drawing from one generator.

    Args:
        generator: on the training device.
    """

    def __init__(self, generator: torch.Generator):
        self.generator, self.device = generator, generator.device
        index = torch.arange(8, dtype=torch.float32)
        basis = torch.cos((2 * index[None] + 1) * index[:, None] * math.pi / 16) / 2
        basis[0] /= math.sqrt(2)
        self.dct = basis.to(self.device)
        self.quantiser = torch.tensor(_JPEG_LUMA, device=self.device, dtype=torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """Apply everything, in the order light, cloth and lens, then sensor, then codec.

        The first `CALM` of the batch is only graded: the renderer has a camera model of its own, and the network
        shall also see pictures that nothing spoils.
        """
        calm = int(CALM * len(images))
        self.apply(images[:calm], 0.5, lambda part: self.grade(part, 0.6))
        wild = images[calm:]
        steps: tuple[tuple[float, Callable[[Tensor], Tensor]], ...] = (
            (0.12, self.random_convolution),
            (0.10, self.swap_amplitudes),
            (0.30, self.blend_gradings),
            (0.05, self.equalise_locally),
            (0.25, self.add_texture),
            (0.20, self.shade),
            (0.80, self.grade),
            (0.15, self.sharpen),
            (0.18, self.blur),
            (0.08, self.smear),
            (0.20, self.lose_resolution),
            (0.35, self.add_noise),
            (0.40, self.compress),
            (0.03, self.posterise),
        )
        for share, change in steps:
            self.apply(wild, share, change)
        return images

    def apply(self, images: Tensor, share: float, change: Callable[[Tensor], Tensor]) -> None:
        """Run `change` on a random `share` of `images`, clamped to 0..1, in place."""
        count = int(share * len(images) + 0.5)
        if count:
            rows = torch.randperm(len(images), generator=self.generator, device=self.device)[:count]
            images[rows] = change(images[rows]).clamp_(0, 1).to(images.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Random numbers of `shape` in low..high, float32."""
        return torch.rand(*shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers of `shape`."""
        return torch.randn(*shape, generator=self.generator, device=self.device, dtype=dtype)

    def smooth_noise(self, count: int, channels: int, height: int, width: int) -> Tensor:
        """Noise of a random coarseness, each image scaled to about -1..1: (count, channels, height, width)."""
        total = torch.zeros(count, channels, height, width, device=self.device, dtype=torch.float16)
        fall = self.uniform(count, 1, 1, 1, low=0.4, high=1.3)
        for octave in range(6):
            cells = 3 * 2**octave
            grid = self.normal(count, channels, cells, cells * 5 // 3) * fall**octave
            total += F.interpolate(grid.half(), size=(height, width), mode="bilinear")
        return total / total.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-3)

    def colour_matrices(self, count: int, strong: float) -> Tensor:
        """Random hue turn, saturation and channel gains as matrices (count, 3, 3)."""
        luma = torch.tensor(_LUMA, device=self.device)
        grey = luma.expand(3, 3)
        angle = self.normal(count, 1, 1) * 0.35 * strong
        axis = torch.full((3,), 1 / math.sqrt(3), device=self.device)
        x, y, z = axis.tolist()
        cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], device=self.device)
        outer = axis[:, None] * axis[None]
        eye = torch.eye(3, device=self.device)
        turn = eye * angle.cos() + cross * angle.sin() + outer * (1 - angle.cos())
        saturation = (1 + self.normal(count, 1, 1) * 0.45 * strong).clamp(0, 2.2)
        saturation = torch.where(self.uniform(count, 1, 1) < 0.12, torch.zeros_like(saturation), saturation)
        gains = torch.exp(self.normal(count, 3, 1) * 0.1 * strong)
        return (saturation * eye + (1 - saturation) * grey) @ turn * gains

    def grade(self, images: Tensor, strong: float = 1.0) -> Tensor:
        """Exposure, contrast, gamma, haze, hue, saturation and white balance."""
        n = len(images)
        matrix = self.colour_matrices(n, strong).to(images.dtype)
        images = torch.einsum("nij,njhw->nihw", matrix, images).clamp_(0, 1)
        gamma = torch.exp(self.normal(n, 1, 1, 1) * 0.25 * strong).to(images.dtype)
        images = (images + 1e-3).pow(gamma)
        contrast = torch.exp(self.normal(n, 1, 1, 1) * 0.25 * strong).to(images.dtype)
        level = self.uniform(n, 1, 1, 1, low=0.3, high=0.7).to(images.dtype)
        offset = (self.normal(n, 1, 1, 1) * 0.08 * strong).to(images.dtype)
        return (images - level) * contrast + level + offset

    def blend_gradings(self, images: Tensor) -> Tensor:
        """Two gradings of the same picture, parted by smooth noise: figures change colour from part to part."""
        mask = self.smooth_noise(len(images), 1, *images.shape[-2:])
        edge = torch.exp(self.uniform(len(images), 1, 1, 1, low=0.0, high=2.5)).half()
        mask = torch.sigmoid(mask * edge * 3)
        other = self.grade(images, 1.6).clamp_(0, 1)
        return torch.lerp(images, other, mask)

    def random_convolution(self, images: Tensor) -> Tensor:
        """A random 1x1, 3x3 or 5x5 filter bank per image, mixed with the original."""
        n, _, height, width = images.shape
        size = (1, 3, 5)[int(torch.randint(3, (1,)))]
        weight = self.normal(n * 3, 3, size, size) / math.sqrt(3 * size * size)
        flat = images.reshape(1, n * 3, height, width).float()
        changed = F.conv2d(flat - 0.45, weight, padding=size // 2, groups=n).reshape(n, 3, height, width)
        spread = changed.std((2, 3), keepdim=True).clamp_min(1e-3)
        changed = changed / spread * self.uniform(n, 1, 1, 1, low=0.1, high=0.3) + 0.45
        mix = self.uniform(n, 1, 1, 1, low=0.15, high=0.9)
        return torch.lerp(changed, images.float(), mix)

    def swap_amplitudes(self, images: Tensor) -> Tensor:
        """Keep the phase (edges), mix the Fourier amplitude with that of other pictures or of noise."""
        n, _, height, width = images.shape
        own = torch.fft.rfft2(images.float())
        noise = self.smooth_noise(n, 3, height, width).float() * 0.5 + 0.45
        other = torch.where(self.uniform(n, 1, 1, 1) < 0.5, noise, images.float().roll(1, 0))
        amount = self.uniform(n, 1, 1, 1, low=0.1, high=0.8)
        amplitude = torch.lerp(own.abs(), torch.fft.rfft2(other).abs(), amount)
        mixed: Tensor = torch.fft.irfft2(torch.polar(amplitude, own.angle()), s=(height, width))
        return mixed

    def equalise_locally(self, images: Tensor) -> Tensor:
        """Local contrast normalisation, as wide-dynamic-range cameras do."""
        n = len(images)
        small = F.avg_pool2d(images.float(), 8)
        mean = F.avg_pool2d(small, 11, 1, 5, count_include_pad=False)
        spread = (F.avg_pool2d(small.square(), 11, 1, 5, count_include_pad=False) - mean.square()).clamp_min(4e-4)
        mean, spread = (F.interpolate(v, scale_factor=8.0, mode="bilinear") for v in (mean, spread.sqrt()))
        flat = (images.float() - mean) / (spread + 0.08) * 0.16 + 0.3 * mean + 0.32
        return torch.lerp(images.float(), flat, self.uniform(n, 1, 1, 1, low=0.3, high=1.0))

    def add_texture(self, images: Tensor) -> Tensor:
        """Multiply by noise of mixed scales: grain in cloth, stains, foliage shadows."""
        n = len(images)
        noise = self.smooth_noise(n, 1, *images.shape[-2:])
        tint = 1 + self.normal(n, 3, 1, 1).half() * 0.3
        return images * (1 + noise * tint * self.uniform(n, 1, 1, 1, low=0.1, high=0.5).half())

    def shade(self, images: Tensor) -> Tensor:
        """A brightness ramp across the picture or towards its corners, and shadow edges."""
        n, _, height, width = images.shape
        y = torch.linspace(-1, 1, height, device=self.device)[None, None, :, None]
        x = torch.linspace(-1, 1, width, device=self.device)[None, None, None, :]
        angle = self.uniform(n, 1, 1, 1, high=2 * math.pi)
        along = (x - self.normal(n, 1, 1, 1) * 0.4) * angle.cos() + (y - self.normal(n, 1, 1, 1) * 0.4) * angle.sin()
        hard = torch.exp(self.uniform(n, 1, 1, 1, low=-1.0, high=4.0))
        ramp = torch.sigmoid(along * hard)
        corner = (x.square() + y.square()) / 2
        pick = self.uniform(n, 1, 1, 1) < 0.7
        field = torch.where(pick, ramp, corner.expand_as(ramp))
        return images * (1 - field * self.uniform(n, 1, 1, 1, low=0.1, high=0.7)).half()

    def _separable(self, images: Tensor, kernel: Tensor) -> Tensor:
        """Filter rows and columns of each image with its own 1-D kernel (n, k)."""
        n, channels, height, width = images.shape
        size = kernel.shape[1]
        flat = images.reshape(1, n * channels, height, width)
        each = kernel.repeat_interleave(channels, 0).to(images.dtype)
        flat = F.conv2d(F.pad(flat, [size // 2] * 4, mode="replicate"), each[:, None, None], groups=n * channels)
        return F.conv2d(flat, each[:, None, :, None], groups=n * channels).reshape(images.shape)

    def _gaussian(self, images: Tensor, sigma: Tensor, size: int = 9) -> Tensor:
        at = torch.arange(size, device=self.device) - size // 2
        kernel = torch.exp(-0.5 * (at[None] / sigma[:, None]).square())
        return self._separable(images, kernel / kernel.sum(1, keepdim=True))

    def blur(self, images: Tensor) -> Tensor:
        """Defocus."""
        return self._gaussian(images, self.uniform(len(images), low=0.4, high=2.0))

    def sharpen(self, images: Tensor) -> Tensor:
        """Unsharp mask: the bright and dark rims that camera firmware draws around everything."""
        soft = self._gaussian(images, self.uniform(len(images), low=0.6, high=1.6))
        return images + (images - soft) * self.uniform(len(images), 1, 1, 1, low=0.4, high=2.0).half()

    def smear(self, images: Tensor) -> Tensor:
        """Motion blur along a random line."""
        n, channels, height, width = images.shape
        size = 11
        at = torch.arange(size, device=self.device) - size // 2
        angle, reach = self.uniform(n, 1, 1, high=math.pi), self.uniform(n, 1, 1, low=1.0, high=5.0)
        x, y = at[None, None, :], at[None, :, None]
        across = (-x * angle.sin() + y * angle.cos()).abs()
        along = (x * angle.cos() + y * angle.sin()).abs()
        kernel = (1 - across).clamp_min(0) * (along <= reach)
        kernel = (kernel / kernel.sum((1, 2), keepdim=True)).repeat_interleave(channels, 0)[:, None]
        flat = images.reshape(1, n * channels, height, width)
        return F.conv2d(flat, kernel.to(images.dtype), padding=size // 2, groups=n * channels).reshape(images.shape)

    def lose_resolution(self, images: Tensor) -> Tensor:
        """Down and up again: a small camera picture in a large input. Sometimes compressed in between."""
        height, width = images.shape[-2:]
        divisor = (1.33, 1.6, 2.0, 2.5, 3.2)[int(torch.randint(5, (1,)))]
        small = (int(height / divisor) // 8 * 8, int(width / divisor) // 8 * 8)
        low = F.interpolate(images.float(), size=small, mode="area")
        if int(torch.randint(2, (1,))):
            low = self.compress(low)
        mode = ("bilinear", "bicubic")[int(torch.randint(2, (1,)))]
        return F.interpolate(low.float(), size=(height, width), mode=mode)

    def add_noise(self, images: Tensor) -> Tensor:
        """Sensor noise: read and shot noise, white or blotchy, coloured or grey."""
        n, _, height, width = images.shape
        grain = self.normal(n, 3, height, width, dtype=torch.float16)
        if int(torch.randint(2, (1,))):
            half = self.normal(n, 3, height // 2, width // 2, dtype=torch.float16)
            grain = 0.5 * grain + F.interpolate(half, size=(height, width), mode="bilinear")
        grain = torch.where(self.uniform(n, 1, 1, 1) < 0.5, grain[:, :1], grain)
        read, shot = self.uniform(n, 2, 1, 1, 1).square().unbind(1)
        return images + grain * (read * 0.06 + shot * 0.12 * images.clamp_min(0).sqrt()).half()

    def compress(self, images: Tensor) -> Tensor:
        """Block coding: 8x8 DCT of luma and halved chroma, rounded to a random quality's steps."""
        n, _, height, width = images.shape
        images = images.float()
        luma = (images * torch.tensor(_LUMA, device=self.device)[:, None, None]).sum(1, keepdim=True)
        chroma = F.avg_pool2d(images[:, ::2] - luma, 2)
        # Quality 10..80 of the common JPEG scale; the flat part of H.264's tables is near the low end of these.
        quality = self.uniform(n, 1, 1, 1, 1, 1, low=10, high=80)
        steps = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        flat = torch.where(self.uniform(n, 1, 1, 1, 1, 1) < 0.5, self.quantiser.mean() * 0.6, self.quantiser)
        rounded = [self._round_blocks(plane, steps * flat / 255) for plane in (luma, chroma)]
        luma = rounded[0]
        red_blue = F.interpolate(rounded[1], size=(height, width), mode="bilinear") + luma
        red, blue = red_blue[:, :1], red_blue[:, 1:]
        green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
        return torch.cat([red, green, blue], 1)

    def _round_blocks(self, plane: Tensor, step: Tensor) -> Tensor:
        """Quantise the 8x8 DCT of plane (n, c, h, w) with `step` broadcast over (n, c, rows, cols, 8, 8)."""
        n, channels, height, width = plane.shape
        tall, wide = -height % 8, -width % 8
        padded = F.pad(plane, [0, wide, 0, tall], mode="replicate") if tall or wide else plane
        rows, cols = padded.shape[2] // 8, padded.shape[3] // 8
        blocks = padded.reshape(n, channels, rows, 8, cols, 8).transpose(3, 4)
        spectrum = self.dct @ blocks @ self.dct.T
        spectrum = (spectrum / step).round() * step
        restored = (self.dct.T @ spectrum @ self.dct).transpose(3, 4).reshape(n, channels, rows * 8, cols * 8)
        return restored[:, :, :height, :width]

    def posterise(self, images: Tensor) -> Tensor:
        """Few grey levels per channel."""
        levels = self.uniform(len(images), 1, 1, 1, low=5, high=24).half()
        return (images * levels).round() / levels
