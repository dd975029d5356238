"""What holds for every method: gradients, random numbers, precision, labels, ranges of settings."""

import pytest
import torch
from small_methods import BATCH, TRAINED, batch_for, make, make_rng, minimised, train

from vtabflow.errors import UserError
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.planning import catalogue

SIZES_OF_LAYERS = ("latent", "channels", "embedding", "hidden", "prototypes")


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter_of_the_group_and_no_other(name):
    """After a few steps: a zero head hands no gradient on at the first."""
    method = make(name)
    train(method, 3, 1e-3)
    parameter_groups = method.parameter_groups()
    for group, parameters in ((name, list(ps)) for name, ps in parameter_groups.items()):
        method.requires_grad_(False)
        method.zero_grad()
        for p in parameters:
            p.requires_grad_(True)
        minimised(method.losses(group, batch_for(method), make_rng(9))).backward()
        own = {id(p) for p in parameters}
        for key, p in method.named_parameters():
            if id(p) in own:
                assert p.grad is not None and p.grad.abs().max() > 0, f"{group} does not reach {key}"
            else:
                assert p.grad is None, f"{group} reaches {key}"


@pytest.mark.parametrize("name", TRAINED)
def test_parameter_groups_are_disjoint_and_all_updated(name):
    method = make(name)
    parameter_groups = {group: [id(p) for p in ps] for group, ps in method.parameter_groups().items()}
    assert set(parameter_groups) == set(method.update_order)
    everything = [i for ids in parameter_groups.values() for i in ids]
    assert len(everything) == len(set(everything)), "no parameter belongs to two groups"


@pytest.mark.parametrize("name", [name for name in TRAINED if not catalogue.info(name).uses_labels])
def test_methods_without_labels_ignore_them(name):
    method = make(name)
    images, _ = batch_for(method)["images"]
    for group in method.update_order:
        method.eval()
        values = [
            minimised(method.losses(group, {"images": (images, labels)}, make_rng(0))).item()
            for labels in (None, torch.full((BATCH,), 10**6))
        ]
        assert values[0] == values[1], f"{name}: the loss of {group} depends on labels"


@pytest.mark.parametrize("name", [name for name in TRAINED if catalogue.info(name).uses_labels])
def test_methods_with_labels_need_classes(name):
    with pytest.raises(UserError, match=name):
        make(name, classes=None)


@pytest.mark.parametrize("name", TRAINED)
def test_losses_are_a_function_of_the_random_numbers(name):
    method = make(name)
    train(method, 1, 1e-2)  # away from heads of zeros
    method.requires_grad_(True)
    method.eval()
    batch = batch_for(method)
    for group in method.update_order:
        torch.manual_seed(0)
        first = minimised(method.losses(group, batch, make_rng(4))).item()
        torch.manual_seed(1)
        again = minimised(method.losses(group, batch, make_rng(4))).item()
        assert first == again, f"{name}: the loss of {group} has random numbers of another generator"
        other = minimised(method.losses(group, batch, make_rng(5))).item()
        assert first != other, f"{name}: the loss of {group} does not depend on its random numbers"


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_autocast_leaves_losses_in_float32(name):
    method = make(name)
    for group in method.update_order:
        with torch.autocast("cpu", torch.bfloat16):
            losses = method.losses(group, batch_for(method), make_rng(0))
        for key, loss in losses.items():
            assert loss.dtype == torch.float32, (
                f"{name}: {key} of {group} is {loss.dtype}; see methods/base.py on autocast"
            )
            assert loss.isfinite(), f"{name}: {key} of {group} is {loss.item()} under bfloat16 autocast"


@pytest.mark.parametrize("name", [name for name, info in catalogue.methods().items() if info.ranges])
def test_losses_are_finite_at_both_ends_of_every_range(name):
    """Sizes of layers only at their lower end: the upper one is a bound against slips."""
    info = catalogue.info(name)
    for setting, ends in info.ranges.items():
        for value in ends[:1] if setting in SIZES_OF_LAYERS else ends:
            made = make(name, **{setting: type(info.settings[setting])(value)})
            for group in made.update_order:
                for key, loss in made.losses(group, batch_for(made), make_rng(0)).items():
                    assert loss.isfinite(), f"{name} with {setting} {value}: {key} of {group} is {loss.item()}"


@pytest.mark.parametrize("kind", ["uniform", "normal", "integers"])
def test_two_processes_have_the_rows_of_one(kind):
    def numbers(n, *process):
        made = BatchRNG(torch.Generator().manual_seed(3), *process)
        return getattr(made, kind)((n, 2), *([1000] if kind == "integers" else []))

    assert torch.equal(torch.cat([numbers(3, 0, 2), numbers(3, 1, 2)]), numbers(6))


def test_shared_numbers_are_the_same_on_all_processes():
    one, other = (BatchRNG(torch.Generator().manual_seed(3), rank, 2).shared(100, 8) for rank in (0, 1))
    assert torch.equal(one, other) and len(set(one.tolist())) == 8
