"""Which device a job may use: a lease on a GPU by file lock, or the CPU where there is none.

Snakemake counts GPUs but hands out no device numbers, so each job locks a file for a device and sees only that one.
The devices are those of CUDA_VISIBLE_DEVICES if it is set (SLURM and Kubernetes set it), else those that nvidia-smi
lists. A lock ends with its process: after a kill nothing is left to clean up.
"""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from vtabflow.errors import UserError
from vtabflow.runtime.locks import try_locked

WAIT_SECONDS = 0.5  # between two attempts
_leases = ExitStack()  # locks that this process keeps until it ends


def pool() -> list[str]:
    """Ids of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in {"", "-1"}]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        gpus = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in gpus.stdout.splitlines() if line.strip().isdigit()]


def lock_folder() -> Path:
    """The folder of lock files: one for each user, on this host's own disk, whatever network folders it shares.

    Users who share a machine's GPUs name one folder for all in VTABFLOW_LOCKS, or divide the GPUs by
    CUDA_VISIBLE_DEVICES.
    """
    return Path(os.environ.get("VTABFLOW_LOCKS") or Path(tempfile.gettempdir()) / f"vtabflow-locks-{os.getuid()}")


def lease(count: int = 1) -> list[str]:
    """Take `count` devices, all or none, waiting until they are free; no device, at once, where there is no GPU.

    More devices than there are means all of them. The leased devices are the only ones visible to this process and its
    children. The lease ends with the process.

    Raises:
        UserError: the folder of locks is another user's, or is on a file system without locks.
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
    waiting = False
    while not (taken := _try_lease(folder, devices, min(count, len(devices)))):
        if not waiting:
            print(f"waiting for {count} of the GPUs {', '.join(devices)}", flush=True)
            waiting = True
        time.sleep(WAIT_SECONDS)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return taken


def _try_lease(folder: Path, devices: list[str], count: int) -> list[str]:
    """The first `count` free devices, locked until this process ends; none, and no lock, if fewer are free."""
    taken: list[str] = []
    with ExitStack() as locks:
        for device in devices:
            free = locks.enter_context(try_locked(folder / f"{device.replace('/', '_')}.lock"))
            if free is None:
                raise UserError(
                    f"the folder of GPU locks {folder} is on a file system without locks; set VTABFLOW_LOCKS to a "
                    "folder on a local disk"
                )
            if free:
                taken.append(device)
            if len(taken) == count:
                _leases.push(locks.pop_all())
                return taken
    return []


# One thread and one instruction set for ATen, oneDNN and MKL. MKL chooses its code by the maker of the processor too,
# unless it is COMPATIBLE. Of 36 results of four steps 23 differ in bits between an AMD EPYC (Zen 5) and an Intel Xeon
# (Sapphire Rapids), 24 without MKL's setting alone, none with all (torch 2.11, 2026-11-25; docs/operations.md).
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}


def use_portable_numerics() -> None:
    """Let this process compute the same bits on any x86 processor with AVX2; to be called before torch is imported."""
    os.environ.update(PORTABLE)


def use_threads(count: int | None) -> None:
    """Limit the numeric libraries to `count` threads; to be called before torch is imported."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(count)
