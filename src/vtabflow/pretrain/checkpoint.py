"""The state of an unfinished run, so that a killed job resumes from it and ends bit-identical."""

import pickle
from pathlib import Path
from typing import Any

import torch

from vtabflow.runtime.files import write_with

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder` by rename: a process that is killed here leaves the old one intact."""
    write_with(folder / NAME, lambda stream: torch.save(state, stream))


def load(folder: Path, key: str, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The checkpoint in `folder`; None if there is none, it is of another key or cannot be read (a line says so)."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        print(f"{path} cannot be read ({type(error).__name__}); starting from the beginning", flush=True)
        return None
    return state if state.get("key") == key else None
