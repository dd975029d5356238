"""ResNet50-v2 and its small sibling: sizes, padding, seeds."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from vtabflow.errors import UserError
from vtabflow.networks import registry
from vtabflow.networks.decoder import Decoder
from vtabflow.networks.resnetv2 import ResNetV2, Unit


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_resnet50v2_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = ResNetV2()
    assert parameters(net) == 23_500_352
    assert net.features == registry.NETWORKS["resnet50v2"]["features"] == 2048
    assert all(m.eps == 1e-3 and m.momentum == 0.01 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_resnet50v2_has_total_stride_32_in_the_authors_places():
    net, sizes = ResNetV2(), []
    for unit in net.units:
        unit.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)
    assert sizes == [16] * 3 + [8] * 4 + [4] * 6 + [2] * 3
    firsts = [net.units[i].convs[1].stride[0] for i in (0, 3, 7, 13)]
    assert firsts == [1, 2, 2, 2], "the stride is on the 3x3 convolution"


def test_resnet50v2_for_patches_has_total_stride_8_and_as_many_parameters():
    net, sizes = registry.build("resnet50v2-patch", 0), []
    for unit in net.units:
        unit.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)
    assert sizes == [32] * 3 + [16] * 4 + [8] * 9
    assert parameters(net) == 23_500_352


def test_small_network_is_small():
    net = registry.build("resnet-small", 0)
    assert 33_000 <= parameters(net) <= 80_000
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, registry.NETWORKS["resnet-small"]["features"])


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_the_table_says_the_truth_about_features(name):
    row = registry.NETWORKS[name]
    kind = getattr(importlib.import_module(f"vtabflow.networks.{row['module']}"), row["class"])
    with torch.device("meta"):
        assert kind(**row["arguments"]).features == row["features"]


def test_max_pool_pads_with_zeros_as_tensorflow_does():
    net = ResNetV2(blocks=(), widths=(), strides=(), root=(3, 1, 1), max_pool=True)
    net.eval()
    with torch.no_grad():
        net.stem.weight.copy_(torch.eye(3)[:, :, None, None])
        net.norm.bias.fill_(10.0)  # keeps the last ReLU out of the comparison
    x = -1 - torch.rand(1, 3, 5, 5)
    padded = np.zeros((3, 7, 7), np.float32)
    padded[:, 1:6, 1:6] = x[0]
    want = np.array(
        [
            [[padded[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(3)] for i in range(3)]
            for c in range(3)
        ]
    )
    with torch.no_grad():
        got = net(x)[0].numpy()
    np.testing.assert_allclose(got, (want / np.sqrt(1 + 1e-3) + 10).mean((1, 2)), rtol=1e-5)
    assert (want == 0).any(), "the border of a negative image becomes 0"


def test_shortcut_is_taken_after_the_first_activation():
    torch.manual_seed(0)
    unit = Unit(4, 8, 2, bottleneck=True).eval()
    with torch.no_grad():
        for convolution in unit.convs:
            convolution.weight.zero_()
    x = torch.randn(2, 4, 6, 6)
    active = torch.relu(x / np.sqrt(1 + 1e-3))
    want = torch.einsum("oi,bihw->bohw", unit.shortcut.weight[:, :, 0, 0], active[:, :, ::2, ::2])
    torch.testing.assert_close(unit(x), want)


def test_same_seed_same_weights_and_the_global_state_is_kept():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (registry.build("resnet-small", seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert [key for key in first if not torch.equal(first[key], again[key])] == []
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_kernels_are_glorot_uniform():
    weight = registry.build("resnet-small", 0).units[2].convs[1].weight
    limit = (6 / (64 * 9 + 64 * 9)) ** 0.5
    assert 0.99 * limit < weight.abs().max() <= limit
    assert abs(weight.std().item() - limit / 3**0.5) < 0.01 * limit


def test_unknown_network_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="resnet-small"):
        registry.build("resnet-smal", 0)


def test_the_table_imports_no_torch():
    code = "import sys, vtabflow.networks.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("size", [32, 64, 128])
def test_decoder_makes_images_of_the_size(size):
    decoder = Decoder(8, size, 2)
    out = decoder(torch.randn(3, 8))
    assert out.shape == (3, 3, size, size) and out.abs().max() <= 1
    out.square().sum().backward()
    reached = {key for key, p in decoder.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {key for key, _ in decoder.named_parameters() if "norm1.bias" not in key} <= reached


def test_decoder_of_the_study_has_the_channels_of_biggan():
    with torch.device("meta"):
        widths = [block.conv2.out_channels for block in Decoder(128, 128, 64).blocks]
    assert widths == [1024, 512, 256, 128, 64]


def test_decoder_refuses_other_sizes():
    with pytest.raises(UserError, match="48"):
        Decoder(8, 48, 2)
