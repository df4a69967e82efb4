"""Recipes: what is read, what is refused with its line, and what a build makes of one."""

import json
from pathlib import Path

import pytest

from converter.errors import InputError
from converter.files import blake3_of
from converter.sizes import Size
from sdconv.main import run
from sdconv.recipe.reading import parse_recipe, read_recipe
from sdconv.recipe.recipe import Compilation, Export, Recipe, Validation
from sdconv.recipe.writing import recipe_yaml
from tests.conftest import SmallModel
from validate.base import Level
from validate.overrides import Override

TEXT = """\
export:
  checkpoint: mini.safetensors
  loras: ["style.safetensors:0.8"]
  ema: true
compile:
  - target: bm1684x
    sizes: [64x64, 128x64]
    precision: {vae_decoder: bf16}
  - {target: onnxruntime, sizes: [64x64]}
validate:
  prompts: [a red circle]
  steps: 4
  guidance: 1.5
  levels: [component, picture]
  thresholds:
    - {precision: bf16, component: vae_decoder, psnr_db: 28, reason: a preview}
output: made
"""
WANTED = Recipe(
    Export("mini.safetensors", loras=("style.safetensors:0.8",), ema=True),
    (
        Compilation("bm1684x", (Size(64, 64), Size(128, 64)), precision={"vae_decoder": "bf16"}),
        Compilation("onnxruntime", (Size(64, 64),)),
    ),
    Validation(
        ("a red circle",),
        steps=4,
        guidance=1.5,
        levels=(Level.COMPONENT, Level.PICTURE),
        thresholds=(Override("bf16", "a preview", component="vae_decoder", psnr_db=28),),
    ),
    "made",
)


TABLED = "{target: bm1684x, sizes: [64x64], quantize_tables: {unet: none.txt}}"


def test_reading_and_writing() -> None:
    assert parse_recipe(TEXT, "r") == WANTED
    assert parse_recipe(recipe_yaml(WANTED), "r") == WANTED
    assert parse_recipe("export: {}\n", "r") == Recipe(Export())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "r: empty; write 'export:'"),
        ("export: [", "r, line 1: not YAML"),
        ("compile: []\n", "r, line 1: the recipe lacks export"),
        ("- a\n", "'key: value' lines expected, a list found"),
        ("export:\n  chekpoint: x\n", "r, line 2: unknown key 'chekpoint' in export: known are"),
        ("export:\n  ema: yes please\n", "r, line 2: ema: true or false expected"),
        ("export: {}\nexport: {}\n", "r, line 2: 'export' stands in the recipe twice"),
        ("export:\n  loras: x\n", "r, line 2: loras: a list expected, 'x' found"),
        ("export: {}\ncompile:\n  - {sizes: [64x64]}\n", "r, line 3: compile lacks target"),
        ("export: {}\ncompile:\n  - {target: a, sizes: [x]}\n", "r, line 3: sizes: "),
        ("export: {}\nvalidate:\n  levels: [loud]\n", "r, line 3: levels: 'loud' is none of"),
        ("export: {}\nvalidate: {seed: 1.5}\n", "r, line 2: seed: a whole number expected"),
        ("export: {}\nvalidate: {prompts: [[a]]}\n", "r, line 2: prompts: a text expected"),
    ],
)
def test_what_is_not_meant_names_its_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "r")
    assert words in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    for unreadable in (path, tmp_path / "none.yaml"):
        with pytest.raises(InputError, match="not readable as a recipe"):
            read_recipe(unreadable)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("export: {}", "has no checkpoint"),
        ("export: {checkpoint: none.safetensors}", "none.safetensors"),
        ("export: {checkpoint: M, components: [nose]}", "nose"),
        ("export: {checkpoint: M}\ncompile: [{target: toaster, sizes: [64x64]}]", "toaster"),
        (f"export: {{checkpoint: M}}\ncompile: [{TABLED}]", "there is no file"),
    ],
)
def test_a_build_that_cannot_be_is_one_line_and_leaves_nothing(
    changed: str,
    words: str,
    small_model: SmallModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(changed.replace("checkpoint: M", f"checkpoint: {small_model.checkpoint}"))
    assert run(["build", str(recipe)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and words in said
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_a_printed_recipe_builds_the_same(
    small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Export, compile and validate by hand; then what validate prints, built elsewhere."""
    bundle, artifacts = tmp_path / "bundle", tmp_path / "artifacts"
    lora = f"{small_model.lora}:0.8"
    words = ["-u", str(small_model.checkpoint), "-l", lora, "--components", "text_encoder"]
    assert run(["export", *words, "-o", str(bundle)]) == 0
    compiling = ["compile", "-n", str(bundle), "--target", "onnxruntime", "--sizes", "64x64",
                 "-o", str(artifacts)]  # fmt: skip
    assert run([*compiling, "--no-validate"]) == 0
    capsys.readouterr()
    looking = ["validate", str(artifacts), "--level", "component"]
    assert run([*looking, "--print-recipe"]) == 0
    text = capsys.readouterr().out
    read = parse_recipe(text, "printed")
    assert read.export.loras == (lora,)
    assert [one.target for one in read.compile] == ["onnxruntime"]
    assert read.validate.levels == (Level.COMPONENT,)
    recipe = tmp_path / "elsewhere" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(text)
    assert run(["build", str(recipe)]) == 0
    printed = capsys.readouterr().out
    assert "pass: 1 of 1 artifact agree" in printed
    built = recipe.parent / "build"
    for name in ("graph", "weights"):
        record = json.loads((bundle / "bundle.json").read_text())["components"]["text_encoder"]
        assert blake3_of(built / "bundle" / record[name]) == blake3_of(bundle / record[name])
    report = json.loads((built / "artifacts" / "report.json").read_text())
    assert parse_recipe(report["recipe"], "report") == read
    # Other ways to the same text.
    assert run([*compiling, "--print-recipe"]) == 0
    assert parse_recipe(capsys.readouterr().out, "printed").compile == read.compile
    assert run(["export", *words, "-o", str(bundle), "--print-recipe"]) == 0
    assert parse_recipe(capsys.readouterr().out, "printed").export == read.export
