"""The decoder of the autoencoders: codes to images.

The VTAB authors did not publish theirs. This one has the shape of BigGAN's generator without conditioning (inferred;
docs/methods/autoencoder.md): a linear layer to 4x4, up-blocks with a skip, BN-ReLU-3x3-tanh.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.networks.biggan import MULTIPLIERS
from vtabflow.networks.resnetv2 import conv, norm


class UpBlock(nn.Module):
    """Doubles height and width: BN-ReLU-up-3x3-BN-ReLU-3x3 plus a skip of up-1x1; `up` repeats pixels (nearest)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs, 3)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs, 3)
        self.skip = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2, mode="nearest"))
        y = self.conv2(F.relu(self.norm2(y)))
        # A 1x1 convolution and a repetition commute: convolving first costs a quarter.
        return y + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class Decoder(nn.Module):
    """Codes (B, latent) to images (B, 3, size, size) in [-1, 1]; the last block has `channels` (64 in the study)."""

    def __init__(self, latent: int, size: int, channels: int = 64) -> None:
        super().__init__()
        blocks = size.bit_length() - 3
        if size != 4 << blocks or not 1 <= blocks < len(MULTIPLIERS):
            raise UserError(
                f"the decoder makes images of 8, 16, 32, 64 or 128 px, not {size}; set image_size to one of these"
            )
        # From 4x4 upwards: 16, 16, 8, 4, 2, 1 at 128 px, the last of these below.
        widths = [channels * m for m in reversed(MULTIPLIERS[: blocks + 1])]
        self.start = nn.Linear(latent, 16 * widths[0])
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in itertools.pairwise(widths)))
        self.norm = norm(channels)
        self.last = conv(channels, 3, 3, bias=True)

    def forward(self, code: Tensor) -> Tensor:
        x = self.start(code).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.last(F.relu(self.norm(self.blocks(x)))))
