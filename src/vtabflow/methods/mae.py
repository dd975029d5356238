"""MAE: paint the patches that were hidden."""

import torch
import torch.nn.functional as F
from lightly.models import utils
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.methods.augment import inception_crop
from vtabflow.methods.base import Batch, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks.vit import as_vit


class MAE(Method):
    """Mean squared error over the pixels of the hidden patches, each patch's pixels brought to mean 0 and variance 1
    (methods.md 6). The encoder sees the other patches only; a small transformer sees its tokens and a mask token in
    place of each hidden patch. It starts a little above 1, the error of painting every patch its mean.

    Decoder and patches are lightly's. As published: `mask` 3/4 of the patches, at random an image; sine-cosine
    positions that are not learnt; a decoder of 8 blocks of 512 channels (heads of 32); crops of a fifth of the area or
    more and a flip, no change of colours; AdamW at 1.5e-4 for 256 images (in proportion to them), beta2 0.95, weight
    decay 0.05, 40 of 800 epochs of warm-up. Departing: crops are bilinear, and the encoder's kernels start as
    timm starts them. The representation is the mean of the patch
    tokens after the last norm. The paper judges it by fine-tuning: a linear probe shows little of it. No batch norm,
    and each image's loss is its own: several processes train as one does.
    """

    id = "mae"
    display = "MAE"
    family = "self-supervised"
    streams = {"images": "images"}
    networks = {"resnet50v2": "vit-s16", "resnet-small": "vit-small"}
    defaults = {
        "optimiser": "adamw",
        "learning_rate": 1.5e-4,
        "weight_decay": 0.05,
        "warmup": 0.05,
        "decay": "cosine",
    }
    settings = {"mask": 0.75, "channels": 512, "depth": 8, "beta2": 0.95, "crop_area_min": 0.2}
    ranges = {
        "mask": (0.05, 0.95),
        "channels": (4, 4096),
        "depth": (1, 24),
        "beta2": (0.0, 0.9999),
        "crop_area_min": (0.01, 1.0),
    }
    smallest_size = 8
    smallest_batch = 1
    needs = {"lightly": "extras"}
    reference = "He et al. 2021, arXiv:2111.06377; facebookresearch/mae"

    def build(self) -> None:
        trunk, width = as_vit(self.trunk, self.size), self.config["channels"]
        if width % (32 if width > 32 else 4):
            raise UserError(f"mae's channels are {width}; set them to a multiple of 32, or of 4 below that")
        self.patch = trunk.patch
        self.patches = (self.size // self.patch) ** 2
        self.shown = min(max(1, round(self.patches * (1 - self.config["mask"]))), self.patches - 1)
        utils.initialize_positional_embedding(trunk.vit.pos_embed, "sincos", num_prefix_tokens=1)
        self.embed = nn.Linear(self.features, width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            self.patches, width, self.config["depth"], max(1, width // 32)
        )
        self.paint = nn.Linear(width, 3 * self.patch**2)
        for layer in (self.embed, self.paint):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        x = inception_crop(images, self.size, rng, self.config["crop_area_min"])
        shown, hidden = self.parts(rng.uniform((len(x), self.patches)))
        return {"pixels": F.mse_loss(self.painted(x, shown, hidden), self.wanted(x, hidden))}

    def parts(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the patches that are shown, and of those that are hidden, by random `numbers` (B, patches)."""
        order = numbers.argsort(1)
        return order[:, : self.shown], order[:, self.shown :]

    def painted(self, x: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
        """What the decoder makes of the hidden patches, (B, hidden, 3 * patch * patch), float32."""
        tokens = self.embed(self.trunk(x, shown)).float()
        whole = utils.repeat_token(self.decoder.mask_token, (len(x), self.patches + 1))
        class_token = shown.new_zeros(len(x), 1)
        whole = utils.set_at_index(whole, torch.cat([class_token, shown + 1], 1), tokens)
        return self.paint(utils.get_at_index(self.decoder(whole), hidden + 1)).float()

    def wanted(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The hidden patches' own pixels, normalised within each patch."""
        return utils.normalize_mean_var(utils.get_at_index(utils.patchify(x, self.patch), hidden))
