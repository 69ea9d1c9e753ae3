"""Runs the steps of the Dockerfile in copies of a plain Debian root, where no container engine is at hand.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie /var/tmp/debian
    python -m deploy.image.run_steps --base /var/tmp/debian --work /var/tmp/labelmint-image --target cpu

Each stage is a folder below --work, entered with chroot, so this needs root. Like in a build: the context that
.dockerignore leaves, ARG, WORKDIR, ENV, COPY with and without --from, RUN. At the end the entry point runs as the
image's user, without capabilities, on a root that cannot be written, until its health command succeeded. Unlike a
build: the base (Debian's own Python instead of the python image), and no layers, networks or limits.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WITHOUT_EFFECT = frozenset({"LABEL", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "USER"})


class StepError(Exception):
    """A step of the Dockerfile failed, or is one that this program does not know."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of the Dockerfile.

    Attributes:
        name: Behind AS.
        folder: Its root.
        steps: Instruction and argument, in order.
        variables: ENV and ARG so far.
        workdir: Where RUN and relative COPY work.
    """

    name: str
    folder: Path
    steps: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": PLAIN_PATH})
    workdir: str = "/"


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Split a Dockerfile into instruction and argument, without comments and with joined lines."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, argument = line.strip().partition(" ")
            yield name.upper(), argument.strip()


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in $NAME and ${NAME}; what is not known is empty, as in a build."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables.get(found[1] or found[2], ""), text)


def read_stages(text: str, work: Path) -> tuple[dict[str, Stage], dict[str, str]]:
    """Read a Dockerfile.

    Returns:
        Its stages by name, and the arguments that stand before the first.
    """
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current: Stage | None = None
    for name, argument in instructions(text):
        if name == "FROM":
            _, _, stage = argument.rpartition(" ")
            current = stages.setdefault(stage, Stage(name=stage, folder=work / stage))
        elif current is not None:
            current.steps.append((name, argument))
        elif name == "ARG":
            key, _, value = argument.partition("=")
            arguments[key] = value.strip('"')
    return stages, arguments


def copy_context(target: Path) -> None:
    """Copy what .dockerignore lets into a build: everything is ignored there but what it names."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    if lines[0] != "*":
        raise StepError(
            f".dockerignore begins with {lines[0]!r}, expected '*' followed by what is let in; extend this program"
        )
    for line in lines[1:]:
        if line.startswith("!"):
            copy(ROOT / line[1:], target / line[1:], without="__pycache__")


def copy(source: Path, target: Path, *, without: str = "") -> None:
    """Copy a file, or what is in a folder but for names that fit `without`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(without))
    else:
        shutil.copy2(source, target)


def run_step(stage: Stage, name: str, argument: str, *, stages: Mapping[str, Stage], context: Path) -> None:
    """Do one instruction of a stage.

    Raises:
        StepError: It failed or is not known.
    """
    match name:
        case "RUN":
            enter(stage, ["/bin/sh", "-c", argument])
        case "WORKDIR":
            stage.workdir = expand(argument, stage.variables)
            inside(stage, stage.workdir).mkdir(parents=True, exist_ok=True)
        case "ENV":
            pairs = [pair.partition("=") for pair in shlex.split(argument)]
            stage.variables |= {key: expand(value, stage.variables) for key, _, value in pairs}
        case "ARG":
            pass  # the ones of the whole file are known already
        case "COPY":
            *sources, target = argument.split()
            origin = context
            if sources[0].startswith("--from="):
                origin = stages[sources.pop(0).removeprefix("--from=")].folder
            for source in sources:
                place = inside(stage, os.path.join(stage.workdir, target))  # noqa: PTH118 - a path of the container
                to_folder = target.endswith("/") or target == "." or len(sources) > 1
                found = origin / source.lstrip("/")
                copy(found, place / found.name if to_folder and found.is_file() else place)
        case _ if name not in WITHOUT_EFFECT:
            raise StepError(f"{name} is no instruction that this program knows; extend it")


def inside(stage: Stage, path: str) -> Path:
    """Where a path of the container lies here."""
    return stage.folder / path.lstrip("/")


def entering(stage: Stage, command: list[str], *, user: str | None = None) -> list[str]:
    """The command that runs another one in the stage's root.

    Args:
        stage: Where.
        command: What.
        user: "uid:gid" to run it as in the image: without rights, on a read-only root. None: as in a build.
    """
    root = shlex.quote(str(stage.folder))
    mounts = [f"mount --rbind /proc {root}/proc"]
    inner = ["sh", "-c", 'cd "$0" && exec "$@"', stage.workdir, *command]
    if user is not None:
        uid, _, gid = user.partition(":")
        mounts = [f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}", *mounts]
        rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        inner = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *rights, *inner]
    script = " && ".join([*mounts, f"exec chroot {root} {shlex.join(inner)}"])
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script]


def enter(stage: Stage, command: list[str], *, user: str | None = None) -> None:
    """Run a command in the stage's root, with its variables and no others; see `entering`.

    Raises:
        StepError: It failed.
    """
    done = subprocess.run(entering(stage, command, user=user), env=stage.variables, check=False)
    if done.returncode:
        raise StepError(f"stage {stage.name}: {shlex.join(command)} ended with {done.returncode}")


def needed(target: str, stages: Mapping[str, Stage]) -> list[str]:
    """Stages that a target copies from, and itself, in the order of a build."""
    copied = [
        match[1] for name, text in stages[target].steps if (match := re.match(r"--from=(\S+)", text)) and name == "COPY"
    ]
    return list(dict.fromkeys([stage for origin in copied for stage in needed(origin, stages)] + [target]))


def prepare(stage: Stage, base: Path, host_files: list[Path]) -> None:
    """Make the stage's root: the base, files of this machine, and python under its name in the python image."""
    subprocess.run(["cp", "--archive", "--reflink=auto", str(base), str(stage.folder)], check=True)
    for file in host_files:
        copy(file.resolve(), inside(stage, str(file)))
    python = inside(stage, "/usr/local/bin/python")
    if not python.exists():
        python.symlink_to("/usr/bin/python3")


def words(stage: Stage, instruction: str) -> list[str]:
    """The JSON array behind the last instruction of that name."""
    argument = next(argument for name, argument in reversed(stage.steps) if name == instruction)
    return re.findall(r'"([^"]+)"', argument)


def serve_and_probe(stage: Stage, extra: list[str]) -> None:
    """Start the entry point as the image's user, wait until the health command agrees, and stop it with SIGTERM.

    Raises:
        StepError: It did not start, or did not end with status 0.
    """
    user = next(argument for name, argument in reversed(stage.steps) if name == "USER")
    entry, check = words(stage, "ENTRYPOINT"), words(stage, "HEALTHCHECK")
    with subprocess.Popen(entering(stage, entry, user=user), env=stage.variables) as server:
        try:
            wait_until_healthy(stage, server, check, user)
            if extra:
                enter(stage, extra, user=user)
            server.terminate()
            if server.wait(timeout=60):
                raise StepError(f"{shlex.join(entry)} ended with {server.returncode} after SIGTERM, expected 0")
        finally:
            server.kill()


def wait_until_healthy(stage: Stage, server: subprocess.Popen[bytes], check: list[str], user: str) -> None:
    """Ask once a second, for a minute.

    Raises:
        StepError: The server ended or did not serve.
    """
    for _ in range(60):
        if server.poll() is not None:
            raise StepError(f"the server ended with {server.returncode} before it served")
        try:
            enter(stage, check, user=user)
        except StepError:
            time.sleep(1)
        else:
            return
    raise StepError(f"{shlex.join(check)} did not succeed within a minute")


def main() -> None:
    """Run the steps of one target and what it needs, and say how long each took."""
    parser = argparse.ArgumentParser(description="Run the Dockerfile's steps in copies of a Debian root, with chroot.")
    parser.add_argument("--base", type=Path, required=True, help="root that debootstrap made, with python3-venv")
    parser.add_argument("--work", type=Path, required=True, help="new folder for the stages")
    parser.add_argument("--target", default="cpu", help="stage to build (default: cpu)")
    parser.add_argument("--host-file", type=Path, action="append", default=[], help="file to copy into each root")
    parser.add_argument(
        "--variable", action="append", default=[], metavar="NAME=VALUE", help="for RUN only, e.g. a proxy"
    )
    parser.add_argument("extra", nargs="*", help="command to run inside, beside the server")
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    stages, arguments = read_stages((ROOT / "Dockerfile").read_text(encoding="utf-8"), options.work)
    context = options.work / "context"
    copy_context(context)
    for name in needed(options.target, stages):
        stage = stages[name]
        prepare(stage, options.base, [Path("/etc/resolv.conf"), *options.host_file])
        given = dict(pair.split("=", 1) for pair in options.variable)
        stage.variables |= arguments | given
        for step, argument in stage.steps:
            began = time.monotonic()
            run_step(stage, step, argument, stages=stages, context=context)
            print(f"[{name}] {step} {argument[:80]} ({time.monotonic() - began:.1f} s)", flush=True)
        for variable in arguments | given:
            del stage.variables[variable]
    serve_and_probe(stages[options.target], options.extra)
    print(f"[{options.target}] served, was healthy, ended with status 0")


if __name__ == "__main__":
    main()
