"""The verb `tokens`: a prompt as files of token ids, for hosts without a tokenizer."""

from pathlib import Path
from typing import Annotated

import typer


def tokens(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the files.")] = Path(
        "ids"
    ),
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(
            "-n", "--bundle", help="Whose text encoders and embeddings; left out: SDXL's two."
        ),
    ] = None,
) -> None:
    """Write the ids of negative and prompt, int32 of shape (2, 77), raw, for each text encoder."""
    from runtime.tokens import TokensRequest, write_tokens
    from sdconv.console import out

    for path in write_tokens(TokensRequest(prompt, output, negative, bundle)):
        out.print(f"tokens: {path}", highlight=False, markup=False, soft_wrap=True)
