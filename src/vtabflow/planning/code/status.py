"""The command `vtabflow code`: what changed, what would run again, and taking changes into code.lock."""

import sys
from pathlib import Path

from vtabflow.errors import UserError
from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.keys import Plan, plan
from vtabflow.planning.study import load

FEW = 5  # names in a line


def status(params: str) -> int:
    """Print which units have changed, by which definitions, and what of the study `params` would run again.

    Returns:
        The exit code: 1 if units have changed, else 0.
    """
    lock = CodeLock()
    changed = lock.changed()
    if not changed:
        print("code.lock is up to date")
        return 0
    groups: dict[str, list[str]] = {}
    for name in changed:
        groups.setdefault("\n".join(_reasons(lock, name)), []).append(name)
    for reasons, names in groups.items():
        print(f"{', '.join(names)}\n{reasons}")
    if lock.definitions and (gone := lock.gone()):
        print("used by no unit any more:\n" + "\n".join(f"    {_placed(each)}" for each in gone))
    if Path(params).exists():
        print(_run_again(params, lock))
    return 1


def take(action: str, names: list[str], every: bool) -> int:
    """Lock changed units anew, at the same version (`accept`) or at the next (`bump`).

    Args:
        action: "accept" or "bump".
        names: the units; without any, and without `every`, a terminal is asked and anything else is refused.
        every: all units that have changed.

    Raises:
        UserError: no unit of a name, or neither names nor `every`.
    """
    lock = CodeLock()
    changed = lock.changed()
    if not names and changed and not every:
        what = f"{action} {len(changed)} unit{'s' if len(changed) > 1 else ''} ({', '.join(changed)})"
        if not sys.stdin.isatty():
            raise UserError(f"`vtabflow code {action}` would {what}: name the units, or add --all for all of them")
        if input(f"{what}? [y/N] ").strip().lower() not in {"y", "yes"}:
            print("code.lock is as it was")
            return 1
    chosen = lock.update(names or changed, bump=action == "bump")
    print(f"{action}: {', '.join(chosen) if chosen else 'nothing had changed'}")
    return 0


def _reasons(lock: CodeLock, name: str) -> list[str]:
    """The lines that say why a unit differs from the locked one."""
    if name not in lock.units.all:
        return ["    is no unit any more"]
    if name not in lock.locked:
        return ["    is new, so it has no locked code"]
    if not lock.definitions:
        return ["    code.lock has no definitions yet (it was written by an older version)"]
    changes = lock.changes(name)
    lines = [f"    changed  {_placed(each)}" for each in changes.changed]
    lines += [f"    added    {_placed(each)}" for each in changes.added]
    return lines or ["    uses other definitions than the locked code, none of which has changed"]


def _placed(definition: str) -> str:
    file, _, name = definition.partition(":")
    return f"{name or 'the file'} in {file}"


def _run_again(params: str, lock: CodeLock) -> str:
    """What of a study has other keys than with the locked code."""
    study = load(params)
    now, locked = plan(study, lock=lock), plan(study, lock=lock.accepted())
    names = [spec.method for key, spec in now.encoders.items() if key not in locked.encoders]
    shown = ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if names[FEW:] else "")
    return (
        f"of {params} would run again: {_share(now, locked, 'stores')} stores, {_share(now, locked, 'encoders')} "
        f"encoders{f' ({shown})' if names else ''}, {_share(now, locked, 'cells')} cells"
        f"{'; and the page' if now.page.key != locked.page.key else ''}"
    )


def _share(now: Plan, locked: Plan, kind: str) -> str:
    found = getattr(now, kind)
    return f"{len(found.keys() - getattr(locked, kind).keys())} of {len(found)}"
