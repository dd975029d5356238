"""What the two patch methods share: nine patches of an image, embeddings, and a head on several of them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.methods.augment import resized, standardise, to_gray
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks.initialise import glorot

SIDE = 3
COUNT = SIDE * SIDE


class Grid(NamedTuple):
    """Pixels: the side of the crop that is cut in 3 x 3 cells, of a cell, and of the patch taken within each."""

    crop: int
    cell: int
    patch: int


def grid_at(size: int) -> Grid:
    """The authors' grid in images of this size: 255, 85 and 64 of 292 px, in the same proportions at other sizes.

    A patch is at least a pixel smaller than its cell, so that it jitters and neighbours do not always touch.
    """
    crop = round(size * 255 / 292)
    cell = crop // SIDE
    return Grid(crop, cell, min(round(cell * 64 / 85), cell - 1))


def cut_patches(x: Tensor, corner: Tensor, shift: Tensor, grid: Grid) -> Tensor:
    """Patches (9 B, 3, patch, patch) of x (B, 3, H, W), in whole pixels.

    Image by image, each image's from left to right and top to bottom.

    Args:
        x: the images.
        corner: (B, 2), top and left of each image's crop.
        shift: (9 B, 2), top and left of each patch within its cell.
        grid: the sides of crop, cell and patch.
    """
    n, device = len(x), x.device
    cells = torch.arange(COUNT, device=device)
    begin = torch.stack([cells // SIDE, cells % SIDE], 1) * grid.cell + corner[:, None] + shift.view(n, COUNT, 2)
    rows, columns = (begin[..., None] + torch.arange(grid.patch, device=device)).unbind(2)
    which = torch.arange(n, device=device)[:, None, None, None]
    patches = x.permute(0, 2, 3, 1)[which, rows[..., :, None], columns[..., None, :]]
    return patches.flatten(0, 1).permute(0, 3, 1, 2)


def random_patches(images: Tensor, size: int, rng: BatchRNG, gray: float) -> Tensor:
    """Standardised patches (9 B, 3, patch, patch) of uint8 images (B, H, W, C).

    The images are resized to `size` x `size` and made grey with probability `gray`; of a random crop, a patch at
    random in each of its cells.
    """
    x, grid = to_gray(resized(images, size), rng, gray), grid_at(size)
    corner = rng.integers((len(x), 2), size - grid.crop + 1)
    shift = rng.integers((len(x) * COUNT, 2), grid.cell - grid.patch + 1)
    # On the authors' scale of 0 to 255: there the floor of 1 / sqrt(N) only matters for a patch of a single colour.
    return standardise(cut_patches(x, corner, shift, grid) * 127.5)


class Patches(Method):
    """Nine patches through the trunk, a linear embedding of each, and a two-layer head on the embeddings of several.

    Pipeline and head are those of google/revisiting-self-supervised (preprocess.py, patch_utils.py at b530e3b;
    docs/methods/patches.md): the image squashed to 292 px, grey with probability 0.66, a random 255 px crop, a 64 px
    patch at random in each of its 85 px cells, no flip, every patch standardised over its pixels and channels
    together; at other image sizes the same in proportion. Standardising removes what brightness tells of the place,
    grey removes what colour does (aberration of the lens); a third of the images keep their colours, and what those
    tell, as the authors' do. Dropout uses torch's global generator. The nine patches of all images are one batch of
    the trunk, image by image, so that every place has its equal part in the batch statistics and the order of the rows
    tells nothing.

    The last layer starts at zero, so that the loss starts at ln(classes) exactly; the authors' started truncated normal
    with deviation 0.005, as the layer before it does here too. Their extra weight decay of 5e-4 on these two layers is
    left out: a method has one weight decay. As network they use ResNet50-v2 with a total stride of 8. The settings'
    values are theirs. Inferred: the proportions at other sizes, and width 4 of the trunk.
    """

    family = "self-supervised"
    streams = {"images": "images"}
    settings = {
        "embedding": (1000, 1, 65536),
        "hidden": (4096, 1, 65536),
        "dropout": (0.5, 0.0, 0.9),
        "gray": (0.66, 0.0, 1.0),
    }
    smallest_size = 27  # patches of 6 px that jitter by 2
    networks = {"resnet50v2": "resnet50v2-patch"}
    published = True

    def standardises_input(self) -> bool:
        return True

    def build_heads(self, together: int, classes: int) -> None:
        """The embedding, and the head on the embeddings of `together` patches at once."""
        hidden = nn.Linear(together * self.config["embedding"], self.config["hidden"])
        nn.init.trunc_normal_(hidden.weight, std=0.005, a=-0.01, b=0.01)
        nn.init.constant_(hidden.bias, 0.1)
        self.embed = glorot(nn.Linear(self.features, self.config["embedding"]))
        self.head = nn.Sequential(
            hidden,
            nn.BatchNorm1d(self.config["hidden"], eps=1e-5, momentum=0.003),  # 0.997 in TensorFlow's sense
            nn.ReLU(),
            nn.Dropout(self.config["dropout"]),
            Head(self.config["hidden"], classes),
        )

    def arrangement_losses(self, batch: Batch, rng: BatchRNG, orders: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss of predicting labels[j] (m,) from the patches orders[j] (m, n), in that order, of every image."""
        images, _ = batch["images"]
        x = random_patches(images, self.size, rng, self.config["gray"])
        embedded = self.embed(self.encode(x)).unflatten(0, (-1, COUNT))
        # Order by order, so that no row is taken twice at once: the gradients are then added up in a fixed order.
        arranged = torch.stack([embedded.index_select(1, order) for order in orders.unbind()], 1)
        logits = self.head(arranged.flatten(2).flatten(0, 1))
        target = labels.repeat(len(images))
        return {"arrangement": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
