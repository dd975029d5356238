"""The adversarial methods: losses against loops, who moves whom, what is kept, how a run goes on."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from small_methods import BATCH, batch_for, make, make_rng, minimised, one_step, train

from vtabflow.errors import UserError
from vtabflow.methods.augment import inception_crop, rotations
from vtabflow.methods.biggan import hinge
from vtabflow.networks import registry
from vtabflow.networks.spectral import Spectral
from vtabflow.planning import catalogue
from vtabflow.pretrain.loop import freeze_except

METHODS = ("cond-biggan", "uncond-biggan", "bigbigan")
PAIR = METHODS[:2]


def zero(*layers):
    with torch.no_grad():
        for layer in layers:
            for p in layer.parameters():
                p.zero_()


def norms(module):
    return {name: m.u.clone() for name, m in module.named_modules() if isinstance(m, Spectral)}


def optimisers(method):
    rates = method.group_settings()
    return {
        name: torch.optim.Adam(list(ps), rates[name]["learning_rate"], betas=(0.0, 0.999))
        for name, ps in method.parameter_groups().items()
    }


def test_hinge_is_two_at_zero_and_a_loop_elsewhere():
    assert hinge(torch.zeros(5), torch.zeros(5))["hinge"] == 2
    real, fake = torch.randn(9) * 2, torch.randn(9) * 2
    want = sum(max(0.0, 1 - r) for r in real.tolist()) / 9 + sum(max(0.0, 1 + f) for f in fake.tolist()) / 9
    assert abs(hinge(real, fake)["hinge"].item() - want) < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_losses_at_zero_scores_are_the_analytic_ones(name):
    method = make(name)
    batch = batch_for(method)
    zero(*(getattr(method, part) for part in ("logit", "project", "classify_rotation") if hasattr(method, part)))
    if name == "bigbigan":
        zero(method.discriminator.scores)
    found = method.losses("discriminator", batch, make_rng())
    assert found["hinge"] == 2 and found["real"] == found["fake"] == 0
    assert method.losses("generator", batch, make_rng())["generator"] == 0
    if name == "uncond-biggan":
        assert abs(found["rotation"].item() - math.log(4)) < 1e-6
        assert abs(method.losses("generator", batch, make_rng())["rotation"].item() - 0.2 * math.log(4)) < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_figures_start_of_order_one(name):
    """The loop bounds each by 100 times its start."""
    method = make(name)
    for group in dict.fromkeys(method.update_order):
        for key, value in method.losses(group, batch_for(method), make_rng()).items():
            assert abs(value) < 10, (group, key)


@pytest.mark.parametrize("name", METHODS)
def test_one_call_of_the_discriminator_per_update(name):
    method, calls = make(name), []
    discriminator = method.discriminator.images if name == "bigbigan" else method.trunk
    discriminator.register_forward_hook(lambda _, x, __: calls.append(len(x[0])))
    for group in ("discriminator", "generator"):
        method.losses(group, batch_for(method), make_rng())
    turned = 3 * 3 if name == "uncond-biggan" else 0  # a quarter of 12 three times
    assert calls == [2 * BATCH + turned, BATCH + turned]


def test_conditional_scores_are_a_loop_over_images():
    method = make("cond-biggan").eval()
    batch, classes = batch_for(method), 7
    images, y = batch["images"]
    again = make_rng(5)
    noise, fake_y = again.normal((BATCH, 8)), again.integers((BATCH,), classes)
    with torch.no_grad():
        fake, real = method.generator(noise, fake_y), method.crop(images, again)
        w, b, e = method.logit.weight[0].double(), method.logit.bias.double(), method.project.weight.double()

        def score(x, k):
            h = method.trunk(x[None])[0].double()
            return (w @ h + b + e[k] @ h).item()

        scores = [[score(x, int(k)) for x, k in zip(xs, ks, strict=True)] for xs, ks in ((real, y), (fake, fake_y))]
        found = method.losses("discriminator", batch, make_rng(5))
        generator_loss = method.losses("generator", batch, make_rng(5))["generator"]
    want = sum(max(0, 1 - s) for s in scores[0]) / BATCH + sum(max(0, 1 + s) for s in scores[1]) / BATCH
    assert abs(found["hinge"].item() - want) < 1e-4 * want
    assert abs(found["real"].item() - sum(scores[0]) / BATCH) < 1e-4
    assert abs(found["fake"].item() - sum(scores[1]) / BATCH) < 1e-4
    assert abs(generator_loss.item() + sum(scores[1]) / BATCH) < 1e-4


def test_rotation_is_of_every_fourth_image_and_scores_are_of_upright_images():
    method = make("uncond-biggan").eval()
    batch = batch_for(method)
    again = make_rng(5)
    noise = again.normal((BATCH, 8))
    with torch.no_grad():
        fake, real = method.generator(noise), method.crop(batch["images"][0], again)
        w, b = method.classify_rotation.weight.double(), method.classify_rotation.bias.double()

        def entropy(xs):
            each = []
            for x in (xs[0], xs[4], xs[8]):
                for k in range(4):
                    h = method.trunk(torch.rot90(x, k, (1, 2))[None])[0].double()
                    each.append(F.cross_entropy((w @ h + b)[None], torch.tensor([k])).item())
            return sum(each) / len(each)

        def score(xs):
            return method.logit(method.trunk(xs)).squeeze(1)

        found = method.losses("discriminator", batch, make_rng(5))
        generator_losses = method.losses("generator", batch, make_rng(5))
        assert abs(found["rotation"].item() - entropy(real)) < 1e-4
        torch.testing.assert_close(found["hinge"], hinge(score(real), score(fake))["hinge"], rtol=1e-4, atol=1e-4)
        assert abs(generator_losses["rotation"].item() - 0.2 * entropy(fake)) < 1e-4
        torch.testing.assert_close(generator_losses["generator"], -score(fake).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("downscale", [1, 2])
def test_bigbigan_is_the_mean_over_three_scores(downscale):
    method = make("bigbigan", downscale=downscale).eval()
    batch = batch_for(method)
    sizes = []
    method.discriminator.images.register_forward_hook(lambda _, x, __: sizes.append(x[0].shape[-1]))
    with torch.no_grad():
        again = make_rng(5)
        x, codes = method.sample_pairs(batch, again)
        noise = again.normal((BATCH, 8))
        fake = method.generator(noise)
        discriminator = method.discriminator

        def scores(image, code):
            f, h = discriminator.images(image[None]), discriminator.codes(code[None])
            j = discriminator.pairs(torch.cat([f, h], 1))
            return [s(v).item() for s, v in zip(discriminator.scores, (f, h, j), strict=True)]

        real, generated = (
            [s for a, b in zip(*pair, strict=True) for s in scores(a, b)] for pair in ((x, codes), (fake, noise))
        )
        found = method.losses("discriminator", batch, make_rng(5))
        encoder = method.losses("encoder", batch, make_rng(5))["encoder"]
        generator_loss = method.losses("generator", batch, make_rng(6))["generator"]
        noise = make_rng(6).normal((BATCH, 8))
        fresh = discriminator(method.generator(noise), noise)
    assert fresh.shape == (BATCH, 3)
    want = sum(max(0, 1 - s) for s in real) / len(real) + sum(max(0, 1 + s) for s in generated) / len(generated)
    assert abs(found["hinge"].item() - want) < 1e-4
    assert abs(encoder.item() - sum(real) / len(real)) < 1e-4
    assert abs(generator_loss.item() + fresh.mean().item()) < 1e-4
    assert set(sizes) == {32 // downscale} and fake.shape == x.shape
    if downscale == 2:
        method.config["downscale"] = 1
        whole, _ = method.sample_pairs(batch, make_rng(5))
        torch.testing.assert_close(x, F.avg_pool2d(whole, 2))


def test_bigbigan_codes_are_samples_around_a_mean_and_the_image_score_moves_no_encoder():
    method = make("bigbigan").eval()
    method.requires_grad_(True)
    x, codes = method.sample_pairs(batch_for(method), make_rng(1))
    images, again = batch_for(method)["images"][0], make_rng(1)
    inner = method.head(method.encode(inception_crop(images, 32, again, 0.08, (3 / 4, 4 / 3))))
    torch.testing.assert_close(
        codes, method.mean(inner) + (1 + method.spread(inner).exp()).log() * again.normal(codes.shape)
    )
    scores = method.discriminator(x, codes)
    (first,) = torch.autograd.grad(scores[:, 0].sum(), method.mean.weight, retain_graph=True, allow_unused=True)
    assert first is None or not first.any()
    for k in (1, 2):
        (other,) = torch.autograd.grad(scores[:, k].sum(), method.mean.weight, retain_graph=True)
        assert other.any()


def test_bigbigan_refuses_a_size_that_its_generator_does_not_make():
    trunk = registry.build("resnet-small", 0)
    with pytest.raises(UserError, match="not 256"):
        catalogue.load("bigbigan")(trunk, 256, None, {"steps": 1, "batch": 2, "hidden": 4, "channels": 1}, 0)


@pytest.mark.parametrize("name", METHODS)
def test_the_discriminators_update_hands_no_gradient_to_the_others(name):
    method = make(name)
    method.requires_grad_(True)
    minimised(method.losses("discriminator", batch_for(method), make_rng())).backward()
    own = {id(p) for p in method.parameter_groups()["discriminator"]}
    for key, p in method.named_parameters():
        assert (p.grad is None) == (id(p) not in own), key


@pytest.mark.parametrize("name", METHODS)
def test_a_generators_update_leaves_the_discriminator_but_for_one_power_iteration(name):
    method = make(name)
    parameter_groups = {group: list(ps) for group, ps in method.parameter_groups().items()}
    before = copy.deepcopy(method.state_dict())
    freeze_except(method, parameter_groups["generator"])
    minimised(method.losses("generator", batch_for(method), make_rng())).backward()
    torch.optim.Adam(parameter_groups["generator"], 1e-3).step()
    own = {id(p) for p in parameter_groups["discriminator"]}
    assert [key for key, p in method.named_parameters() if id(p) in own and p.grad is not None] == []
    discriminator = "discriminator." if name == "bigbigan" else "trunk."
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, before[key])}
    mine = {key for key in moved if not key.startswith("generator.")}
    assert mine and all(key.endswith(".u") for key in mine), mine
    assert {key for key in mine if key.startswith(discriminator)}
    for key in mine:
        kernel = before[key.replace(".0.u", ".original")].flatten(1)
        u = F.normalize(kernel @ F.normalize(kernel.t() @ before[key], dim=0), dim=0)
        torch.testing.assert_close(method.state_dict()[key], u, atol=1e-5, rtol=1e-4)


def learnt(method, batch, steps, seed):
    """Losses and metrics of the discriminator after so many updates of it alone."""
    parameter_groups = method.parameter_groups()
    freeze_except(method, parameter_groups["discriminator"])
    adam = torch.optim.Adam(parameter_groups["discriminator"], 2e-3, betas=(0.0, 0.999))
    for step in range(steps):
        adam.zero_grad()
        found = method.losses("discriminator", batch, make_rng(seed(step)))
        minimised(found).backward()
        adam.step()
    return found


def test_all_layers_but_the_class_embedding_of_the_generator_are_normalised():
    """compare_gan's embed_y has use_sn=False: held at a norm of 1, its rows would be lost beside the noise."""
    method = make("cond-biggan")
    plain = [
        name
        for name, part in method.named_modules()
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear | torch.nn.Embedding)
        and not torch.nn.utils.parametrize.is_parametrized(part)
        and not name.startswith("average.")
    ]
    assert plain == ["generator.embed"]


@pytest.mark.parametrize("name", METHODS)
def test_generated_images_of_one_batch_are_overfit(name):
    method = make(name, **({"hidden": 64} if name == "bigbigan" else {}))
    found = learnt(method, batch_for(method, 16), 120, lambda step: 0)
    assert found["hinge"] < 0.05 and found["real"] > 0.9 and found["fake"] < -0.9
    if name == "uncond-biggan":
        assert found["rotation"] < 0.3 and found["accuracy"] == 1


def test_rotations_of_images_are_learnt():
    """Bright above and dark below: a rotation shows, whichever the image and its crop."""
    method = make("uncond-biggan", rotated_every=1)
    g = torch.Generator().manual_seed(0)
    ramp = torch.linspace(255, 0, 32)[None, :, None, None] + torch.randn(8, 32, 32, 3, generator=g) * 40
    assert learnt(method, {"images": (ramp.clamp(0, 255).byte(), None)}, 40, lambda step: step)["accuracy"] > 0.6


@pytest.mark.parametrize("name", METHODS)
def test_what_is_shown_is_the_average_of_the_generators(name):
    method = make(name, steps=8, ema_start=0.5, ema_decay=0.7)
    adams, batch, want = optimisers(method), batch_for(method), None
    for step in range(8):
        one_step(method, adams, batch, step, step)
        now = {key: p.detach().double().clone() for key, p in method.generator.named_parameters()}
        want = now if step < 4 else {key: 0.7 * want[key] + 0.3 * now[key] for key in now}
    for key, p in method.average.network.named_parameters():
        torch.testing.assert_close(p.double(), want[key], atol=1e-6, rtol=1e-5)
    for key, b in method.average.network.named_buffers():
        assert torch.equal(b, method.generator.get_buffer(key))
    with torch.no_grad():
        shown = method.eval().samples()
    assert shown.shape == (64, 3, 32, 32) and shown.abs().max() <= 1 and shown.std(0).max() > 0.01
    assert torch.equal(method.samples(), shown)


@pytest.mark.parametrize("name", PAIR)
def test_the_trunk_that_is_kept_is_plain_and_has_the_same_features(name):
    method = make(name)
    train(method, 3, 1e-3)
    x = rotations(torch.rand(2, 3, 32, 32) * 2 - 1)[0]
    method.eval()
    with torch.no_grad():
        want = method.encode(x)
        assert norms(method.trunk)
        method.finalize()
        torch.testing.assert_close(method.encode(x), want, rtol=1e-5, atol=1e-5)
        plain = registry.build("biggan-small", 3)
        assert not norms(method.trunk) and plain.state_dict().keys() == method.trunk.state_dict().keys()
        plain.load_state_dict(method.trunk.state_dict())
        torch.testing.assert_close(plain(x), want, rtol=1e-5, atol=1e-5)
        # Every kernel has norm one, but for the error of few power iterations.
        for key, value in method.trunk.state_dict().items():
            if value.ndim == 4:
                assert 0.99 < torch.linalg.matrix_norm(value.flatten(1), ord=2) < 1.5, key


def test_bigbigan_keeps_its_encoder_as_it_is():
    method = make("bigbigan")
    assert not norms(method.trunk) and norms(method.discriminator) and norms(method.generator)
    assert method.trunk.state_dict().keys() == registry.build("resnet-small", 0).state_dict().keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_is_bit_identical(name):
    def state(method, adams):
        return {"method": method.state_dict(), "adams": {key: each.state_dict() for key, each in adams.items()}}

    method = make(name, steps=6, ema_start=0.0, ema_decay=0.9)
    adams, batch = optimisers(method), batch_for(method)
    for step in range(6):
        if step == 3:
            file = io.BytesIO()
            torch.save(state(method, adams), file)
        one_step(method, adams, batch, step, step)
    file.seek(0)
    saved = torch.load(file)
    again = make(name, steps=6, ema_start=0.0, ema_decay=0.9)
    others = optimisers(again)
    again.load_state_dict(saved["method"])
    for key, each in others.items():
        each.load_state_dict(saved["adams"][key])
    for step in range(3, 6):
        one_step(again, others, batch, step, step)
    for key, value in method.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert any(key.endswith(".u") for key in saved["method"]) and any("average." in key for key in saved["method"])
