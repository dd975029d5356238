"""Vision transformers (Dosovitskiy et al. 2020, arXiv:2010.11929), by timm."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vtabflow.errors import UserError


class ViT(nn.Module):
    """Images (B, 3, H, W), sides any multiples of the patch, to features (B, width).

    The features are the mean of the patch tokens after the last norm. There is a class token, which the others attend
    to and which does not count in the mean. Learnt positions are for images of `size` px and are interpolated for
    others (bicubic).

    Attributes:
        features: the number of outputs.
        patch: side of a patch in pixels.
        vit: timm's network.
    """

    def __init__(
        self,
        size: int = 224,
        patch: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.features, self.patch = width, patch
        self.vit = VisionTransformer(
            img_size=size,
            patch_size=patch,
            num_classes=0,
            global_pool="avg",
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            fc_norm=False,
            dynamic_img_size=True,
        )

    @staticmethod
    def start(network: nn.Module) -> nn.Module:
        """Keep timm's initial weights: truncated normal (0.02) kernels and positions."""
        return network

    def check(self, height: int, width: int) -> None:
        """Raise UserError for images that are not of whole patches."""
        if height % self.patch or width % self.patch:
            raise UserError(
                f"the network cuts images into patches of {self.patch} px, which {width} x {height} px are no multiple "
                "of; set image_size to one"
            )

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Features of images, or tokens of visible patches.

        Args:
            images: (B, 3, H, W).
            visible: (B, n) indices of patches, row by row from 0; None for all.

        Returns:
            Features (B, width); with `visible`, the tokens of the class and of these patches (B, 1 + n, width), which
            attend to each other alone.
        """
        self.check(images.shape[2], images.shape[3])
        if visible is None:
            return self.vit(images)
        tokens = self.vit._pos_embed(self.vit.patch_embed(images))
        places = torch.cat([visible.new_zeros(len(visible), 1), visible + 1], 1)
        tokens = tokens.gather(1, places[..., None].expand(-1, -1, self.features))
        return self.vit.norm(self.vit.blocks(tokens))


def as_vit(network: nn.Module, size: int) -> ViT:
    """Return the network; UserError if it is no ViT, or not one for images of this size."""
    if not isinstance(network, ViT):
        raise UserError("this method needs a vision transformer; set `network` to vit-s16 or vit-small for it")
    network.check(size, size)
    return network
