"""`sdconv ui`: the web page."""

from pathlib import Path
from typing import Annotated

import typer


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 keeps it on this machine.")
    ] = "0.0.0.0",  # noqa: S104  (a container serves it to its host)
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    root: Annotated[
        Path, typer.Option(help="Folder of the checkpoints to choose from, and of all jobs.")
    ] = Path("workspace"),
) -> None:
    """Serve the web page: upload or choose a checkpoint, convert it, read the report."""
    from converter.errors import InputError

    try:
        from gradio_app import serve
    except ModuleNotFoundError as e:
        if e.name != "gradio":
            raise
        raise InputError(
            "the web page needs gradio, which is not installed: pip install 'sdconv[ui]'"
        ) from e
    serve(host, port, root)
