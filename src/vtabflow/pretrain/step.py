"""The pretrain step: an encoder and its card from a spec."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtabflow import catalogue
from vtabflow.errors import RunError, UserError
from vtabflow.files import seed_of, write_json, write_with
from vtabflow.networks import table

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vtabflow.prepare.store import Store
    from vtabflow.pretrain.loop import Outcome

WEIGHTS, CARD = "encoder.safetensors", "card.json"


def run(spec: dict[str, Any]) -> None:
    """Make the encoder of `spec` (an EncoderSpec) unless it is there, then write its receipt.

    A run that diverges is a result too: its card has status "failed" and a reason. UserError for a spec that cannot
    be run, RunError if the GPU's memory does not do; what a run that ended early left in scratch, the next goes on from.
    """
    folder, scratch = Path(spec["folder"]), Path(spec["scratch"])
    made = not (folder / CARD).exists()
    if made:
        make(spec, folder, scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    write_json(spec["receipt"], {"key": spec["key"], "folder": spec["folder"], "made": made})


def make(spec: dict[str, Any], folder: Path, scratch: Path) -> None:
    """Train (or, for a method without streams, only initialise) the network and write weights and card."""
    info = catalogue.info(spec["method"])
    name = info.networks.get(spec["network"], spec["network"])
    table.check(name)
    if info.streams:
        refuse(spec, info)

    import torch

    from vtabflow import compute

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trunk = table.build(name, spec["seed"])
    features = table.NETWORKS[name]["features"]
    outcome, upstream, measured = None, None, None
    if info.streams:
        from vtabflow.prepare.store import open_store

        store = open_store(spec["upstream"]["folder"])
        outcome, upstream = pretrain(spec, trunk, store, device, scratch)
    save_weights(folder / WEIGHTS, trunk)
    if outcome and outcome.status == "ok":
        measured = probe(spec, name, store, device)
    write_json(
        folder / CARD,
        {
            "method": info.id,
            "display": info.display,
            "family": info.family,
            "network": name,
            "features": features,
            "parameters": sum(p.numel() for p in trunk.parameters()),
            "input": {"size": spec["image_size"], "low": -1.0, "high": 1.0, "mean": None, "std": None},
            "seeded": not info.streams,
            # What was trained in: a network that is only initialised was trained in none.
            "precision": compute.resolved(spec["settings"]["precision"], device) if info.streams else None,
            "status": outcome.status if outcome else "ok",
            "reason": outcome.reason if outcome else None,
            "upstream": upstream,
            "losses": outcome.losses if outcome else {},
            "curve": outcome.curve if outcome else [],
            "probe": measured,
            "seconds": outcome.seconds if outcome else 0.0,
            "images_per_second": outcome.images_per_second if outcome else None,
            "peak_memory_bytes": compute.peak_memory(device),
            "resumed": outcome.resumed if outcome else 0,
            "versions": compute.versions(),
            "machine": compute.machine(device),
            "spec": spec,
        },
    )


def refuse(spec: dict[str, Any], info: catalogue.MethodInfo) -> None:
    """Raise UserError if the spec cannot train this method, before anything heavy is imported."""
    settings, method = spec["settings"], info.id
    if spec["upstream"] is None:
        raise UserError(
            f"method {method} trains on an upstream and the study has none; set `upstream` or leave the method out"
        )
    if settings["batch"] < info.smallest_batch:
        raise UserError(
            f"pretrain.batch is {settings['batch']} and method {method} needs at least {info.smallest_batch}; raise it"
        )
    if settings["steps"] < 1:
        raise UserError(
            f"pretrain.steps is {settings['steps']} and method {method} needs at least 1; raise it, or use from-scratch"
        )


def pretrain(
    spec: dict[str, Any], trunk: "nn.Module", store: "Store", device: "torch.device", scratch: Path
) -> "tuple[Outcome, dict[str, Any]]":
    """Train `trunk` in place by the spec's method; returns how it went and what was used of the upstream.

    RunError if the GPU runs out of memory.
    """
    import torch

    from vtabflow.pretrain.loop import train
    from vtabflow.pretrain.upstream import Upstream

    seed, settings = spec["seed"], spec["settings"]
    kind = catalogue.load(spec["method"])
    upstream = Upstream(store, spec["upstream"], kind.streams, settings["batch"], seed, device)
    method = kind(trunk, spec["image_size"], upstream.classes, settings, seed_of("method", kind.id, seed))
    try:
        outcome = train(method, upstream, settings, seed, spec["key"], scratch)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"method {kind.id}: the GPU ran out of memory with batches of {settings['batch']} at "
            f"{spec['image_size']} px; set a smaller pretrain.batch or use a GPU with more"
        ) from error
    finally:
        upstream.close()
    digests = {file: store.manifest["sha256"][file] for file in upstream.used}
    return outcome, {"dataset": spec["upstream"]["dataset"], "sha256": digests, "subset": upstream.subset}


def probe(spec: dict[str, Any], name: str, store: "Store", device: "torch.device") -> dict[str, Any] | None:
    """The linear probe of the weights as they were written."""
    from safetensors.torch import load_file

    from vtabflow.pretrain.probe import probe as measure

    trunk = table.build(name, spec["seed"])
    trunk.load_state_dict(load_file(Path(spec["folder"]) / WEIGHTS))
    result = measure(trunk.to(device), store, spec["upstream"]["task"], spec["image_size"], device)
    if result:
        images, classes = result["n_test"], result["classes"]
        print(f"{spec['method']}: probe {result['accuracy']:.3f} on {images} images, {classes} classes", flush=True)
    return result


def save_weights(path: Path, trunk: "nn.Module") -> None:
    """The state_dict as safetensors: float32 (counters as they are), contiguous, on the CPU."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    data = save({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    write_with(path, lambda stream: stream.write(data))
