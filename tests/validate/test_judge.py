"""The judge must refuse every kind of wrong output, at every precision."""

from collections.abc import Callable

import numpy as np
import pytest

from converter.errors import InputError
from converter.weights import Array
from targets.registry import TARGETS, get_target
from validate.base import Agreement, Measurement, Verdict
from validate.drawing import draw
from validate.judge import ComponentJudge
from validate.metrics import measure
from validate.thresholds import THRESHOLDS

JUDGE = ComponentJudge()
RNG = np.random.default_rng(7)


def test_whatever_can_be_compiled_can_be_judged() -> None:
    assert {p for name in TARGETS for p in get_target(name).precisions} == set(THRESHOLDS)


def latent() -> Array:
    return RNG.standard_normal((1, 4, 32, 32), np.float32)


def picture() -> Array:
    return draw(1, 64, 96)[None]


def hidden_states() -> Array:
    """As CLIP's: two features thirty times as large as the rest."""
    values = RNG.standard_normal((1, 77, 768), np.float32)
    values[..., [133, 725]] *= 30
    return values


def moments() -> Array:
    """As the VAE encoder's: means of a few units beside log variances near -20."""
    values = RNG.standard_normal((1, 8, 16, 16), np.float32)
    return np.concatenate([5 * values[:, :4], values[:, 4:] - 20], axis=1)


REFERENCES = {f.__name__: f() for f in (latent, picture, hidden_states, moments)}


def with_one(value: float) -> Callable[[Array], Array]:
    def corrupt(x: Array) -> Array:
        y = x.copy()
        y.flat[5] = value
        return y

    return corrupt


def without_a_channel(x: Array) -> Array:
    y = x.copy()
    if x.ndim == 3:
        y[..., 133] = 0
    else:
        y[:, 0] = 0
    return y


WRONG: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "twice": lambda x: x * 2,
    "a tenth too much": lambda x: x * 1.1,
    "negated": lambda x: -x,
    "channels permuted": lambda x: np.roll(x, 1, axis=-1 if x.ndim == 3 else 1),
    "two rows swapped": lambda x: np.concatenate([x[..., 1:, :], x[..., :1, :]], axis=-2),
    "one channel missing": without_a_channel,
    "constant": lambda x: np.full_like(x, x.mean()),
    "one NaN": with_one(np.nan),
    "one Inf": with_one(np.inf),
    "all NaN": lambda x: np.full_like(x, np.nan),
    "another shape": lambda x: x[..., :-1],
    "empty": lambda x: x[:0],
}


def verdict(output: Array | None, reference: Array, precision: str) -> Verdict:
    threshold = JUDGE.threshold("unet", precision)
    return JUDGE.rule(measure(output, reference), threshold).verdict


@pytest.mark.parametrize("precision", THRESHOLDS)
@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("wrong", WRONG)
def test_refuses(wrong: str, kind: str, precision: str) -> None:
    reference = REFERENCES[kind]
    assert verdict(WRONG[wrong](reference), reference, precision) is Verdict.FAIL


@pytest.mark.parametrize("precision", THRESHOLDS)
@pytest.mark.parametrize("kind", REFERENCES)
def test_accepts_equality_and_the_noise_of_the_precision(kind: str, precision: str) -> None:
    reference = REFERENCES[kind]
    assert verdict(reference, reference, precision) is Verdict.PASS
    rms = np.sqrt(np.mean(np.square(reference)))
    noise = RNG.standard_normal(reference.shape, np.float32) * rms
    # Relative to the energy: fp32 graphs differ by 2e-6, half precision by 1e-3 to 1e-2.
    amplitude = {"f32": 2e-6, "f16": 2e-3, "w8f16": 4e-3}.get(precision, 1e-2)
    assert verdict(reference + amplitude * noise, reference, precision) is Verdict.PASS


def test_a_real_cast_to_half_precision_passes_f16_and_fails_f32() -> None:
    reference = REFERENCES["latent"]
    half = reference.astype(np.float16).astype(np.float32)
    assert verdict(half, reference, "f16") is Verdict.PASS
    assert verdict(half, reference, "f32") is Verdict.FAIL


def test_a_missing_output_and_a_useless_reference_fail() -> None:
    reference = REFERENCES["latent"]
    assert verdict(None, reference, "f16") is Verdict.FAIL
    assert verdict(reference * 0, reference * 0, "f16") is Verdict.FAIL
    broken = with_one(np.nan)(reference)
    assert verdict(broken, broken, "f16") is Verdict.FAIL


def test_numbers_that_are_no_numbers_fail() -> None:
    nothing = Measurement(0, 0, 10, 1.0, Agreement(*[float("nan")] * 5))
    assert JUDGE.rule(nothing, JUDGE.threshold("unet", "f16")).verdict is Verdict.FAIL
    unmeasured = Measurement(0, 0, 10, 1.0, None)
    assert JUDGE.rule(unmeasured, JUDGE.threshold("unet", "f16")).verdict is Verdict.FAIL


def test_the_largest_error_is_allowed_in_proportion_to_peaks_above_one() -> None:
    threshold = JUDGE.threshold("unet", "f32")
    assert threshold.allowed_error(0.01) == pytest.approx(1e-4)
    assert threshold.allowed_error(30) == pytest.approx(3e-3)
    vae = JUDGE.threshold("vae_decoder", "f32")
    assert vae.allowed_error(1) == pytest.approx(3e-4)
    # One spike is invisible to PSNR over many values; the absolute limit catches it.
    reference = np.full((1, 4, 128, 128), 0.5, np.float32)
    spiked = reference.copy()
    spiked.flat[0] += 1e-3
    ruling = JUDGE.rule(measure(spiked, reference), threshold)
    assert ruling.sentence.startswith("the largest error")


def test_the_sentence_names_every_broken_limit() -> None:
    reference = REFERENCES["latent"]
    threshold = JUDGE.threshold("unet", "f16")
    sentence = JUDGE.rule(measure(reference * 2, reference), threshold).sentence
    assert "below the 35 dB needed" in sentence
    assert "2 times the reference" in sentence


def test_a_pass_below_the_usual_says_so() -> None:
    reference = REFERENCES["latent"]
    noise = RNG.standard_normal(reference.shape, np.float32)
    threshold = JUDGE.threshold("unet", "f16")
    ruling = JUDGE.rule(measure(reference + 0.03 * noise, reference), threshold)
    assert ruling.verdict is Verdict.PASS
    assert "45 dB is usual for f16" in ruling.sentence


def test_unknown_precision_lists_the_known() -> None:
    with pytest.raises(InputError, match="f32, f16, bf16"):
        JUDGE.threshold("unet", "f8")


def test_every_threshold_has_a_reason_and_expects_more_than_it_asks() -> None:
    for precision, threshold in THRESHOLDS.items():
        assert threshold.precision == precision
        assert len(threshold.reason) > 40
        assert threshold.expected_db > threshold.psnr_db
