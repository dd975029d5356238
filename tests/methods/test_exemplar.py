"""Exemplar, Semi-Exemplar and Sup-Exemplar: both triplet losses, identities, views, one batch overfit."""

import colorsys
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_methods import BATCH, CLASSES, batch_for, make, make_rng, train
from torch import nn

from vtabflow.methods import augment, semi_exemplar
from vtabflow.methods.triplet import batch_hard, retrieval, semi_hard, squared_distances

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def unit(n, dimensions, seed=0, dim=1):
    return F.normalize(torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed)), dim=dim)


def squares(embeddings):
    e = embeddings.double()
    return (e[:, None] - e).square().sum(2)


def semi_hard_by_loops(embeddings, image, margin):
    """triplet_semihard_loss of tf.contrib, one pair after another, in float64."""
    d, terms = squares(embeddings), []
    for a in range(len(d)):
        negatives = [d[a, n] for n in range(len(d)) if image[n] != image[a]]
        for p in range(len(d)):
            if p != a and image[p] == image[a]:
                harder = [x for x in negatives if x > d[a, p]]
                terms.append(F.relu(margin + d[a, p] - (min(harder) if harder else max(negatives))))
    return sum(terms) / len(terms)


def batch_hard_by_loops(embeddings, image):
    d, terms = squares(embeddings), []
    for a in range(len(d)):
        positive = max(d[a, p] for p in range(len(d)) if p != a and image[p] == image[a])
        negative = min(d[a, n] for n in range(len(d)) if image[n] != image[a])
        terms.append((1 + (positive.sqrt() - negative.sqrt()).exp()).log())
    return sum(terms) / len(terms)


def clustered(images, views, spread, seed=0):
    """Unit vectors of which those of one image are near to each other, the more so the smaller `spread`."""
    centres = unit(images, 16, seed).repeat_interleave(views, 0)
    return F.normalize(centres + spread * unit(images * views, 16, seed + 1), dim=1)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 10.0])
@pytest.mark.parametrize(("images", "views"), [(6, 4), (2, 2), (5, 8)])
def test_both_losses_and_their_gradients_are_those_of_loops_over_triplets(images, views, spread):
    e, image = clustered(images, views, spread).requires_grad_(), torch.arange(images).repeat_interleave(views).tolist()
    pairs = [(batch_hard(squared_distances(e), views), batch_hard_by_loops(e, image))]
    for margin in (0.0, 0.5, 2.0):
        pairs.append((semi_hard(squared_distances(e), views, margin), semi_hard_by_loops(e, image, margin)))
    for got, want in pairs:
        torch.testing.assert_close(got.double(), want, **CLOSE)
        torch.testing.assert_close(*(torch.autograd.grad(loss, e)[0] for loss in (got, want)), **CLOSE)


def test_semi_hard_loss_of_random_vectors_is_just_below_the_margin():
    """0.4953 with unit rows; with unit columns 0.4198 (0.4148, with
    a standard deviation of 0.009, over 20 seeds), of which we must be clear."""
    rows, columns = (
        np.mean([semi_hard(squared_distances(unit(64, 1000, seed, dim)), 8, 0.5).item() for seed in range(20)])
        for dim in (1, 0)
    )
    assert rows == pytest.approx(0.4953, abs=5e-4)
    assert columns == pytest.approx(0.4198, abs=0.01)


@pytest.mark.parametrize(("images", "want"), [(8, 0.734), (64, 0.744)])
def test_batch_hard_loss_of_random_vectors_is_above_ln_2(images, want):
    """The nearest of many negatives is nearer than the farthest of seven positives."""
    got = np.mean([batch_hard(squared_distances(unit(8 * images, 1000, seed)), 8).item() for seed in range(5)])
    assert got == pytest.approx(want, abs=2e-3)


def test_a_collapsed_batch_costs_the_margin_and_ln_2_and_has_finite_gradients():
    for row in (unit(1, 1000), unit(1, 7), torch.zeros(1, 5)):
        for loss, want in ((lambda d: semi_hard(d, 8, 0.5), 0.5), (lambda d: batch_hard(d, 8), math.log(2))):
            e = row.repeat(64, 1).requires_grad_()
            value = loss(squared_distances(e))
            value.backward()
            assert value.item() == pytest.approx(want, abs=1e-7)
            assert e.grad.isfinite().all()
    squared = torch.zeros(16, 16, requires_grad=True)
    batch_hard(squared, 8).backward()
    assert squared.grad.isfinite().all(), "the root's gradient at zero is infinite"


def test_distances_of_nearly_collapsed_rows_are_those_of_float64():
    """Without its mean taken off, a batch of unit rows 5e-4 apart has distances that are wrong by more than that."""
    rows = F.normalize(unit(1, 1000) + 1e-5 * torch.randn(64, 1000, generator=torch.Generator().manual_seed(1)), dim=1)
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(squared_distances(rows).sqrt().double(), exact, rtol=0, atol=1e-6)


def test_views_apart_cost_nothing_and_are_retrieved():
    e = torch.eye(6).repeat_interleave(4, 0)
    squared = squared_distances(e)
    assert semi_hard(squared, 4, 0.5).item() == 0 and retrieval(squared, 4).item() == 1
    by_view = torch.eye(4).repeat(6, 1) + 1e-3 * unit(24, 4)
    assert retrieval(squared_distances(by_view), 4).item() == 0


def watched(method):
    """Watch `method`: what goes into its trunk, and the rows that its embedding gives."""
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0]))
    keep = seen.setdefault("embeddings", [])
    method.embed.register_forward_hook(lambda _, inputs, out: keep.append(out.detach()))
    method.classify.register_forward_hook(lambda _, i, out: seen.update(logits=out)) if "-" in method.id else None
    return seen


def test_exemplar_takes_unit_rows_and_one_identity_an_image():
    """Its loss is that of rows of unit length with labels repeat(arange(B), views)."""
    method = make("exemplar", margin=0.7)
    train(method, 4, 5e-3, seed=lambda step: 0)  # until views of one image resemble each other
    seen = watched(method)
    got = method.losses("main", batch_for(method), make_rng(0))["triplet"].item()

    def loss(dim, image):
        return semi_hard_by_loops(F.normalize(seen["embeddings"][0], dim=dim), image.tolist(), 0.7).item()

    image = torch.arange(BATCH).repeat_interleave(4)
    assert got == pytest.approx(loss(1, image), rel=1e-4)
    assert abs(got - loss(0, image)) > 0.1, "unit columns"
    assert abs(got - loss(1, torch.arange(4).repeat(BATCH))) > 0.1, "one identity a view"


def test_exemplar_greys_all_views_of_an_image_or_none_and_standardises_each():
    method = make("exemplar", views=8)
    seen = watched(method)
    method.losses("main", batch_for(method, 60), make_rng(0))
    x = seen["x"]
    grey = (x - x.mean(1, keepdim=True)).abs().amax((1, 2, 3)).view(60, 8) < 1e-5
    assert torch.equal(grey, grey[:, :1].expand(-1, 8))
    assert grey[:, 0].float().mean().item() == pytest.approx(0.66, abs=0.18)  # three standard deviations
    assert (x[0::8] - x[1::8]).abs().amax((1, 2, 3)).min() > 0.1, "every view has random numbers of its own"
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.zeros(480), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.flatten(1).std(1, correction=0), torch.ones(480), **CLOSE)


@pytest.mark.parametrize("name", ["semi-exemplar-10", "sup-exemplar-100"])
def test_the_loss_starts_at_ln_c_and_that_of_random_vectors(name):
    """With embeddings drawn at random: those of an untrained network are correlated."""
    method = make(name, views=8)

    class Drawn(nn.Module):
        def forward(self, x):
            return torch.randn(len(x), 1000, generator=torch.Generator().manual_seed(0))

    method.embed = Drawn()
    losses = method.losses("main", batch_for(method, 8), make_rng(0))
    assert losses["class"].item() == pytest.approx(math.log(CLASSES), abs=1e-6)
    assert losses["triplet"].item() == pytest.approx(0.734, abs=3e-3)


@pytest.mark.parametrize(("name", "streams"), [("semi-exemplar-10", 2), ("sup-exemplar-100", 1)])
def test_streams_are_weighed_as_s4l_does(name, streams):
    """w * 1/2 * [T(unlabelled) + T(labelled)], or w T(labelled); the class of a labelled image in all its views."""
    method = make(name, triplet_weight=3.0)
    nn.init.normal_(method.classify.weight)
    batch, seen = batch_for(method), watched(method)
    losses = method.losses("main", batch, make_rng(0))
    assert len(seen["x"]) == streams * 4 * BATCH, "one pass over all streams"
    image = torch.arange(BATCH).repeat_interleave(4).tolist()
    each = [batch_hard_by_loops(F.normalize(rows, dim=1), image).item() for rows in seen["embeddings"]]
    assert len(each) == streams
    assert losses["triplet"].item() == pytest.approx(3.0 * sum(each) / streams, rel=1e-4)
    log, labels = seen["logits"].log_softmax(1), batch["labelled"][1].tolist()
    want = -sum(log[4 * i + k, labels[i]].item() for i in range(BATCH) for k in range(4)) / (4 * BATCH)
    assert losses["class"].item() == pytest.approx(want, rel=1e-5)


def test_semi_exemplars_views_come_image_by_image_and_labelled_images_last(monkeypatch):
    """Images of one colour each keep it in a crop."""
    monkeypatch.setattr(semi_exemplar, "hsv_noise", lambda x, rng: x)
    method = make("semi-exemplar-10")
    colours = torch.arange(2 * BATCH, dtype=torch.uint8).view(2, BATCH, 1, 1, 1).expand(-1, -1, 32, 32, 3)
    seen = watched(method)
    _, labels = batch_for(method)["labelled"]
    method.losses("main", {"unlabelled": (colours[0], None), "labelled": (colours[1], labels)}, make_rng(0))
    want = torch.arange(2 * BATCH).repeat_interleave(4) * (2 / 255) - 1
    torch.testing.assert_close(seen["x"].mean((1, 2, 3)), want, atol=1e-5, rtol=0)


def test_hsv_noise_agrees_with_colorsys_pixel_by_pixel():
    """With the same random numbers; greys, black, white and images of one colour among the images."""
    x = torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x[0, :, 0] = x[0, :1, 0]
    x[1, :, 0], x[1, :, 1], x[2, 0] = -1, 1, 1
    got = augment.hsv_noise(x, make_rng(3))
    assert got.min() >= -1 and got.max() <= 1
    again = make_rng(3)
    shift = again.uniform((8, 3, 1, 1), -0.1, 0.1).flatten(1).double().numpy()
    power = 2 ** again.uniform((8, 2, 1, 1), -2, 2).flatten(1).double().numpy()
    gain = 2 ** again.uniform((8, 2, 1, 1), -0.5, 0.5).flatten(1).double().numpy()
    for i in range(8):
        for p in range(25):
            h, *sv = colorsys.rgb_to_hsv(*((x[i, :, p // 5, p % 5].double() + 1) / 2).tolist())
            s, v = np.clip(np.array(sv) ** power[i] * gain[i] + shift[i, 1:], 0, 1)
            want = colorsys.hsv_to_rgb((h + shift[i, 0]) % 1, s, v)
            np.testing.assert_allclose((got[i, :, p // 5, p % 5].numpy() + 1) / 2, want, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "images", "steps", "triplet"),
    # On unit vectors the soft margin cannot reach zero: softplus(-sqrt 2) = 0.218 with all images at right angles.
    [("exemplar", 64, 40, 0.01), ("semi-exemplar-10", 48, 150, 0.3), ("sup-exemplar-100", 64, 100, 0.3)],
)
def test_one_batch_can_be_learnt_by_overfitting(name, images, steps, triplet):
    method = make(name, size=16, embedding=64, crop_area_min=0.4)
    last = train(method, steps, 5e-3, batch_for(method, images), seed=lambda step: 0)["main"]
    assert last["triplet"] < triplet and last["retrieval"] > 0.98
    assert last.get("class", 0) < 0.05
