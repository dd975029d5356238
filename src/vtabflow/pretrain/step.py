"""The pretrain step: an encoder and its card from a spec."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtabflow.errors import RunError, UserError
from vtabflow.networks import registry as table
from vtabflow.planning import catalogue
from vtabflow.runtime.files import seed_of, sha256, write_json, write_with

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vtabflow.prepare.store import Store

WEIGHTS, CARD, PICTURES, SUBSET = "encoder.safetensors", "card.json", "pictures.png", "subset.txt"
OUTCOME = ("status", "reason", "losses", "curve", "seconds", "images_per_second", "resumed")
# What a card says of a network that is initialised and not trained.
UNTRAINED: dict[str, Any] = {
    "status": "ok",
    "reason": None,
    "losses": {},
    "curve": [],
    "seconds": 0.0,
    "images_per_second": None,
    "resumed": 0,
    "upstream": None,
    "probe": None,
}


def run(spec: dict[str, Any]) -> None:
    """Make the encoder of `spec` (an EncoderSpec) unless it is there, then write its receipt.

    A run that diverges is a result too: its card has status "stopped" or "failed" and a reason. UserError for a spec
    that cannot be run, RunError if the GPU's memory does not do; what a run that ended early left in scratch, the next
    goes on from. Of several processes (vtabflow/distributed.py) the first writes.
    """
    folder, scratch = Path(spec["folder"]), Path(spec["scratch"])
    made = not (folder / CARD).exists()
    if made:
        make(spec, folder, scratch)
    if first_process():
        shutil.rmtree(scratch, ignore_errors=True)
        write_json(spec["receipt"], {"key": spec["key"], "folder": spec["folder"], "made": made})


def make(spec: dict[str, Any], folder: Path, scratch: Path) -> None:
    """Train (or, for a method without streams, only initialise) the network and write weights and card."""
    info = catalogue.info(spec["method"])
    table.check(spec["network"])
    if info.streams:
        refuse(spec, info)

    import torch

    from vtabflow.runtime import compute, distributed

    distributed.join()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trunk = table.build(spec["network"], spec["seed"])
    trained = pretrain(spec, trunk, device, scratch) if info.streams else {}
    peak = compute.peak_memory(device)
    distributed.leave()
    if not first_process():
        return
    standardised = trained.pop("standardised", False)
    pictures = trained.pop("pictures", None)
    if pictures is not None:
        write_with(folder / PICTURES, lambda stream: sheet(pictures).save(stream, "png"))
    members = trained.pop("members", None)
    if members:
        write_with(folder / SUBSET, lambda stream: stream.write("".join(f"{name}\n" for name in members).encode()))
    save_weights(folder / WEIGHTS, trunk)
    write_json(
        folder / CARD,
        {
            "method": info.id,
            "display": info.display,
            "family": info.family,
            "network": spec["network"],
            "features": table.NETWORKS[spec["network"]]["features"],
            "sha256": {WEIGHTS: sha256(folder / WEIGHTS)},
            "parameters": sum(p.numel() for p in trunk.parameters()),
            "input": {
                "size": spec["image_size"],
                "low": -1.0,
                "high": 1.0,
                "mean": None,
                "std": None,
                "standardise": standardised,
            },
            "seeded": not info.streams,
            # What was trained in: a network that is only initialised was trained in none.
            "precision": compute.resolved(spec["settings"]["precision"], device) if info.streams else None,
            **{**UNTRAINED, **trained},
            "peak_memory_bytes": peak,
            "versions": compute.versions(),
            "machine": compute.machine(device),
            "spec": spec,
        },
    )


def refuse(spec: dict[str, Any], info: catalogue.MethodInfo) -> None:
    """Raise UserError if the spec cannot train this method, before anything heavy is imported."""
    settings, method = spec["settings"], info.id
    for package, extra in info.needs.items():
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"method {method} needs the package {package}, which is not installed; `pip install -e '.[{extra}]'` in the "
                "project's folder, or leave the method out"
            )
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


def pretrain(spec: dict[str, Any], trunk: "nn.Module", device: "torch.device", scratch: Path) -> dict[str, Any]:
    """Train `trunk` in place by the spec's method; returns what the card says of it, "pictures" that the method made,
    and the "members" of the labelled subset.

    RunError if the GPU runs out of memory.
    """
    import torch

    from vtabflow.prepare.store import open_store
    from vtabflow.pretrain.loop import train
    from vtabflow.pretrain.upstream import Upstream

    seed, settings, size = spec["seed"], spec["settings"], spec["image_size"]
    store = open_store(spec["upstream"]["folder"])
    kind = catalogue.load(spec["method"])
    upstream = Upstream(store, spec["upstream"], kind.streams, settings["batch"], seed, device)
    method = kind(trunk, size, upstream.classes, settings, seed_of("method", kind.id, seed))
    try:
        before = probe(spec, trunk, store, device, method.standardizes_input())
        outcome = train(method, upstream, settings, seed, spec["key"], scratch)
        with torch.no_grad():
            method.finalize()
            pictures = method.eval().samples()
        after = probe(spec, trunk, store, device, method.standardizes_input()) if outcome.status != "failed" else None
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"method {kind.id}: the GPU ran out of memory with batches of {settings['batch']} at "
            f"{size} px; set a smaller pretrain.batch or use a GPU with more"
        ) from error
    finally:
        upstream.close()
    if after and before:
        after["start"] = before["accuracy"]
        images, classes = after["n_test"], after["classes"]
        text = f"{before['accuracy']:.3f} at the start, {after['accuracy']:.3f} at the end"
        print(f"{kind.id}: probe {text}, on {images} images of {classes} classes", flush=True)
    digests = {file: store.manifest.sha256[file] for file in upstream.used}
    return {
        **{name: getattr(outcome, name) for name in OUTCOME},
        "upstream": {"dataset": spec["upstream"]["dataset"], "sha256": digests, "subset": upstream.subset},
        "probe": after,
        "standardised": method.standardizes_input(),
        "pictures": pictures,
        "members": upstream.members,
    }


def probe(
    spec: dict[str, Any], trunk: "nn.Module", store: "Store", device: "torch.device", standardised: bool
) -> dict[str, Any] | None:
    """The linear probe of the trunk as it stands, by the first process."""
    from vtabflow.pretrain.probe import probe as measure

    if not first_process():
        return None
    return measure(trunk.to(device), store, spec["upstream"]["task"], spec["image_size"], device, standardised)


def sheet(pictures: "torch.Tensor") -> Any:
    """Pictures (N, 3, H, W) in [-1, 1] side by side as one PIL image, eight in a row."""
    from PIL import Image

    rows = pictures.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    n, height, width = rows.shape[:3]
    image = Image.new("RGB", (8 * width, -(-n // 8) * height))
    for i, row in enumerate(rows.numpy()):
        image.paste(Image.fromarray(row), (i % 8 * width, i // 8 * height))
    return image


def first_process() -> bool:
    """Whether this process writes what is to be written (the only one, as a rule)."""
    return os.environ.get("RANK", "0") == "0"


def save_weights(path: Path, trunk: "nn.Module") -> None:
    """The state_dict as safetensors: float32 (counters as they are), contiguous, on the CPU."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    data = save({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    write_with(path, lambda stream: stream.write(data))
