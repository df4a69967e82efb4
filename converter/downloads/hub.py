"""Repositories of the Hugging Face hub, through the hub's own library.

Of a diffusers repository only the files that would be read are fetched: one variant, safetensors
before pickles, no examples; with an adapter of PEFT its configuration. The token is the
environment's `HF_TOKEN`; one stored by a login is not used.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from converter.containers.adapter_folder import CONFIG as ADAPTER_CONFIG
from converter.containers.adapter_folder import PEFT_WEIGHTS
from converter.containers.diffusers_folder import (
    CONFIG,
    PARTS,
    WEIGHTS,
    choose_variant,
    variants,
)
from converter.containers.shards import shard_of
from converter.downloads.addresses import HubFile
from converter.downloads.policy import ANYTHING, DownloadPolicy
from converter.errors import InputError
from converter.folders import cache_folder
from converter.progress import Event, Progress

SINGLE = (".safetensors", ".ckpt", ".gguf")


@dataclass(frozen=True)
class HubDownloads:
    """Downloads below `folder`, from the public hub or the `endpoint` given.

    Of `policy` the size counts: an address names no host but the hub's.
    """

    folder: Path = field(default_factory=lambda: cache_folder() / "hub")
    endpoint: str | None = None
    policy: DownloadPolicy = ANYTHING

    def fetch(self, address: HubFile, variant: str | None, progress: Progress) -> Path:
        """Return a file's path here, or the folder of a repository's snapshot.

        Raises InputError when the hub refuses, or when the repository holds several checkpoints.
        """
        from httpx2 import HTTPError
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HFValidationError

        token = os.environ.get("HF_TOKEN") or False
        name = address.repository
        try:
            api = HfApi(endpoint=self.endpoint, token=token)
            limited = self.policy.largest is not None
            info = api.model_info(name, revision=address.revision, files_metadata=limited)
            sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
            wanted = [address.path] if address.path else wanted_files(name, [*sizes], variant)
            wanted += configurations(wanted, [*sizes])
            self.policy.check_size(sum(sizes.get(file, 0) for file in wanted), f"hf:{name}")
            paths = []
            for number, file in enumerate(wanted):
                progress(Event(f"fetch {name}", number / len(wanted), file))
                path = hf_hub_download(
                    name,
                    file,
                    revision=info.sha,
                    cache_dir=self.folder,
                    token=token,
                    endpoint=self.endpoint,
                    tqdm_class=_bar(progress, file),
                )
                paths.append(Path(path))
            progress(Event(f"fetch {name}", 1.0))
        except GatedRepoError as e:
            raise InputError(
                f"hf:{name}: its owner gives access on request: ask for it on its page, and put "
                "your token into HF_TOKEN"
            ) from e
        except (HTTPError, HFValidationError, OSError) as e:
            raise InputError(
                f"hf:{name}: the hub did not give it ({type(e).__name__}): check the name, the "
                "network, and HF_TOKEN for a private one; run the same command again to go on"
            ) from e
        if address.path or len(wanted) == 1:
            return paths[0]
        depth = len(PurePosixPath(wanted[0]).parts)
        return paths[0].parents[depth - 1]


def wanted_files(repository: str, there: Sequence[str], variant: str | None) -> list[str]:
    """Choose what to fetch of a repository: a diffusers folder's parts, or its one checkpoint."""
    wanted = []
    for part in PARTS:
        names = [name.removeprefix(f"{part}/") for name in there if name.startswith(f"{part}/")]
        found = variants(names)
        if found:
            chosen = found[choose_variant(found, variant)]
            files = [chosen, *(n for n in names if _is_shard_of(n, chosen)), CONFIG]
            wanted += [f"{part}/{name}" for name in files if name in names]
    if wanted:
        return wanted
    single = [name for name in there if "/" not in name and name.endswith(SINGLE)]
    if len(single) != 1:
        listed = f"it holds {', '.join(single)}" if single else "it holds no checkpoint"
        raise InputError(f"hf:{repository}: {listed}: name one, hf:{repository}/FILE")
    return single


def configurations(wanted: Sequence[str], there: Sequence[str]) -> list[str]:
    """PEFT's configuration of each adapter that is wanted, where the repository holds one."""
    paths = (PurePosixPath(name) for name in wanted)
    beside = [str(p.with_name(ADAPTER_CONFIG)) for p in paths if p.name in PEFT_WEIGHTS]
    return [name for name in beside if name in there]


def _is_shard_of(name: str, chosen: str) -> bool:
    """Whether `name` is a shard of the weights whose index is `chosen`, in either spelling."""
    weights, shard = WEIGHTS.fullmatch(chosen), shard_of(name)
    if weights is None or weights["index"] is None or shard is None:
        return False
    stem, end, variant = weights["stem"], f".{weights['end']}", weights["index_variant"]
    spellings = [(stem, end)]
    if variant is not None:
        spellings = [(f"{stem}.{variant}", end), (stem, f".{variant}{end}")]
    return (shard.stem, shard.end) in spellings


def _bar(progress: Progress, stage: str) -> type[Any]:
    """Give the hub's library a progress bar that tells `progress` instead of the terminal."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **{**options, "disable": True})
            self.done = int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            if self.total:
                progress(Event(f"fetch {stage}", min(self.done / self.total, 1.0)))

    return Bar
