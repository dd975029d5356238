"""BigGAN's networks against compare_gan's numbers and plain references; spectral normalisation against exact norms."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vtabflow.errors import UserError
from vtabflow.networks import registry
from vtabflow.networks.biggan import Attention, Discriminator, Generator, ModulatedNorm, orthogonal
from vtabflow.networks.spectral import Spectral, fold, spectral


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def shaken(module, seed=0):
    """Every parameter and statistic away from where it starts, in double precision and evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand(value.shape, generator=g, dtype=torch.float64))
    return module


def random_images(n, size, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_numbers_of_parameters_are_compare_gans(monkeypatch):
    for draw in ("orthogonal_", "normal_"):  # torch imports much for them on meta tensors: ten seconds
        monkeypatch.setattr(nn.init, draw, lambda weight: weight)
    with torch.device("meta"):
        generator, trunk = Generator(120, 128, 96, 1000), Discriminator()
        heads = nn.Linear(1536, 1), nn.Embedding(1000, 1536)
    assert parameters(generator) == 70_433_988
    assert parameters(trunk) + sum(map(parameters, heads)) == 87_982_370
    assert trunk.features == registry.NETWORKS["biggan"]["features"] == 1536


def attention(block, x):
    """Pixel by pixel."""
    query, out = block.query(x), torch.zeros_like(x)
    key, value = F.max_pool2d(block.key(x), 2), F.max_pool2d(block.value(x), 2)
    for b in range(len(x)):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                weights = torch.einsum("c,chw->hw", query[b, :, i, j], key[b]).flatten().softmax(0)
                seen = value[b].flatten(1) @ weights
                out[b, :, i, j] = block.out.weight[:, :, 0, 0] @ seen
    return x + block.gain * out


def test_attention_looks_at_every_place_and_starts_as_the_identity():
    block, x = Attention(16), torch.randn(2, 16, 6, 6)
    assert torch.equal(block(x), x)
    block, x = shaken(block), x.double()
    torch.testing.assert_close(block(x), attention(block, x))


def discriminator(net, x):
    """compare_gan's order: 3x3, 3x3, pool, beside 1x1, pool; the sum over places last."""
    last = len(net.blocks) - 1
    for i, block in enumerate(net.blocks):
        if isinstance(block, Attention):
            x = attention(block, x)
            continue
        y = block.conv2(block.conv1(x if i == 0 else x.clamp(min=0)).clamp(min=0))
        skip = x if block.skip is None else block.skip(x)
        x = y + skip if i == last else F.avg_pool2d(y + skip, 2)
    return x.clamp(min=0).flatten(2).sum(2)


@pytest.mark.parametrize(("multipliers", "identity"), [((1, 2, 2), True), ((1, 2, 4), False)])
def test_discriminator_is_the_plain_reference(multipliers, identity):
    net = shaken(Discriminator(8, multipliers))
    assert (net.blocks[-1].skip is None) == identity
    x = random_images(2, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x).double(), discriminator(net, x), rtol=1e-5, atol=1e-4)


def test_the_sum_over_places_is_float32_under_autocast():
    """In bfloat16 a sum over 784 places loses the small ones."""
    net = Discriminator(4, (1, 2), attention=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(random_images(2, 16).float()).dtype == torch.float32


def test_one_discriminator_serves_all_sizes():
    net = Discriminator(2)
    shapes = []
    net.blocks[-1].register_forward_hook(lambda _, __, out: shapes.append(out.shape[-1]))
    with torch.no_grad():
        for size in (32, 128, 224):
            assert net(torch.zeros(1, 3, size, size)).shape == (1, 32)
    assert shapes == [1, 4, 7]


def test_dark_pixels_reach_the_discriminator():
    """A ReLU before the first convolution would hide every value below zero."""
    x = (-random_images(1, 16).float().abs()).requires_grad_()
    orthogonal(Discriminator(4, (1, 2)))(x).sum().backward()
    assert (x.grad != 0).all()


def generator(net, noise, classes):
    """Repeated pixels before the 1x1, explicit chunks, batch norm written out."""

    def normal(layer, x, code):
        y = (x - layer.norm.running_mean[:, None, None]) / (layer.norm.running_var[:, None, None] + 1e-3).sqrt()
        if isinstance(layer, ModulatedNorm):
            inner = layer.hidden(code).clamp(min=0)
            gain, offset = layer.gain(inner), layer.offset(inner)
        else:
            gain, offset = 1 + code @ layer.gain.weight.t(), code @ layer.offset.weight.t()
        return (y * gain[:, :, None, None] + offset[:, :, None, None]).clamp(min=0)

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    k = noise.shape[1] // (len(net.blocks) + 1)
    x = (noise[:, :k] @ net.start.weight.t() + net.start.bias).view(len(noise), -1, 4, 4)
    for i, block in enumerate(net.blocks):
        code = noise[:, (i + 1) * k : (i + 2) * k]
        if net.embed is not None:
            code = torch.cat([code, net.embed.weight[classes]], 1)
        if i == len(net.blocks) - 1:
            x = attention(net.attention, x)
        y = block.conv2(normal(block.norm2, block.conv1(up(normal(block.norm1, x, code))), code))
        x = y + block.skip(up(x))
    last = (x - net.norm.running_mean[:, None, None]) / (net.norm.running_var[:, None, None] + 1e-3).sqrt()
    last = last * net.norm.weight[:, None, None] + net.norm.bias[:, None, None]
    return net.last(last.clamp(min=0)).tanh()


@pytest.mark.parametrize("kind", ["classes", "modulated", "linear"])
def test_generator_is_the_plain_reference(kind):
    net = shaken(Generator(13, 16, 2, 5 if kind == "classes" else None, 6, kind == "modulated"))
    with torch.no_grad():
        net.last.weight.mul_(1e-3)  # out of tanh's flat parts
        noise, classes = torch.randn(3, 13, dtype=torch.float64), torch.tensor([0, 4, 2])
        got = net(noise, classes)
        torch.testing.assert_close(got, generator(net, noise, classes))
    assert got.std() > 0.001 and got.abs().median() < 0.9


@pytest.mark.parametrize(("size", "widths", "chunk"), [(32, (8, 4, 2, 1), 30), (64, (16, 8, 4, 2, 1), 24)])
def test_smaller_images_take_the_last_widths(size, widths, chunk):
    net = Generator(120, size, 2)
    assert [net.blocks[0].skip.in_channels, *(b.skip.out_channels for b in net.blocks)] == [2 * w for w in widths]
    assert net.chunk == chunk
    at = []
    net.attention.register_forward_hook(lambda _, __, out: at.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.randn(2, 120)).shape == (2, 3, size, size)
    assert at == [size // 2]


@pytest.mark.parametrize(("latent", "size", "match"), [(120, 48, "128 px, not 48"), (5, 128, "at least 6")])
def test_generator_refuses_what_it_cannot_make(latent, size, match):
    with pytest.raises(UserError, match=match):
        Generator(latent, size, 1)


def test_kernels_start_orthogonal_and_gains_at_one():
    net = registry.build("biggan-small", 0)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            w = part.weight.detach().flatten(1)
            gram = w @ w.t() if len(w) <= w.shape[1] else w.t() @ w
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
            assert not part.bias.any()
    assert torch.equal(net.blocks[0].conv1.weight, registry.build("biggan-small", 0).blocks[0].conv1.weight)
    norms = [m for m in Generator(12, 32, 2, modulated=True).modules() if isinstance(m, ModulatedNorm)]
    assert len(norms) == 6 and all((m.gain.bias == 1).all() and not m.offset.bias.any() for m in norms)


def test_small_network_costs_what_the_other_small_one_costs():
    """Multiply-adds of one 32 px image; measured times are in the table's comment."""

    def cost(name):
        net, found = registry.build(name, 0), []
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(lambda m, _, out: found.append(m.weight[0].numel() * out[0].numel()))
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
        return sum(found)

    assert 0.5 < cost("biggan-small") / cost("resnet-small") < 1.5


# Spectral normalisation


def layers():
    torch.manual_seed(0)
    return [nn.Linear(7, 5), nn.Conv2d(3, 8, 3), nn.Embedding(6, 4), nn.Conv2d(8, 2, 1, bias=False)]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_norm_becomes_one_as_by_exact_decomposition_and_torchs_own(layer):
    plain = layer.weight.detach().clone()
    other = copy.deepcopy(layer)
    spectral(layer)
    nn.utils.parametrizations.spectral_norm(other, n_power_iterations=1)
    for _ in range(300):
        got, want = layer.weight, other.weight
    exact = plain / torch.linalg.matrix_norm(plain.flatten(1), ord=2)
    torch.testing.assert_close(got, exact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    # Once u stands, gradients are those of W / sigma(W).
    g = torch.randn_like(got)
    (got * g).sum().backward()
    twin = plain.double().requires_grad_()
    (twin / torch.linalg.matrix_norm(twin.flatten(1), ord=2) * g.double()).sum().backward()
    (weight,) = [p for key, p in layer.named_parameters() if "original" in key]
    torch.testing.assert_close(weight.grad.double(), twin.grad, atol=1e-4, rtol=1e-3)


def test_one_power_iteration_a_call_in_training_and_none_in_evaluation():
    layer = nn.Linear(7, 5)
    w = layer.weight.detach().clone()
    spectral(layer)
    part = layer.parametrizations.weight[0]
    u = part.u.clone()
    for _ in range(3):
        v = F.normalize(w.t() @ u, dim=0)
        u = F.normalize(w @ v, dim=0)
        layer(torch.zeros(1, 7))
        torch.testing.assert_close(part.u, u)
    layer.eval()
    torch.testing.assert_close(layer.weight, layer.weight)
    torch.testing.assert_close(part.u, u)


def test_several_calls_before_one_backward():
    net = spectral(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)))
    x = torch.randn(3, 4)
    (net(x) + net(-x)).sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_float32_under_autocast_and_the_same():
    layer = spectral(nn.Linear(40, 30)).eval()
    want = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        got = layer.weight
        assert layer(torch.randn(2, 40)).dtype == torch.bfloat16
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_fold_leaves_the_plain_network_with_the_same_outputs():
    net, x = spectral(Discriminator(4, (1, 2))).train(), torch.randn(2, 3, 16, 16)
    net(x)
    # The state goes into a second one: u is part of it.
    again = spectral(Discriminator(4, (1, 2)))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x), net.eval()(x))
    want = net(x)
    fold(net.train())
    assert net.training and not any(isinstance(m, Spectral) for m in net.modules())
    assert net.state_dict().keys() == Discriminator(4, (1, 2)).state_dict().keys()
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-6)
    assert len(list(net.parameters())) == len(list(Discriminator(4, (1, 2)).parameters()))


def test_a_kernel_of_zeros_stays_finite():
    layer = spectral(nn.Linear(3, 2))
    nn.init.zeros_(layer.parametrizations.weight.original)
    assert layer(torch.ones(1, 3)).isfinite().all()
