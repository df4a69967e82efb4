"""The `sdconv` command: registers the verbs and turns exceptions into exit codes.

0 done and passed, 1 a verdict failed, 2 bad input or usage, 3 a toolchain is missing or failed,
130 interrupted. A bug prints a traceback.
"""

import sys

import typer

from sdconv.adreno import app as adreno_app
from sdconv.bench import bench
from sdconv.build import build
from sdconv.calibrate import calibrate
from sdconv.compile import compile_
from sdconv.export import export
from sdconv.generate import generate
from sdconv.inspect import inspect
from sdconv.matrix import matrix
from sdconv.original_flags import translate
from sdconv.picture import picture
from sdconv.skeleton import app as skeleton_app
from sdconv.targets import targets
from sdconv.tokens import tokens
from sdconv.toolchain import app as toolchain_app
from sdconv.ui import ui
from sdconv.validate import validate

INTERRUPTED = 130
"""The exit code that typer gives to a keyboard interrupt."""

app = typer.Typer(
    name="sdconv",
    help="Stable Diffusion checkpoints to verified, ready-to-run artifacts for accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("inspect")(inspect)
app.command("export")(export)
app.command("calibrate")(calibrate)
app.command("compile")(compile_)
app.command("validate")(validate)
app.command("matrix")(matrix)
app.command("build")(build)
app.command("generate")(generate)
app.command("tokens")(tokens)
app.command("picture")(picture)
app.command("bench")(bench)
app.command("targets")(targets)
app.command("ui")(ui)
app.add_typer(adreno_app, name="adreno")
app.add_typer(skeleton_app, name="skeleton")
app.add_typer(toolchain_app, name="toolchain")


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app(translate(arguments), prog_name="sdconv")
    except SystemExit as e:
        if e.code == INTERRUPTED:
            sys.stderr.write("interrupted: run the same command again to go on\n")
        return e.code if isinstance(e.code, int) else 0
    except Exception as e:
        code = _report(e)
        if code is None:
            raise
        return code
    return 0


def _report(error: Exception) -> int | None:
    """Say an expected error in one line and return its exit code; None for a bug."""
    from converter.errors import InputError
    from targets.base import ToolchainError  # brings numpy: not before there is an error

    if isinstance(error, InputError):
        sys.stderr.write(f"error: {error}\n")
        return 2
    if isinstance(error, ToolchainError):
        sys.stderr.write(f"toolchain error: {error}\n")
        return 3
    return None
