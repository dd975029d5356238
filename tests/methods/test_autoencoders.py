"""VAE and the three WAEs: start values, estimators against independent references, one batch overfit."""

import contextlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_methods import BATCH, SIZE, batch_for, make, make_rng, train
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from vtabflow.errors import UserError
from vtabflow.methods.augment import crop_boxes, crop_resize, random_flips, to_float
from vtabflow.methods.autoencoder import kl
from vtabflow.methods.wae_gan import log_prior
from vtabflow.methods.wae_mmd import mmd
from vtabflow.methods.wae_ukl import ram_mc
from vtabflow.networks.decoder import Decoder
from vtabflow.planning import catalogue

NAMES = ["vae", "wae-mmd", "wae-gan", "wae-ukl"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # tolstikhin/wae wae.py
LATENT = 8
PRIOR = Independent(Normal(torch.zeros(LATENT).double(), torch.ones(LATENT).double()), 1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = normal(5, 9).double(), normal(5, 9, seed=1).double()
    want = kl_divergence(
        Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(9).double(), torch.ones(9).double())
    )
    torch.testing.assert_close(kl(mean, log_variance), want.sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("vae", 2.0), ("wae-mmd", 0.05), ("wae-gan", 0.05), ("wae-ukl", 0.05)],
)
def test_errors_are_summed_over_pixels_and_averaged_over_the_batch(name, weight):
    method = make(name, **({"variance": 0.25} if name == "vae" else {}))
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0]))
    method.decoder.register_forward_hook(lambda _, inputs, out: seen.update(decoded=out))
    losses = method.losses(method.update_order[0], batch_for(method), make_rng())
    error = sum(((seen["x"][i] - seen["decoded"][i]) ** 2).sum() for i in range(BATCH)) / BATCH
    # The WAEs with a deterministic encoder see the image with noise of 0.01.
    torch.testing.assert_close(losses["reconstruction"], weight * error, rtol=1e-3 if "wae" in name else 1e-5, atol=0)


def brute_force_mmd(a, b):
    """tolstikhin/wae's formula term by term in float64."""
    n, d = a.shape

    def k(x, y):
        return sum(2 * d * s / (2 * d * s + ((x - y) ** 2).sum()) for s in SCALES)

    within = sum(k(z[i], z[j]) for z in (a, b) for i in range(n) for j in range(n) if i != j)
    return within / (n * (n - 1)) - 2 * sum(k(x, y) for x in a for y in b) / n**2


def test_mmd_is_the_unbiased_estimate():
    a, b = normal(7, 5) * 1.5 + 0.3, normal(7, 5, seed=1)
    assert mmd(a, b).item() == pytest.approx(brute_force_mmd(a.double().numpy(), b.double().numpy()), abs=1e-5)


def test_mmd_of_equal_distributions_is_around_zero_and_as_often_negative():
    """By numpy: at d = 64 the standard deviation is about 0.41 / n; a shift of 0.5 gives 0.27, collapse 1.92."""
    n = 100
    values = np.array([mmd(normal(n, 64, seed=i), normal(n, 64, seed=1000 + i)).item() for i in range(200)])
    assert abs(values.mean()) < 4 * 0.0041 / math.sqrt(200) and values.std() == pytest.approx(0.0041, rel=0.2)
    assert 0.35 < (values < 0).mean() < 0.65
    assert mmd(normal(1024, 64) + 0.5, normal(1024, 64, seed=1)).item() == pytest.approx(0.27, abs=0.02)
    assert mmd(torch.zeros(1024, 64), normal(1024, 64)).item() == pytest.approx(1.92, abs=0.02)


def test_ram_mc_is_the_mixtures_log_ratio():
    mean, log_variance = normal(6, 4), normal(6, 4, seed=1)
    code = mean + normal(6, 4, seed=2) * (log_variance / 2).exp()
    parts = Independent(Normal(mean.double(), (log_variance.double() / 2).exp()), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(6).double()), parts)
    prior = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    want = (mixture.log_prob(code.double()) - prior.log_prob(code.double())).mean()
    assert ram_mc(mean, log_variance, code).item() == pytest.approx(want.item(), rel=1e-6)


def estimate(mean, log_variance, samples=4000):
    """The expectation of RAM-MC over codes, with its standard error."""
    values = []
    for i in range(samples):
        code = mean + normal(*mean.shape, seed=i) * (log_variance / 2).exp()
        values.append(ram_mc(mean, log_variance, code).item())
    return np.mean(values), np.std(values) / math.sqrt(samples)


def test_ram_mc_of_one_image_is_the_vaes_kl():
    mean, log_variance = normal(1, 6), normal(1, 6, seed=1) * 0.3
    value, error = estimate(mean, log_variance)
    assert abs(value - kl(mean, log_variance).item()) < 4 * error and error < 0.1


def test_ram_mc_lies_between_its_bounds():
    """Computed with numpy: d = 64, variance .5, means N(0, .5): mean KL 22.2, n = 16 gives 19.4."""
    mean, log_variance = normal(16, 64) * 0.5**0.5, torch.full((16, 64), math.log(0.5))
    upper = kl(mean, log_variance).mean().item()
    value, error = estimate(mean, log_variance, 400)
    assert upper - math.log(16) - 4 * error <= value <= upper + 4 * error
    assert value == pytest.approx(upper - math.log(16), abs=0.1), "far apart, the parts of the mixture do not meet"
    together = torch.zeros(16, 64)
    value, error = estimate(together, log_variance, 400)
    assert abs(value - kl(together, log_variance).mean().item()) < 4 * error + 1e-3, "equal parts are one"


def test_ram_mc_stays_exact_for_narrow_gaussians():
    mean, log_variance = normal(5, 3) * 4, torch.full((5, 3), -20.0)
    parts = Independent(Normal(mean.double(), (log_variance.double() / 2).exp()), 1)
    code = mean + normal(5, 3, seed=1) * math.exp(-10)
    want = MixtureSameFamily(Categorical(torch.ones(5).double()), parts).log_prob(code.double())
    want = (want - Normal(0, 1).log_prob(code.double()).sum(1)).mean().item()
    assert ram_mc(mean, log_variance, code).item() == pytest.approx(want, rel=1e-5)


def test_a_plain_critic_starts_at_two_ln_two():
    method = make("wae-gan", prior_trick=False)
    assert method.losses("critic", batch_for(method), make_rng())["critic"].item() == pytest.approx(
        2 * math.log(2), abs=1e-6
    )
    assert method.losses("autoencoder", batch_for(method), make_rng())["generator"].item() == pytest.approx(
        math.log(2), abs=1e-6
    )


def test_the_prior_trick_adds_the_log_density():
    code = normal(4, 9)
    want = Normal(0, 1).log_prob(code).sum(1)
    torch.testing.assert_close(log_prior(code), want)
    tricked, plain = make("wae-gan").critic, make("wae-gan", prior_trick=False).critic
    code = normal(4, 8)
    torch.testing.assert_close(tricked(code) - plain(code), log_prior(code))


@pytest.mark.parametrize("name", ["vae", "wae-ukl"])
@pytest.mark.parametrize(("bias", "bound"), [(-1e4, -30), (1e4, 20)])
def test_variances_stay_within_bounds_of_float32(name, bias, bound):
    method = make(name)
    torch.nn.init.constant_(method.log_variance.bias, bias)
    _, log_variance, code = method.posterior(method.crop(batch_for(method), make_rng()), make_rng())
    assert torch.equal(log_variance, torch.full_like(log_variance, bound)) and code.isfinite().all()


# Losses of whole updates. Crops, noise and codes are made again from the same random numbers; what follows the heads
# is float64.


def ready(name, **settings):
    """A method whose codes' variances differ from one another and from 1, and some of whose means hardly vary."""
    method = make(name, **settings)
    with torch.no_grad():
        method.mean.weight *= torch.linspace(0, 1, LATENT)[:, None]
        if hasattr(method, "log_variance"):
            method.log_variance.weight.copy_(0.1 * normal(*method.log_variance.weight.shape, seed=5))
            method.log_variance.bias.copy_(torch.linspace(-2, 1, LATENT))
        if hasattr(method, "critic"):
            method.critic.last.weight.copy_(normal(*method.critic.last.weight.shape, seed=6))
    return method


def losses_and_view(method, group, batch, noise):
    """The losses of `method` with make_rng(3); the crops that it should have made of the batch; features of these with
    normal noise of this deviation, clipped at two; and the generator in its state after these."""
    seen = []
    hook = method.trunk.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    losses = method.losses(group, batch, make_rng(3))
    hook.remove()
    images, again = batch["images"][0], make_rng(3)
    boxes = crop_boxes(len(images), *images.shape[1:3], again, (0.5, 1.0), (1.0, 1.0))
    x = crop_resize(to_float(images), boxes, SIZE, random_flips(len(images), again))
    shown = x + noise * again.normal(x.shape).clamp(-2, 2) if noise else x
    assert len(seen) == 1 and torch.equal(seen[0], shown)
    return losses, x, method.trunk(shown), again


def error(method, x, code):
    return (x.double() - method.decoder(code.float()).double()).square().sum() / len(x)


def varied(mean):
    return (mean.detach().var(0) > 0.01).double().mean()


def encoded(method, features, again):
    """Each image's Gaussian, and one draw of each."""
    mean, log_variance = method.mean(features).double(), method.log_variance(features).double()
    sigma = (log_variance / 2).exp()
    return Independent(Normal(mean, sigma), 1), mean + again.normal(mean.shape).double() * sigma


def logits(critic, code):
    """Of ReLU layers, a linear one and the prior's log density."""
    x = code
    for layer in critic.layers:
        x = F.linear(x, layer.weight.double(), layer.bias.double()).relu()
    return F.linear(x, critic.last.weight.double(), critic.last.bias.double()).squeeze(1) + PRIOR.log_prob(code)


def assert_same(method, got, want):
    """Every loss, and what it does to the weights."""
    weights = list(method.parameters())
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].item() == pytest.approx(value.item(), rel=1e-5), name
        assert got[name].requires_grad == value.requires_grad, name
        if value.requires_grad:
            mine, its = (
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, None, True, materialize_grads=True)])
                for loss in (got[name], value)
            )
            assert (mine - its).norm() < 1e-3 * its.norm(), name


def test_the_losses_of_the_vae():
    method = ready("vae", variance=0.25, beta=3.0)
    got, x, features, again = losses_and_view(method, "main", batch_for(method), 0)
    posterior, code = encoded(method, features, again)
    assert 0 < varied(posterior.mean) < 1
    want = {
        "reconstruction": error(method, x, code) / 0.5,
        "kl": 3 * kl_divergence(posterior, PRIOR.expand([BATCH])).mean(),
        "active": varied(posterior.mean),
    }
    assert_same(method, got, want)


def test_the_losses_of_the_wae_with_mmd():
    method = ready("wae-mmd", reconstruction_weight=0.3, penalty_weight=70.0)
    got, x, features, again = losses_and_view(method, "main", batch_for(method), 0.01)
    code = method.mean(features).double()
    want = {
        "reconstruction": 0.3 * error(method, x, code),
        "mmd": 70 * brute_force_mmd(code, again.normal(code.shape).double()),
        "active": varied(code),
    }
    assert_same(method, got, want)


def test_the_losses_of_the_wae_with_a_critic():
    """The critic's logits l of samples of the prior and m of the codes: -ln s(l) - ln(1 - s(m)); the encoder's
    -ln s(m), s the logistic function."""
    method = ready("wae-gan", reconstruction_weight=0.3, penalty_weight=5.0)
    got, x, features, _ = losses_and_view(method, "autoencoder", batch_for(method), 0.01)
    code = method.mean(features).double()
    want = {
        "reconstruction": 0.3 * error(method, x, code),
        "generator": 5 * -F.logsigmoid(logits(method.critic, code)).mean(),
        "active": varied(code),
    }
    assert_same(method, got, want)
    got, _, features, again = losses_and_view(method, "critic", batch_for(method), 0.01)
    code = method.mean(features).double().detach()
    drawn, coded = (logits(method.critic, z) for z in (again.normal(code.shape).double(), code))
    assert_same(method, got, {"critic": 5 * -(F.logsigmoid(drawn) + F.logsigmoid(-coded)).mean()})


def test_the_losses_of_the_wae_with_ram_mc():
    method = ready("wae-ukl", reconstruction_weight=0.3, penalty_weight=5.0)
    got, x, features, again = losses_and_view(method, "main", batch_for(method), 0)
    posterior, code = encoded(method, features, again)
    mixture = MixtureSameFamily(Categorical(torch.ones(BATCH).double()), posterior)
    want = {
        "reconstruction": 0.3 * error(method, x, code),
        "ram-mc": 5 * (mixture.log_prob(code) - PRIOR.log_prob(code)).mean(),
        "kl": kl_divergence(posterior, PRIOR.expand([BATCH])).mean().detach(),
        "sigma": posterior.stddev.detach().mean(),
        "active": varied(posterior.mean),
    }
    assert_same(method, got, want)


def test_a_critic_tells_codes_from_the_prior_and_the_encoder_answers():
    method = make("wae-gan", prior_trick=False, input_noise=0.0)
    optimiser = torch.optim.Adam(method.critic.parameters(), 1e-3)
    batch = batch_for(method, 64)
    for step in range(150):
        optimiser.zero_grad()
        loss = method.losses("critic", batch, make_rng(step))["critic"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.0, "the critic discriminates codes that are not normal"
    assert method.losses("autoencoder", batch, make_rng())["generator"].item() > math.log(2)


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_can_be_learned_by_overfitting(name):
    """The error falls below 5% of its start. Without penalties: they ask for something else."""
    free = {"vae": {"beta": 0.0, "variance": 0.5}, "wae-ukl": {"penalty_weight": 0.0}}.get(
        name, {"penalty_weight": 0.0}
    )
    size, settings = 8, {"latent": 64, "channels": 16, "crop_area_min": 1.0, **free}
    batch = smooth(make(name, size=size, **settings), 64)
    first = train(make(name, size=size, **settings), 1, 0.0, batch)
    last = train(make(name, size=size, **settings), 300, 5e-3, batch, seed=lambda step: 0)
    group = make(name, size=size).update_order[0]
    assert last[group]["reconstruction"] < 0.05 * first[group]["reconstruction"]


def smooth(method, n):
    """Images that a decoder of few channels can draw: two colours and a slope."""
    g = torch.Generator().manual_seed(2)
    ends = torch.randint(0, 256, (n, 2, 1, 1, 3), generator=g).float()
    slope = torch.linspace(0, 1, method.size).view(1, 1, -1, 1)
    return {"images": ((ends[:, 0] * slope + ends[:, 1] * (1 - slope)).expand(n, method.size, -1, -1).byte(), None)}


@pytest.mark.parametrize("name", NAMES)
def test_decoders_show_what_they_make_of_the_prior(name):
    method = make(name).eval()
    with torch.no_grad():
        shown = method.samples()
        assert shown.shape == (64, 3, 32, 32) and shown.abs().max() <= 1 and torch.equal(shown, method.samples())


def test_the_sizes_of_the_autoencoders_are_those_that_their_decoder_can_make():
    can = []
    for size in range(4, 260, 4):
        with contextlib.suppress(UserError):
            assert Decoder(2, size, 1).eval()(torch.zeros(1, 2)).shape == (1, 3, size, size)
            can.append(size)
    assert {name: catalogue.info(name).sizes for name in NAMES} == dict.fromkeys(NAMES, tuple(can))
