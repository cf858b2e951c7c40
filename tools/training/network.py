"""The person detector: a plain-convolution backbone, a small path-aggregation neck and three heads.

Every 3x3 convolution is trained as three parallel branches (3x3, 1x1, identity, each with its batch
normalisation) and folded into one convolution with a bias before export (RepVGG, Ding et al. 2021). After
folding the graph holds only Conv, Relu, MaxPool, Resize, Concat, Sigmoid and layout operators: the ones that CPU
runtimes and TensorRT run fastest.

Heads are anchor-free, one anchor per cell at strides 8, 16 and 32 (YOLOX, Ge et al. 2021): a cell predicts the
box centre relative to its own corner and the logarithm of the box size, both in units of its stride.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
INPUT_HEIGHT, INPUT_WIDTH = 384, 640
PRIOR_SCORE = 0.01
"""Score of every anchor before training: keeps the first losses small (Lin et al. 2017, section 3.3)."""


class RepConv(nn.Module):
    """Convolution + batch normalisation (+ ReLU), with extra linear branches while training.

    Args:
        channels_in, channels_out: numbers of channels.
        kernel: 1 or 3; a kernel of 3 also gets a 1x1 branch, and an identity branch where shapes allow.
        stride: 1 or 2.
        relu: apply ReLU at the end.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, relu: bool = True):
        super().__init__()
        self.stride, self.kernel, self.relu = stride, kernel, relu
        self.convs = nn.ModuleList(
            nn.Conv2d(channels_in, channels_out, k, stride, k // 2, bias=False)
            for k in ((kernel,) if kernel == 1 else (kernel, 1))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.03) for _ in self.convs)
        identity = kernel == 3 and stride == 1 and channels_in == channels_out
        self.identity = nn.BatchNorm2d(channels_in, eps=1e-3, momentum=0.03) if identity else None
        self.folded: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is not None:
            y = self.folded(x)
        else:
            y = self.norms[0](self.convs[0](x))
            for conv, norm in zip(self.convs[1:], self.norms[1:], strict=True):
                y = y + norm(conv(x))
            if self.identity is not None:
                y = y + self.identity(x)
        return F.relu(y, inplace=self.folded is None) if self.relu else y

    def fold(self) -> None:
        """Replace the branches by the one convolution that computes the same function; once."""
        if self.folded is not None:
            return
        first = self.convs[0]
        weight = torch.zeros_like(first.weight, dtype=torch.float64)
        bias = torch.zeros(first.out_channels, dtype=torch.float64)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            margin = (self.kernel - conv.kernel_size[0]) // 2
            weight += F.pad(conv.weight.double() * gain[:, None, None, None], [margin] * 4)
            bias += norm.bias.double() - norm.running_mean.double() * gain
        if self.identity is not None:
            norm = self.identity
            gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            centre = self.kernel // 2
            weight[:, :, centre, centre] += torch.diag(gain)
            bias += norm.bias.double() - norm.running_mean.double() * gain
        folded = nn.Conv2d(first.in_channels, first.out_channels, self.kernel, self.stride, self.kernel // 2, bias=True)
        folded.weight.data, folded.bias.data = weight.float(), bias.float()
        self.folded, self.identity = folded, None
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()


class SplitStage(nn.Module):
    """Cross-stage partial block: one half passes, the other goes through `depth` 3x3 convolutions.

    Every intermediate result joins the concatenation, so that gradients reach each convolution directly.
    """

    def __init__(self, channels_in: int, channels_out: int, depth: int, pool: bool = False):
        super().__init__()
        half = channels_out // 2
        self.enter = RepConv(channels_in, half, 1)
        self.bypass = RepConv(channels_in, half, 1)
        self.blocks = nn.ModuleList(RepConv(half, half) for _ in range(depth))
        self.pool = pool
        self.leave = RepConv(half * (2 + depth + (2 if pool else 0)), channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.bypass(x), self.enter(x)]
        for block in self.blocks:
            parts.append(block(parts[-1]))
        if self.pool:  # wide context at stride 32, almost free
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.leave(torch.cat(parts, 1))


class Head(nn.Module):
    """Decoupled prediction for one level: (N, C, h, w) -> box (N, 4, h, w) and score logit (N, 1, h, w)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.box_tower = RepConv(channels, width)
        self.score_tower = RepConv(channels, width)
        self.box = nn.Conv2d(width, 4, 1)
        self.score = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.box.weight, std=0.01)
        nn.init.constant_(self.box.bias, 0.5)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.constant_(self.score.bias, -float(torch.log(torch.tensor(1 / PRIOR_SCORE - 1))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.box(self.box_tower(x)), self.score(self.score_tower(x))


class PersonDetector(nn.Module):
    """RGB in [0, 1], (N, 3, 384, 640) -> (N, 5040, 5): centre offset, log size, score logit.

    In training and `eval` alike column 4 is a logit; the exported graph ends with its sigmoid
    (`probabilities=True`). Anchors come in the order stride 8, 16, 32, row by row.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128, 192), neck: int = 64, head: int = 48):
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.probabilities = False
        self.stem = RepConv(3, c2, 3, 2)
        self.stage4 = nn.Sequential(RepConv(c2, c4, 3, 2), SplitStage(c4, c4, 1))
        self.stage8 = nn.Sequential(RepConv(c4, c8, 3, 2), SplitStage(c8, c8, 2))
        self.stage16 = nn.Sequential(RepConv(c8, c16, 3, 2), SplitStage(c16, c16, 3))
        self.stage32 = nn.Sequential(RepConv(c16, c32, 3, 2), SplitStage(c32, c32, 2, pool=True))
        self.lateral32 = RepConv(c32, neck, 1)
        self.down16 = SplitStage(neck + c16, neck, 1)
        self.lateral16 = RepConv(neck, neck, 1)
        self.down8 = SplitStage(neck + c8, neck, 1)
        self.up16 = RepConv(neck, neck, 3, 2)
        self.out16 = SplitStage(2 * neck, 2 * neck, 1)
        self.up32 = RepConv(2 * neck, neck, 3, 2)
        self.out32 = SplitStage(2 * neck, 2 * neck, 2)
        self.heads = nn.ModuleList([Head(neck, head), Head(2 * neck, head), Head(2 * neck, head)])

    def forward(self, images: Tensor) -> Tensor:
        f8 = self.stage8(self.stage4(self.stem(images)))
        f16 = self.stage16(f8)
        p32 = self.lateral32(self.stage32(f16))
        p16 = self.lateral16(self.down16(torch.cat([F.interpolate(p32, scale_factor=2.0), f16], 1)))
        n8 = self.down8(torch.cat([F.interpolate(p16, scale_factor=2.0), f8], 1))
        n16 = self.out16(torch.cat([self.up16(n8), p16], 1))
        n32 = self.out32(torch.cat([self.up32(n16), p32], 1))
        levels = []
        for head, feature, stride in zip(self.heads, (n8, n16, n32), STRIDES, strict=True):
            box, score = head(feature)
            if self.probabilities:
                score = torch.sigmoid(score)
            cells = (INPUT_HEIGHT // stride) * (INPUT_WIDTH // stride)
            levels.append(torch.cat([box, score], 1).reshape(-1, 5, cells))
        return torch.cat(levels, 2).transpose(1, 2)

    def folded(self) -> PersonDetector:
        """A float32 CPU copy with every `RepConv` folded and the score as a probability."""
        twin = copy.deepcopy(self).cpu().float().eval()
        for module in twin.modules():
            if isinstance(module, RepConv):
                module.fold()
        twin.probabilities = True
        return twin.requires_grad_(False)


def anchor_grid(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Anchors of a `height` x `width` input: (A, 3) of cell column, cell row, stride, float32."""
    rows = []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device),
            indexing="ij",
        )
        rows.append(torch.stack([x, y, torch.full_like(x, stride)], -1).reshape(-1, 3))
    return torch.cat(rows).float()


def decode_boxes(raw: Tensor, anchors: Tensor) -> Tensor:
    """Raw head values (..., A, 4) and `anchors` (A, 3) -> (..., A, 4) xyxy in input pixels, float32."""
    raw, stride = raw.float(), anchors[:, 2:]
    centre = (raw[..., :2] + anchors[:, :2]) * stride
    half = raw[..., 2:4].clamp(-4.0, 5.0).exp() * stride * 0.5
    return torch.cat([centre - half, centre + half], -1)
