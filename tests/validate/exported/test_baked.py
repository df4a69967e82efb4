"""The constant-bake lint: whatever a tracer can take for a constant is caught and named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from converter.bundle import Bundle
from examples.mini.faults import (
    PORT,
    bake_size,
    bake_timestep,
    edit_exported_graph,
    ignore_port,
    truncate_timestep,
)
from validate.base import Check, Verdict
from validate.exported.baked import Look, baked_checks
from validate.judge import judges
from validate.references import References


def checks_of(bundle: Bundle, component: str) -> list[Check]:
    with References(bundle) as references:
        look = Look.at(bundle, component, references)
        assert look is not None
        return baked_checks(look, judges())


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_right_graphs_agree_in_both_views(component: str, small_bundle: Bundle) -> None:
    checks = checks_of(small_bundle, component)
    assert {check.case for check in checks} == {"wide-192x128-b1", "tall-128x192-b2"}
    assert {check.ruling.verdict for check in checks} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("edit", "failing", "words"),
    [
        (bake_timestep, ["tall-128x192-b2"], ["no node reads the input timestep",
                                              "example_timestep = [981]"]),
        (truncate_timestep, ["tall-128x192-b2"], ["timestep_whole (Cast)"]),
        (ignore_port, ["tall-128x192-b2"], [f"no node reads the input {PORT}"]),
        (bake_size, ["tall-128x192-b2"], ["cannot be run: node ",
                                          "example_shape = [1, 32, 16, 24]"]),
    ],
)  # fmt: skip
def test_what_is_baked_in_is_named(
    edit: Callable[[ir.Model], None],
    failing: list[str],
    words: list[str],
    small_bundle: Bundle,
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(small_bundle.folder, tmp_path / "bundle"))
    checks = checks_of(edit_exported_graph(Bundle.load(folder), "unet", edit), "unet")
    wrong = [check for check in checks if check.ruling.verdict is Verdict.FAIL]
    assert [check.case for check in wrong] == failing
    for word in words:
        assert word in wrong[0].ruling.sentence
