"""Results that are folders: written to a hidden folder next to their place, and renamed when they are complete.

A lock on the hidden folder shows that its process lives, so what killed processes left is removed by the next one, or
taken over where its work can be gone on with.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vtabflow.errors import RunError
from vtabflow.runtime.locks import locked, try_locked


@contextmanager
def hidden_folder(folder: Path, goes_on: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A hidden folder next to `folder`; what has not been moved into place when the block ends is removed.

    Args:
        folder: the place of the result.
        goes_on: whether a hidden folder holds work that can be gone on with: one of a killed process is taken over as
            it is, and an interrupted block (Ctrl-C) leaves its own. None: there is no such work.

    Raises:
        OSError: no space or no permission.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        temporary = _take_over(folder, locks, goes_on) or _new_folder(folder, locks)
        try:
            yield temporary
        except KeyboardInterrupt:
            if goes_on is None or not goes_on(temporary):
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        # After success the folder has been renamed and there is nothing to remove.
        shutil.rmtree(temporary, ignore_errors=True)


def move_into_place(temporary: Path, folder: Path, is_complete: Callable[[Path], bool]) -> None:
    """Rename a complete folder to its final name, unless another process was first."""
    for _ in range(10):
        if is_complete(folder):
            return
        try:
            os.rename(temporary, folder)
            return
        except OSError:
            if not folder.exists():
                raise
        # The folder in place is incomplete: move it away, unless another process has just completed it.
        remains = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        with suppress(FileNotFoundError):
            os.rename(folder, remains / "remains")
            if is_complete(remains / "remains") and not folder.exists():
                os.rename(remains / "remains", folder)
        shutil.rmtree(remains, ignore_errors=True)
    raise RunError(f"cannot move a result to {folder}: another process keeps writing there; stop it, then run again")


def _prefix(folder: Path) -> str:
    # With the host's name: on some shared file systems a lock is visible on its own host alone.
    return f".{folder.name}.{socket.gethostname()}."


def _new_folder(folder: Path, locks: ExitStack) -> Path:
    """A new hidden folder; its lock, which `locks` holds, shows that this process lives."""
    while True:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        # mkdtemp makes folders private; the permissions of results follow the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        # Until the lock is held, another process may take the folder for a leftover and remove it.
        with suppress(FileNotFoundError):
            os.chmod(temporary, 0o777 & ~umask)
            locks.enter_context(locked(temporary, folder=True))
            if temporary.exists():
                return temporary


def _take_over(folder: Path, locks: ExitStack, goes_on: Callable[[Path], bool] | None) -> Path | None:
    """The hidden folder of a killed process that can be gone on with, locked by `locks`; the others are removed."""
    taken = None
    for old in sorted(folder.parent.glob(f"{_prefix(folder)}*")):
        with ExitStack() as lock:
            if not lock.enter_context(try_locked(old, folder=True)):
                continue
            if taken is None and goes_on is not None and goes_on(old):
                taken = old
                locks.push(lock.pop_all())
            else:
                shutil.rmtree(old, ignore_errors=True)
    return taken
