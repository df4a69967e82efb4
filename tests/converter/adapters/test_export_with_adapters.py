"""Adapters through the whole export: norms, reuse, order, scales of parts, LCM, and messages."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.adapters.choice import AdapterChoice
from converter.adapters.lcm import LAYERS
from converter.bundle import Bundle
from converter.components import rules
from converter.export import ExportRequest, export
from examples.random_checkpoint import write_lora
from examples.small_models import SMALL
from passes.weights import TRANSPOSED
from sdconv import picture_options
from sdconv.main import run
from targets.manifest import Manifest
from tests.conftest import SmallModel


def bundle(model: SmallModel, output: Path, *texts: str) -> Bundle:
    choices = tuple(AdapterChoice.parse(text) for text in texts)
    return export(ExportRequest(model.checkpoint, output, choices))


@pytest.fixture(scope="module")
def base(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle(small_model, tmp_path_factory.mktemp("base"))


@pytest.fixture
def second_lora(tmp_path: Path) -> Path:
    path = tmp_path / "second.safetensors"
    write_lora(path, SMALL, rank=2, seed=5)
    return path


def test_the_norms_in_the_bundle_are_those_of_its_weights(
    base: Bundle, small_bundle: Bundle
) -> None:
    (record,) = small_bundle.adapters
    assert record["ledger"]["used"] == record["ledger"]["total"] == 612
    component = Bundle.load(small_bundle.folder).components["unet"]
    changes = component.changes[record["identities"]["unet"]]
    before, after = base.weights("unet"), small_bundle.weights("unet")
    assert len(changes) == record["modules"]["unet"]
    for name in after.names():
        difference = float(np.linalg.norm(after.read(name) - before.read(name)))
        entry = changes.get(name.removesuffix(TRANSPOSED))
        assert (entry is None) == (difference == 0)
        if entry is not None:
            assert entry["norm"] == pytest.approx(difference, rel=1e-5)
            share = difference / float(np.linalg.norm(before.read(name)))
            assert entry["relative"] == pytest.approx(share, rel=1e-5)


def test_the_order_of_loras_changes_nothing_and_reuses_everything(
    small_model: SmallModel, second_lora: Path, tmp_path: Path
) -> None:
    texts = [f"{small_model.lora}:0.8", f"{second_lora}:0.4"]
    first = bundle(small_model, tmp_path / "out", *texts)
    written = (tmp_path / "out/unet/model.onnx.data").stat().st_mtime_ns
    again = bundle(small_model, tmp_path / "out", *reversed(texts))
    assert (tmp_path / "out/unet/model.onnx.data").stat().st_mtime_ns == written
    assert again.components == first.components
    for record in again.adapters:
        assert again.components["unet"].changes[record["identities"]["unet"]]


def test_scales_of_parts_reach_their_tensors_alone(
    small_model: SmallModel, base: Bundle, tmp_path: Path
) -> None:
    merged = bundle(small_model, tmp_path, f"{small_model.lora}:0.8,text=0,mid=0")
    keys = {name: c.weights_key for name, c in base.components.items()}
    assert merged.components["text_encoder"].weights_key == keys["text_encoder"]
    assert merged.components["unet"].weights_key != keys["unet"]
    (changes,) = merged.components["unet"].changes.values()
    assert not [name for name in changes if name.startswith("mid_block")]
    name = f"mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight{TRANSPOSED}"
    read = [b.weights("unet").read(name).tobytes() for b in (merged, base)]
    assert read[0] == read[1]
    # Another scale of the text encoder leaves the UNet, and what is known of it, alone.
    other = bundle(small_model, tmp_path, f"{small_model.lora}:0.8,text=0.1,mid=0")
    assert other.components["unet"].changes == {
        k: dict(v) for k, v in merged.components["unet"].changes.items()
    }
    assert other.adapters[0]["identities"]["unet"] in other.components["unet"].changes


@pytest.fixture
def lcm_lora(tmp_path: Path) -> Path:
    tensors = {}
    for rule in rules("unet", SMALL):
        module = "lora_unet_" + rule.name.removesuffix(".weight").replace(".", "_")
        if rule.name.endswith("weight") and module.endswith(tuple(f"_{n}" for n in LAYERS)):
            outputs, inputs, *kernel = rule.shape
            up = np.zeros((outputs, 1, *[1] * len(kernel)), np.float16)
            tensors[f"{module}.lora_down.weight"] = np.ones((1, inputs, *kernel), np.float16)
            tensors[f"{module}.lora_up.weight"] = up
    path = tmp_path / "lcm.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def test_an_lcm_lora_recommends_its_sampling_and_an_empty_one_is_noticed(
    small_model: SmallModel, lcm_lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        run(["export", "-u", str(small_model.checkpoint), "-l", f"{lcm_lora}:0.5", "-o", str(out)])
        == 0
    )
    said = capsys.readouterr()
    assert "LoRA, scale 0.5, " in said.out
    assert "recommended here: scheduler lcm, 4 steps, guidance 1 (lcm.safetensors" in said.out
    assert "lcm.safetensors changes nothing at scale 0.5" in said.err
    made = Bundle.load(out)
    assert made.sampling is not None and made.sampling["steps"] == 4
    assert bundle(small_model, out, f"{lcm_lora}:0").sampling is None


@pytest.mark.parametrize(
    ("scheduler", "steps", "guidance", "expected"),
    [
        (None, None, None, ("lcm", 4, 1.0)),
        (None, 8, None, ("lcm", 8, 1.0)),
        ("lcm", None, 1.5, ("lcm", 4, 1.5)),
        ("euler", None, None, ("euler", 20, 7.5)),
        ("ddim", 10, 2.0, ("ddim", 10, 2.0)),
    ],
)
def test_what_the_user_says_goes_before_what_the_bundle_recommends(
    scheduler: str | None,
    steps: int | None,
    guidance: float | None,
    expected: tuple[str, int, float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    advice = {"scheduler": "lcm", "steps": 4, "guidance": 1.0, "because": "x is an LCM-LoRA"}

    class Folder:
        def load_bundle(self, _: Path | None) -> object:
            return type("Advised", (), {"sampling": advice})()

    monkeypatch.setattr(Manifest, "load", lambda _: Folder())
    request = picture_options.picture_request(
        Path("x"), None, "a cat", "", scheduler, steps, guidance, 3, None
    )
    assert (request.scheduler, request.steps, request.guidance) == expected
    assert request.seed == 3
    assert ("recommended here" in capsys.readouterr().out) == (expected[0] == "lcm")


def test_the_summary_says_how_much_was_used_and_where_most_changed(
    small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    lora = f"{small_model.lora}:30"
    assert run(["export", "-u", str(small_model.checkpoint), "-l", lora, "-o", out]) == 0
    said = capsys.readouterr()
    assert "LoRA, scale 30, 612 of 612 keys used; largest changes: " in said.out
    assert "by more than their own size" in said.err and "is scale 30 meant?" in said.err
