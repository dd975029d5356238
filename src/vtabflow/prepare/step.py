"""The step `prepare`: the store of one dataset at one image setting, from its spec."""

import importlib
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

from vtabflow.errors import UserError
from vtabflow.prepare import store
from vtabflow.runtime.files import write_json

SOURCES = {
    "procedural": "vtabflow.standins.source",
    "folder": "vtabflow.prepare.folders.source",
    "tfds": "vtabflow.prepare.tfds.source",
    "imagenet": "vtabflow.prepare.imagenet.source",
}


def run(spec: Mapping[str, Any]) -> None:
    """Make the store of `spec` (StoreSpec) unless it is there, then write its receipt {"key", "folder", "made"}.

    A store that is there is held against the manifest at spec["manifest"], or gives its copy if that one is missing.

    Raises:
        UserError: bad images or settings, or a manifest that says other digests.
        RunError: no space or permission.
    """
    made = not store.is_complete(spec["folder"])
    if made:
        if spec["source"] not in SOURCES:
            raise UserError(f"dataset {spec['dataset']}: no source {spec['source']!r}: use one of {', '.join(SOURCES)}")
        begun = time.monotonic()
        importlib.import_module(SOURCES[spec["source"]]).make(spec)
        print(f"{spec['dataset']}: made in {time.monotonic() - begun:.0f} s, {_peak():.2f} GB at the most", flush=True)
    else:
        store.keep_manifest(spec)
    write_json(spec["receipt"], {"key": spec["key"], "folder": str(spec["folder"]), "made": made})


def _peak() -> float:
    """GB that this process has held at the most. Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
