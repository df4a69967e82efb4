"""Spellings of the original tool that an option parser cannot take: ``-s W H [W H ...]``."""

from converter.errors import InputError


def translate(arguments: list[str]) -> list[str]:
    """Turn ``-s 512 512 768 512`` into ``--sizes 512x512,768x512``; leave the rest alone."""
    if "-s" not in arguments:
        return arguments
    start = arguments.index("-s")
    end = start + 1
    while end < len(arguments) and arguments[end].isdigit():
        end += 1
    sides = arguments[start + 1 : end]
    if len(sides) < 2 or len(sides) % 2:
        raise InputError(
            f"-s takes pairs WIDTH HEIGHT, {len(sides)} numbers were given: write -s 512 512 768 "
            "512, or --sizes 512x512,768x512"
        )
    sizes = ",".join(f"{w}x{h}" for w, h in zip(sides[::2], sides[1::2], strict=True))
    return [*arguments[:start], "--sizes", sizes, *arguments[end:]]
