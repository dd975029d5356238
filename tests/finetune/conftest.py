"""A directory of its own for each test of finetune, with what the earlier steps would have left there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from finetune_place import COUNTS, make_cell, make_encoder, make_job, make_store


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A working directory with a store of two tasks (16 px) and the encoders `a`, `b` (weights), `scratch` (seeded)."""
    monkeypatch.chdir(tmp_path)
    make_store("data/stores/toy/k", COUNTS, channels=3)
    for seed, method in enumerate(("a", "b")):
        make_encoder(method, seed)
    make_encoder("scratch", 9, seeded=True)
    return SimpleNamespace(path=tmp_path, cell=make_cell, job=make_job)
