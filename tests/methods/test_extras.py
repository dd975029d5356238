"""SimCLR, BYOL, DINO and MAE."""

import math

import pytest
import torch
from small_methods import batch_for, make, make_rng, minimised, train

from vtabflow.errors import UserError
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks import registry
from vtabflow.runtime import distributed

pytest.importorskip("lightly")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n=6, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=generator(seed))


def waves(n, size=32, seed=0):
    """uint8 images (n, size, size, 3), a part of a plane wave a colour, none like another."""
    g = generator(seed)
    across, down = (torch.arange(size) / size).expand(size, size), (torch.arange(size) / size)[:, None]
    turns = torch.rand(3, n, 1, 1, 3, generator=g) * torch.tensor([0.7, 0.7, 1.0]).view(3, 1, 1, 1, 1)
    phase = turns[0] * across[None, ..., None] + turns[1] * down[None, ..., None] + turns[2]
    return ((2 * math.pi * phase).sin() * 127.5 + 127.5).byte()


def halves(method, images, seed=0):
    """Each of two processes' images and random numbers."""
    return [({"images": (half, None)}, BatchRNG(generator(seed), rank, 2)) for rank, half in enumerate(images.chunk(2))]


# SimCLR


def nt_xent(first, second, temperature):
    """By loops, in float64."""
    z = [row / row.norm() for row in torch.cat([first, second]).double()]
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        scores = [float(z[i] @ z[k]) / temperature for k in range(2 * n)]
        others = math.log(sum(math.exp(s) for k, s in enumerate(scores) if k != i))
        total += others - scores[(i + n) % (2 * n)]
    return total / (2 * n)


def test_simclr_is_nt_xent_of_each_images_two_views(monkeypatch):
    method = make("simclr", temperature=0.3)
    given = torch.randn(24, 32, generator=generator())
    method.projector = torch.nn.Module()
    method.projector.forward = lambda features: given
    loss = method.losses("main", batch_for(method), make_rng())["contrast"]
    assert loss.item() == pytest.approx(nt_xent(given[:12], given[12:], 0.3), abs=1e-5)


def test_random_unit_vectors_start_at_their_analytic_loss():
    n, d = 256, 128
    first, second = torch.randn(2, n, d, generator=generator())
    for t in (1.0, 0.1):
        loss = make("simclr", temperature=t).contrast(first, second).item()
        assert loss == pytest.approx(math.log(2 * n - 1) + 1 / (2 * d * t**2), abs=0.05)


def test_simclr_contrasts_with_the_images_of_all_processes(monkeypatch):
    method = make("simclr").eval()
    images = batch_for(method)["images"][0]
    whole = method.losses("main", {"images": (images, None)}, make_rng())["contrast"]
    parts = [[], []]
    for (batch, own), seen in zip(halves(method, images), parts, strict=True):
        monkeypatch.setattr(distributed, "gathered", lambda x, seen=seen: seen.append(x) or x)
        method.losses("main", batch, own)
    for batch, own in halves(method, images):
        gathered = iter([torch.cat([parts[0][view], parts[1][view]]) for view in (0, 1)])
        monkeypatch.setattr(distributed, "gathered", lambda x, gathered=gathered: next(gathered))
        assert method.losses("main", batch, own)["contrast"].item() == pytest.approx(whole.item(), abs=1e-5)


def test_simclr_overfits_a_batch():
    method = make("simclr", crop_area_min=0.4)
    before = minimised(method.losses("main", batch_for(method, 64), make_rng())).item()
    after = train(method, 60, 3e-3, batch_for(method, 64), seed=lambda step: 0)["main"]
    assert before > 2 and after["contrast"] < 0.1 and after["spread"] > 0.8


# BYOL


def cosine(a, b):
    a, b = a.detach().double(), b.detach().double()
    return float(a @ b / (a.norm() * b.norm()))


def test_byol_is_the_published_symmetric_loss():
    method = make("byol").eval()
    train(method, 1, 1e-2)
    seen = {"predicted": [], "targets": []}
    method.predictor.register_forward_hook(lambda _, __, out: seen["predicted"].append(out))
    method.target.register_forward_hook(lambda _, __, out: seen["targets"].append(out))
    found = method.losses("main", batch_for(method), make_rng())["prediction"].item()
    pairs = zip(*seen["predicted"], *seen["targets"], strict=True)
    expected = sum(2 - 2 * cosine(p, w2) + 2 - 2 * cosine(q, w1) for p, q, w1, w2 in pairs) / 12
    assert found == pytest.approx(expected, abs=1e-5)


def test_byol_predicts_the_other_view_by_the_online_side_alone():
    """With views all the same and the predictor left out, the average says what the network says: the loss is 0."""
    method = make("byol", colour=0.0, blur=0.0).train()
    method.predictor = torch.nn.Identity()
    images = torch.full((12, 32, 32, 3), 90, dtype=torch.uint8) + torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
    loss = method.losses("main", {"images": (images, None)}, make_rng(3))["prediction"].item()
    solarised = method.losses("main", {"images": (255 - images, None)}, make_rng(3))["prediction"].item()
    assert abs(loss) < 1e-3 < solarised, "images below one half are not solarised, those above now and then"


def test_the_average_of_byol_takes_statistics_of_its_batch():
    method = make("byol").train()
    first = method.losses("main", batch_for(method), make_rng())["prediction"].item()
    for name, buffer in method.target.named_buffers():
        if "running" in name:
            buffer.add_(5)
    assert first == method.losses("main", batch_for(method), make_rng())["prediction"].item()


@pytest.mark.parametrize(
    "name, average, base", [("byol", "target", "target_momentum"), ("dino", "teacher", "teacher_momentum")]
)
def test_the_average_follows_along_half_a_cosine(name, average, base):
    method = make(name, **{base: 0.9, "steps": 101})
    mine = dict(getattr(method, average).network.named_parameters())
    theirs = dict(
        torch.nn.Sequential(method.trunk, method.projector if name == "byol" else method.head).named_parameters()
    )
    assert mine.keys() == theirs.keys()
    for p in mine.values():
        p.data.fill_(1.0)
    for p in theirs.values():
        p.data.fill_(0.0)
    for step, momentum in ((0, 0.9), (50, 0.95), (100, 1.0)):
        for p in mine.values():
            p.data.fill_(1.0)
        with torch.no_grad():
            method.after_step(step)
        wrong = [key for key, p in mine.items() if not torch.allclose(p, torch.tensor(momentum), atol=1e-6)]
        assert wrong == [], step


@pytest.mark.parametrize("name, average", [("byol", "target"), ("dino", "teacher")])
def test_the_average_takes_no_gradient(name, average):
    method = make(name)
    minimised(method.losses("main", batch_for(method), make_rng())).backward()
    copies = dict(getattr(method, average).named_parameters())
    assert [key for key, p in copies.items() if p.grad is not None or p.requires_grad] == []
    assert not {id(p) for p in copies.values()} & {id(p) for p in method.parameter_groups()["main"]}


def test_byol_overfits_a_batch_without_collapse():
    method = make("byol", crop_area_min=0.4, target_momentum=0.9, steps=80)
    before = method.losses("main", batch_for(method, 64), make_rng())["prediction"].item()
    after = train(method, 80, 3e-3, batch_for(method, 64), seed=lambda step: 0)["main"]
    assert before > 2 and after["prediction"] < 0.2 and after["spread"] > 0.5


# DINO


def captured(method, batch, own=None):
    """The losses, with the teacher's and the student's outputs."""
    seen = {}

    def look(_, given):
        seen["teacher"], seen["student"] = given

    handle = method.distil.register_forward_pre_hook(look)
    losses = method.losses("main", batch, own or make_rng())
    handle.remove()
    return losses, seen["teacher"], seen["student"]


def softmax(row):
    e = [math.exp(v - max(row)) for v in row]
    return [v / sum(e) for v in e]


def test_dino_is_the_mean_cross_entropy_over_pairs_of_different_views():
    method = make("dino", prototypes=9)
    method.distil.center.copy_(torch.randn(1, 1, 9, generator=generator()) * 0.1)
    method.eval()
    losses, teacher, student = captured(method, batch_for(method, 3))
    assert len(teacher) == 2 and len(student) == 4 and all(out.shape == (3, 9) for out in [*teacher, *student])
    centre, total, entropy = method.distil.center.double().view(-1), [], []
    for i, t in enumerate(teacher):
        for image in range(3):
            p = softmax(((t[image].double() - centre) / 0.04).tolist())
            entropy.append(-sum(v * math.log(v) for v in p if v))
            for j, s in enumerate(student):
                if i != j:
                    q = softmax((s[image].double() / 0.1).tolist())
                    total.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    assert len(total) == 3 * (2 * 4 - 2)
    assert losses["distillation"].item() == pytest.approx(sum(total) / len(total), abs=1e-4)
    assert losses["entropy"].item() == pytest.approx(sum(entropy) / len(entropy), abs=1e-4)


def test_dino_starts_near_the_logarithm_of_its_outputs_and_there_if_they_are_alike():
    method = make("dino", prototypes=512, embedding=256)
    start = method.losses("main", batch_for(method), make_rng())["distillation"].item()
    assert start == pytest.approx(math.log(512), abs=1.2)
    for head in (method.head, method.teacher.network[1]):
        head.last_layer.weight_v.data.copy_(torch.ones(512, 1) * head.last_layer.weight_v.data[:1])
    method.distil.center.zero_()
    found = method.losses("main", batch_for(method), make_rng())
    assert found["distillation"].item() == pytest.approx(math.log(512), abs=1e-4)
    assert found["entropy"].item() == pytest.approx(math.log(512), abs=1e-4)


def test_the_centre_moves_to_the_teachers_mean_in_training_only():
    method = make("dino").train()
    before = torch.randn(1, 1, 128, generator=generator())
    method.distil.center.copy_(before)
    _, teacher, _ = captured(method, batch_for(method))
    mean = torch.cat(teacher).mean(0)
    assert torch.allclose(method.distil.center, 0.9 * before + 0.1 * mean, atol=1e-6)
    method.eval()
    kept = method.distil.center.clone()
    method.losses("main", batch_for(method), make_rng(1))
    assert torch.equal(method.distil.center, kept)


def test_dino_leaves_the_teachers_trunk():
    method = make("dino")
    train(method, 2, 1e-2)
    x = random_images()
    with torch.no_grad():
        student, teacher = method.trunk(x), method.teacher.network[0](x)
        method.finalize()
        assert torch.equal(method.trunk(x), teacher) and not torch.equal(student, teacher)


def test_dino_overfits_a_batch_without_collapse():
    """What is left of the loss beyond the teacher's entropy vanishes, and 16 images do not share an output."""
    method = make("dino", crop_area_min=0.6, local_views=1, colour=0.3, prototypes=64, teacher_momentum=0.9, steps=60)
    batch = {"images": (waves(16), None)}
    before = method.losses("main", batch, make_rng())
    after = train(method, 60, 5e-4, batch, seed=lambda step: 0)["main"]
    assert before["distillation"].item() - before["entropy"].item() > 1
    assert after["distillation"] - after["entropy"] < 0.5 and after["entropy"] > 1


@pytest.mark.parametrize("name", ["dino", "mae"])
def test_other_networks_and_sizes_are_refused(name):
    kind = type(make(name))
    with pytest.raises(UserError, match="patches of 4 px"):
        make(name, size=30)
    with pytest.raises(UserError, match="vision transformer"):
        kind(registry.build("resnet-small", 0), 32, None, {"steps": 1, "batch": 2}, 0)


# MAE


def mae(**settings):
    return make("mae", channels=64, depth=1, **settings)


def test_mae_is_the_error_over_hidden_patches_alone(monkeypatch):
    method = mae()
    kept = {}
    real = method.predict_masked
    monkeypatch.setattr(
        method, "predict_masked", lambda *given: kept.update(given=given, out=real(*given)) or kept["out"]
    )
    found = method.losses("main", batch_for(method, 3), make_rng())["pixels"].item()
    x, _, masked = kept["given"]
    total, count = 0.0, 0
    for image, places, rows in zip(x.double(), masked.tolist(), kept["out"].detach().double(), strict=True):
        for place, row in zip(places, rows, strict=True):
            top, left = 4 * (place // 8), 4 * (place % 8)
            patch = image[:, top : top + 4, left : left + 4].permute(1, 2, 0).flatten()
            mean, variance = patch.mean(), ((patch - patch.mean()) ** 2).sum() / 47
            total += float(((row - (patch - mean) / (variance + 1e-6).sqrt()) ** 2).sum())
            count += 48
    assert count == 3 * 48 * 48 and found == pytest.approx(total / count, abs=1e-5)


def test_masked_patches_are_not_seen_and_visible_ones_have_no_loss():
    method, x = mae().eval(), random_images(2)
    visible, masked = method.split_patches(make_rng().uniform((2, 64)))
    predicted, targets = method.predict_masked(x, visible, masked), method.targets(x, masked)
    for places, same in ((visible, "targets"), (masked, "predict_masked")):
        other, place = x.clone(), int(places[0, 3])
        other[0, :, 4 * (place // 8) : 4 * (place // 8) + 4, 4 * (place % 8) : 4 * (place % 8) + 2] += 0.5
        assert torch.equal(method.targets(other, masked), targets) == (same == "targets")
        assert torch.equal(method.predict_masked(other, visible, masked), predicted) == (same == "predict_masked")


def test_the_decoder_gets_every_token_in_its_place():
    method, x, seen = mae().eval(), random_images(2), []
    visible, masked = method.split_patches(make_rng().uniform((2, 64)))
    method.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.decoder.blocks = method.decoder.norm = method.to_pixels = torch.nn.Identity()
    with torch.no_grad():
        predicted, tokens = method.predict_masked(x, visible, masked), method.embed(method.trunk(x, visible))
    for image in range(2):
        assert torch.equal(seen[0][image, torch.cat([torch.tensor([0]), visible[image] + 1])], tokens[image])
        expected = method.decoder.mask_token[0] + method.decoder.pos_embed[0, masked[image] + 1]
        assert torch.allclose(predicted[image], expected, atol=1e-6)


@pytest.mark.parametrize("mask, shown", [(0.75, 16), (0.95, 3), (0.05, 61)])
def test_each_image_hides_patches_of_its_own(mask, shown):
    method = mae(mask=mask)
    parts = method.split_patches(make_rng().uniform((9, 64)))
    assert [part.shape for part in parts] == [(9, shown), (9, 64 - shown)]
    assert all(sorted(row) == list(range(64)) for row in torch.cat(parts, 1).tolist())
    assert len({tuple(sorted(row)) for row in parts[0].tolist()}) == 9


def test_predicting_the_mean_of_every_patch_costs_one():
    """Unit variance with 47 in its denominator: 47 / 48."""
    method = mae()
    torch.nn.init.zeros_(method.to_pixels.weight)
    found = method.losses("main", batch_for(method), make_rng())["pixels"].item()
    assert found == pytest.approx(47 / 48, abs=1e-4)
    assert 1 < mae().losses("main", batch_for(method), make_rng())["pixels"].item() < 3


def test_patches_come_back_in_their_places():
    from lightly.models import utils

    x = random_images(2)
    patches = utils.patchify(x, 4)
    assert torch.equal(utils.unpatchify(patches, 4), x)
    assert torch.equal(patches[1, 10], x[1, :, 4:8, 8:12].permute(1, 2, 0).flatten())


def test_the_decoders_ends_start_xavier_uniform_with_zero_biases():
    """facebookresearch/mae models_mae.py, _init_weights: uniform within sqrt(6 / (inputs + outputs))."""
    for layer in (mae().embed, mae().to_pixels):
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert layer.weight.abs().max() <= bound and layer.weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.03
        )
        assert not layer.bias.any()


def test_positions_are_not_learnt():
    method = mae()
    fixed = [method.trunk.vit.pos_embed, method.decoder.pos_embed]
    before = [p.clone() for p in fixed]
    train(method, 2, 1e-2)
    assert all(torch.equal(p, kept) for p, kept in zip(fixed, before, strict=True))
    assert all(p is not q for p in fixed for q in method.parameter_groups()["main"])


def test_two_processes_train_mae_as_one_does():
    method = mae()
    images = batch_for(method, 8)["images"][0]
    whole = method.losses("main", {"images": (images, None)}, make_rng())["pixels"]
    whole.backward()
    gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    losses = [method.losses("main", batch, own)["pixels"] for batch, own in halves(method, images)]
    (sum(losses) / 2).backward()
    assert whole.item() == pytest.approx(sum(loss.item() for loss in losses) / 2, abs=1e-6)
    now = dict(method.named_parameters())
    assert [key for key, old in gradients.items() if not torch.allclose(now[key].grad, old, atol=1e-6)] == []


def test_mae_overfits_a_batch():
    method = mae(crop_area_min=0.9)
    batch = {"images": (waves(64), None)}
    before = method.losses("main", batch, make_rng())["pixels"].item()
    after = train(method, 150, 3e-3, batch, seed=lambda step: 0)["main"]
    assert before > 0.9 and after["pixels"] < 0.1


@pytest.mark.parametrize("channels", [6, 48])
def test_mae_refuses_channels_that_heads_cannot_share(channels):
    with pytest.raises(UserError, match="multiple of"):
        make("mae", channels=channels)


# All


@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "mae"])
def test_a_loaded_state_goes_on_as_before(name):
    """The centre, the average and its batch norms are in the state."""
    first, second = make(name), make(name)
    train(first, 2, 1e-2)
    second.load_state_dict(first.state_dict())
    found = []
    for method in (first, second):
        train(method, 2, 1e-3, seed=lambda step: 7 + step)
        found.append(minimised(method.losses("main", batch_for(method), make_rng(9))).item())
    assert found[0] == found[1]
    again = second.state_dict()
    assert [key for key, value in first.state_dict().items() if not torch.equal(value, again[key])] == []
    if name == "dino":
        assert first.state_dict()["distil.center"].abs().max() > 0
