"""code.lock: the version and the digest of each unit, and the digests of the definitions that they are made of."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtabflow.errors import UserError
from vtabflow.planning.code.definitions import PACKAGE
from vtabflow.planning.code.units import Units
from vtabflow.runtime.files import read_json, write_json


@dataclass
class Locked:
    """A unit as it is locked; `digest` None for one that is not in the lock yet."""

    version: int = 1
    digest: str | None = None


@dataclass
class Changes:
    """How a unit differs from the locked one, in names of definitions."""

    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class CodeLock:
    """The file code.lock next to the code of a package.

    Args:
        path: the file: {"definitions": {name: digest}, "units": {name: {"version": n, "digest": "..."}}}. An older one
            has the units alone.
        package: the package's folder.
    """

    def __init__(self, path: Path | str = "code.lock", package: Path = PACKAGE):
        self.path = Path(path)
        self.units = Units(package)
        self.locked, self.definitions = _read(self.path)
        self._identities: dict[str, str] = {}

    def identity(self, name: str) -> str:
        """What goes into a key: "3" if the code is the locked one of version 3, else "3+<digest>"."""
        if name not in self._identities:
            locked = self.locked.get(name, Locked())
            digest = self.units.digest(name)
            self._identities[name] = str(locked.version) if digest == locked.digest else f"{locked.version}+{digest}"
        return self._identities[name]

    def accepted(self) -> "CodeLock":
        """A lock with the identities that every unit would have if all changes were accepted."""
        found = copy.copy(self)
        found._identities = {name: str(self.locked.get(name, Locked()).version) for name in self.units.all}
        return found

    def changed(self) -> list[str]:
        """Units whose code is not the locked one, and locked names that are no unit any more."""
        gone = [name for name in self.locked if name not in self.units.all]
        return sorted([name for name in self.units.all if "+" in self.identity(name)] + gone)

    def changes(self, name: str) -> Changes:
        """What changed of a unit. What is gone is not known unit by unit: it is what no unit has any more."""
        if name not in self.units.all:
            return Changes()
        found = Changes()
        for each, digest in self.units.contents(name).items():
            if each not in self.definitions:
                found.added.append(each)
            elif self.definitions[each] != digest[:8]:
                found.changed.append(each)
        return found

    def gone(self) -> list[str]:
        """Locked definitions that no unit uses any more."""
        present = {each for name in self.units.all for each in self.units.contents(name)}
        return sorted(self.definitions.keys() - present)

    def update(self, names: Iterable[str], bump: bool = False) -> list[str]:
        """Lock units as they are now: with `bump` at a new version (new results), else at the same one.

        Returns:
            The names of the units that are locked anew; without `bump`, those alone that had changed.

        Raises:
            UserError: there is no unit of a name.
        """
        names = list(names)
        for name in names:
            if name not in self.units.all and name not in self.locked:
                raise UserError(f"there is no code unit {name}; the units are: {', '.join(sorted(self.units.all))}")
        changed = set(self.changed())
        chosen = [name for name in names if bump or name in changed]
        for name in chosen:
            if name in self.units.all:
                known = self.locked.get(name)
                version = known.version + bump if known else 1
                self.locked[name] = Locked(version, self.units.digest(name))
            else:
                del self.locked[name]
        self._identities.clear()
        self._write()
        return chosen

    def _write(self) -> None:
        """Write the lock. A definition is locked anew when all units that use it are settled."""
        behind = set(self.changed())
        waiting = {each for name in behind & self.units.all.keys() for each in self.units.contents(name)}
        present = {each: digest[:8] for name in self.units.all for each, digest in self.units.contents(name).items()}
        kept = self.definitions if behind else {}
        definitions = {**kept, **{each: digest for each, digest in present.items() if each not in waiting}}
        units: dict[str, Any] = {
            name: {"version": locked.version, "digest": locked.digest} for name, locked in sorted(self.locked.items())
        }
        self.definitions = dict(sorted(definitions.items()))
        write_json(self.path, {"definitions": self.definitions, "units": units})


def _read(path: Path) -> tuple[dict[str, Locked], dict[str, str]]:
    try:
        found = read_json(path) if path.exists() else {}
        units = found.get("units", {}) if "definitions" in found else found
        return {name: Locked(**unit) for name, unit in units.items()}, dict(found.get("definitions", {}))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it from git") from error
