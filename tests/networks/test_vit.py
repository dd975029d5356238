"""The vision transformer: timm's network, any size of whole patches, a part of the patches."""

import pytest
import timm
import torch

from vtabflow.errors import UserError
from vtabflow.networks import registry
from vtabflow.networks.vit import ViT


@pytest.fixture(scope="module")
def small():
    return registry.build("vit-small", 0).eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_vit_s16_is_timms_network():
    arguments = {"num_classes": 0, "global_pool": "avg", "fc_norm": False, "dynamic_img_size": True}
    theirs = timm.create_model("vit_small_patch16_224", **arguments).eval()
    mine = ViT(**registry.NETWORKS["vit-s16"]["arguments"]).eval()
    assert sum(p.numel() for p in mine.parameters()) == 21_665_664
    mine.vit.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(mine(x), theirs(x)) and mine(x).shape == (1, 384)


@pytest.mark.parametrize("name", ["vit-s16", "vit-small"])
def test_the_table_says_the_truth(name):
    row = registry.NETWORKS[name]
    with torch.device("meta"):
        net = ViT(**row["arguments"])
    assert net.features == row["features"]


def test_small_network_is_small(small):
    assert sum(p.numel() for p in small.parameters()) == 107_904


@pytest.mark.parametrize("height, width", [(32, 32), (8, 8), (16, 40), (64, 64)])
def test_any_size_of_whole_patches_has_features(small, height, width):
    with torch.no_grad():
        y = small(torch.randn(2, 3, height, width))
    assert y.shape == (2, 64) and y.isfinite().all()


@pytest.mark.parametrize("height, width", [(30, 32), (32, 33)])
def test_other_sizes_are_refused(small, height, width):
    with pytest.raises(UserError, match="patches of 4 px"):
        small(torch.zeros(1, 3, height, width))


def test_positions_are_interpolated(small):
    """Positions that rise evenly from left to right still do so on a grid of another size."""
    net = ViT(**registry.NETWORKS["vit-small"]["arguments"]).eval()
    net.vit.blocks, net.vit.norm = torch.nn.Identity(), torch.nn.Identity()
    with torch.no_grad():
        net.vit.patch_embed.proj.weight.zero_()
        net.vit.patch_embed.proj.bias.zero_()
        columns = torch.arange(8.0).repeat(8)[None, :, None].expand(1, 64, 64)
        net.vit.pos_embed.copy_(torch.cat([torch.zeros(1, 1, 64), columns], 1))
        shown = torch.arange(256)[None]
        rows = net(torch.zeros(1, 3, 64, 64), shown)[0, 1:, 0].view(16, 16)
    assert torch.allclose(rows[:, 4:12], (torch.arange(4.0, 12.0) - 0.5) / 2 + torch.zeros(16, 1), atol=0.05)


def test_the_features_are_the_mean_of_the_patch_tokens(small, image):
    with torch.no_grad():
        tokens = small(image, torch.arange(64).expand(2, 64))
        assert tokens.shape == (2, 65, 64)
        assert torch.allclose(small(image), tokens[:, 1:].mean(1), atol=1e-6)


def test_what_is_not_shown_is_not_seen(small, image):
    shown = torch.tensor([[0, 9, 63], [5, 1, 2]])
    other = image.clone()
    other[0, :, :4, 4:8] += 1  # patch 1, which the second image shows
    other[1, :, 28:, 28:] += 1  # patch 63, which the first shows
    with torch.no_grad():
        before, after = small(image, shown), small(other, shown)
        assert torch.equal(before, after) and before.shape == (2, 4, 64)
        other[1, :, :4, 4:8] += 1
        assert not torch.allclose(before[1], small(other, shown)[1])


def test_timms_own_start_is_kept_and_seeded():
    before = torch.random.get_rng_state()
    first, again, second = (registry.build("vit-small", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [net.vit.blocks[0].attn.qkv.weight for net in (first, again, second)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert weights[0].std().item() == pytest.approx(0.02, rel=0.05)
    assert first.vit.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
