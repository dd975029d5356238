"""Published numbers, neither inferred nor recalled; docs/methods names the papers and files.

A change of one is a change of the method. VAE, WAE-UKL and the two auxiliary losses with all labels have no published
ones of their own.
"""

import pytest

from vtabflow.planning import catalogue
from vtabflow.planning.settings import Pretrain

USUAL = {"optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}  # the rate is that for 256 images
PATCHES = {"embedding": 1000, "hidden": 4096, "dropout": 0.5, "gray": 0.66}  # to_gray and the head of RSSL
WAE = {"reconstruction_weight": 0.05, "input_noise": 0.01, "beta1": 0.5}  # WAE configs.py, CelebA
TO_A_HUNDREDTH = {"optimiser": "adam", "decay": "exponential", "decay_factor": 0.01}  # WAE, manual_smooth
BIGGAN = {  # compare_gan's gin file and resnet_biggan.py
    "latent": 120,
    "channels": 96,
    "generator_rate": 1e-4,
    "discriminator_rate": 5e-4,
    "beta1": 0.0,
    "ema_decay": 0.9999,
    "ema_start": 0.16,  # 40,000 of 250,000 steps
    "crop_area_min": 0.5,  # "distorted"
}
TWO_OF_D = ("discriminator", "discriminator", "generator")  # two steps of D for one of G

SOURCED = {
    "wae-mmd": {
        "update_order": ("main",),
        "defaults": {**TO_A_HUNDREDTH, "learning_rate": 5e-4},  # the file as it stands
        "settings": {**WAE, "penalty_weight": 100.0},  # CelebA
    },
    "wae-gan": {
        "update_order": ("autoencoder", "critic"),  # one step of the critic for one of the autoencoder
        "defaults": {**TO_A_HUNDREDTH, "learning_rate": 3e-4},  # the comment in configs.py
        "settings": {**WAE, "critic_rate": 1e-3, "hidden": 1024, "layers": 4, "prior_trick": True},  # CelebA
    },
    "cond-biggan": {
        "update_order": TWO_OF_D,
        "defaults": {"optimiser": "adam"},
        "settings": {**BIGGAN, "embedding": 128},
    },
    "uncond-biggan": {
        "update_order": TWO_OF_D,  # all else as Cond-BigGAN
        "defaults": {"optimiser": "adam"},
        "settings": {**BIGGAN, "rotation_weight": 1.0, "fake_rotation_weight": 0.2},  # gans/ssgan.py
    },
    "bigbigan": {
        "update_order": (*TWO_OF_D, "encoder"),  # G and D as BigGAN's
        "defaults": {"optimiser": "adam"},
        "settings": {
            "latent": 120,
            "generator_rate": 1e-4,
            "discriminator_rate": 5e-4,
            "beta1": 0.0,
            "crop_area_min": 0.08,
        },
    },
    "relative-patch-location": {"update_order": ("main",), "defaults": USUAL, "settings": PATCHES},
    "jigsaw": {"update_order": ("main",), "defaults": USUAL, "settings": {**PATCHES, "perm_subset": 8}},
    "rotation": {"update_order": ("main",), "defaults": USUAL, "settings": {"crop_area_min": 0.05}},
    "exemplar": {  # crop and greys: preprocess.py
        "update_order": ("main",),
        "defaults": USUAL,
        "settings": {"views": 8, "embedding": 1000, "margin": 0.5, "gray": 0.66, "crop_area_min": 0.05},
    },
    "sup-10": {
        "update_order": ("main",),
        "defaults": {**USUAL, "weight_decay": 1e-3},  # ten times the usual
        "settings": {"crop_area_min": 0.05, "colour": False},  # inception_crop and flip
    },
    "sup-100": {"update_order": ("main",), "defaults": USUAL, "settings": {"crop_area_min": 0.05, "colour": True}},
    "semi-rotation-10": {
        "update_order": ("main",),
        "defaults": {"optimiser": "sgd", "learning_rate": 0.03, "weight_decay": 1e-3},  # config/s4l_rotation
        "settings": {"rotation_weight": 1.0, "crop_area_min": 0.05},  # w = 1
    },
    "semi-exemplar-10": {
        "update_order": ("main",),
        "defaults": {"optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 1e-3},  # config/s4l_exemplar
        "settings": {"triplet_weight": 1.0, "views": 8, "embedding": 1000, "crop_area_min": 0.05},
    },
}


@pytest.mark.parametrize("method", SOURCED)
def test_published_numbers_are_the_defaults(method):
    info, want = catalogue.info(method), SOURCED[method]
    assert info.update_order == want["update_order"]
    common = {**Pretrain().model_dump(), **info.defaults}
    assert {name: common[name] for name in want["defaults"]} == want["defaults"]
    assert {name: info.settings[name] for name in want["settings"]} == want["settings"]


def test_patch_methods_have_the_network_with_a_stride_of_8():
    """google/revisiting-self-supervised models/utils.py at b530e3b."""
    for method in ("relative-patch-location", "jigsaw"):
        assert catalogue.info(method).network("resnet50v2") == "resnet50v2-patch"
