"""The command `vtabflow`: one subcommand for each step, and a few that look after studies and code.

Exit codes: 0 done, 1 a failed run, 2 bad input, 130 interrupted.
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

from vtabflow import __version__
from vtabflow.errors import RunError, UserError

STEPS = {
    "prepare": "lay down the store of a dataset",
    "pretrain": "obtain an encoder",
    "finetune": "adapt encoders to tasks: the cells of one pack",
    "report": "make the page of a study; without --spec, of params.yaml with whatever cells are there",
}


def parser() -> argparse.ArgumentParser:
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
        ("check", "check a study's settings and say its size"),
        ("status", "say what of a study is there and what is missing"),
        ("gc", "remove the results that no study refers to"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "gc":
            command.add_argument("--yes", action="store_true", help="really remove; without it, only say what would go")
            command.add_argument(
                "studies",
                nargs="*",
                metavar="FILE",
                help="the studies to keep (default: params.yaml and studies/*.yaml)",
            )
        else:
            command.add_argument("params", nargs="?", default="params.yaml")
    text = "what has to be fetched or brought for a study, and the stores it has made"
    data = commands.add_parser("data", help=text, description=text).add_subparsers(dest="action", required=True)
    text = "what is to be fetched or brought, the room it takes, and whether the disk has it"
    command = data.add_parser("plan", help=text, description=text)
    command.add_argument("params", nargs="?", default="params.yaml")
    command.add_argument("--clean", action="store_true", help="say which archives and records are not needed any more")
    command.add_argument("--yes", action="store_true", help="with --clean: really remove them")
    text = "hold every store against its manifest and VTAB's counts, and look for lossy copies"
    command = data.add_parser("audit", help=text, description=text)
    command.add_argument("params", nargs="?", default="params.yaml")
    command.add_argument("--all", action="store_true", help="every store there is, whichever study it is of")
    commands.add_parser("methods", help="the methods, their families and what they learn from")
    code = commands.add_parser("code", help="code.lock: say, accept or bump what has changed in the code")
    code.add_argument("action", choices=["status", "accept", "bump"], help="accept: same results; bump: new results")
    code.add_argument("units", nargs="*", help="for example methods/rotation (default: all that have changed)")
    commands.add_parser("bench", help="images/s of the real fine-tuning loop beside the bare step", add_help=False)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors meant for people are printed as one sentence, without a traceback."""
    arguments, rest = parser().parse_known_args(argv)
    if rest and arguments.command != "bench":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished stays finished, run again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `vtabflow status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if os.environ.get("VTABFLOW_DEBUG"):
            traceback.print_exc()
        print(f"error: {error}; free the disk or mend the permission, then run again", file=sys.stderr)
        return 1


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command
    if command in STEPS:
        _step(command, arguments)
    elif command == "bench":
        from vtabflow.finetune import bench

        bench.main(arguments.rest)
    elif command == "methods":
        _methods()
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


def together() -> bool:
    """Whether this process is one of several that torchrun started: they share what their starter leased."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start_together(processes: int) -> None:
    """Run this command again in one process a GPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run = subprocess.Popen([*command, "-m", "vtabflow", *sys.argv[1:]])
    try:
        code = run.wait()
    except KeyboardInterrupt:
        run.terminate()
        run.wait()
        raise
    if code:
        raise RunError(f"one of {processes} processes failed (its error is above); mend it and run again to go on")


def _step(step: str, arguments: argparse.Namespace) -> None:
    from vtabflow.runtime import devices

    devices.use_threads(arguments.threads)
    spec = _spec(step, arguments)
    if step in {"pretrain", "finetune"} and not together():
        leased = devices.lease(arguments.gpus)
        if step == "pretrain" and len(leased) > 1:
            return start_together(len(leased))
    elif step == "prepare":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # preparing needs no GPU, and TensorFlow would take one whole
    module = importlib.import_module(f"vtabflow.{step}.step")
    module.run(spec)
    if getattr(arguments, "publish", False):
        module.publish(spec)


def _spec(step: str, arguments: argparse.Namespace) -> dict:
    from vtabflow.runtime.files import read_json

    if arguments.spec is None:
        from vtabflow.planning.keys import plan
        from vtabflow.planning.study import load

        return plan(load(arguments.params)).page
    try:
        spec = read_json(arguments.spec)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no spec {arguments.spec}; snakemake and `vtabflow check` write specs under results/specs"
        ) from error
    except ValueError as error:
        raise UserError(f"{arguments.spec} is not JSON ({error}); `vtabflow check` writes it again") from error
    if not isinstance(spec, dict) or spec.get("step") != step:
        raise UserError(f"{arguments.spec} is not a spec for {step}; specs lie under results/specs/{step}")
    return spec


def _methods() -> None:
    from vtabflow.planning import catalogue

    uses = {"images": "images", "labels": "all labels", "subset": "a labelled subset"}
    known = catalogue.methods().values()
    parts = {
        "The methods of the study": [info for info in known if info.published],
        "Beside them": [info for info in known if not info.published],
    }
    rows = [("id", "method", "family", "network", "learns from", "reference")]
    for info in known:
        learns = " + ".join(dict.fromkeys(uses[use] for use in info.streams.values())) or "nothing"
        rows.append((info.id, info.display, info.family, info.network("resnet50v2"), learns, info.reference))
    widths = [max(len(row[i]) for row in rows) for i in range(5)] + [0]
    lines = {row[0]: "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows}
    for title, infos in parts.items():
        infos.sort(key=lambda info: (catalogue.FAMILIES.index(info.family), info.id))
        print(
            "\n".join(
                [f"{title} ({len(infos)})", "", *(lines[key].rstrip() for key in ["id", *(i.id for i in infos)]), ""]
            )
        )


def _data(arguments: argparse.Namespace) -> int:
    from vtabflow.data import audit
    from vtabflow.data import plan as data_plan

    if arguments.action == "audit" and arguments.all:
        return audit.audit(audit.every_store())
    from vtabflow.planning.keys import plan
    from vtabflow.planning.overview import say_left_out
    from vtabflow.planning.study import load

    made = plan(load(arguments.params))
    stores = list(made.stores.values())
    say_left_out(made)
    if arguments.action == "audit":
        return audit.audit(stores)
    return data_plan.clean(stores, really=arguments.yes) if arguments.clean else data_plan.show(stores)


def _code(arguments: argparse.Namespace) -> int:
    from vtabflow.planning.code_identity import CodeLock

    if not Path("code.lock").exists() and not Path("src/vtabflow").exists():
        raise UserError("there is no code.lock here; run this in the project's folder")
    lock = CodeLock()
    if arguments.action == "status":
        changed = lock.changed()
        print("\n".join(changed) if changed else "code.lock is up to date")
        return 1 if changed else 0
    chosen = lock.settle(bump=arguments.action == "bump", names=arguments.units)
    print(f"{arguments.action}: {', '.join(chosen) if chosen else 'nothing had changed'}")
    return 0
