"""The first five methods: start losses, gradients, what they are given, one batch overfitted."""

import contextlib
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vtabflow import catalogue
from vtabflow.errors import UserError
from vtabflow.methods.vae import kl
from vtabflow.networks.decoder import Decoder
from vtabflow.networks.resnetv2 import ResNetV2

SIZE, CLASSES, BATCH = 16, 7, 12
TINY = {
    "blocks": [1, 1],
    "widths": [16, 32],
    "strides": [1, 2],
    "root": [8, 3, 2],
    "max_pool": False,
    "bottleneck": False,
}
SMALL = {"vae": {"channels": 4, "latent": 8}}
TRAINED = [name for name, info in catalogue.methods().items() if info.streams]


def make(name, **settings):
    torch.manual_seed(0)
    return catalogue.load(name)(ResNetV2(**TINY), SIZE, CLASSES, {**SMALL.get(name, {}), **settings}, 0)


def batch_for(method, n=BATCH):
    g = torch.Generator().manual_seed(1)
    batch = {}
    for name, source in method.streams.items():
        images = torch.randint(0, 256, (n, SIZE, SIZE, 3), dtype=torch.uint8, generator=g)
        batch[name] = (images, None if source == "images" else torch.randint(0, CLASSES, (n,), generator=g))
    return batch


def minimised(losses):
    return torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()


def train(method, steps, rate, seed=lambda step: step):
    optimiser = torch.optim.Adam(method.parameters(), rate)
    batch, generator = batch_for(method), torch.Generator()
    for step in range(steps):
        optimiser.zero_grad()
        losses = method.losses("main", batch, generator.manual_seed(seed(step)))
        minimised(losses).backward()
        optimiser.step()
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("sup-100", {"class": math.log(CLASSES)}),
        ("rotation", {"rotation": math.log(4)}),
        ("semi-rotation-10", {"class": math.log(CLASSES), "rotation": math.log(4)}),
    ],
)
def test_start_losses_are_those_of_chance(name, start):
    method = make(name)
    losses = method.losses("main", batch_for(method), torch.Generator().manual_seed(0))
    for key, value in start.items():
        assert losses[key].item() == pytest.approx(value, abs=1e-6)
    assert minimised(losses).item() == pytest.approx(sum(start.values()), abs=1e-6)


def test_semi_rotation_weighs_the_streams_as_s4l():
    """w * 1/2 * [rotation of unlabelled + rotation of labelled]; the class of a labelled image in all four turns."""
    method = make("semi-rotation-10", rotation_weight=3.0)
    torch.nn.init.normal_(method.turn.weight)
    torch.nn.init.normal_(method.classify.weight)
    batch = batch_for(method)
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0], features=out))
    losses = method.losses("main", batch, torch.Generator().manual_seed(0))
    assert len(seen["x"]) == 8 * BATCH, "one pass over both streams"
    turns = torch.arange(4).repeat_interleave(BATCH)
    log = torch.log_softmax(method.turn(seen["features"]), 1)
    each = [-log[half * 4 * BATCH :][: 4 * BATCH][torch.arange(4 * BATCH), turns].mean() for half in (0, 1)]
    torch.testing.assert_close(losses["rotation"], 3.0 * 0.5 * (each[0] + each[1]))
    log = torch.log_softmax(method.classify(seen["features"][4 * BATCH :]), 1)
    labels = batch["labelled"][1]
    want = -sum(log[k * BATCH + i, labels[i]] for k in range(4) for i in range(BATCH)) / (4 * BATCH)
    torch.testing.assert_close(losses["class"], want)


def test_kl_is_that_of_torch_distributions():
    g = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(5, 9, dtype=torch.float64, generator=g) for _ in range(2))
    want = kl_divergence(
        Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(9).double(), torch.ones(9).double())
    )
    torch.testing.assert_close(kl(mean, log_variance), want.sum(1), rtol=1e-12, atol=0)


def test_vae_sums_over_pixels_and_means_over_the_batch():
    method = make("vae", variance=0.25, beta=3.0)
    images = batch_for(method)["images"][0]
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0]))
    method.decoder.register_forward_hook(lambda _, inputs, out: seen.update(decoded=out))
    losses = method.losses("main", {"images": (images, None)}, torch.Generator().manual_seed(0))
    error = sum(((seen["x"][i] - seen["decoded"][i]) ** 2).sum() for i in range(BATCH)) / BATCH
    torch.testing.assert_close(losses["reconstruction"], error / (2 * 0.25))
    assert losses["kl"].item() == pytest.approx(
        3.0 * make("vae").losses("main", {"images": (images, None)}, torch.Generator().manual_seed(0))["kl"].item(),
        rel=1e-5,
    )


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name):
    """After a few steps: a zero head hands no gradient on at the first."""
    method = make(name)
    train(method, 3, 1e-3)
    method.zero_grad()
    minimised(method.losses("main", batch_for(method), torch.Generator().manual_seed(9))).backward()
    missing = [key for key, p in method.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not missing


@pytest.mark.parametrize("name", ["vae", "rotation"])
def test_methods_without_labels_declare_none_and_ignore_them(name):
    info = catalogue.info(name)
    assert set(info.streams.values()) == {"images"} and not info.uses_labels
    method = make(name)
    images, _ = batch_for(method)["images"]
    values = []
    for labels in (None, torch.full((BATCH,), 10**6)):
        values.append(minimised(method.losses("main", {"images": (images, labels)}, torch.Generator().manual_seed(0))))
    assert torch.equal(*values)


@pytest.mark.parametrize("name", ["sup-100", "semi-rotation-10"])
def test_methods_with_labels_need_classes(name):
    with pytest.raises(UserError, match=name):
        catalogue.load(name)(ResNetV2(**TINY), SIZE, None, {}, 0)


@pytest.mark.parametrize(
    ("name", "loss", "share"),
    [("sup-100", "class", 0.1), ("rotation", "rotation", 0.15), ("vae", "reconstruction", 0.3)],
)
def test_one_batch_can_be_learned_by_heart(name, loss, share):
    method = make(name)
    fixed = {"seed": lambda step: 0}
    first = train(make(name), 1, 0.0, **fixed)[loss]
    assert train(method, 150, 5e-3, **fixed)[loss] < share * first


@pytest.mark.parametrize("name", TRAINED)
def test_losses_are_a_function_of_the_generator(name):
    method = make(name)
    method.eval()
    batch = batch_for(method)
    torch.nn.init.normal_(list(method.children())[1].weight)
    torch.manual_seed(0)
    first = minimised(method.losses("main", batch, torch.Generator().manual_seed(4)))
    torch.manual_seed(1)
    assert torch.equal(first, minimised(method.losses("main", batch, torch.Generator().manual_seed(4))))
    assert not torch.equal(first, minimised(method.losses("main", batch, torch.Generator().manual_seed(5))))


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_autocast_leaves_losses_in_float32(name):
    method = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses("main", batch_for(method), torch.Generator().manual_seed(0))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_the_sizes_of_the_vae_are_those_that_its_decoder_can_make():
    can = []
    for size in range(4, 260, 4):
        with contextlib.suppress(UserError):
            assert Decoder(2, size, 1).eval()(torch.zeros(1, 2)).shape == (1, 3, size, size)
            can.append(size)
    assert tuple(can) == catalogue.info("vae").sizes


@pytest.mark.parametrize("method", [name for name, info in catalogue.methods().items() if info.ranges])
def test_losses_are_finite_at_both_ends_of_every_range(method):
    """Sizes of layers only at their lower end: the upper one is a bound against slips."""
    info = catalogue.info(method)
    for name, ends in info.ranges.items():
        for value in ends[:1] if name in ("latent", "channels") else ends:
            made = make(method, **{name: value})
            found = made.losses("main", batch_for(made), torch.Generator().manual_seed(0))
            assert all(loss.isfinite() for loss in found.values()), (name, value)
