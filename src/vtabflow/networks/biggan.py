"""BigGAN's discriminator and generator (Brock et al. 2019, arXiv:1809.11096; docs/methods/biggan.md).

The layers are compare_gan's (google/compare_gan resnet_biggan.py at 19922d3), and so are the numbers of parameters;
where BigGAN-PyTorch (ajbrock, at 9845943) departs from it for the better, its form: no ReLU on the image itself, an
identity skip, gains of 1 + linear, up-sampling that repeats pixels. Both networks are without spectral normalisation
(networks/spectral.py): the methods add it.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.networks.resnetv2 import conv, norm

# Channels after each of the discriminator's blocks, as multiples of the first's, at 128 px; smaller images take the
# first ones. The generator and networks/decoder.py have them in reverse.
MULTIPLIERS = (1, 2, 4, 8, 16, 16)
# Size of the generated images -> number of the generator's blocks.
SIZES = {16: 2, 32: 3, 64: 4, 128: 5}


def orthogonal(module: nn.Module) -> nn.Module:
    """Draw every kernel of `module` orthogonal and zero the biases; returns it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(part.weight)
            if isinstance(bias := getattr(part, "bias", None), Tensor):
                nn.init.zeros_(bias)
    return module


class Attention(nn.Module):
    """Non-local block of (B, C, H, W): every place attends to all, at half the resolution; the identity at gain 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, values = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = (conv(channels, inner, 1) for _ in range(2))
        self.value, self.out = conv(channels, values, 1), conv(values, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key, value = (F.max_pool2d(f(x), 2).flatten(2).transpose(1, 2) for f in (self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2)
        return x + self.gain * self.out(seen.unflatten(2, x.shape[2:]))


class DownBlock(nn.Module):
    """ReLU-3x3-ReLU-3x3-average-pool, plus a skip of 1x1-average-pool (the identity if channels and size are kept).

    No ReLU before the `first` block's convolution: the image would lose its dark half.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1, self.conv2 = conv(inputs, outputs, 3, bias=True), conv(outputs, outputs, 3, bias=True)
        self.skip = conv(inputs, outputs, 1, bias=True) if down or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        # Pooling and a 1x1 convolution commute: pooling first costs a quarter.
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return y + (x if self.skip is None else self.skip(x))


class Discriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to features (B, channels * multipliers[-1]).

    Blocks that halve the size (all but the last), attention after the first, ReLU, and the *sum* over places. No batch
    norm. Fully convolutional: one network serves images of 32 to 224 px.

    Attributes:
        features: the number of outputs.
    """

    def __init__(self, channels: int = 96, multipliers: Sequence[int] = MULTIPLIERS, attention: bool = True) -> None:
        super().__init__()
        widths = [3] + [channels * m for m in multipliers]
        last = len(multipliers) - 1
        blocks: list[nn.Module] = [
            DownBlock(a, b, down=i < last, first=i == 0) for i, (a, b) in enumerate(itertools.pairwise(widths))
        ]
        if attention:
            blocks.insert(1, Attention(widths[1]))
        self.blocks = nn.Sequential(*blocks)
        self.features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        # float32: a sum over places in bfloat16 would lose the small ones.
        return F.relu(self.blocks(x)).sum((2, 3), dtype=torch.float32)

    @staticmethod
    def start(network: nn.Module) -> nn.Module:
        """Draw the initial weights (networks/registry.py)."""
        return orthogonal(network)


class ConditionalNorm(nn.Module):
    """Batch norm of (B, channels, H, W) whose gain 1 + Ac and offset Bc follow from a code c (B, code)."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.norm = norm(channels, affine=False)
        self.gain, self.offset = (nn.Linear(code, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.norm(x) * (1 + self.gain(code))[:, :, None, None] + self.offset(code)[:, :, None, None]


class ModulatedNorm(nn.Module):
    """Self-modulated batch norm (arXiv:1810.01365): gain and offset by a small network of the code c (B, code).

    The gain starts around 1: `Generator` sets its bias.
    """

    def __init__(self, channels: int, code: int, hidden: int = 32) -> None:
        super().__init__()
        self.norm = norm(channels, affine=False)
        self.hidden, self.gain, self.offset = (
            nn.Linear(code, hidden),
            nn.Linear(hidden, channels),
            nn.Linear(hidden, channels),
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        inner = F.relu(self.hidden(code))
        return self.norm(x) * self.gain(inner)[:, :, None, None] + self.offset(inner)[:, :, None, None]


class UpBlock(nn.Module):
    """Doubles height and width: norm-ReLU-up-3x3-norm-ReLU-3x3 plus a skip of up-1x1; `up` repeats pixels (nearest)."""

    def __init__(self, inputs: int, outputs: int, code: int, kind: type[ConditionalNorm] | type[ModulatedNorm]) -> None:
        super().__init__()
        self.norm1, self.conv1 = kind(inputs, code), conv(inputs, outputs, 3, bias=True)
        self.norm2, self.conv2 = kind(outputs, code), conv(outputs, outputs, 3, bias=True)
        self.skip = conv(inputs, outputs, 1, bias=True)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = self.conv1(F.interpolate(F.relu(self.norm1(x, code)), scale_factor=2, mode="nearest"))
        y = self.conv2(F.relu(self.norm2(y, code)))
        # A 1x1 convolution and a repetition commute: convolving first costs a quarter.
        return y + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """Noise (B, latent), and classes (B,) if it is conditional, to images (B, 3, size, size) in [-1, 1].

    The noise is split into one chunk for the first layer and one per block: 6 x 20 of 120 at 128 px, 5 x 24 at 64, 4 x
    30 at 32, 3 x 40 at 16. A remainder that does not divide is not used. A block's batch norms see [its chunk, class
    embedding]; without classes its chunk alone, through `modulated` norms or linear ones. Attention before the last
    block, that is at half the size: 64 x 64 at 128 px.
    """

    def __init__(
        self,
        latent: int,
        size: int,
        channels: int = 96,
        classes: int | None = None,
        embedding: int = 128,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise UserError(
                f"the generator makes images of {', '.join(map(str, SIZES))} px, not {size}; set image_size (for "
                "bigbigan over its downscale) to one of these"
            )
        blocks = SIZES[size]
        self.chunk, self.chunks = latent // (blocks + 1), blocks + 1
        if not self.chunk:
            raise UserError(
                f"the generator needs a latent of at least {blocks + 1} at {size} px, not {latent}; raise it"
            )
        self.embed = None if classes is None else nn.Embedding(classes, embedding)
        code = self.chunk + (0 if classes is None else embedding)
        # From 4x4 upwards: 16, 16, 8, 4, 2, 1 at 128 px, the last of these below.
        widths = [channels * m for m in reversed(MULTIPLIERS[: blocks + 1])]
        self.start = nn.Linear(self.chunk, 16 * widths[0])
        kind = ModulatedNorm if modulated else ConditionalNorm
        self.blocks = nn.ModuleList(UpBlock(a, b, code, kind) for a, b in itertools.pairwise(widths))
        self.attention = Attention(widths[-2])
        self.norm = norm(channels)
        self.last = conv(channels, 3, 3, bias=True)
        orthogonal(self)
        for part in self.modules():
            if isinstance(part, ModulatedNorm):
                nn.init.ones_(part.gain.bias)

    def forward(self, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        first, *chunks = noise.split(self.chunk, 1)[: self.chunks]
        x = self.start(first).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        label = [] if self.embed is None else [self.embed(classes)]
        for i, block in enumerate(self.blocks):
            if i == len(self.blocks) - 1:
                x = self.attention(x)
            x = block(x, torch.cat([chunks[i], *label], 1))
        return torch.tanh(self.last(F.relu(self.norm(x))))
