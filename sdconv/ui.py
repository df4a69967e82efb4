"""`sdconv ui`: the web page."""

from pathlib import Path
from typing import Annotated

import typer

# As in `sdconv.page.limits.Limits`, which takes the converter with it and so is imported late.
RUNNING, WAITING, EACH, KEEP_DAYS, QUOTA_GB, LARGEST_GB = 1, 20, 5, 30.0, 200.0, 20.0
FETCH_MINUTES, DRAW_MINUTES = 60.0, 10.0


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 keeps it on this machine.")
    ] = "0.0.0.0",  # noqa: S104  (a container serves it to its host)
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    root: Annotated[
        Path, typer.Option(help="Folder of the checkpoints to choose from, and of all jobs.")
    ] = Path("workspace"),
    accounts: Annotated[
        Path | None,
        typer.Option(
            help="File of those who may use the page, a line user:password for each; else the "
            "environment's SDCONV_UI_ACCOUNTS; else everybody may."
        ),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Conversions at once.")] = RUNNING,
    waiting: Annotated[int, typer.Option(min=0, help="Conversions that may wait.")] = WAITING,
    each: Annotated[int, typer.Option(min=1, help="Unfinished conversions of one user.")] = EACH,
    keep_days: Annotated[
        float, typer.Option(min=0.01, help="Days after which what nobody used is removed.")
    ] = KEEP_DAYS,
    quota: Annotated[
        float, typer.Option(min=0.01, help="GB for jobs, uploads and downloads together.")
    ] = QUOTA_GB,
    largest: Annotated[
        float, typer.Option(min=0.001, help="GB of one upload, and of what an address brings.")
    ] = LARGEST_GB,
    fetch_minutes: Annotated[
        float, typer.Option(min=0.01, help="Minutes that fetching an address may take.")
    ] = FETCH_MINUTES,
    draw_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes that one picture may take on a chip emulator.")
    ] = DRAW_MINUTES,
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
    from sdconv.page.accounts import Accounts
    from sdconv.page.limits import GB, Limits

    limits = Limits(
        running=running,
        waiting=waiting,
        each=each,
        quota=round(quota * GB),
        largest=round(largest * GB),
        keep_days=keep_days,
        fetch_minutes=fetch_minutes,
        draw_minutes=draw_minutes,
    )
    serve(host, port, root, limits, Accounts.read(accounts))
