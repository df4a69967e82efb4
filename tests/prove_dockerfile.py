"""Run the RUN steps of the Dockerfile in a fresh Debian, where no Docker engine is to be had.

    python -m tests.prove_dockerfile FOLDER --python311 DIR --python310 DIR [--bind PATH]...

By hand, as root on Debian 12, with `debootstrap` and the network to Debian and to pip's index.
Instruction by instruction, as the engine would: the stages `slim` to `sdconv`, then the health
check against the command that the image starts, as the image's user. What it puts in the place of
what cannot be had without an engine:

- the base images: `debootstrap --variant=minbase bookworm` with the Pythons of this machine copied
  in (DIR/bin/python3.11, DIR/bin/python3.10), and the libraries of Debian that these link to;
- PyTorch's own index: `pip install torch` asks the index that pip is configured for here, which has
  to have a CPU build; the files that this configuration needs are named with --bind;
- the stage `vendor`, which is not run at all: its image exists in the vendor's registry alone.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.test_dockerfile import Instruction, stages

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = "ca-certificates libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 zlib1g libreadline8"
"""Of Debian, which the images of python:*-slim have and a bare Debian has not."""


def run(program: str, *arguments: str | Path) -> None:
    """Run a program of this machine."""
    subprocess.run([shutil.which(program) or program, *arguments], check=True)


@contextmanager
def mounted(root: Path, paths: list[Path]) -> Iterator[None]:
    """Bind folders and files of this machine into the new root, while it is used."""
    with ExitStack() as stack:
        for path in paths:
            place = root / path.relative_to("/")
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            run("mount", "--rbind", path, place)
            stack.callback(run, "umount", "--recursive", "--lazy", place)
        yield


class Image:
    """The new root, with what the instructions so far have set."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root, self.arguments = root, arguments
        self.folder, self.user = "/", "0"
        pip = {n: value for n, value in os.environ.items() if re.match("PIP_|https?_proxy", n)}
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", **pip}

    def run(self, argv: list[str], **options: object) -> "subprocess.Popen[bytes]":
        """Start a program in the image."""
        inside = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root)]
        go = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.folder, *argv]
        env = {**self.env, "HOME": "/root" if self.user == "0" else "/home/sdconv"}
        return subprocess.Popen([*inside, *go], env=env, **options)  # type: ignore[call-overload, no-any-return]

    def follow(self, instruction: Instruction) -> None:
        """Do what an instruction says."""
        began = time.monotonic()
        getattr(self, f"_{instruction.keyword.lower()}")(instruction)
        seconds = time.monotonic() - began
        sys.stdout.write(f"--- {seconds:6.1f} s  {instruction.keyword} {instruction.text[:90]}\n")
        sys.stdout.flush()

    def _run(self, instruction: Instruction) -> None:
        text = re.sub(r"--index-url https://download\.pytorch\.org\S*", "", instruction.text)
        argv = ["env", *(f"{n}={v}" for n, v in self.arguments.items()), "/bin/sh", "-c", text]
        if (code := self.run(argv).wait()) != 0:
            raise SystemExit(f"RUN ended with {code}: {text}")

    def _copy(self, instruction: Instruction) -> None:
        if instruction.text.startswith("--from"):
            return  # the Pythons were put in their places, and the toolchain lies where it was made
        *sources, target = instruction.words
        for source in sources:
            place = self.root / self.folder.lstrip("/") / target
            if (REPOSITORY / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / source, place, ignore=ignored)
            else:
                shutil.copyfile(REPOSITORY / source, place / source)

    def _workdir(self, instruction: Instruction) -> None:
        self.folder = instruction.text
        (self.root / self.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _env(self, instruction: Instruction) -> None:
        self.env |= dict(word.split("=", 1) for word in instruction.words)

    def _arg(self, instruction: Instruction) -> None:
        name, _, value = instruction.text.partition("=")
        self.arguments.setdefault(name, value)

    def _user(self, instruction: Instruction) -> None:
        self.user = instruction.text

    def _expose(self, instruction: Instruction) -> None:
        """Say a port: nothing to do."""

    _volume = _healthcheck = _cmd = _expose


def bare_debian(root: Path, python311: Path, python310: Path) -> None:
    """Make the root that stands for the base images."""
    run("debootstrap", "--variant=minbase", "bookworm", root)
    shutil.copytree(python311, root / "usr/local", symlinks=True, dirs_exist_ok=True)
    shutil.copytree(python310, root / "opt/python3.10", symlinks=True)
    for name, program in (("python", "python3.11"), ("pip", "pip3.11")):
        (root / "usr/local/bin" / name).unlink(missing_ok=True)
        (root / "usr/local/bin" / name).symlink_to(program)
    # Those of the images find their libraries by themselves; these were built for another place.
    config = root / "etc/ld.so.conf.d/pythons.conf"
    config.write_text("/usr/local/lib\n/opt/python3.10/lib\n")
    run("ldconfig", "-r", root)
    for script in (root / "usr/local/bin").glob("pip*"):  # they name the Python they came with
        if not script.is_symlink():
            lines = script.read_text().splitlines(keepends=True)
            script.write_text("".join(["#!/usr/local/bin/python3.11\n", *lines[1:]]))


def check_health(image: Image, every: list[Instruction]) -> None:
    """Start the image's command as its user, and ask as its health check does."""
    by_keyword = {instruction.keyword: instruction for instruction in every}
    health = json.loads(by_keyword["HEALTHCHECK"].text.partition("CMD ")[2])
    server = image.run(json.loads(by_keyword["CMD"].text))
    try:
        for _ in range(120):
            if image.run(health, stderr=subprocess.DEVNULL).wait() == 0:
                sys.stdout.write("healthy\n")
                return
            time.sleep(1)
        raise SystemExit("never healthy")
    finally:
        server.terminate()
        sys.stdout.write(f"the server ended with {server.wait(60)}\n")


def main() -> None:
    """Run everything; exits with an error at the first step that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python311", type=Path, required=True)
    parser.add_argument("--python310", type=Path, required=True)
    parser.add_argument("--bind", type=Path, action="append", default=[])
    parser.add_argument(
        "--done", type=int, default=0, help="steps that an earlier run did in FOLDER"
    )
    parser.add_argument("--toolchain", help="the build argument; empty leaves it out")
    options = parser.parse_args()
    root: Path = options.folder
    if not options.done:
        bare_debian(root, options.python311, options.python310)
    arguments = {} if options.toolchain is None else {"TOOLCHAIN": options.toolchain}
    image = Image(root, arguments)
    kernel = [Path(p) for p in ("/proc", "/dev", "/etc/resolv.conf", "/etc/hosts")]
    with mounted(root, [*kernel, *options.bind]):
        made = stages()
        # In one root: what the stage of the toolchain alone has is taken out again behind it.
        left = "apt-get purge --yes --auto-remove gcc libc6-dev && rm -rf /app/*/ /workspace"
        purge = Instruction("RUN", left)
        every = [*made["slim"], *made["requirements"], *made["toolchain"], purge, *made["sdconv"]]
        if not options.done:
            image.follow(Instruction("RUN", f"apt-get update && apt-get install -y {LIBRARIES}"))
        for number, instruction in enumerate(every):
            if number >= options.done or instruction.keyword not in ("RUN", "COPY"):
                image.follow(instruction)
        check_health(image, every)
        for command in (["sdconv", "targets"], ["sdconv", "toolchain", "doctor"]):
            if (code := image.run(command).wait()) != 0:
                raise SystemExit(f"{' '.join(command)} ended with {code}")


if __name__ == "__main__":
    main()
