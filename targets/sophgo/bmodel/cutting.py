"""A bmodel without its weights, or without the chip's kernel module too: the rest of the file.

Nothing in it is renumbered. The file is shorter than its header says by exactly what was cut out,
by which `read_bmodel` knows it; the vendor's programs refuse it. Putting weights back is what
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


def cut_kernel(bmodel: Bmodel, path: Path) -> None:
    """Write what `cut_weights` wrote without its kernel module. Raises OSError.

    It is 5.6 MB that are in every bmodel of a chip; the rest of a skeleton is about as large.
    """
    assert bmodel.kernel is not None, "only what has a kernel module can lose it"
    content, at = bmodel.path.read_bytes(), bmodel.offset_of(bmodel.kernel)
    with replacing(path) as work:
        work.write_bytes(content[:at] + content[at + bmodel.kernel.size :])


def put_kernel(bmodel: Bmodel, kernel: bytes, path: Path) -> None:
    """Write what `cut_kernel` wrote with its kernel module again. Raises OSError."""
    assert bmodel.kernel is not None, "only what had a kernel module can have it again"
    content, at = bmodel.path.read_bytes(), bmodel.offset_of(bmodel.kernel)
    with replacing(path) as work:
        work.write_bytes(content[:at] + kernel + content[at:])
