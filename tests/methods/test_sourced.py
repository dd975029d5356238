"""Numbers that are published: those of methods.md that it gives as facts, neither inferred ([INF]) nor recalled
([REC]). A change of one is a change of the method. VAE, WAE-UKL and the two auxiliary losses with all labels have no
published ones of their own.
"""

import pytest

from vtabflow.planning import catalogue
from vtabflow.planning.settings import Pretrain

USUAL = {"optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}  # 2.3; the rate is that for 256 images
PATCHES = {"embedding": 1000, "hidden": 4096, "dropout": 0.5, "gray": 0.66}  # M9: to_gray and the head of RSSL
WAE = {"reconstruction_weight": 0.05, "input_noise": 0.01, "beta1": 0.5}  # M2-M5: WAE configs.py, CelebA
TO_A_HUNDREDTH = {"optimiser": "adam", "decay": "exponential", "decay_factor": 0.01}  # M2-M5: WAE, manual_smooth
BIGGAN = {  # M6: compare_gan's gin file and resnet_biggan.py
    "latent": 120,
    "channels": 96,
    "generator_rate": 1e-4,
    "discriminator_rate": 5e-4,
    "beta1": 0.0,
    "ema_decay": 0.9999,
    "ema_start": 0.16,  # 40,000 of 250,000 steps
    "crop_area_min": 0.5,  # "distorted"
}
TWO_OF_D = ("discriminator", "discriminator", "generator")  # M6: two steps of D for one of G

SOURCED = {
    "wae-mmd": {
        "turns": ("main",),
        "defaults": {**TO_A_HUNDREDTH, "learning_rate": 5e-4},  # M2-M5: the file as it stands
        "settings": {**WAE, "penalty_weight": 100.0},  # M3: CelebA
    },
    "wae-gan": {
        "turns": ("autoencoder", "critic"),  # M4: one step of the critic for one of the autoencoder
        "defaults": {**TO_A_HUNDREDTH, "learning_rate": 3e-4},  # M2-M5: the comment in configs.py
        "settings": {**WAE, "critic_rate": 1e-3, "hidden": 1024, "layers": 4, "prior_trick": True},  # M4: CelebA
    },
    "cond-biggan": {
        "turns": TWO_OF_D,
        "defaults": {"optimiser": "adam"},  # M6
        "settings": {**BIGGAN, "embedding": 128},  # M6
    },
    "uncond-biggan": {
        "turns": TWO_OF_D,  # M7: all else as M6
        "defaults": {"optimiser": "adam"},
        "settings": {**BIGGAN, "rotation_weight": 1.0, "fake_rotation_weight": 0.2},  # M7: gans/ssgan.py
    },
    "bigbigan": {
        "turns": (*TWO_OF_D, "encoder"),  # M8: G and D as BigGAN's
        "defaults": {"optimiser": "adam"},
        "settings": {
            "latent": 120,
            "generator_rate": 1e-4,
            "discriminator_rate": 5e-4,
            "beta1": 0.0,
            "crop_area_min": 0.08,
        },
    },
    "relative-patch-location": {"turns": ("main",), "defaults": USUAL, "settings": PATCHES},  # M9
    "jigsaw": {"turns": ("main",), "defaults": USUAL, "settings": {**PATCHES, "perm_subset": 8}},  # M10
    "rotation": {"turns": ("main",), "defaults": USUAL, "settings": {"crop_area_min": 0.05}},  # 2.2
    "exemplar": {  # M12; 2.2 for the crop and the greys
        "turns": ("main",),
        "defaults": USUAL,
        "settings": {"views": 8, "embedding": 1000, "margin": 0.5, "gray": 0.66, "crop_area_min": 0.05},
    },
    "sup-10": {
        "turns": ("main",),
        "defaults": {**USUAL, "weight_decay": 1e-3},  # 2.3: ten times the usual
        "settings": {"crop_area_min": 0.05, "colour": False},  # M13: inception_crop and flip
    },
    "sup-100": {"turns": ("main",), "defaults": USUAL, "settings": {"crop_area_min": 0.05, "colour": True}},  # 2.3, 2.2
    "semi-rotation-10": {
        "turns": ("main",),
        "defaults": {"optimiser": "sgd", "learning_rate": 0.03, "weight_decay": 1e-3},  # 2.3: config/s4l_rotation
        "settings": {"rotation_weight": 1.0, "crop_area_min": 0.05},  # M15: w = 1; 2.2
    },
    "semi-exemplar-10": {
        "turns": ("main",),
        "defaults": {"optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 1e-3},  # 2.3: config/s4l_exemplar
        "settings": {"triplet_weight": 1.0, "views": 8, "embedding": 1000, "crop_area_min": 0.05},  # M16; 2.2
    },
}


@pytest.mark.parametrize("method", SOURCED)
def test_published_numbers_are_the_defaults(method):
    info, want = catalogue.info(method), SOURCED[method]
    assert info.update_order == want["turns"]
    common = {**Pretrain().model_dump(), **info.defaults}
    assert {name: common[name] for name in want["defaults"]} == want["defaults"]
    assert {name: info.settings[name] for name in want["settings"]} == want["settings"]


def test_patch_methods_have_the_network_with_a_stride_of_8():
    """methods.md 2.1."""
    for method in ("relative-patch-location", "jigsaw"):
        assert catalogue.info(method).network("resnet50v2") == "resnet50v2-patch"
