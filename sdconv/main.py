"""The `sdconv` command: registers the verbs and turns exceptions into exit codes.

0 done and passed, 1 a verdict failed, 2 bad input or usage, 3 a toolchain is missing or failed,
130 interrupted. A bug prints a traceback.
"""

import sys

import typer

from sdconv.compile import compile_
from sdconv.export import export
from sdconv.inspect import inspect
from sdconv.original_flags import translate
from sdconv.targets import targets
from sdconv.toolchain import app as toolchain_app
from sdconv.validate import validate

app = typer.Typer(
    name="sdconv",
    help="Stable Diffusion checkpoints to verified, ready-to-run artifacts for accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("inspect")(inspect)
app.command("export")(export)
app.command("compile")(compile_)
app.command("validate")(validate)
app.command("targets")(targets)
app.add_typer(toolchain_app, name="toolchain")


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    command = typer.main.get_command(app)
    try:
        result = command.main(translate(arguments), prog_name="sdconv", standalone_mode=False)
    except Exception as e:
        code = _exit_code(e)
        if code is None:
            raise
        return code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again to go on\n")
        return 130
    return result if isinstance(result, int) else 0


def _exit_code(error: Exception) -> int | None:
    """Report an expected error in one line and return its code; None for a bug."""
    import click

    from converter.errors import InputError
    from targets.base import ToolchainError

    if isinstance(error, click.exceptions.Abort):
        sys.stderr.write("interrupted: run the same command again to go on\n")
        return 130
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, InputError):
        sys.stderr.write(f"error: {error}\n")
        return 2
    if isinstance(error, ToolchainError):
        sys.stderr.write(f"toolchain error: {error}\n")
        return 3
    return None
