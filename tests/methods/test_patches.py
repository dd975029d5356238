"""Relative patch location and jigsaw: the grid, where patches come from, permutations, losses, short cuts."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_methods import BATCH, SIZE, batch_for, make, make_rng, minimised, one_step, train
from torch import nn

from vtabflow.methods import patches
from vtabflow.methods.augment import standardise, to_float, to_gray
from vtabflow.methods.jigsaw import far_apart
from vtabflow.planning import catalogue

NAMES = ("relative-patch-location", "jigsaw")
CHANCE = 1 / 9


def coordinates(n, size=SIZE):
    """Images whose first channel is the row and whose second is the column of a pixel; the third is the image."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, i)], 2) for i in range(n)]).byte()


def cut_coordinates(n=200, size=SIZE, seed=3):
    """(n, 9, 3, patch, patch) whole numbers of patches of `coordinates`, their grid and the corners of the crops."""
    grid, numbers = patches.grid_at(size), make_rng(seed)
    corner = numbers.integers((n, 2), size - grid.crop + 1)
    shift = numbers.integers((9 * n, 2), grid.cell - grid.patch + 1)
    x = coordinates(n, size).permute(0, 3, 1, 2).float()
    return patches.cut_patches(x, corner, shift, grid).long().unflatten(0, (n, 9)), grid, corner


def test_the_authors_pixels_at_their_size():
    assert patches.grid_at(292) == (255, 85, 64)


def test_the_smallest_size_is_the_smallest_with_patches_of_6_px_that_jitter():
    assert {catalogue.info(name).smallest_size for name in NAMES} == {27}
    for size in range(27, 400):
        crop, cell, patch = patches.grid_at(size)
        assert patch >= 6 and cell > patch and 3 * cell <= crop < size
        assert abs(patch / size - 64 / 292) < 0.05
    assert patches.grid_at(26).patch < 6


@pytest.mark.parametrize("size", [27, 32, 96])
def test_every_patch_is_a_whole_piece_of_its_own_cell(size):
    found, grid, corner = cut_coordinates(60, size)
    for i, image in enumerate(found.numpy()):
        for place, (rows, columns, number) in enumerate(image):
            assert (number == i).all()
            top, left = rows[0, 0], columns[0, 0]
            assert (rows == top + np.arange(grid.patch)[:, None]).all()
            assert (columns == left + np.arange(grid.patch)).all()
            for first, begin, step in ((top, corner[i, 0], place // 3), (left, corner[i, 1], place % 3)):
                inside = first - begin.item() - step * grid.cell
                assert 0 <= inside <= grid.cell - grid.patch


def test_patches_of_an_image_share_no_pixel():
    found, grid, _ = cut_coordinates()
    for image in found:
        pixels = set(zip(image[:, 0].flatten().tolist(), image[:, 1].flatten().tolist(), strict=True))
        assert len(pixels) == 9 * grid.patch**2


def test_crops_and_jitter_take_every_value_and_are_independent():
    found, grid, corner = cut_coordinates(2000)
    assert corner.unique().tolist() == list(range(SIZE - grid.crop + 1))
    starts = found[:, :, :2, 0, 0] - corner[:, None]
    shift = starts - torch.stack([torch.arange(9) // 3, torch.arange(9) % 3], 1) * grid.cell
    assert shift.unique().tolist() == list(range(grid.cell - grid.patch + 1))
    between = np.corrcoef(torch.cat([shift.flatten(1), corner], 1).double().T.numpy())
    assert np.abs(between - np.eye(20)).max() < 0.1


def test_patches_against_a_loop_in_float64():
    images = batch_for(make("jigsaw"), 5)["images"][0]
    got = patches.random_patches(images, SIZE, make_rng(8), 0.5)
    numbers, grid = make_rng(8), patches.grid_at(SIZE)
    grey = numbers.uniform((5, 1, 1, 1)).flatten() < 0.5
    corner = numbers.integers((5, 2), SIZE - grid.crop + 1)
    shift = numbers.integers((45, 2), grid.cell - grid.patch + 1)
    assert 0 < grey.sum() < 5
    for row, patch in enumerate(got):
        i, place = divmod(row, 9)
        image = images[i].double().numpy()
        if grey[i]:
            image = image.mean(2, keepdims=True).repeat(3, 2)
        top, left = corner[i] + torch.tensor([place // 3, place % 3]) * grid.cell + shift[row]
        want = image[top : top + grid.patch, left : left + grid.patch]
        want = (want - want.mean()) / max(want.std(), want.size**-0.5)
        np.testing.assert_allclose(patch.permute(1, 2, 0).numpy(), want, atol=1e-5)


def test_images_of_another_size_are_squashed_and_grey_ones_repeated():
    images = torch.randint(0, 256, (3, 50, 40, 1), dtype=torch.uint8)
    x = patches.random_patches(images, SIZE, make_rng(), 0.66)
    assert x.shape == (27, 3, 7, 7) and torch.equal(x[:, 0], x[:, 2])


def test_to_gray_takes_the_mean_of_the_channels_of_its_share_of_the_images():
    x = torch.randn(4000, 3, 2, 2)
    y = to_gray(x, make_rng(), 0.66)
    grey = (y == x.mean(1, keepdim=True)).flatten(1).all(1)
    assert abs(grey.float().mean() - 0.66) < 0.03
    assert torch.equal(y[~grey], x[~grey])


def test_standardise_divides_by_the_deviation_or_by_its_floor():
    x = torch.randn(3, 3, 8, 8) * torch.tensor([1.0, 5.0, 1e-4]).view(3, 1, 1, 1) + 2
    y = standardise(x).double()
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(3).double(), atol=1e-4, rtol=0)
    deviation = x.double().flatten(1).std(1, correction=0)
    want = deviation / deviation.clamp(min=192**-0.5)
    torch.testing.assert_close(y.flatten(1).std(1, correction=0), want, atol=1e-4, rtol=1e-4)
    assert want[2] < 0.01 and want[1] == 1


def test_permutations_are_different_and_far_apart():
    found = far_apart(100)
    assert found.shape == (100, 9) and (np.sort(found, 1) == np.arange(9)).all()
    distance = (found[:, None] != found[None]).sum(2)[np.triu_indices(100, 1)]
    assert distance.min() >= 4 and abs(distance.mean() - 8.08) < 0.01
    # The same on every machine, whatever its numpy.
    assert found[:2].tolist() == [[5, 7, 0, 4, 2, 3, 6, 1, 8], [6, 1, 3, 7, 4, 8, 2, 5, 0]]


@pytest.mark.parametrize("seed", [0, 1])
def test_each_permutation_is_the_farthest_from_those_before(seed):
    found = [tuple(row) for row in far_apart(24, 4, seed).tolist()]
    assert len(set(found)) == 24
    for k in range(1, 24):
        scores = {}
        for other in set(itertools.permutations(range(4))) - set(found[:k]):
            apart = [sum(a != b for a, b in zip(other, before, strict=True)) for before in found[:k]]
            scores[other] = (sum(apart), min(apart))
        assert scores[found[k]] == max(scores.values())


class Spy(nn.Module):
    """Keeps what it is given and answers zeros."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.weight = outputs, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        self.seen = x
        return x.new_zeros(len(x), self.outputs) + self.weight


def arrangements(name, monkeypatch, training=True, seed=0):
    """What the head of `name` is asked: (rows, patches, 2) centres of the patches in pixels, with their image and
    label.
    """
    method = make(name, gray=0.0)
    method.encode = lambda x: x.mean((2, 3))
    method.embed, method.head = nn.Identity(), Spy(method.head[-1].out_features)
    labels = []

    def entropy(logits, target):
        labels.append(target)
        return logits.sum()

    monkeypatch.setattr(patches, "standardise", lambda x: x)
    monkeypatch.setattr(patches.F, "cross_entropy", entropy)
    method.train(training).losses("main", {"images": (coordinates(BATCH), None)}, make_rng(seed))
    seen = (method.head.seen.unflatten(1, (-1, 3)) / 127.5 + 1) * 127.5
    assert (seen[..., 2] - seen[:, :1, 2]).abs().max() < 1e-3, "all patches of one image"
    image = seen[:, 0, 2].round().long()
    return method, seen[..., :2], image, labels[0]


def test_a_pair_lies_as_its_label_says(monkeypatch):
    _, seen, image, target = arrangements("relative-patch-location", monkeypatch)
    assert len(seen) == 8 * BATCH and seen.shape[1] == 2
    assert sorted(zip(image.tolist(), target.tolist(), strict=True)) == [(i, k) for i in range(BATCH) for k in range(8)]
    # Up to 4 px of jitter and 9 between neighbours, so that 4.5 px tell the side.
    aside = seen[:, 0] - seen[:, 1]
    step = (aside > 4.5).long() - (aside < -4.5).long() + 1
    place = step[:, 0] * 3 + step[:, 1]
    assert torch.equal(place - (place > 4).long(), target)


@pytest.mark.parametrize("training", [True, False])
def test_patches_are_shuffled_by_the_permutation_of_their_label(training, monkeypatch):
    method, seen, image, target = arrangements("jigsaw", monkeypatch, training)
    shown = 8 if training else 100
    assert len(seen) == shown * BATCH and seen.shape[1] == 9
    assert torch.equal(image, torch.arange(BATCH).repeat_interleave(shown))
    for i in range(BATCH):
        assert torch.equal(target[image == i], target[:shown]), "the same permutations for all images"
    assert len(target[:shown].unique()) == shown
    order = method.permutations[target]
    middle = seen[order == 4][:, None]
    step = ((seen - middle) > 4.5).long() - ((seen - middle) < -4.5).long() + 1
    assert torch.equal(step[..., 0] * 3 + step[..., 1], order)


def test_jigsaw_draws_its_permutations_anew_at_each_step(monkeypatch):
    found = torch.cat([arrangements("jigsaw", monkeypatch, seed=seed)[3][:8] for seed in range(50)])
    assert len(found.unique()) > 90


@pytest.mark.parametrize(("name", "classes"), [("relative-patch-location", 8), ("jigsaw", 100)])
def test_start_value(name, classes):
    method = make(name)
    for mode in (True, False):
        losses = method.train(mode).losses("main", batch_for(method), make_rng(0))
        assert losses["arrangement"].item() == pytest.approx(math.log(classes), abs=1e-6)


def test_heads_are_the_authors():
    for name, together, classes in (("relative-patch-location", 2, 8), ("jigsaw", 9, 100)):
        method = make(name, embedding=100, hidden=400)
        first, norm, _, dropout, last = method.head
        assert first.weight.shape == (400, 100 * together) and last.weight.shape == (classes, 400)
        assert first.weight.abs().max() <= 0.01 and first.bias.eq(0.1).all()
        # A normal distribution cut off at two of its deviations has 0.880 of them.
        assert first.weight.std().item() == pytest.approx(0.880 * 0.005, rel=0.02)
        assert norm.eps == 1e-5 and norm.momentum == pytest.approx(1 - 0.997) and dropout.p == 0.5
        info = catalogue.info(name)
        assert (info.settings["embedding"], info.settings["hidden"], info.settings["gray"]) == (1000, 4096, 0.66)
        assert info.network("resnet50v2") == "resnet50v2-patch" and info.network("resnet-small") == "resnet-small"


@pytest.mark.parametrize("name", NAMES)
def test_loss_against_a_loop_in_float64(name):
    method = make(name)
    train(method, 3, 1e-2)
    method.eval()
    batch = batch_for(method)
    with torch.no_grad():
        got = method.losses("main", batch, make_rng(6))
        numbers = make_rng(6)
        if name == "jigsaw":
            numbers.shared(100, 100)  # the permutations are drawn first
        x = patches.random_patches(batch["images"][0], SIZE, numbers, 0.66)
        method.double()
        embedded = method.embed(method.trunk(x.double())).numpy().reshape(BATCH, 9, -1)
        pairs = [(k, 4) for k in (0, 1, 2, 3, 5, 6, 7, 8)]
        orders = method.permutations.tolist() if name == "jigsaw" else pairs
        total, right = 0.0, 0
        for one in embedded:
            for label, order in enumerate(orders):
                row = np.concatenate([one[k] for k in order])
                first, norm, _, _, last = method.head
                hidden = first.weight.numpy() @ row + first.bias.numpy()
                hidden = (hidden - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + 1e-5)
                hidden = np.maximum(hidden * norm.weight.numpy() + norm.bias.numpy(), 0)
                logits = last.weight.numpy() @ hidden + last.bias.numpy()
                total += np.log(np.exp(logits - logits[label]).sum())
                right += logits.argmax() == label
    assert got["arrangement"].item() == pytest.approx(total / BATCH / len(orders), rel=1e-4)
    assert got["accuracy"].item() == pytest.approx(right / BATCH / len(orders), abs=3e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_learnt_by_overfitting(name):
    method = make(name, dropout=0.0, hidden=128, embedding=32)
    batch = batch_for(method, 64)
    losses = train(method, 100, 3e-3, batch, seed=lambda step: 0)["main"]
    assert losses["arrangement"] < 0.05 and losses["accuracy"] > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_in_the_head_and_only_in_training(name):
    method = make(name)
    train(method, 2, 1e-2)
    values = {}
    for mode in (True, False):
        method.train(mode)
        for seed in (0, 1):
            torch.manual_seed(seed)
            with torch.no_grad():
                values[mode, seed] = method.losses("main", batch_for(method), make_rng(4))["arrangement"].item()
    assert values[True, 0] != values[True, 1] and values[False, 0] == values[False, 1]


# Short cuts.


def bowls(n, seed):
    """Images that are darkest at the centre, of random brightness and with noise: a gradient tells the place."""
    g = torch.Generator().manual_seed(seed)
    steps = (torch.arange(SIZE) - (SIZE - 1) / 2) / SIZE
    depth = 1.2 * (steps[:, None].square() + steps.square()) - 0.18
    x = 0.2 + 0.6 * torch.rand(n, 1, 1, 3, generator=g) + depth[None, :, :, None]
    x = x + 0.15 * (torch.rand(n, SIZE, SIZE, 3, generator=g) - 0.5)
    return {"images": ((x.clamp(0, 1) * 255).byte(), None)}


def noise(n, seed):
    """Images in which nothing tells the place."""
    g = torch.Generator().manual_seed(seed)
    return {"images": (torch.randint(0, 256, (n, SIZE, SIZE, 3), dtype=torch.uint8, generator=g), None)}


def learn(method, images, steps, n=64):
    optimisers = {name: torch.optim.Adam(list(ps), 3e-3) for name, ps in method.parameter_groups().items()}
    for step in range(steps):
        one_step(method, optimisers, images(n, step), step, step)


@torch.no_grad()
def fresh_accuracy(method, images, batches=5):
    found = [method.losses("main", images(64, 9000 + i), make_rng(9000 + i))["accuracy"] for i in range(batches)]
    return torch.stack(found).mean().item()


def train_and_eval_accuracy(method):
    """On fresh images: with the statistics of the batch, then with running ones, which are taken anew first (the
    head's move by 0.3% a step).
    """
    in_training = fresh_accuracy(method.train(), bowls)
    for part in method.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            part.momentum = None
    fresh_accuracy(method, lambda n, seed: bowls(n, seed + 50), 8)
    return in_training, fresh_accuracy(method.eval(), bowls)


@pytest.mark.parametrize(("name", "settings"), [(NAMES[0], {}), (NAMES[1], {"perm_subset": 40})])
def test_batch_norm_tells_no_place(name, settings):
    method = make(name, dropout=0.0, **settings)
    learn(method, bowls, 60)
    in_training, in_evaluation = train_and_eval_accuracy(method)
    assert in_evaluation > 0.6 and abs(in_training - in_evaluation) < 0.05


def test_batches_of_one_place_each_would_be_noticed():
    """The check above fails where the patches of each place have batch statistics of their own."""
    method = make("relative-patch-location", dropout=0.0)
    encode = method.encode
    method.encode = lambda x: torch.stack([encode(x[k::9]) for k in range(9)], 1).flatten(0, 1)
    learn(method, bowls, 60)
    in_training, in_evaluation = train_and_eval_accuracy(method)
    assert in_training > 0.9 and in_evaluation < 0.5


def test_all_patches_go_through_the_trunk_at_once_and_image_by_image():
    method, seen = make("relative-patch-location"), []
    method.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = batch_for(method)
    method.losses("main", batch, make_rng(2))
    assert len(seen) == 1
    assert torch.equal(seen[0], patches.random_patches(batch["images"][0], SIZE, make_rng(2), 0.66))


def test_nothing_but_the_image_tells_the_place():
    """On noise that is new at each step the accuracy stays at chance: 2,560 pairs, 3.5 deviations of 0.0065."""
    method = make("relative-patch-location", dropout=0.0)
    learn(method, noise, 80)
    assert abs(fresh_accuracy(method.train(), noise) - 1 / 8) < 0.023


def natural(n, channels, seed=0):
    """Smooth random images (n, 3, SIZE, SIZE) in [0, 1]; with one channel, the three are equal."""
    x = torch.rand(n, channels, 10, 10, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)


def means(x):
    """Mean of each channel of patches (N, 3, H, W)."""
    return x.mean((2, 3))


def colour_shift(x):
    """How far the first channel is shifted against the second, by its regression on the second's gradient."""
    apart = (x[:, 0] - x[:, 1])[:, 1:-1, 1:-1]
    across, down = x[:, 1, 1:-1, 2:] - x[:, 1, 1:-1, :-2], x[:, 1, 2:, 1:-1] - x[:, 1, :-2, 1:-1]
    energy = (across.square() + down.square()).mean((1, 2)) + 1e-6
    return torch.stack([(apart * across).mean((1, 2)) / energy, (apart * down).mean((1, 2)) / energy], 1)


def place_found(features):
    """Accuracy of a linear classifier of the place (9) on `features` of patches (9 n, d) and their squares, fitted on
    one half of the images.
    """
    place, f = torch.arange(9).repeat(len(features) // 9), features.double()
    f = (f - f.mean(0)) / (f.std(0) + 1e-3)
    f = torch.cat([f, f.square(), torch.ones(len(f), 1)], 1)
    half = len(f) // 18 * 9
    known, want = f[:half], F.one_hot(place[:half], 9).double()
    weights = torch.linalg.solve(known.T @ known + 1e-3 * torch.eye(f.shape[1]), known.T @ want)
    return ((f[half:] @ weights).argmax(1) == place[half:]).double().mean().item()


def lit(n):
    """Brighter to the lower right, as by a lamp."""
    steps = torch.linspace(-0.4, 0.4, SIZE)
    return natural(n, 3) * (1 + steps[:, None] + steps) / 2, means


def tinted(n):
    """Redder to the right and greener downwards, bluer on the other sides."""
    steps = torch.linspace(-0.15, 0.15, SIZE)
    across, down = steps.expand(SIZE, SIZE), steps[:, None].expand(SIZE, SIZE)
    return natural(n, 3) / 2 + 0.25 + torch.stack([across, down, -across - down]), means


def aberrant(n):
    """Red magnified by 6% about the centre: chromatic aberration, as of a lens."""
    x = natural(n, 1)
    steps = torch.linspace(-1, 1, SIZE) / 1.06
    grid = torch.stack([steps.expand(SIZE, SIZE), steps[:, None].expand(SIZE, SIZE)], 2)
    red = F.grid_sample(x[:, :1].contiguous(), grid.expand(n, -1, -1, -1), align_corners=True)
    return torch.cat([red, x[:, 1:]], 1), colour_shift


@pytest.mark.parametrize(
    ("images", "left"),
    [(lit, 0.02), (tinted, 0.16), (aberrant, 0.18)],
)
def test_colour_and_light_tell_the_place_before_and_hardly_after(images, left):
    """Light is removed by standardising. Colour is removed from grey images, and stays in the others: with the
    authors' probability of 0.66 a third of it is left, as in their pipeline.
    """
    x, features = images(1200)
    images = (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    grid, numbers = patches.grid_at(SIZE), make_rng(5)
    corner = numbers.integers((1200, 2), SIZE - grid.crop + 1)
    shift = numbers.integers((9 * 1200, 2), grid.cell - grid.patch + 1)
    before = place_found(features(patches.cut_patches(to_float(images), corner, shift, grid)))
    after, grey = (place_found(features(patches.random_patches(images, SIZE, make_rng(5), p))) for p in (0.66, 1.0))
    assert before > 0.28
    assert abs(grey - CHANCE) < 0.02
    assert after < CHANCE + left and after - CHANCE < 0.45 * (before - CHANCE)


def test_gradient_of_a_step_reaches_the_trunk():
    method = make("jigsaw")
    train(method, 1, 1e-2)
    method.zero_grad()
    minimised(method.losses("main", batch_for(method), make_rng(1))).backward()
    assert method.trunk.stem.weight.grad.abs().max() > 0
