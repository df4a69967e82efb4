"""A recipe's own thresholds: they hold where they are meant, and nobody can overlook them."""

from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.base import Level, Verdict
from validate.judge import ComponentJudge, judges
from validate.overrides import Override
from validate.thresholds import threshold_for
from validate.validate import ValidateRequest

LOOSE = Override("f16", "a preview is enough", component="unet", psnr_db=20, cosine=0.9)


def test_only_what_is_named_is_replaced() -> None:
    found = ComponentJudge([LOOSE]).threshold("unet", "f16")
    usual = threshold_for("unet", "f16")
    assert (found.psnr_db, found.cosine) == (20, 0.9)
    assert (found.gain, found.expected_db) == (usual.gain, usual.expected_db)
    assert found.reason == (
        "The recipe's own: a preview is enough (usual: psnr_db 35, cosine 0.995)"
    )
    for component, precision in (("vae_decoder", "f16"), ("unet", "bf16")):
        other = ComponentJudge([LOOSE]).threshold(component, precision)
        assert other == threshold_for(component, precision)


def test_each_level_has_its_own() -> None:
    everywhere = Override("f16", "why", level=Level.PICTURE, psnr_db=5)
    found = judges([everywhere])
    assert found[Level.PICTURE].threshold("picture", "f16").psnr_db == 5
    assert not found[Level.TRAJECTORY].threshold("trajectory", "f16").overridden
    assert not found[Level.COMPONENT].threshold("unet", "f16").overridden


def test_the_report_says_so(place: Place, target: FakeTarget, reference: FakeReference) -> None:
    request = ValidateRequest(place.artifacts, overrides=(LOOSE,), recipe="export: {}\n")
    report = judge(request, {"fake": target}, reference)
    assert report.verdict is Verdict.PASS
    assert report.sentence.endswith("within their thresholds, some of them the recipe's own")
    page = (place.artifacts / "report.html").read_text()
    assert "Some thresholds are the recipe's own, not the usual" in page
    assert "a preview is enough" in page and "export: {}" in page
    assert report.commands[-1] == "sdconv build recipe.yaml"
