"""The command `vtabflow`: one subcommand for each step, and others for studies, data and code.

Exit codes: 0 done, 1 a failed run (or a check that found something), 2 bad input, 130 interrupted.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vtabflow import __version__
from vtabflow.errors import RunError, UserError
from vtabflow.runtime.encoding import use_utf8

STEPS = {
    "prepare": "write the store of a dataset",
    "pretrain": "train an encoder",
    "finetune": "fine-tune encoders on tasks: the cells of one job",
    "report": "make the page of a study; without --spec, of params.yaml with the cells that exist",
}


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    top = argparse.ArgumentParser(prog="vtabflow", description=__doc__.splitlines()[0])
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for step, text in STEPS.items():
        command = commands.add_parser(step, help=text, description=text)
        command.add_argument(
            "--spec",
            required=step != "report",
            metavar="FILE",
            help="the frozen settings: results/specs/<step>/<key>.json",
        )
        command.add_argument("--threads", type=int, default=None, help="processor threads for the numeric libraries")
        if step in {"pretrain", "finetune"}:
            several = "; several train one encoder together" if step == "pretrain" else ""
            text = f"GPUs to lease; without any, the CPU is used{several}"
            command.add_argument("--gpus", type=int, default=1, help=text)
        if step == "report":
            command.add_argument("--params", default="params.yaml", help="the study, if no --spec is given")
            command.add_argument(
                "--publish", action="store_true", help="copy the page to results/reports/<study>/ as the current one"
            )
    for name, text in (
        ("check", "check a study's settings and print its size"),
        ("status", "which results of a study exist, failed or are missing"),
        ("gc", "remove the results that no study refers to"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "gc":
            command.add_argument("--yes", action="store_true", help="remove; without it, only list")
            command.add_argument(
                "studies",
                nargs="*",
                metavar="FILE",
                help="the studies to keep (default: params.yaml and studies/*.yaml)",
            )
        else:
            command.add_argument("params", nargs="?", default="params.yaml")
    text = "what a study downloads, what a person has to download, and checks of its stores"
    data = commands.add_parser("data", help=text, description=text).add_subparsers(dest="action", required=True)
    text = "automatic and manual downloads, the disk space they take, and whether it is free"
    command = data.add_parser("plan", help=text, description=text)
    command.add_argument("params", nargs="?", default="params.yaml")
    command.add_argument("--clean", action="store_true", help="list archives and records that are not needed any more")
    command.add_argument("--yes", action="store_true", help="with --clean: really remove them")
    text = "check every store against its manifest and VTAB's counts, and look for lossy copies"
    command = data.add_parser("audit", help=text, description=text)
    command.add_argument("params", nargs="?", default="params.yaml")
    command.add_argument("--all", action="store_true", help="all stores, of whichever study")
    text = "do two runs of a study agree within noise? exit code 0: yes, 1: they differ"
    command = commands.add_parser("compare", help=text, description=text)
    for name in ("first", "second"):
        command.add_argument(name, metavar="FILE", help="results/metrics/<study>.json or a page's scores.csv")
    commands.add_parser("methods", help="the methods, their families and what they learn from")
    _code_parser(commands)
    commands.add_parser("bench", help="images/s of the fine-tuning loop and of the bare training step", add_help=False)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors meant for people are printed as one sentence, without a traceback."""
    if argv is None:
        use_utf8()
    arguments, rest = parser().parse_known_args(argv)
    if rest and arguments.command != "bench":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    signal.signal(signal.SIGTERM, _terminated)
    try:
        enter_project(arguments)
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished results are kept, run again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `vtabflow status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if os.environ.get("VTABFLOW_DEBUG"):
            traceback.print_exc()
        print(f"error: {error}; free the disk or fix the permission, then run again", file=sys.stderr)
        return 1


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def enter_project(arguments: argparse.Namespace) -> None:
    """In a subfolder of a project, go to the project's folder; files among the arguments stay the same files."""
    arguments.folder = here = Path.cwd()
    parents = here.parents if not (here / "params.yaml").exists() else ()
    marks = ("params.yaml", "workflow/Snakefile")
    root = next((folder for folder in parents if all((folder / mark).exists() for mark in marks)), None)
    if root is None:
        return

    def moved(file: str) -> str:
        return os.path.relpath(file, root) if Path(file).exists() else file

    for name in ("spec", "params"):
        if file := getattr(arguments, name, None):
            setattr(arguments, name, moved(file))
    if studies := getattr(arguments, "studies", None):
        arguments.studies = [moved(file) for file in studies]
    print(f"in the project {root}", file=sys.stderr)
    os.chdir(root)


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command
    if command in STEPS:
        _step(command, arguments)
    elif command == "bench":
        from vtabflow.finetune import benchmark

        benchmark.main(arguments.rest)
    elif command == "methods":
        _methods()
    elif command == "compare":
        from vtabflow.report import compare

        return compare.run(arguments.first, arguments.second)
    elif command == "code":
        return _code(arguments)
    elif command == "data":
        return _data(arguments)
    else:
        from vtabflow.planning import overview

        if command == "check":
            overview.check(arguments.params)
        elif command == "status":
            overview.status(arguments.params)
        else:
            overview.collect_garbage(arguments.studies, really=arguments.yes)
    return 0


def launch_processes(processes: int, folder: Path | None = None) -> None:
    """Run this command again in one process per GPU, from the folder in which it was given."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run = subprocess.Popen([*command, "-m", "vtabflow", *sys.argv[1:]], cwd=folder)
    try:
        code = run.wait()
    except KeyboardInterrupt:
        run.terminate()
        run.wait()
        raise
    if code:
        raise RunError(f"one of {processes} processes failed (its error is above); fix it and run again to go on")


def _step(step: str, arguments: argparse.Namespace) -> None:
    from vtabflow.runtime import devices
    from vtabflow.runtime.distributed import is_distributed

    devices.use_threads(arguments.threads)
    spec = _spec(step, arguments)
    portable = step in {"pretrain", "finetune"} and spec.portable
    if portable:
        devices.use_portable_numerics()
    if step in {"pretrain", "finetune"} and not is_distributed():
        leased = devices.lease(0 if portable else arguments.gpus)
        if step == "pretrain" and len(leased) > 1:
            return launch_processes(len(leased), arguments.folder)
    elif step == "prepare":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # preparing needs no GPU, and TensorFlow would take one whole
    module = importlib.import_module(f"vtabflow.{step}.step")
    module.run(spec)
    if step == "prepare" and (spec.source in {"tfds", "imagenet"} or getattr(spec.settings, "of", None)):
        from vtabflow.data import audit

        audit.audit_made(spec)
    if getattr(arguments, "publish", False):
        module.publish(spec)


def _spec(step: str, arguments: argparse.Namespace) -> Any:
    from vtabflow.planning.state import load_spec

    if arguments.spec is not None:
        return load_spec(step, arguments.spec)
    from vtabflow.planning.keys import plan
    from vtabflow.planning.study import load

    return plan(load(arguments.params)).page


def _methods() -> None:
    from vtabflow.contracts.protocol import FAMILIES
    from vtabflow.planning import catalogue
    from vtabflow.runtime.text_table import table

    uses = {"images": "images", "labels": "all labels", "subset": "a labelled subset"}
    known = sorted(catalogue.methods().values(), key=lambda info: (FAMILIES.index(info.family), info.id))
    for title, published in (("The methods of the study", True), ("Other methods", False)):
        rows = [("id", "method", "family", "network", "learns from", "reference")]
        for info in (info for info in known if info.published == published):
            learns = " + ".join(dict.fromkeys(uses[use] for use in info.streams.values())) or "nothing"
            rows.append((info.id, info.display, info.family, info.network("resnet50v2"), learns, info.reference))
        print("\n".join([f"{title} ({len(rows) - 1})", "", *table(rows), ""]))


def _data(arguments: argparse.Namespace) -> int:
    from vtabflow.data import audit
    from vtabflow.data import plan as data_plan

    if arguments.action == "audit" and arguments.all:
        return audit.audit(audit.every_store())
    from vtabflow.planning.keys import plan
    from vtabflow.planning.overview import print_excluded
    from vtabflow.planning.study import load

    made = plan(load(arguments.params))
    stores = list(made.stores.values())
    print_excluded(made)
    if arguments.action == "audit":
        return audit.audit(stores)
    return data_plan.clean(stores, really=arguments.yes) if arguments.clean else data_plan.show(stores)


def _code_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "what has changed in the code since code.lock was written, and what that means for results"
    actions = commands.add_parser("code", help=text, description=text).add_subparsers(dest="action", required=True)
    text = "say what has changed, where, and what would run again; exit code 1 if anything has"
    command = actions.add_parser("status", help=text, description=text)
    command.add_argument("--params", default="params.yaml", help="the study of which to say what would run again")
    for name, text in (
        ("accept", "the results are the same: keep the versions, so that the existing results stay valid"),
        ("bump", "the results are others: raise the versions, so that they are made again"),
    ):
        command = actions.add_parser(name, help=text, description=text)
        command.add_argument("units", nargs="*", metavar="UNIT", help="for example methods/rotation")
        command.add_argument("--all", action="store_true", help="all units that have changed")
    text = "run the smallest case of a unit with the locked and the present code and compare the results bit for bit"
    command = actions.add_parser("verify", help=text, description=text)
    command.add_argument("unit", metavar="UNIT", help="for example methods/rotation")
    command.add_argument("--against", metavar="COMMIT", help="the code to compare with (default: the locked code)")


def _code(arguments: argparse.Namespace) -> int:
    if not Path("code.lock").exists() and not Path("src/vtabflow").exists():
        raise UserError("there is no code.lock here; run this in the project's folder")
    if arguments.action == "verify":
        from vtabflow.planning.code.verify import verify

        return verify(arguments.unit, arguments.against)
    from vtabflow.planning.code import status

    if arguments.action == "status":
        return status.status(arguments.params)
    return status.take(arguments.action, arguments.units, arguments.all)
