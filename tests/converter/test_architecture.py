"""Architectures as JSON."""

import pytest

from converter.architecture import Architecture
from converter.errors import InputError
from converter.families.published import SD15, SDXL


@pytest.mark.parametrize("architecture", [SD15, SDXL])
def test_what_is_written_is_read(architecture: Architecture) -> None:
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("change", [{"new": 1}, None])
def test_what_another_version_wrote_is_said_so(change: dict[str, int] | None) -> None:
    written = SD15.to_json()
    written["unet"] = {**written["unet"], **change} if change else 7
    with pytest.raises(InputError, match="another version"):
        Architecture.from_json(written)
