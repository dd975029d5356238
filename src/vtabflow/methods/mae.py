"""MAE: predict the pixels of masked patches."""

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
    """Mean squared error over the pixels of the masked patches, each patch normalised to mean 0 and variance 1.

    The encoder sees the visible patches only; a small transformer sees its tokens and a mask token in place of each
    masked patch (section 3 of the paper; docs/methods/mae.md). The loss starts a little above 1, the error of
    predicting the mean of every patch.

    Decoder and patches are lightly's (at e8d317f). As published: `mask` 3/4 of the patches, at random for each image;
    sine-cosine positions that are not learnt; a decoder of 8 blocks of 512 channels (heads of 32); crops of a fifth of
    the area or more and a flip, no change of colours; AdamW at 1.5e-4 for 256 images (in proportion to them), beta2
    0.95, weight decay 0.05, 40 of 800 epochs of warm-up. Departing: crops are bilinear, and the encoder's kernels
    start as timm draws them. The representation is the mean of the patch tokens after the last norm. The paper
    evaluates it by fine-tuning: a linear probe shows little of it. No batch norm, and each image's loss is its own:
    several processes train as one does.
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
    settings = {
        "mask": (0.75, 0.05, 0.95),
        "channels": (512, 4, 4096),
        "depth": (8, 1, 24),
        "beta2": (0.95, 0.0, 0.9999),
        "crop_area_min": (0.2, 0.01, 1.0),
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
        self.visible = min(max(1, round(self.patches * (1 - self.config["mask"]))), self.patches - 1)
        utils.initialize_positional_embedding(trunk.vit.pos_embed, "sincos", num_prefix_tokens=1)
        self.embed = nn.Linear(self.features, width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            self.patches, width, self.config["depth"], max(1, width // 32)
        )
        self.to_pixels = nn.Linear(width, 3 * self.patch**2)
        for layer in (self.embed, self.to_pixels):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        x = inception_crop(images, self.size, rng, self.config["crop_area_min"])
        visible, masked = self.split_patches(rng.uniform((len(x), self.patches)))
        return {"pixels": F.mse_loss(self.predict_masked(x, visible, masked), self.targets(x, masked))}

    def split_patches(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the visible (B, v) and of the masked patches (B, m), by random `numbers` (B, v + m)."""
        order = numbers.argsort(1)
        return order[:, : self.visible], order[:, self.visible :]

    def predict_masked(self, x: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predicted pixels of the masked patches, (B, m, 3 * patch * patch), float32."""
        tokens = self.embed(self.trunk(x, visible)).float()
        whole = utils.repeat_token(self.decoder.mask_token, (len(x), self.patches + 1))
        class_token = visible.new_zeros(len(x), 1)
        whole = utils.set_at_index(whole, torch.cat([class_token, visible + 1], 1), tokens)
        return self.to_pixels(utils.get_at_index(self.decoder(whole), masked + 1)).float()

    def targets(self, x: Tensor, masked: Tensor) -> Tensor:
        """Pixels of the masked patches, normalised within each patch: (B, m, 3 * patch * patch)."""
        return utils.normalize_mean_var(utils.get_at_index(utils.patchify(x, self.patch), masked))
