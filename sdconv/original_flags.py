"""The original tool's commands as a user has them: its export and compile scripts' flags.

Source: https://github.com/ZillaRU/SD-lcm-tpu, `model_export/`. What an option parser takes as it
is (``-u -l -c -b -v -o``, ``-n -o -b -v``) the verbs declare themselves; here is the rest.
"""

from converter.errors import InputError

SPELLINGS = {
    "export": {
        "--unet_safetensors_path": "-u",
        "--lora_path": "-l",
        "--controlnet_path": "-c",
        "--version": "-v",
        "--output_name": "-o",
    },
    "compile": {
        "--path": "-n",
        "--shape_lists": "-s",
        "--sdversion": "-v",
        "--output_bmodel": "-o",
    },
}
"""By verb, the original's long options -> ours."""

REFUSED = {
    ("-cm", "--controlnet_merge"): "the original merged nothing at this: leave it out, or merge "
    "with --controlnet-merge BASE",
    ("-debug", "--debug_log"): "leave it out: notes are always shown, and a compiler's log is kept",
}
"""Options of the original's export that did nothing there, or nothing that is wanted here."""


def translate(arguments: list[str]) -> list[str]:
    """Return a command line of ours that means the same; ours come back as they are.

    Raises InputError, saying what to write, for what has no equivalent.
    """
    verb = arguments[0] if arguments else ""
    spellings = SPELLINGS.get(verb, {})
    words: list[str] = []
    for word in arguments:
        option, equals, value = word.partition("=")
        if verb == "export":
            _refuse(option)
        if option in spellings:
            words += [spellings[option], *([value] if equals else [])]
        else:
            words.append(word)
    return _with_sizes(words)


def _refuse(option: str) -> None:
    for names, reason in REFUSED.items():
        if option in names:
            raise InputError(f"{option}: {reason}")


def _with_sizes(arguments: list[str]) -> list[str]:
    """Turn ``-s 512 512 768 512`` into ``--sizes 512x512,768x512``."""
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
    sizes = list(zip(sides[::2], sides[1::2], strict=True))
    _say_order(sizes)
    written = ",".join(f"{width}x{height}" for width, height in sizes)
    return [*arguments[:start], "--sizes", written, *arguments[end:]]


def _say_order(sizes: list[tuple[str, str]]) -> None:
    """Say how sizes are read whose turned picture is not asked for as well.

    The original's documentation says width first, and its scripts read height first.
    """
    lone = [f"{w}x{h}" for w, h in sizes if (h, w) not in sizes]
    if lone:
        from sdconv.console import err

        err.print(
            f"-s is WIDTH HEIGHT, as the original documents it, though its script read HEIGHT "
            f"WIDTH: making {', '.join(lone)}; for the turned picture turn the numbers",
            style="yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
