"""Pre-activation residual networks (He et al. 2016, arXiv:1603.05027): the study's ResNet50-v2 and a small sibling.

Everything that departs from torchvision's ResNet follows the code of the VTAB authors
(google/revisiting-self-supervised, models/resnet.py at b530e3b): no normalisation or ReLU after the stem, a max-pool
that pads with zeros, batch norm with momentum 0.99 (0.01 in torch's sense) and epsilon 1e-3, Glorot-uniform kernels,
and a last BN-ReLU before the global average pool.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def norm(channels: int, momentum: float = 0.01, affine: bool = True) -> nn.BatchNorm2d:
    """Batch norm with the constants of the authors' TensorFlow layers: momentum 0.99 (0.01 here), epsilon 1e-3."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum, affine=affine)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution, padded symmetrically so that stride 1 keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


class Unit(nn.Module):
    """BN-ReLU before each convolution; the shortcut is taken after the first BN-ReLU where the shape changes.

    A bottleneck unit is 1x1 (a quarter of the channels), 3x3 (with the stride), 1x1; a basic unit is 3x3 (with the
    stride), 3x3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool, momentum: float = 0.01) -> None:
        super().__init__()
        inner = outputs // 4 if bottleneck else outputs
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        widths = (inputs,) + (inner,) * (len(kernels) - 1) + (outputs,)
        self.norms = nn.ModuleList(norm(width, momentum) for width in widths[:-1])
        self.convs = nn.ModuleList(conv(*args) for args in zip(widths[:-1], widths[1:], kernels, strides, strict=True))
        self.shortcut = conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        for i, (normalise, convolve) in enumerate(zip(self.norms, self.convs, strict=True)):
            x = F.relu(normalise(x))
            if i == 0 and self.shortcut is not None:
                shortcut = self.shortcut(x)
            x = convolve(x)
        return x + shortcut


class ResNetV2(nn.Module):
    """Images (B, 3, H, W) to features (B, widths[-1]): stem, stages of units, BN-ReLU, global average pool.

    Attributes: features, the number of outputs.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        strides: Sequence[int] = (1, 2, 2, 2),
        root: tuple[int, int, int] = (64, 7, 2),
        max_pool: bool = True,
        bottleneck: bool = True,
        momentum: float = 0.01,
    ) -> None:
        """Make the layers.

        Args:
            blocks: units of each stage.
            widths: output channels of each stage.
            strides: stride of each stage's first unit; (1, 2, 2, 1) in the authors' networks for patches.
            root: channels, kernel and stride of the stem; stride 1 in the authors' networks for patches.
            max_pool: whether a max-pool follows the stem.
            bottleneck: whether units have three convolutions (bottleneck) or two.
            momentum: of the batch norms, in torch's sense.
        """
        super().__init__()
        channels, kernel, stride = root
        self.stem = conv(3, channels, kernel, stride)
        self.max_pool = max_pool
        units = []
        for depth, width, first in zip(blocks, widths, strides, strict=True):
            for i in range(depth):
                units.append(Unit(channels, width, first if i == 0 else 1, bottleneck, momentum))
                channels = width
        self.units = nn.Sequential(*units)
        self.norm = norm(channels, momentum)
        self.features = channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.max_pool:
            # Zeros, not -inf: no ReLU comes before, so a border of negative activations becomes 0.
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        return F.relu(self.norm(self.units(x))).mean((2, 3))
