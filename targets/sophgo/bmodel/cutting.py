"""A bmodel without its weights: the same file with its weight regions left out.

Nothing in it is renumbered. The file is shorter than its header says by exactly its weights, by
which `read_bmodel` knows it; the vendor's programs refuse it. Putting weights back is what
`targets.sophgo.bmodel.combining.plan` of this one file describes.
"""

from pathlib import Path

from converter.files import replacing
from targets.sophgo.bmodel.combining import Source, plan
from targets.sophgo.bmodel.reading import Bmodel


def cut_weights(bmodel: Bmodel, path: Path) -> None:
    """Write `bmodel` to `path` without its weight regions. Raises InputError, OSError."""
    layout = plan([Source(bmodel, "")])
    with replacing(path) as work, work.open("wb") as file:
        file.write(layout.header)
        for piece in layout.pieces:
            file.writelines(piece.content.chunks())
