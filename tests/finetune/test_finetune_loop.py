"""The loop against independent arithmetic: optimiser, losses, the state that each training starts from, noise."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vtabflow.contracts.results import EncoderInput
from vtabflow.contracts.specs import FinetuneSettings
from vtabflow.finetune import cell
from vtabflow.finetune.data import (
    FeatureSource,
    ImageSource,
    LabelledDataset,
    make_preprocess,
    shuffled_order,
)
from vtabflow.finetune.encoder import extract_features, state_differences
from vtabflow.finetune.loop import Learner, MomentumSGD
from vtabflow.finetune.sweep import planned_images
from vtabflow.networks.registry import build

CPU = torch.device("cpu")


UNIT = EncoderInput(16, 0.0, 1.0, None, None, standardise=False)


def settings(**changes):
    own = FinetuneSettings(
        evaluation="finetune",
        learning_rates=(0.1,),
        steps=(5,),
        batch=7,
        momentum=0.9,
        weight_decay=0.0,
        warmup=0.0,
        decay_at=(),
        decay_factor=0.1,
        precision="float32",
        resize="legacy",
    )
    return replace(own, **changes)


def reference_sgd(vectors, labels, classes, order, batch, schedule, momentum, decay):
    """Momentum SGD of a linear softmax model from zero, float64: v = m v + g + d w; w -= rate v. Bias: no decay."""
    weight, bias = np.zeros((classes, vectors.shape[1])), np.zeros(classes)
    velocity, velocity_bias, losses = np.zeros_like(weight), np.zeros_like(bias), []
    for step in range(len(order) // batch):
        rows = order[step * batch : (step + 1) * batch]
        x, y = vectors[rows], labels[rows]
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(batch), y]).mean())
        g = (p - np.eye(classes)[y]) / batch
        velocity = momentum * velocity + g.T @ x + decay * weight
        velocity_bias = momentum * velocity_bias + g.sum(0)
        weight -= schedule.rate(step) * velocity
        bias -= schedule.rate(step) * velocity_bias
    return weight, bias, losses


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_loop_equals_a_float64_reference(decay):
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(25, 6)), rng.integers(0, 4, 25)
    own = settings(weight_decay=decay, warmup=0.1, decay_at=(0.3, 0.6))
    learner = Learner(nn.Identity(), nn.Identity(), {}, 6, 4, own, CPU)
    source = FeatureSource(torch.tensor(vectors, dtype=torch.float32))
    examples = LabelledDataset(source, torch.from_numpy(labels), lambda x: x)
    schedule = learner.schedule(0.5, 40)
    assert (schedule.warmup, schedule.decay_at, schedule.decay_factor) == (0.1, (0.3, 0.6), 0.1)
    fit = learner.fit(examples, schedule, 5)
    order = shuffled_order(25, 7, 40, 5).numpy()
    weight, bias, losses = reference_sgd(vectors, labels, 4, order, 7, schedule, 0.9, decay)
    np.testing.assert_allclose(learner.head.weight.detach().numpy(), weight, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(learner.head.bias.detach().numpy(), bias, rtol=2e-5, atol=2e-6)
    assert fit.loss == pytest.approx(np.mean(losses[-4:]), rel=1e-5)
    assert fit.reason is None


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_momentum_equals_torch_sgd(decay):
    """Also where parameters have several shapes; weight decay on kernels only."""
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).double()
    other = copy.deepcopy(one)
    kernels, rest = ([p for p in other.parameters() if (p.ndim > 1) is kernel] for kernel in (True, False))
    groups = [{"params": kernels, "weight_decay": decay}, {"params": rest}]
    theirs = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    mine = MomentumSGD([one], 0.9, decay)
    for rate in (0.0, 0.1, 0.2, 0.05):
        x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
        one(x).square().mean().backward()
        mine.step(rate)
        theirs.zero_grad()
        other(x).square().mean().backward()
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert a.grad is None


@pytest.mark.parametrize("classes", [2, 6, 102])
def test_first_loss_is_the_logarithm_of_the_classes(classes):
    network = build("resnet-small", 0)
    learner = Learner(network, network, dict(network.state_dict()), 64, classes, settings(), CPU)
    learner.reset()
    loss = learner.step(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 1, 0]), 0.1)
    assert float(loss) == pytest.approx(math.log(classes), rel=2e-7)


def test_every_training_starts_from_the_encoder(monkeypatch):
    """Trunk (moving averages too), head, momentum and order begin anew: a second fit of one seed repeats the first."""
    network = build("resnet-small", 1)
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    learner = Learner(network, network, weights, 64, 3, settings(), CPU)
    rng = np.random.default_rng(1)
    images = ImageSource([rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)], CPU)
    preprocess = make_preprocess(16, "legacy", UNIT, CPU)
    examples = LabelledDataset(images, torch.from_numpy(rng.integers(0, 3, 30)), preprocess)
    results = []
    for seed in (7, 8, 7):
        fit = learner.fit(examples, learner.schedule(0.1, 5), seed)
        results.append((fit.loss, {key: tensor.clone() for key, tensor in network.state_dict().items()}))
    assert results[0][0] == results[2][0] != results[1][0]
    assert all(torch.equal(results[0][1][key], results[2][1][key]) for key in weights)
    moved = [key for key in weights if not torch.equal(results[0][1][key], weights[key])]
    assert sorted(moved) == sorted(weights), "the whole network is trained, moving averages included"


def test_predictions_use_the_moving_averages():
    """Each image alone, in a batch, after training: the same class, that of the network in eval mode."""
    network = build("resnet-small", 1)
    learner = Learner(network, network, {k: v.clone() for k, v in network.state_dict().items()}, 64, 3, settings(), CPU)
    rng = np.random.default_rng(3)
    images = (rng.integers(0, 256, (30, 1, 1, 3)) + np.zeros((30, 16, 16, 3))).astype(np.uint8)
    preprocess = make_preprocess(16, "legacy", UNIT, CPU)
    labels = torch.from_numpy(images[:, 0, 0, 0].astype(np.int64)) // 86
    examples = LabelledDataset(ImageSource([images], CPU), labels, preprocess)
    learner.fit(examples, learner.schedule(0.05, 30), 0)
    predicted = learner.predict(examples)
    with torch.no_grad():
        logits = learner.head(network.eval()(preprocess(torch.from_numpy(images))))
        batch = learner.head(network.train()(preprocess(torch.from_numpy(images))))
    assert torch.equal(predicted, logits.argmax(1).int()) and len(predicted.unique()) > 1
    assert not torch.equal(predicted, batch.argmax(1).int()), "else this test says nothing"


def test_a_rate_that_is_too_high_is_found():
    network = build("resnet-small", 1)
    learner = Learner(network, network, {k: v.clone() for k, v in network.state_dict().items()}, 64, 3, settings(), CPU)
    images = ImageSource([np.random.default_rng(1).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)], CPU)
    preprocess = make_preprocess(16, "legacy", UNIT, CPU)
    examples = LabelledDataset(images, torch.arange(30) % 3, preprocess)
    fit = learner.fit(examples, learner.schedule(1e9, 12), 0)
    assert fit.loss is None and "not finite at step" in str(fit.reason)


def test_differences_of_weights_are_named():
    expected = {"a": torch.zeros(2, 3), "b": torch.zeros(1), "c": torch.zeros(4)}
    weights = {"a": torch.zeros(2, 3), "c": torch.zeros(5), "d": torch.zeros(1)}
    assert state_differences(weights, expected) == ["b is missing", "c is [5], not [4]", "d is not part of it"]
    assert state_differences(expected, expected) == []


def test_gradients_of_an_interrupted_step_do_not_reach_the_next_training():
    """Out of memory in a backward pass: the shared network keeps some gradients."""
    network = build("resnet-small", 1)
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    x, y = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 1, 0])
    ends = []
    for stale in (False, True):
        learner = Learner(network, network, weights, 64, 3, settings(), CPU)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter) if stale else None
        learner.reset()
        for _ in range(2):
            learner.step(x, y, 0.1)
        ends.append({key: tensor.clone() for key, tensor in network.state_dict().items()})
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in weights)


def test_compilation_depends_on_the_cell_alone(monkeypatch):
    images = planned_images(settings(learning_rates=(0.1, 0.01), steps=(2500, 10000), batch=512))
    assert images == (2 * 12500 + 10000) * 512
    asked, compiled = [], []
    monkeypatch.setattr(cell, "worth_compiling", lambda images, size, device: asked.append((images, size)) or True)
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: compiled.append(network) or network)
    resources = cell.CellResources()
    for _ in range(2):
        assert resources.forward("resnet-small", images, 224) is resources.network("resnet-small")
    assert asked == [(35000 * 512, 224)] * 2 and len(compiled) == 1


def test_a_diverged_training_is_stopped_early():
    """At the next look at the losses, which comes every 250 steps."""
    learner = Learner(nn.Identity(), nn.Identity(), {}, 3, 2, settings(), CPU)
    examples = LabelledDataset(FeatureSource(torch.full((8, 3), 1e30)), torch.arange(8) % 2, lambda x: x)
    counted = []
    fit = learner.fit(examples, learner.schedule(1e9, 700), 0, counted.append)
    assert "not finite at step" in str(fit.reason) and counted == [7] * 250


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_outputs_that_are_not_finite_are_no_predictions(value):
    learner = Learner(nn.Identity(), nn.Identity(), {}, 3, 2, settings(), CPU)
    features = torch.zeros(9, 3)
    learner.reset()
    assert learner.predict(LabelledDataset(FeatureSource(features), torch.zeros(9), lambda x: x)).tolist() == [0] * 9
    features[8, 1] = value
    assert learner.predict(LabelledDataset(FeatureSource(features), torch.zeros(9), lambda x: x)) is None


class SeesPrecision(nn.Module):
    """A network that records in which precision it is called; the head is to be called in float32."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 4), []

    def forward(self, x):
        features = self.layer(x.mean((2, 3)))
        self.seen.append(features.dtype)
        return features


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_the_network_runs_in_the_precision_of_the_settings(precision, dtype):
    """In training steps, predictions and the features of linear evaluation; head and features stay in float32."""
    network = SeesPrecision()
    learner = Learner(network, network, dict(network.state_dict()), 4, 2, settings(precision=precision), CPU)
    images = ImageSource([np.full((7, 8, 8, 3), 200, np.uint8)], CPU)
    examples = LabelledDataset(images, torch.zeros(7, dtype=torch.int64), make_preprocess(8, "legacy", UNIT, CPU))
    learner.fit(examples, learner.schedule(0.1, 2), 0)
    learner.predict(examples)
    features = extract_features(network, examples, 7, learner.precision)
    assert network.seen == [dtype] * 4
    assert features.source.features.dtype == learner.head.weight.dtype == torch.float32


class Dropout(nn.Module):
    """A network with noise of its own: features (B, 4) of images (B, 3, H, W), half of them dropped in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x.mean((2, 3))), 0.5, self.training)


def fits_with_dropout(device, seeds):
    """(loss, head) of trainings one after the other; all examples are alike, so that only the noise can differ."""
    torch.manual_seed(0)
    network = Dropout().to(device)
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    learner = Learner(network, network, weights, 4, 2, settings(), device)
    images = ImageSource([np.full((7, 8, 8, 3), 200, np.uint8)], device)
    labels = torch.zeros(7, dtype=torch.int64, device=device)
    examples = LabelledDataset(images, labels, make_preprocess(8, "legacy", UNIT, device))
    found = []
    for seed in seeds:
        fit = learner.fit(examples, learner.schedule(0.1, 6), seed)
        found.append((fit.loss, learner.head.weight.detach().clone()))
        torch.rand(seed + 3), torch.rand(5, device=device)  # the generators' states are not the same for the next
    return found


def check_noise_depends_on_the_seed(found):
    """Trainings with the seeds 1, 2, 1: the last repeats the first, bit for bit."""
    first, other, again = found
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert first[0] != other[0] and not torch.equal(first[1], other[1])


def test_dropout_is_drawn_from_the_seed_of_the_training():
    """Whatever was trained before, in this process or not at all."""
    found = fits_with_dropout(CPU, (1, 2, 1))
    check_noise_depends_on_the_seed(found)
    alone = fits_with_dropout(CPU, (2,))[0]
    assert alone[0] == found[1][0] and torch.equal(alone[1], found[1][1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the noise of a captured step")
def test_dropout_of_a_captured_step_is_drawn_from_the_seed():
    check_noise_depends_on_the_seed(fits_with_dropout(torch.device("cuda"), (1, 2, 1)))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: training steps are captured as CUDA graphs there"
)
def test_captured_steps_train_as_launched_ones_do(monkeypatch):
    device = torch.device("cuda")
    images = torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8).numpy()
    labels = torch.randint(0, 5, (200,), device=device)
    preprocess = make_preprocess(32, "legacy", replace(UNIT, low=-1.0), device)
    examples = LabelledDataset(ImageSource([images], device), labels, preprocess)
    losses = {}
    for graphs in ("0", "1"):
        monkeypatch.setenv("VTABFLOW_GRAPHS", graphs)
        network = build("resnet-small", 0).to(device).to(memory_format=torch.channels_last)
        weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        learner = Learner(
            network, network, weights, network.features, 5, settings(precision="float32", batch=64), device
        )
        fits = [learner.fit(examples, learner.schedule(0.05, 30), seed=3) for _ in range(2)]
        assert fits[0].loss == pytest.approx(fits[1].loss, rel=1e-3), "the second training starts where the first did"
        assert (learner.captured is not None) == (graphs == "1")
        losses[graphs] = fits[0].loss
    assert losses["1"] == pytest.approx(losses["0"], rel=1e-3)
