"""The state of an unfinished run, so that a killed job goes on where it was and ends with the same bits."""

import pickle
from pathlib import Path
from typing import Any

import torch

from vtabflow.runtime.files import write_with

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder` by rename: whoever is killed here leaves the old one whole."""
    write_with(folder / NAME, lambda stream: torch.save(state, stream))


def load(folder: Path, key: str, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The checkpoint of `key` in `folder`, or None if there is none, it is another's, or it cannot be read (which is
    said).
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        print(f"{path} cannot be read ({type(error).__name__}); starting from the beginning", flush=True)
        return None
    return state if state.get("key") == key else None
