"""Precision, compilation, memory, and what results record of the machine."""

import os

import pytest
import torch

from vtabflow.errors import UserError
from vtabflow.runtime import compute

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_is_bfloat16_only_on_a_gpu_that_has_it(monkeypatch):
    assert compute.resolve_precision("auto", CPU) == "float32"
    for has, want in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert compute.resolve_precision("auto", GPU) == want
    assert [compute.resolve_precision(name, CPU) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    with pytest.raises(UserError, match="'half'"):
        compute.resolve_precision("half", CPU)


@pytest.mark.parametrize("cache", [True, False])
def test_autocast_computes_in_the_resolved_precision(cache):
    x, layer = torch.ones(2, 3), torch.nn.Linear(3, 2)
    for name, want in (("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with compute.autocast(name, CPU, cache):
            assert layer(x).dtype == want and torch.is_autocast_cache_enabled() == cache


def test_half_of_a_gpus_free_memory_is_for_images(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1001, 2000))
    assert compute.image_memory(GPU) == 500


def test_compilation_is_for_long_trainings_of_large_images_on_a_gpu(monkeypatch):
    monkeypatch.delenv("VTABFLOW_COMPILE", raising=False)
    assert compute.worth_compiling(1_200_000, 224, GPU) and not compute.worth_compiling(1_190_000, 224, GPU)
    assert not compute.worth_compiling(1_200_000, 32, GPU) and not compute.worth_compiling(10**9, 224, CPU)
    monkeypatch.setenv("VTABFLOW_COMPILE", "0")
    assert not compute.worth_compiling(10**9, 224, GPU)


def test_only_training_on_a_gpu_asks_for_deterministic_algorithms(monkeypatch):
    """The settings are torch's, and process-wide: a CPU's are left alone, a GPU's are as before when the block ends."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with compute.deterministic_algorithms(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError), compute.deterministic_algorithms(GPU):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8", "the user's own value stays"
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        raise ZeroDivisionError
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with compute.deterministic_algorithms(GPU):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory


def test_what_a_result_records_of_its_making():
    made = compute.machine(CPU)
    assert made.keys() == {"device", "name", "threads", "instructions", "system", "architecture"}
    assert made["name"] and made["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert made["threads"] == torch.get_num_threads()
    assert compute.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    before = compute.peak_memory(CPU)
    held = bytearray(b"x" * (before + 2**26))
    assert compute.peak_memory(CPU) > before + 2**25 and held
