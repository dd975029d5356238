"""Portable results have the same bits whatever the machine: here, in processes with other threads and processors."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vtabflow.contracts.specs import CellSpec, EncoderRef, FinetuneSettings, JobSpec, StoreRef
from vtabflow.contracts.typed_json import to_json
from vtabflow.runtime.devices import PORTABLE
from vtabflow.runtime.files import read_json, sha256

# Method -> start of the SHA-256 of the weights after 12 steps, of an AMD EPYC (Zen 5), by torch version. Those of 2.11
# are an Intel Xeon's (Sapphire Rapids, Python 3.12) too.
WEIGHTS = {
    "2.15": {"sup-exemplar-100": "717e7f6808e51c1b", "wae-gan": "913609e6f83cf9e2", "cell": "1.4993388652801514"},
    "2.11": {"sup-exemplar-100": "717e7f6808e51c1b", "wae-gan": "44426bd8980c9267", "cell": "1.4993239641189575"},
}

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="this processor has no AVX2"
)


def written(spec):
    """The file of a frozen spec, next to the place of its result."""
    path = Path(f"{spec.receipt}.spec.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(spec)))
    return path


def run(step, spec, threads=1, **environment):
    """Run a step from its frozen spec in a process of its own."""
    path = written(spec)
    command = [sys.executable, "-m", "vtabflow", step, "--spec", str(path), "--threads", str(threads)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def trained(spec, threads, **environment):
    """SHA-256 of the weights of an encoder."""
    ran = run("pretrain", spec, threads, **environment)
    assert ran.returncode == 0, ran.stderr
    card = read_json(Path(spec.folder, "card.json"))
    assert (card["machine"]["threads"], card["machine"]["instructions"]) == (1, "AVX2")
    return sha256(Path(spec.folder, "encoder.safetensors"))


def the_cell(spec, upstream_folder):
    """A cell of an encoder on the upstream's own images."""
    settings = FinetuneSettings("finetune", (0.1,), (6,), 16, 0.9, 0.0, 0.0, (0.5,), 0.1, "auto", "antialias")
    return CellSpec(
        key="c",
        method=spec.method,
        task="corners",
        budget="full",
        seed=0,
        source="folder",
        classes=4,
        image_size=32,
        folder="cell",
        scratch="scratch",
        encoder=EncoderRef(spec.key, spec.folder, spec.receipt),
        store=StoreRef("corners", "0", str(upstream_folder), "store.json"),
        settings=settings,
        identity={},
        code="1",
        portable=True,
    )


def test_the_bits_are_those_of_other_machines(make_spec, upstream_folder, tmp_path, monkeypatch):
    """Crops, colours, triplets, batch norm, dense layers, Adam, transposed convolutions, and a cell."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for method in ("sup-exemplar-100", "wae-gan"):
        spec = replace(make_spec(method, key=method), portable=True)
        found[method] = trained(spec, threads=2)[:16]
    job = JobSpec("j", "job.json", (the_cell(spec, upstream_folder),))
    ran = run("finetune", job, threads=2)
    assert ran.returncode == 0, ran.stderr
    found["cell"] = repr(read_json(Path("cell/score.json"))["selected"]["train_loss"])
    known = WEIGHTS.get(".".join(torch.__version__.split(".")[:2]))
    if known is None:
        pytest.skip(f"no known bits of torch {torch.__version__}: {found}")
    assert found == known


def test_threads_change_no_bit_of_a_portable_encoder(make_spec):
    spec = replace(make_spec("rotation", key="a"), portable=True)
    other = replace(make_spec("rotation", key="b"), portable=True)
    assert trained(spec, threads=1) == trained(other, threads=2, MKL_CBWR="AUTO", ATEN_CPU_CAPABILITY="default")


@pytest.mark.parametrize("name", ["ATEN_CPU_CAPABILITY", "MKL_CBWR", "OMP_NUM_THREADS"])
def test_a_process_that_computes_otherwise_is_refused(make_spec, name):
    """As on a processor without AVX2, or where torch is imported first."""
    spec = replace(make_spec("rotation"), portable=True)
    path = written(spec)
    code = (
        "import sys, torch\nfrom vtabflow.planning.state import load_spec\nfrom vtabflow.pretrain import step\n"
        "step.run(load_spec('pretrain', sys.argv[1]))"
    )
    environment = {**os.environ, **PORTABLE, name: {"ATEN_CPU_CAPABILITY": "default"}.get(name, "2")}
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment)
    assert "RunError: portable: true needs an x86 processor with AVX2" in ran.stderr and not Path(spec.folder).exists()
