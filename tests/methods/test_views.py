"""The random views of SimCLR, BYOL and DINO, against torchvision's operations image by image."""

import sys

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from small_methods import batch_for, make, make_rng

from vtabflow.methods import views
from vtabflow.networks import registry

FLAT = views.View((1.0, 1.0), (0.0, 0.0, 0.0, 0.0), covered=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n=6, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=generator(seed))


def test_blend_is_torchvisions_for_every_image():
    x = random_images()
    factors = torch.rand(6, 3, generator=generator(1)) * 2
    order = torch.stack([torch.randperm(3, generator=generator(i)) for i in range(6)])
    kinds = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    found = views.blend(x, factors, order)
    for image, factor, kind, mine in zip(x, factors.tolist(), order.tolist(), found, strict=True):
        for k in kind:
            image = kinds[k](image, factor[k])
        assert torch.allclose(mine, image, atol=1e-5)


def test_hue_is_torchvisions_for_every_image():
    x, turns = random_images(), torch.linspace(-0.5, 0.5, 6)
    x[0, :, 0], x[1, :2, 1], x[2, 1:, 2] = 0.3, 0.7, 0.2  # greys, and two colours alike
    for image, turn, mine in zip(x, turns.tolist(), views.shift_hue(x, turns), strict=True):
        assert torch.allclose(mine, reference.adjust_hue(image, turn), atol=1e-5)


@pytest.mark.parametrize("size, radius", [(32, 1), (16, 4), (24, 11)])
def test_blur_is_torchvisions_for_every_image(size, radius):
    x, sigma = random_images(3, size), torch.tensor([0.1, 0.7, 2.0])
    for image, width, mine in zip(x, sigma.tolist(), views.gaussian_blur(x, sigma, radius), strict=True):
        assert torch.allclose(mine, reference.gaussian_blur(image, 2 * radius + 1, width), atol=1e-5)


def test_grey_and_solarise_are_torchvisions(monkeypatch):
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator())
    x = images.permute(0, 3, 1, 2) / 255
    assert torch.allclose(views.grey(x), reference.rgb_to_grayscale(x), atol=1e-5)
    monkeypatch.setattr(views, "random_flips", lambda n, rng: torch.ones(n))
    monkeypatch.setattr(views, "GREY", 0.0)
    recipe = views.View((1.0, 1.0), (0.0, 0.0, 0.0, 0.0), solarise=1.0, covered=0.0)
    # A crop of the whole area has another aspect than the image: boxes of the whole image instead.
    monkeypatch.setattr(views, "crop_boxes", lambda n, *a, **k: torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(n, 4))
    found = (views.random_view(images, 32, make_rng(), recipe) + 1) / 2
    assert torch.allclose(found, reference.solarize(x, 0.5), atol=1e-5)


def test_each_image_has_its_own_random_numbers_as_often_as_published():
    images = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8, generator=generator()).expand(4000, -1, -1, -1)
    same = views.random_view(images, 8, make_rng(), FLAT)
    coloured = (same.amax(1) - same.amin(1)).amax((1, 2)) > 1e-3
    assert 1 - coloured.float().mean().item() == pytest.approx(views.GREY, abs=0.03)
    recipe = views.View((1.0, 1.0), (0.8, 0.8, 0.8, 0.2), blur=0.5, solarise=0.2, covered=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = views.random_view(images, 8, make_rng(), recipe)
    assert found.dtype == torch.float32 and found.min() >= -1 and found.max() <= 1
    assert torch.equal(found, views.random_view(images, 8, make_rng(), recipe))
    assert len({tuple(row) for row in found.flatten(1)[:200, ::7].tolist()}) > 195


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_two_views_of_an_image_differ_in_random_numbers_alone(name, monkeypatch):
    pytest.importorskip("lightly")
    method, seen = make(name), []
    monkeypatch.setattr(method, "encode", lambda x: seen.append(x) or torch.randn(len(x), method.features))
    method.losses("main", batch_for(method), make_rng())
    first, second = seen if name == "byol" else seen[0].chunk(2)
    assert first.shape == (12, 3, 32, 32) and not torch.allclose(first, second, atol=0.1)


def test_local_crops_have_whole_patches_and_the_published_size(monkeypatch):
    pytest.importorskip("lightly")
    assert make("dino").local_size == 16
    trunk = registry.build("vit-s16", 0)
    kind = type(make("dino"))
    small = {"hidden": 8, "embedding": 8, "prototypes": 8, "steps": 1, "batch": 2}
    assert kind(trunk, 224, None, small, 0).local_size == 96
    method, sizes = make("dino", local_views=3), []
    monkeypatch.setattr(method, "encode", lambda x: sizes.append(tuple(x.shape)) or torch.randn(len(x), 64))
    method.losses("main", batch_for(method), make_rng())
    assert sizes == [(24, 3, 32, 32), (36, 3, 16, 16)]


def published(area, jitter, *others):
    return [views.View((area, 1.0), jitter, *other) for other in others]


WEAK = (0.4, 0.4, 0.2, 0.1)  # of BYOL and DINO; blurred always, and now and then with solarising
ASYMMETRIC = ((1.0, 0.0), (0.1, 0.2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simclr", published(0.08, (0.8, 0.8, 0.8, 0.2), (0.5,), (0.5,))),
        ("byol", published(0.08, WEAK, *ASYMMETRIC)),
        ("dino", [*published(0.4, WEAK, *ASYMMETRIC), *2 * [views.View((0.05, 0.4), WEAK, 0.5, covered=0.0)]]),
    ],
)
def test_views_have_the_published_distributions(name, expected, monkeypatch):
    pytest.importorskip("lightly")
    method, seen = make(name), []
    module = sys.modules[type(method).__module__]
    real = module.random_view
    monkeypatch.setattr(module, "random_view", lambda *given: seen.append(given[3]) or real(*given))
    method.losses("main", batch_for(method), make_rng())
    assert seen == expected


def test_the_window_of_the_blur_is_a_tenth_of_the_image(monkeypatch):
    real, windows = views.gaussian_blur, []
    monkeypatch.setattr(views, "gaussian_blur", lambda *given: windows.append(given[2]) or real(*given))
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    for size in (8, 32, 224):
        views.random_view(images, size, make_rng(), FLAT)
    assert windows == [1, 1, 11]
