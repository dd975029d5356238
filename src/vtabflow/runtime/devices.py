"""Which device a job may use: a lease on a GPU by file lock, or the CPU where there is none.

Snakemake counts GPUs but hands out no device numbers, so each job takes a lock file for a device and sees only that one. The pool
is what CUDA_VISIBLE_DEVICES allows if it is set (SLURM and Kubernetes set it), else what nvidia-smi lists. A lock lives as long
as the process that took it: after a kill nothing is left to clean up.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from vtabflow.errors import UserError

WAIT_SECONDS = 0.5  # between two looks at the locks


def pool() -> list[str]:
    """Ids of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in {"", "-1"}]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit()]


def lock_folder() -> Path:
    """Host-local (locks on a network file system would not tell two hosts' devices apart) and one for each user: who shares a
    machine's GPUs with other users names one folder for all in VTABFLOW_LOCKS, or divides them by CUDA_VISIBLE_DEVICES.
    """
    return Path(os.environ.get("VTABFLOW_LOCKS") or Path(tempfile.gettempdir()) / f"vtabflow-locks-{os.getuid()}")


def lease(count: int = 1) -> list[str]:
    """Take `count` devices, all or none, waiting until they are free; with no GPU in the pool, return at once with none.

    The leased devices are the only ones visible to this process and its children. The lease ends with the process.
    """
    devices = pool()
    if not devices or count == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return []
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if "VTABFLOW_LOCKS" not in os.environ and folder.stat().st_uid != os.getuid():
        raise UserError(
            f"the folder of GPU locks {folder} is another user's; set VTABFLOW_LOCKS to a folder of your own"
        )
    said = False
    while True:
        taken = _try(folder, devices, min(count, len(devices)))
        if taken:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
            return taken
        if not said:
            print(f"waiting for {count} of the GPUs {', '.join(devices)}", flush=True)
            said = True
        time.sleep(WAIT_SECONDS)


_held: list[int] = []  # the lock files of this process: they stay open, and closing one would end its lock


def _try(folder: Path, devices: list[str], count: int) -> list[str]:
    taken: list[str] = []
    files: list[int] = []
    for device in devices:
        # Not followed if it is a link: in a shared temporary directory somebody else may have put one there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(folder / f"{device.replace('/', '_')}.lock", flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        taken.append(device)
        files.append(file)
        if len(taken) == count:
            _held.extend(files)
            return taken
    for file in files:
        os.close(file)
    return []


def use_threads(count: int | None) -> None:
    """Limit the numeric libraries to `count` threads; to be called before torch is imported."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(count)
