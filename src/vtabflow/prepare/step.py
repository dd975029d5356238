"""The step `prepare`: the store of one dataset at one image setting, from its spec."""

import importlib
import resource
import sys
import time

from vtabflow.contracts.results import Receipt
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.prepare import store
from vtabflow.runtime.files import write_json

SOURCES = {
    "procedural": "vtabflow.standins.source",
    "folder": "vtabflow.prepare.folders.source",
    "tfds": "vtabflow.prepare.tfds.source",
    "imagenet": "vtabflow.prepare.imagenet.source",
}


def run(spec: StoreSpec) -> None:
    """Make the store of `spec` unless it exists, then write its receipt.

    An existing store is compared with the manifest at `spec.manifest`, which is copied from the store if it is missing.

    Raises:
        UserError: bad images or settings, or a manifest with other digests.
        RunError: no space or permission.
    """
    made = not store.is_complete(spec.folder)
    if made:
        begun = time.monotonic()
        importlib.import_module(SOURCES[spec.source]).make(spec)
        print(f"{spec.dataset}: made in {time.monotonic() - begun:.0f} s, peak memory {_peak():.2f} GB", flush=True)
    else:
        store.keep_manifest(spec)
    write_json(spec.receipt, to_json(Receipt(spec.key, spec.folder, made)))


def _peak() -> float:
    """GB of memory that this process has used at the most. Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
