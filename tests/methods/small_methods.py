"""Small methods, batches and a small training loop for the tests of methods."""

import torch

from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks import registry
from vtabflow.planning import catalogue

SIZE, CLASSES, BATCH = 32, 7, 12
# Own settings for networks of this size.
SMALL = {
    "simclr": {"hidden": 64, "embedding": 32},
    "byol": {"hidden": 64, "embedding": 32},
    "dino": {"hidden": 64, "embedding": 32, "prototypes": 128, "local_views": 2},
    "mae": {"channels": 32, "depth": 1},
    "cond-biggan": {"channels": 4, "latent": 8, "embedding": 8},
    "uncond-biggan": {"channels": 4, "latent": 8},
    "bigbigan": {"channels": 4, "latent": 8, "hidden": 16, "layers": 2},
    "jigsaw": {"embedding": 16, "hidden": 64},
    "relative-patch-location": {"embedding": 16, "hidden": 64},
    "vae": {"channels": 4, "latent": 8},
    "exemplar": {"views": 4, "embedding": 32},
    "semi-exemplar-10": {"views": 4, "embedding": 32},
    "sup-exemplar-100": {"views": 4, "embedding": 32},
    "wae-mmd": {"channels": 4, "latent": 8},
    "wae-gan": {"channels": 4, "latent": 8, "hidden": 32},
    "wae-ukl": {"channels": 4, "latent": 8},
}
TRAINED = [name for name, info in catalogue.methods().items() if info.source == "trained"]


def make_rng(seed=0):
    return BatchRNG(torch.Generator().manual_seed(seed))


def make(name, classes=CLASSES, size=SIZE, **settings):
    """The method on its small network; settings that are not given are those of SMALL, or its defaults."""
    info = catalogue.info(name)
    trunk = registry.build(info.network("resnet-small"), 0)
    common = {"steps": 100, "batch": BATCH}
    return catalogue.load(name)(trunk, size, classes, {**common, **SMALL.get(name, {}), **settings}, 0)


def batch_for(method, n=BATCH, seed=1):
    """Images of noise, and classes for the streams that have them."""
    g = torch.Generator().manual_seed(seed)
    batch = {}
    for name, source in method.streams.items():
        images = torch.randint(0, 256, (n, method.size, method.size, 3), dtype=torch.uint8, generator=g)
        classes = torch.randint(0, method.classes or CLASSES, (n,), generator=g)
        batch[name] = (images, None if source == "images" else classes)
    return batch


def minimised(losses):
    return torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()


def one_step(method, optimisers, batch, step, seed):
    """All updates of one step, as the loop makes them; returns the losses by parameter group."""
    parameter_groups, found = method.parameter_groups(), {}
    for update, group in enumerate(method.update_order):
        method.requires_grad_(False)
        for p in parameter_groups[group]:
            p.requires_grad_(True)
        optimisers[group].zero_grad()
        found[group] = method.losses(group, batch, make_rng(1000 * seed + update))
        minimised(found[group]).backward()
        optimisers[group].step()
    with torch.no_grad():
        method.after_step(step)
    return found


def train(method, steps, rate, batch=None, seed=lambda step: step):
    """Adam for all parameter groups on one batch; the views differ from step to step unless `seed` is constant. Returns
    the last losses by group, as numbers."""
    optimisers = {name: torch.optim.Adam(list(ps), rate) for name, ps in method.parameter_groups().items()}
    batch = batch_for(method) if batch is None else batch
    for step in range(steps):
        found = one_step(method, optimisers, batch, step, seed(step))
    return {group: {name: loss.item() for name, loss in losses.items()} for group, losses in found.items()}
