"""The decoder of the autoencoders: codes to pictures.

The VTAB authors did not publish theirs. This one has the shape of BigGAN's generator without conditioning (methods.md
M2-M5, inferred): a linear layer to 4x4, up-blocks with a skip, BN-ReLU-3x3-tanh.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.networks.resnetv2 import conv, norm

# Channels from 4x4 upwards, as multiples of the last block's: the five blocks of a 128 px picture; smaller pictures
# use the last ones.
MULTIPLIERS = (16, 16, 8, 4, 2, 1)


class UpBlock(nn.Module):
    """Doubles height and width: BN-ReLU-up-3x3-BN-ReLU-3x3 beside up-1x1; `up` repeats each pixel (nearest)."""

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
    """Codes (B, latent) to pictures (B, 3, size, size) in [-1, 1]. `channels` is the width of the last block (64 in
    the study).
    """

    def __init__(self, latent: int, size: int, channels: int = 64) -> None:
        super().__init__()
        blocks = size.bit_length() - 3
        if size != 4 << blocks or not 1 <= blocks < len(MULTIPLIERS):
            raise UserError(
                f"the decoder makes pictures of 8, 16, 32, 64 or 128 px, not {size}; set image_size to one of these"
            )
        widths = [channels * m for m in MULTIPLIERS[-blocks - 1 :]]
        self.start = nn.Linear(latent, 16 * widths[0])
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in itertools.pairwise(widths)))
        self.norm = norm(channels)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        x = self.start(code).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.last(F.relu(self.norm(self.blocks(x)))))
