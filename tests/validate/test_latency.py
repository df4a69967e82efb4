"""What is predicted: gathered once for terminal, report and JSON; and what is measured here."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from converter.bundle import Bundle
from converter.sizes import Size
from runtime.latency import runs_per_picture
from runtime.sampling import PictureRequest
from runtime.staging import chosen_artifacts, drawing_components, open_artifacts
from sdconv.main import run
from targets.base import DeviceMemory, EngineTimes, Estimate, LayerTime
from targets.manifest import MANIFEST_FILE, Manifest
from targets.registry import TARGETS
from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.latency import predicted_latency
from validate.published import FIGURES
from validate.validate import ValidateRequest

ESTIMATE = Estimate(
    engines=EngineTimes(compute_ms=1.0, both_ms=4.0, dma_ms=2.0, idle_ms=1.0),
    layers=(LayerTime("convolution", 4.0, 0.5), LayerTime("a <b>", 1.0, 1.5)),
    operations=10**9,
    loaded=3_000_000,
    stored=1_000_000,
    memory=DeviceMemory(weights=5_000_000, instructions=600_000, runtime=70_000),
)


@pytest.fixture
def predicted(place: Place) -> Place:
    """All artifacts take 8 ms on their chip."""
    manifest = Manifest.load(place.artifacts)
    told = [replace(a, predicted_ms=8.0, estimate=ESTIMATE) for a in manifest.artifacts]
    replace(manifest, artifacts=told).save()
    return place


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_sampling_loop_makes_the_runs_that_are_counted(
    place: Place, target: FakeTarget, batch: int, guidance: float
) -> None:
    manifest, bundle = Manifest.load(place.artifacts), Bundle.load(place.bundle)
    of_batch = [replace(a, batch=batch if a.component == "unet" else 1) for a in manifest.artifacts]
    manifest, size = replace(manifest, artifacts=of_batch), Size(128, 64)
    request = PictureRequest("a circle", steps=3, guidance=guidance)
    with open_artifacts(manifest, bundle, target, size) as pipeline:
        pipeline.draw(request)
    chosen = chosen_artifacts(manifest, "fake", size, drawing_components(bundle))
    assert Counter(target.runs) == runs_per_picture(bundle, chosen, request)


def test_the_manifest_keeps_the_estimate_and_reads_those_without(predicted: Place) -> None:
    assert {a.estimate for a in Manifest.load(predicted.artifacts).artifacts} == {ESTIMATE}
    path = predicted.artifacts / MANIFEST_FILE
    older = json.loads(path.read_text())
    for artifact in older["artifacts"]:
        del artifact["estimate"]
    path.write_text(json.dumps(older))
    assert {a.estimate for a in Manifest.load(predicted.artifacts).artifacts} == {None}


def test_nothing_predicted_is_no_latency(place: Place) -> None:
    manifest = Manifest.load(place.artifacts)
    assert predicted_latency(manifest, Bundle.load(place.bundle)) is None


def test_report_and_json_tell_it(
    predicted: Place, target: FakeTarget, reference: FakeReference
) -> None:
    request = ValidateRequest(predicted.artifacts)
    targets = {"fake": target}
    judge(request, targets, reference)
    page = request.report_path.read_text()
    section = page[page.index("How long it takes, predicted") : page.index("Artifact by artifact")]
    assert "not measured on a device" in section
    assert "One picture: 20 steps of ddim, guidance 7.5" in section
    assert "text_encoder 2 x 8 + unet 40 x 8 + vae_decoder 1 x 8" in section
    assert section.count('class="stacks"') == 2
    assert section.count("convolution: 4.5 ms") == 4
    assert "a &lt;b&gt;" in section and "a <b>" not in section
    # No text encoder is 100 times as wide as the others: bars are in proportion.
    widths = {float(w) for w in re.findall(r'part both" x="[\d.]+" y="-8" width="([\d.]+)"', page)}
    assert widths == {4.0 / 8 * 560}
    latency = json.loads(request.json_path.read_text())["latency"]
    assert latency["about"] == "predicted by the compiler, not measured on a device"
    assert [a["ms"] for a in latency["artifacts"]] == [8.0] * 4
    assert latency["artifacts"][0]["estimate"]["engines"]["dma_ms"] == 2.0
    assert [p["ms"] for p in latency["pictures"]] == [43 * 8.0]
    assert latency["published"] == []


def test_a_report_of_older_artifacts_has_no_plots(
    predicted: Place, target: FakeTarget, reference: FakeReference
) -> None:
    manifest = Manifest.load(predicted.artifacts)
    replace(manifest, artifacts=[replace(a, estimate=None) for a in manifest.artifacts]).save()
    request = ValidateRequest(predicted.artifacts)
    targets = {"fake": target}
    judge(request, targets, reference)
    page = request.report_path.read_text()
    assert "How long it takes, predicted" in page
    assert 'class="stacks"' not in page


@pytest.mark.parametrize(
    ("size", "parameters", "batch", "expected"),
    [
        (Size(512, 512), 859_520_964, 1, [16.0, 8.0, 16.0]),
        (Size(512, 512), 859_520_964, 2, [8.0, 8.0, 16.0]),
        (Size(768, 512), 859_520_964, 1, [16.0]),
        (Size(512, 512), 10_000_000, 1, []),
    ],
)
def test_published_figures_stand_beside_the_same_model_at_the_same_size(
    place: Place, size: Size, parameters: int, batch: int, expected: list[float]
) -> None:
    manifest, bundle = Manifest.load(place.artifacts), Bundle.load(place.bundle)
    unet = replace(bundle.components["unet"], parameters=parameters)
    bundle = replace(bundle, family="sd15", components={**bundle.components, "unet": unet})
    chips = [
        replace(
            a,
            chip="bm1684x",
            predicted_ms=8.0,
            size=a.size and size,
            batch=batch if a.component == "unet" else 1,
        )
        for a in manifest.artifacts
    ]
    latency = predicted_latency(replace(manifest, artifacts=chips), bundle)
    assert latency is not None
    order = ("unet", "vae_decoder", "text_encoder")  # of which the last has no size
    found = {c.published.component: c.predicted_ms for c in latency.published}
    assert [found[component] for component in order if component in found] == expected


def test_every_published_figure_names_its_source() -> None:
    assert all(figure.source.startswith("published by ") for figure in FIGURES)


def test_bench_prints_what_is_predicted_and_runs_nothing(
    predicted: Place,
    target: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(TARGETS, "fake", lambda: target)
    assert run(["bench", str(predicted.artifacts), "--steps", "10"]) == 0
    out = capsys.readouterr().out
    assert "predicted for fake by the compiler, not measured on a device:" in out
    line = next(line for line in out.splitlines() if line.startswith("one picture 128x64 on fake"))
    assert "10 steps of ddim, guidance 7.5: 184 ms = text_encoder 2 x 8 + unet 20 x 8" in line
    assert target.runs == []
    assert run(["bench", str(predicted.artifacts), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measured"] is None
    assert told["predicted"]["pictures"][0]["ms"] == 43 * 8.0


def test_bench_says_what_it_cannot_tell(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(place.artifacts)]) == 2
    assert "nothing is predicted for text_encoder f16 on chip" in capsys.readouterr().err
    assert run(["bench", str(place.artifacts), "--target", "nope"]) == 2
    assert "nothing for target 'nope'" in capsys.readouterr().err
