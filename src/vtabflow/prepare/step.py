"""The step `prepare`: the store of one dataset at one image setting, from its spec."""

import importlib
from collections.abc import Mapping
from typing import Any

from vtabflow.errors import UserError
from vtabflow.files import write_json
from vtabflow.prepare import store

SOURCES = {
    "procedural": "vtabflow.prepare.procedural.source",
    "folder": "vtabflow.prepare.folder",
    "tfds": "vtabflow.prepare.tfds",
    "imagenet": "vtabflow.prepare.imagenet",
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
        importlib.import_module(SOURCES[spec["source"]]).make(spec)
    else:
        store.keep_manifest(spec)
    write_json(spec["receipt"], {"key": spec["key"], "folder": str(spec["folder"]), "made": made})
