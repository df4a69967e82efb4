"""Draw with the fp32 reference and keep what every component is fed on the way.

Prompts x steps x {negative, prompt} for the UNet, what these draw for the VAE, and with each
ControlNet of the bundle the same again, led by the edges of the first picture.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.cache import Made
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.profiles import get_profile
from converter.progress import Event, Progress, silent
from converter.sizes import Size
from converter.weights import Array
from runtime.hints import Hint, edges_of
from runtime.sampling import PictureRequest
from runtime.staging import check_draws, drawing_components, open_reference
from targets.base import Runner
from targets.calibration import calibrations
from targets.torch_reference import open_reference as open_torch_reference

VERSION = 1
"""Raise it when the same request gives other inputs than before."""


@dataclass(frozen=True)
class CalibrationRequest:
    """Draw these prompts at these sizes with a bundle, and keep the inputs below `output`.

    `sampling` says how; its own prompt is not used, and prompt number i takes its seed plus i.
    `batch` None takes the batch that the bundle was exported for.
    """

    bundle: Path
    prompts: tuple[str, ...]
    sizes: tuple[Size, ...]
    sampling: PictureRequest = field(default_factory=lambda: PictureRequest(""))
    output: Path = Path("calibration")
    batch: int | None = None


def calibrate(
    request: CalibrationRequest,
    progress: Progress = silent,
    *,
    opener: Callable[[Bundle, str], Runner] = open_torch_reference,
) -> list[Made]:
    """Make what is not there yet; return one entry of the store for each size.

    Raises InputError for a bundle that cannot draw, for sizes it does not take, without torch,
    and when values stop being finite.
    """
    bundle = Bundle.load(request.bundle)
    nets = tuple(name for name in bundle.components if is_controlnet(name))
    check_draws(bundle, nets)
    lacking = [n for n in drawing_components(bundle) if n not in bundle.components]
    if lacking:
        raise InputError(
            f"{bundle.folder}: no {' and no '.join(lacking)}, so it cannot draw what calibration "
            "data are taken from: export the whole model"
        )
    architecture = Architecture.from_json(bundle.architecture)
    get_profile(bundle.profile).check_sizes(architecture, request.sizes)
    batch = bundle.batch if request.batch is None else request.batch
    made = []
    for size in request.sizes:

        def build(folder: Path, size: Size = size) -> None:
            _record(request, bundle, nets, size, batch, folder, opener, progress)

        inputs = _made_from(request, bundle, size, batch)
        made.append(calibrations(request.output).make(f"calibration at {size}", inputs, build))
    return made


def _made_from(
    request: CalibrationRequest, bundle: Bundle, size: Size, batch: int
) -> dict[str, str]:
    sampling = {**request.sampling.identity(), "prompt": list(request.prompts)}
    weights = {name: part.weights_key for name, part in bundle.components.items()}
    return {
        "weights": json.dumps(weights, sort_keys=True),
        "profile": bundle.profile,
        "prediction": json.dumps([bundle.prediction_type, bundle.zero_terminal_snr]),
        "words": json.dumps({name: list(ids) for name, ids in bundle.words.items()}),
        "sampling": json.dumps(sampling, sort_keys=True),
        "size": str(size),
        "batch": str(batch),
        "version": str(VERSION),
    }


def _record(
    request: CalibrationRequest,
    bundle: Bundle,
    nets: tuple[str, ...],
    size: Size,
    batch: int,
    folder: Path,
    opener: Callable[[Bundle, str], Runner],
    progress: Progress,
) -> None:
    """Fill the folder of one size."""
    tape = _Tape(folder)

    def recorded(bundle: Bundle, component: str) -> Runner:
        return _Recorder(opener(bundle, component), component, tape)

    sampling, stage = request.sampling, f"calibrate {size}"
    pictures = len(request.prompts) * (1 + len(nets))
    done = 0
    progress(Event(stage, 0.0))
    with open_reference(bundle, size, recorded, nets, batch) as pipeline:
        for number, prompt in enumerate(request.prompts):
            wanted = replace(sampling, prompt=prompt, seed=sampling.seed + number)
            picture = pipeline.draw(wanted).picture.clip(-1, 1)
            _keep_picture(tape, bundle, picture)
            done += 1
            progress(Event(stage, done / pictures))
            for net in nets:
                pipeline.draw(wanted, [Hint(edges_of(picture[None])[0], net)])
                done += 1
                progress(Event(stage, done / pictures))
    counts = ", ".join(f"{name} {count}" for name, count in tape.counts.items())
    progress(Event(stage, 1.0, f"calibration data at {size}: {counts}"))


def _keep_picture(tape: "_Tape", bundle: Bundle, picture: Array) -> None:
    """What was drawn is what a VAE encoder is given."""
    if "vae_encoder" in bundle.components:
        (port,) = bundle.components["vae_encoder"].interface.inputs
        tape.keep("vae_encoder", {port.name: picture[None].astype(port.dtype)})


class _Tape:
    """Inputs by component, each different one once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()
        self.counts: dict[str, int] = {}

    def keep(self, component: str, inputs: Mapping[str, Array]) -> None:
        """Write one run's inputs. Raises InputError where they are not finite."""
        broken = [name for name, array in inputs.items() if not np.isfinite(array).all()]
        if broken:
            raise InputError(
                f"{component} is fed infinite values or NaN ({', '.join(broken)}) by this "
                "checkpoint in float32: sample otherwise, or export another"
            )
        digest = sha256(component.encode())
        for name in sorted(inputs):
            digest.update(np.ascontiguousarray(inputs[name]).tobytes())
        if digest.hexdigest() in self._seen:
            return
        self._seen.add(digest.hexdigest())
        number = self.counts.get(component, 0)
        self.counts[component] = number + 1
        path = self._folder / component / f"{number:04d}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **inputs)  # residuals are mostly zeros


class _Recorder(Runner):
    """A runner that keeps what it is given."""

    def __init__(self, runner: Runner, component: str, tape: _Tape) -> None:
        self._runner = runner
        self._component = component
        self._tape = tape

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Keep the inputs, then run."""
        self._tape.keep(self._component, inputs)
        return self._runner.infer(inputs)

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()
