"""The pretrain step: an encoder and its card from an EncoderSpec."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtabflow.contracts.results import EncoderCard, EncoderInput, Receipt, UsedUpstream
from vtabflow.contracts.specs import EncoderSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.networks import registry
from vtabflow.planning import catalogue
from vtabflow.pretrain.outcome import Outcome, Trained
from vtabflow.runtime import distributed
from vtabflow.runtime.files import seed_of, sha256, write_json, write_with

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS, CARD, SAMPLES, SUBSET = "encoder.safetensors", "card.json", "pictures.png", "subset.txt"


def run(spec: EncoderSpec) -> None:
    """Make the encoder of `spec` unless it exists, then write its receipt.

    A run that diverges is a result too: its card has status "stopped" or "failed" and a reason. A run that was
    interrupted left a checkpoint in spec.scratch, from which the next one resumes. Of several processes
    (runtime/distributed.py) the main one writes.

    Raises:
        UserError: the spec cannot be run.
        RunError: the GPU has too little memory.
    """
    exists = (Path(spec.folder) / CARD).exists()
    if not exists:
        make_encoder(spec)
    if distributed.is_main_process():
        shutil.rmtree(spec.scratch, ignore_errors=True)
        write_json(spec.receipt, to_json(Receipt(key=spec.key, folder=spec.folder, made=not exists)))


def make_encoder(spec: EncoderSpec) -> None:
    """Train the network, or only initialise it (source "random"), and write weights and card."""
    registry.check(spec.network)
    if spec.source == "trained":
        check_trainable(spec)

    import torch

    from vtabflow.runtime import compute

    distributed.init_process_group()
    if spec.portable:
        compute.check_portable()
    device = torch.device("cuda" if torch.cuda.is_available() and not spec.portable else "cpu")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trunk = registry.build(spec.network, spec.seed)
    trained = train(spec, trunk, device) if spec.source == "trained" else Trained(Outcome())
    memory = compute.peak_memory(device)
    distributed.destroy_process_group()
    if distributed.is_main_process():
        write_results(spec, trunk, trained, device, memory)


def check_trainable(spec: EncoderSpec) -> None:
    """Raise UserError if the spec cannot be trained, before anything heavy is imported."""
    settings, info = spec.settings, catalogue.info(spec.method)
    for package, extra in info.needs.items():
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"method {info.id} needs the package {package}, which is not installed; `pip install -e '.[{extra}]'` "
                "in the project's folder, or leave the method out"
            )
    if spec.upstream is None or settings is None:
        raise UserError(
            f"method {info.id} trains on an upstream and the study has none; set `upstream` or leave the method out"
        )
    if settings.batch < info.smallest_batch:
        raise UserError(
            f"pretrain.batch is {settings.batch} and method {info.id} needs at least {info.smallest_batch}; raise it"
        )
    if settings.steps < 1:
        raise UserError(
            f"pretrain.steps is {settings.steps} and method {info.id} needs at least 1; raise it, or use from-scratch"
        )


def train(spec: EncoderSpec, trunk: "nn.Module", device: "torch.device") -> Trained:
    """Train `trunk` in place by the spec's method, with a linear probe before and after.

    Raises:
        RunError: the GPU runs out of memory.
    """
    import torch

    from vtabflow.prepare.store import open_store
    from vtabflow.pretrain import loop
    from vtabflow.pretrain.probe import probe
    from vtabflow.pretrain.upstream import Upstream

    settings, on, size = spec.settings, spec.upstream, spec.image_size
    assert settings is not None and on is not None
    store, kind = open_store(on.folder), catalogue.load(spec.method)
    upstream = Upstream(store, on, kind.streams, settings.batch, spec.seed, device)
    method = kind(trunk, size, upstream.classes, settings.flat(), seed_of("method", kind.id, spec.seed))
    standardise = method.standardises_input()

    def accuracy() -> Any:
        if not distributed.is_main_process():
            return None
        return probe(trunk.to(device), store, on.task, size, device, standardise)

    try:
        before = accuracy()
        outcome = loop.train(method, upstream, settings, spec.seed, spec.key, Path(spec.scratch))
        with torch.no_grad():
            method.finalize()
            samples = method.eval().samples()
        after = accuracy() if outcome.status != "failed" else None
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"method {kind.id}: the GPU ran out of memory with batches of {settings.batch} at {size} px; "
            "set a smaller pretrain.batch or use a GPU with more"
        ) from error
    finally:
        upstream.close()
    if after and before:
        after = replace(after, start=before.accuracy)
        text = f"{before.accuracy:.3f} at the start, {after.accuracy:.3f} at the end"
        print(f"{kind.id}: probe {text}, on {after.n_test} images of {after.classes} classes", flush=True)
    digests = {file: store.manifest.sha256[file] for file in upstream.files}
    used = UsedUpstream(on.dataset, digests, upstream.subset)
    return Trained(outcome, used, after, standardise, samples, upstream.subset_ids)


def write_results(spec: EncoderSpec, trunk: "nn.Module", trained: Trained, device: "torch.device", memory: int) -> None:
    """Write what the training gave, the card last."""
    from vtabflow.runtime import compute

    folder, outcome = Path(spec.folder), trained.outcome
    if trained.samples is not None:
        grid = image_grid(trained.samples)
        write_with(folder / SAMPLES, lambda stream: grid.save(stream, "png"))
    if trained.subset_ids:
        lines = "".join(f"{name}\n" for name in trained.subset_ids)
        write_with(folder / SUBSET, lambda stream: stream.write(lines.encode()))
    save_weights(folder / WEIGHTS, trunk)
    card = EncoderCard(
        method=spec.method,
        display=spec.display,
        family=spec.family,
        network=spec.network,
        features=int(trunk.features),  # type: ignore[arg-type]
        sha256={WEIGHTS: sha256(folder / WEIGHTS)},
        parameters=sum(p.numel() for p in trunk.parameters()),
        input=EncoderInput(
            size=spec.image_size, low=-1.0, high=1.0, mean=None, std=None, standardise=trained.standardise
        ),
        seeded=spec.source == "random",
        precision=compute.resolve_precision(spec.settings.precision, device) if spec.settings else None,
        status=outcome.status,
        reason=outcome.reason,
        losses=outcome.losses,
        curve=tuple(outcome.curve),
        seconds=outcome.seconds,
        images_per_second=outcome.images_per_second,
        resumed=outcome.resumed,
        upstream=trained.upstream,
        probe=trained.probe,
        peak_memory_bytes=memory,
        versions=compute.versions(),
        machine=compute.machine(device),
        spec=to_json(spec),
    )
    write_json(folder / CARD, to_json(card))


def image_grid(images: "torch.Tensor") -> Any:
    """Images (N, 3, H, W) in [-1, 1] as one PIL image, eight in a row."""
    from PIL import Image

    rows = images.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    n, height, width = rows.shape[:3]
    grid = Image.new("RGB", (8 * width, -(-n // 8) * height))
    for i, row in enumerate(rows.numpy()):
        grid.paste(Image.fromarray(row), (i % 8 * width, i // 8 * height))
    return grid


def save_weights(path: Path, trunk: "nn.Module") -> None:
    """The state_dict as safetensors: float32 (counters as they are), contiguous, on the CPU."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in trunk.state_dict().items()}
    data = save({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    write_with(path, lambda stream: stream.write(data))
