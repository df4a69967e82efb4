"""What is an address, what is a path, and what is refused before any connection."""

from pathlib import Path

import pytest

from converter.downloads.addresses import HubFile, WebFile, parse_address
from converter.downloads.fetch import local_path
from converter.errors import InputError

DIGEST = "ab" * 32


def test_addresses_are_read() -> None:
    url = "https://civitai.com/api/download/models/5?type=Model"
    assert parse_address(url) == WebFile(url, None)
    assert parse_address(f"https://host/a%20b.safetensors#sha256={DIGEST.upper()}") == WebFile(
        "https://host/a%20b.safetensors", DIGEST
    )
    assert WebFile("https://host/../..", None).name == "file"
    assert parse_address("hf:a/b") == HubFile("a/b", "main", None)
    assert parse_address("hf:a/b@v1.0/c/d.ckpt") == HubFile("a/b", "v1.0", "c/d.ckpt")


@pytest.mark.parametrize(
    ("page", "meant"),
    [
        ("https://huggingface.co/a/b", HubFile("a/b", "main", None)),
        ("https://hf.co/a/b/", HubFile("a/b", "main", None)),
        ("https://huggingface.co/a/b/tree/v1?library=diffusers", HubFile("a/b", "v1", None)),
        ("https://huggingface.co/a/b/blob/main/c/d.ckpt", HubFile("a/b", "main", "c/d.ckpt")),
        (
            "https://civitai.com/models/4384/dreamshaper?modelVersionId=128713",
            WebFile("https://civitai.com/api/download/models/128713", None),
        ),
    ],
)
def test_the_address_of_a_page_stands_for_what_it_shows(
    page: str, meant: HubFile | WebFile
) -> None:
    assert parse_address(page) == meant


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a/b/resolve/main/c.ckpt",
        "https://huggingface.co/datasets/a/b",
        "https://huggingface.co/api/models",
        "https://civitai.com/models/4384",
        "https://civitai.com.example/models/1?modelVersionId=2",
    ],
)
def test_other_addresses_are_files(url: str) -> None:
    assert parse_address(url) == WebFile(url, None)


@pytest.mark.parametrize("text", ["model.safetensors", "/a/b:c", "C:\\x", "a/b", ""])
def test_everything_else_is_a_path(text: str) -> None:
    assert local_path(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://host/x", "only https"),
        ("ftp://host/x", "only https"),
        ("file:///etc/passwd", "only https"),
        ("https:///x", "without a host"),
        ("https://[/x", "cannot be read"),
        ("https://host/x#sha256=12", "no checksum"),
        ("https://user:pass@host/x", "HF_TOKEN or CIVITAI_TOKEN"),
        ("https://host/x?token=s3cret", "HF_TOKEN or CIVITAI_TOKEN"),
        ("hf:owner", "not a hub address"),
        ("hf:owner/name/../x", "not a hub address"),
        ("https://hf.co/owner/name/blob/main/../x", "not a hub address"),
    ],
)
def test_an_address_that_is_not_safe_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        parse_address(text)
    assert "pass@" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
