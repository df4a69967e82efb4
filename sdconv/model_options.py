"""The options that tell which model is meant, with what is added to it.

A file is a path, or an address that is fetched first (`converter.downloads.addresses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from converter.adapters.choice import AdapterChoice
    from converter.embeddings.choice import EmbeddingChoice
    from converter.progress import Progress

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "-u",
        "--checkpoint",
        help="Checkpoint: a file, a diffusers folder, an https:// or hf: address.",
    ),
]
UNet = Annotated[
    str | None, typer.Option("--unet", help="UNet to use instead of the checkpoint's.")
]
Vae = Annotated[str | None, typer.Option("--vae", help="VAE to use instead of the checkpoint's.")]
TextEncoder = Annotated[
    str | None,
    typer.Option("--text-encoder", help="Text encoder to use instead of the checkpoint's."),
]
TextEncoder2 = Annotated[
    str | None, typer.Option("--text-encoder-2", help="The same for SDXL's second one.")
]
ControlNets = Annotated[
    list[str] | None,
    typer.Option(
        "-c", "--controlnet", help="ControlNet to export beside it; may be given several times."
    ),
]
ControlNetMerge = Annotated[
    str | None,
    typer.Option(
        "--controlnet-merge",
        metavar="BASE",
        help="Carry the ControlNets over from BASE, the checkpoint that they were trained beside, "
        "to this one.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option("--variant", help="Which files of a diffusers folder, for example fp16."),
]
Ema = Annotated[bool, typer.Option("--ema", help="Take the EMA copies of the UNet in the file.")]
Prediction = Annotated[
    str | None,
    typer.Option(
        "--prediction",
        help="What the UNet predicts, epsilon or v_prediction, if the file does not tell.",
    ),
]
ZeroTerminalSnr = Annotated[
    bool, typer.Option("--zero-terminal-snr", help="It was trained down to pure noise.")
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "-l",
        "--lora",
        help="LoRA (any kind; a file, or PEFT's folder) to merge: FILE, FILE:0.8 or "
        "FILE:0.8,unet=1,text=0.5,down.1=0.3; may be repeated.",
    ),
]
ClipSkip = Annotated[
    int | None,
    typer.Option(
        "--clip-skip",
        help="Hidden state of the text encoders: 1 is the family's own (SD1.x: the last layer; "
        "SD2, SDXL: the one before it), 2 one layer earlier (diffusers' clip_skip=1).",
    ),
]
Embedding = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding",
        help="Textual inversion that prompts call NAME: NAME=FILE, or FILE to take the name "
        "stored in it; may be repeated.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "-b",
        "--batch",
        help="UNet batch that compile takes by default; left out: the profile's.",
    ),
]
Family = Annotated[
    str | None,
    typer.Option("-v", "--family", help="Refuse a model of any other family than this: sd15."),
]
Profile = Annotated[
    str,
    typer.Option(
        help="Whose ports: sd-lcm-tpu (SD1.5 hosts on Sophgo boxes), sophon-demo (Sophgo's demos), "
        "mnn (MNN's own engine), adreno (phones with an Adreno) or diffusers (ONNX)."
    ),
]
Link = Annotated[
    bool,
    typer.Option(
        "--link", help="Let the graphs read the given files themselves, and copy no weights."
    ),
]
Components = Annotated[str | None, typer.Option(help="Export only these, comma-separated.")]
PrintRecipe = Annotated[
    bool,
    typer.Option("--print-recipe", help="Print the recipe that does this, and do nothing else."),
]
AllowUnused = Annotated[
    bool, typer.Option("--allow-unused", help="Merge a LoRA although some keys do not fit.")
]


class LocalFiles:
    """The files that options name, on this machine: what is an address is fetched.

    `addresses` maps what was fetched to where it came from.
    """

    def __init__(self, variant: str | None, progress: Progress) -> None:
        self.addresses: dict[Path, str] = {}
        self._variant = variant
        self._progress = progress

    def model(self, text: str) -> Path:
        """A file, or of a diffusers folder the variant chosen."""
        return self._fetched(text, self._variant)

    def below(self, folder: Path, text: str) -> Path:
        """What a file in `folder` names: an address, or a path from there."""
        from converter.downloads.addresses import parse_address

        return self.model(text) if parse_address(text) is not None else folder / text

    def parts(
        self,
        unet: str | None,
        vae: str | None,
        text_encoder: str | None,
        text_encoder_2: str | None,
        controlnets: Sequence[str] | None,
    ) -> dict[str, Path]:
        """The parts that are given beside a checkpoint or alone, as `ModelFiles` takes them."""
        from converter.architecture import controlnet_name

        given = {
            "unet": unet,
            "vae": vae,
            "text_encoder": text_encoder,
            "text_encoder_2": text_encoder_2,
            **{controlnet_name(i): text for i, text in enumerate(controlnets or ())},
        }
        return {p: self._fetched(t, self._variant) for p, t in given.items() if t is not None}

    def adapters(self, texts: Sequence[str] | None) -> tuple[AdapterChoice, ...]:
        """What -l names, with scales."""
        from converter.adapters.choice import AdapterChoice

        return tuple(AdapterChoice.parse(text, self._adapter) for text in texts or ())

    def embeddings(self, texts: Sequence[str] | None) -> tuple[EmbeddingChoice, ...]:
        """What --embedding names."""
        from converter.embeddings.choice import EmbeddingChoice

        return tuple(EmbeddingChoice.parse(text, self._file) for text in texts or ())

    def _file(self, text: str) -> Path:
        return self._fetched(text, None)

    def _adapter(self, text: str) -> Path:
        """A file; or a repository of the hub without ``hf:``, as the original tool takes it."""
        from converter.downloads.addresses import looks_like_repository
        from converter.progress import Event

        if not looks_like_repository(text):
            return self._file(text)
        self._progress(Event("fetch", 1.0, f"no file or folder {text}: taken for hf:{text}"))
        return self._file(f"hf:{text}")

    def _fetched(self, text: str, variant: str | None) -> Path:
        from converter.downloads.addresses import parse_address
        from converter.downloads.fetch import local_path

        path = local_path(text, variant, self._progress)
        if parse_address(text) is not None:
            self.addresses[path] = text
        return path
