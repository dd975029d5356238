"""Every network of the table, and others of timm as rows: a loaded one has the features of the saved one."""

import sys
import types

import pytest
import timm
import torch
from torch import nn

from vtabflow.networks import registry

CPU = torch.device("cpu")
# Of six families. Rotary tables, relative positions and attention offsets are buffers outside the state_dict in all but
# the first: made on the meta device, they stay whatever the memory held.
TIMM = {
    "resnet18": 64,
    "swin_tiny_patch4_window7_224": 224,
    "vit_relpos_small_patch16_224": 224,
    "eva02_tiny_patch14_224": 224,
    "tiny_vit_5m_224": 224,
    "levit_128s": 224,
}
UNSAVED = set(TIMM) - {"resnet18"}


class TimmTrunk(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.network = timm.create_model(name, num_classes=0)
        self.features = self.network.num_features

    def forward(self, x):
        return self.network(x)

    @staticmethod
    def start(network):
        return network


def loaded_and_saved(name, size):
    """Features in evaluation mode of `blank` with the loaded weights, and of `build`."""
    built = registry.build(name, 3).eval()
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = built(x)
        state = {key: value.clone() for key, value in built.state_dict().items()}
        del built
        blank = registry.blank(name, CPU)
        blank.load_state_dict(state)
        return blank.eval()(x), expected, blank


@pytest.mark.parametrize("name", [name for name in registry.NETWORKS if name not in ("biggan", "vit-s16")])
def test_the_smallest_batch_and_image_are_what_the_network_can_be_trained_on(name):
    """At the sizes around each limit: one image fails exactly where two are needed, and smaller images fail."""
    row = registry.NETWORKS[name]
    network = registry.blank(name, CPU).train()
    if "smallest" in row:
        with pytest.raises(RuntimeError, match="too small"):
            network(torch.zeros(2, 3, row["smallest"] // 2, row["smallest"] // 2))
    edge = row.get("stride", row.get("smallest", 8))
    for size in (edge, edge + row.get("patch", 1)):
        needed = registry.smallest_batch(name, size)
        assert network(torch.zeros(needed, 3, size, size)).shape == (needed, row["features"])
        if needed > 1:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                network(torch.zeros(1, 3, size, size))
    assert registry.smallest_batch(name, edge) == (2 if "stride" in row else 1)
    assert registry.smallest_batch(name, edge + 1) == 1


# Without biggan: 20 s of orthogonal kernels, and biggan-third has the same layers.
@pytest.mark.parametrize("name", [name for name in registry.NETWORKS if name != "biggan"])
def test_a_loaded_network_has_the_features_of_the_saved_one(name):
    found, expected, _ = loaded_and_saved(name, 32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", TIMM)
def test_a_loaded_network_of_timm_has_the_features_of_the_saved_one(name, monkeypatch):
    module = types.ModuleType("vtabflow.networks.timm_trunk")
    module.TimmTrunk = TimmTrunk
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = {"module": "timm_trunk", "class": "TimmTrunk", "features": 0, "arguments": {"name": name}}
    monkeypatch.setitem(registry.NETWORKS, name, row)
    found, expected, network = loaded_and_saved(name, TIMM[name])
    assert torch.equal(found, expected)
    unsaved = {key for key, _ in network.named_buffers()} - set(network.state_dict())
    assert bool(unsaved) == (name in UNSAVED), "the networks of this test should have buffers that are not saved"


def test_making_a_network_to_be_loaded_keeps_the_global_random_state():
    before = torch.get_rng_state()
    registry.blank("resnet-small", CPU)
    assert torch.equal(before, torch.get_rng_state())
