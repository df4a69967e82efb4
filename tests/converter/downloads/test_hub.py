"""The hub: its own library against a small hub on this machine, and the choice of files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.utils._http import default_client_factory

from converter.downloads.addresses import HubFile
from converter.downloads.hub import HubDownloads, configurations, wanted_files
from converter.downloads.policy import DownloadPolicy
from converter.errors import InputError
from converter.progress import Event, silent
from tests.converter.downloads.conftest import Server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = {
    "model_index.json": b"{}",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"full",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "v1.ckpt": b"whole",
    "lora/adapter_model.safetensors": b"lora",
    "lora/adapter_config.json": b"{}",
}


@pytest.fixture
def hub(server: Server, home: Path) -> Iterator[HubDownloads]:
    """A hub that serves `REPOSITORY` as owner/name."""
    info = {
        "id": "owner/name",
        "sha": COMMIT,
        "siblings": [{"rfilename": name} for name in REPOSITORY],
    }
    server.files["/api/models/owner/name/revision/main"] = json.dumps(info).encode()
    for name, content in REPOSITORY.items():
        path = f"/owner/name/resolve/{COMMIT}/{name}"
        server.files[path] = content
        server.headers[path] = {"X-Repo-Commit": COMMIT}
    huggingface_hub.set_client_factory(lambda: httpx2.Client(verify=server.trust))
    yield HubDownloads(endpoint=server.url(""))
    huggingface_hub.set_client_factory(default_client_factory)


def test_a_repository_becomes_a_folder_of_what_is_read(server: Server, hub: HubDownloads) -> None:
    seen: list[Event] = []
    folder = hub.fetch(HubFile("owner/name", "main", None), "fp16", seen.append)
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert seen[-1].done == 1
    assert all("authorization" not in headers for _, headers in server.requests)


def test_an_adapter_comes_with_its_configuration(hub: HubDownloads) -> None:
    path = hub.fetch(HubFile("owner/name", "main", "lora/adapter_model.safetensors"), None, silent)
    assert path.read_bytes() == b"lora"
    assert path.with_name("adapter_config.json").read_bytes() == b"{}"
    there = ["adapter_model.safetensors", "adapter_config.json", "README.md"]
    wanted = wanted_files("owner/name", there, None)
    assert [*wanted, *configurations(wanted, there)] == there[:2]


def test_one_file_is_a_file_and_the_token_is_the_environments(
    server: Server, hub: HubDownloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = hub.fetch(HubFile("owner/name", "main", "v1.ckpt"), None, silent)
    assert path.read_bytes() == b"whole"
    assert server.requests[0][1]["authorization"] == "Bearer hf_secret"


def test_what_is_not_there_is_named(hub: HubDownloads) -> None:
    with pytest.raises(InputError, match="hf:owner/other: the hub did not give it"):
        hub.fetch(HubFile("owner/other", "main", None), None, silent)
    with pytest.raises(InputError, match="hf:owner/name: the hub did not give it"):
        hub.fetch(HubFile("owner/name", "main", "missing.ckpt"), None, silent)


def test_shards_come_with_their_index_and_no_other_files() -> None:
    stem = "unet/diffusion_pytorch_model"
    full = [f"{stem}.safetensors.index.json"]
    full += [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    half = [f"{stem}.safetensors.index.fp16.json"]
    half += [f"{stem}.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    pickles = [f"{stem}.bin", "unet/model.onnx", "README.md"]
    assert wanted_files("o/n", [*full, *half, *pickles], None) == full
    assert wanted_files("o/n", [*full, *half, *pickles], "fp16") == half
    assert wanted_files("o/n", ["unet/diffusion_pytorch_model.bin"], None) == [f"{stem}.bin"]


def test_a_repository_of_single_files_needs_one_or_a_name() -> None:
    assert wanted_files("o/n", ["a.safetensors", "README.md"], None) == ["a.safetensors"]
    with pytest.raises(InputError, match=r"it holds a\.safetensors, b.ckpt: name one, hf:o/n/FILE"):
        wanted_files("o/n", ["a.safetensors", "b.ckpt"], None)
    with pytest.raises(InputError, match="no checkpoint"):
        wanted_files("o/n", ["README.md"], None)


def test_a_repository_larger_than_allowed_is_refused_before_it_is_fetched(
    server: Server, hub: HubDownloads
) -> None:
    info = json.loads(server.files["/api/models/owner/name/revision/main"])
    info["siblings"] = [{"rfilename": n, "size": 1000} for n in REPOSITORY]
    server.files["/api/models/owner/name/revision/main?blobs=true"] = json.dumps(info).encode()
    small = replace(hub, policy=DownloadPolicy(largest=2999))
    with pytest.raises(InputError, match=r"hf:owner/name: .* may be fetched here"):
        small.fetch(HubFile("owner/name", "main", None), "fp16", silent)
    assert not any("resolve" in path for path, _ in server.requests)
    enough = replace(hub, policy=DownloadPolicy(largest=3000))
    assert enough.fetch(HubFile("owner/name", "main", None), "fp16", silent).is_dir()
