"""Supervised pre-training: chance at the start, the labels that each reads, one batch overfit."""

import math

import pytest
import torch
from small_methods import CLASSES, batch_for, make, make_rng, train

from vtabflow.planning import catalogue


@pytest.mark.parametrize("name", ["sup-100", "sup-10"])
def test_the_start_is_chance(name):
    method = make(name)
    losses = method.losses("main", batch_for(method), make_rng())
    assert losses["class"].item() == pytest.approx(math.log(CLASSES), abs=1e-6)


def test_sup_10_is_sup_100_on_the_labelled_subset():
    few, all_labels = catalogue.info("sup-10"), catalogue.info("sup-100")
    assert few.streams == {"labelled": "subset"} and all_labels.streams == {"labelled": "labels"}
    assert few.defaults == {"weight_decay": 1e-3}
    assert few.settings == {**all_labels.settings, "colour": False} and all_labels.settings["colour"]
    batch = batch_for(make("sup-100"))
    values = []
    for name in ("sup-10", "sup-100"):
        method = make(name, colour=False)
        torch.nn.init.normal_(method.classify.weight, generator=torch.Generator().manual_seed(0))
        values.append(method.losses("main", batch, make_rng())["class"].item())
    assert values[0] == values[1]


def test_the_loss_is_the_mean_negative_log_probability_of_the_label():
    method = make("sup-100")
    torch.nn.init.normal_(method.classify.weight, generator=torch.Generator().manual_seed(0))
    seen, batch = {}, batch_for(method)
    method.classify.register_forward_hook(lambda _, inputs, out: seen.update(logits=out.double()))
    loss = method.losses("main", batch, make_rng())["class"]
    labels = batch["labelled"][1]
    want = [-(row[label] - row.exp().sum().log()).item() for row, label in zip(seen["logits"], labels, strict=True)]
    assert loss.item() == pytest.approx(sum(want) / len(want), rel=1e-5)


def test_one_batch_can_be_learned_by_overfitting():
    method = make("sup-100", size=16, crop_area_min=1.0, colour=False)
    last = train(method, 150, 5e-3, batch_for(method, 64), seed=lambda step: 0)
    assert last["main"]["class"] < 0.05
