"""Locks on files and folders that end with their process: after a kill there is nothing to clean up.

On `fcntl.flock` and not the package filelock (read at 4.2.11): filelock opens its path for writing, so it cannot lock a
folder, which is how a store's hidden folder shows that its maker lives; where `flock` is missing it falls back to a
marker file that outlives a killed process; and it polls, where `flock` waits.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, folder: bool = False, waiting: str | None = None) -> Iterator[bool]:
    """Wait for the lock on `path` and hold it in the block; gives False on a file system without locks.

    Args:
        path: a file that all who share the lock name; it is made if it is missing, and stays. Links are refused.
        folder: `path` is a folder, which exists.
        waiting: what to print if another process has the lock.

    Raises:
        OSError: `path` cannot be opened or made.
    """
    file = _open(path, folder)
    try:
        free = _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if free is False:
            if waiting is not None:
                print(waiting, flush=True)
            free = _flock(file, fcntl.LOCK_EX)
        yield bool(free)
    finally:
        os.close(file)


@contextmanager
def try_locked(path: Path, folder: bool = False) -> Iterator[bool | None]:
    """Hold the lock on `path` in the block if it is free; never waits. Arguments and errors are those of `locked`.

    Gives True if the lock is held, False if another process has it, and None if that is not known: on a file system
    without locks, or where there is no such folder.

    Example:
        >>> with try_locked(hidden, folder=True) as free:
        ...     if free:
        ...         shutil.rmtree(hidden)
    """
    try:
        file = _open(path, folder)
    except OSError:
        if not folder:
            raise
        yield None
        return
    try:
        yield _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(file)


def _open(path: Path, folder: bool) -> int:
    # Links are not followed: in a shared temporary directory somebody else may have put one there.
    flags = os.O_NOFOLLOW
    if folder:
        return os.open(path, flags | os.O_RDONLY | os.O_DIRECTORY)
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)


def _flock(file: int, operation: int) -> bool | None:
    """True if locked, False if another process has the lock, None on a file system without locks."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True
