"""Random views of SimCLR, BYOL and DINO: crop and flip, colour jitter, grey, blur, solarise.

For a whole batch on its device, each image by random numbers of its own. The colour operations are torchvision's
(transforms.v2.functional), which take one strength for a whole batch; here each image has its own. Images are
(B, 3, H, W) in [0, 1] inside this file.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vtabflow.methods.augment import crop_boxes, crop_resize, random_flips, to_float
from vtabflow.methods.batch_rng import BatchRNG

# Published alike for the three methods: how often colours are jittered and dropped, and the blur's widths in pixels.
JITTER, GREY, SIGMA = 0.8, 0.2, (0.1, 2.0)


@dataclass(frozen=True)
class View:
    """The distribution of a random view.

    Attributes:
        area: smallest and largest area of the crop, as a fraction of the image.
        jitter: half-widths of brightness, contrast and saturation (about 1) and of hue (of the circle, about 0).
        blur: probability of a blur.
        solarise: probability of solarising.
        covered: fraction of the image that the crop must cover.
    """

    area: tuple[float, float]
    jitter: tuple[float, float, float, float]
    blur: float = 0.0
    solarise: float = 0.0
    covered: float = 0.1


@torch.no_grad()
def random_view(images: Tensor, size: int, rng: BatchRNG, recipe: View) -> Tensor:
    """One view of each image: uint8 (B, H, W, C) to float32 (B, 3, size, size) in [-1, 1], also under autocast.

    Crops are distributed as those of augment.crop_boxes (TensorFlow's way, as SimCLR's and BYOL's are).
    """
    n = len(images)
    with torch.autocast(images.device.type, enabled=False):
        x = to_float(images)
        boxes = crop_boxes(n, x.shape[2], x.shape[3], rng, recipe.area, covered=recipe.covered)
        x = (crop_resize(x, boxes, size, random_flips(n, rng)) + 1) / 2
        x = jitter(x, rng, recipe.jitter)
        x = torch.where(_chance(n, rng, GREY), grey(x), x)
        blurred = gaussian_blur(x, rng.uniform((n,), *SIGMA), max(1, size // 20))
        x = torch.where(_chance(n, rng, recipe.blur), blurred, x)
        x = torch.where(_chance(n, rng, recipe.solarise) & (x >= 0.5), 1 - x, x)
        return (x * 2 - 1).clamp_(-1, 1).contiguous(memory_format=torch.channels_last)


def _chance(n: int, rng: BatchRNG, probability: float) -> Tensor:
    return rng.uniform((n, 1, 1, 1)) < probability


def jitter(x: Tensor, rng: BatchRNG, strength: tuple[float, float, float, float]) -> Tensor:
    """Brightness, contrast and saturation in random order, then hue (anywhere in the order in torchvision)."""
    n, on = len(x), rng.uniform((len(x), 1)) < JITTER
    factors = torch.cat([rng.uniform((n, 1), max(0.0, 1 - half), 1 + half) for half in strength[:3]], 1)
    hues = rng.uniform((n, 1), -strength[3], strength[3])
    x = blend(x, torch.where(on, factors, 1.0), rng.uniform((n, 3)).argsort(1))
    return shift_hue(x, torch.where(on, hues, 0.0).view(n))


def grey(x: Tensor) -> Tensor:
    """Luma (ITU-R 601) as (B, 1, H, W)."""
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def blend(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness (0), contrast (1) and saturation (2) by `factors` (B, 3), in each image's own `order` (B, 3).

    Each extrapolates the image from another one: from black, from its mean grey, from its grey.
    """
    for kind in order.split(1, 1):
        factor, kind = factors.gather(1, kind)[..., None, None], kind[..., None, None]
        other = grey(x)
        other = torch.where(kind == 1, other.mean((2, 3), keepdim=True), other) * (kind > 0)
        x = (other + factor * (x - other)).clamp_(0, 1)
    return x


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of HSV by `turns` (B,) of the circle; value and saturation stay.

    With the hue h in sixths of the circle, channel c of (red, green, blue) is V - (V - min) clip(min(k, 4 - k), 0, 1),
    where k = (h + 5 - 2c) mod 6.
    """
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    red, green, blue = x.unbind(1)
    sector = torch.where(value == green, 2 * chroma + blue - red, 4 * chroma + red - green)
    hue = torch.where(value == red, green - blue, sector) / chroma.clamp(min=1e-8) + 6 * turns[:, None, None]
    k = (hue[:, None] + torch.arange(5, 0, -2, device=x.device)[:, None, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur square images by each one's own sigma (B,), in a window of 2 * radius + 1 pixels, mirrored at the edges.

    Rows and columns are mixed by a matrix each: a depthwise convolution with a kernel per image is slower.
    """
    size = x.shape[-1]
    offsets, pixels = torch.arange(-radius, radius + 1, device=x.device), torch.arange(size, device=x.device)
    weights = (-offsets.square() / (2 * sigma[:, None].square())).softmax(1)
    source = (size - 1) - ((pixels[:, None] + offsets).abs() - (size - 1)).abs()
    mix = torch.einsum("nk,iks->nis", weights, (source[..., None] == pixels).float())[:, None]
    return mix @ x @ mix.mT
