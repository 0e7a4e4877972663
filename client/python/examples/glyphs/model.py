"""The backbone of the glyph example: a small residual network for 32 x 32 grey images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

#: Images that are embedded at once.
EMBED_ROWS = 1000


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut. Shapes: [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.body(x) + self.shortcut(x))


class Backbone(nn.Module):
    """Images [n, 1, 32, 32] to embeddings [n, dim], whose lengths mean nothing.

    6.5 MFLOP an image at width 16; half the width costs about a quarter.
    """

    def __init__(self, dim: int = 128, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2),
            # A fully connected layer, as a convolution: that is oneDNN's, and not the BLAS that happens to be installed.
            nn.Conv2d(4 * width, dim, 4, bias=False), nn.Flatten(), nn.BatchNorm1d(dim, affine=False),
        )
        self.to(memory_format=torch.channels_last)  # A quarter faster on processors.

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def to_input(images: np.ndarray) -> torch.Tensor:
    """Images [n, 32, 32] uint8 as the backbone wants them: [n, 1, 32, 32] float32, about centred."""
    return torch.from_numpy(images).unsqueeze(1).float().sub_(64.0).div_(96.0)


def embed(backbone: nn.Module, images: np.ndarray) -> np.ndarray:
    """Embeddings [n, dim] float32 of images [n, 32, 32] uint8, by the running means of the backbone."""
    backbone.eval()
    with torch.no_grad():
        pieces = [backbone(to_input(images[first : first + EMBED_ROWS])).numpy()
                  for first in range(0, len(images), EMBED_ROWS)]
    backbone.train()
    return np.concatenate(pieces)


def flops(backbone: nn.Module) -> int:
    """Multiplications and additions of the convolutions of one image, forward."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight[0].numel() * output[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    embed(backbone, np.zeros((1, 32, 32), np.uint8))
    for hook in hooks:
        hook.remove()
    return total
