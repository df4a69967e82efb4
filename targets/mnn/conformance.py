"""Whether a folder loads in MNN's diffusion engine; every line says what does not.

The engine opens fixed files and asks for tensors by name. It notices nothing itself: a model that
is missing, or another dtype under a name, and it goes on and draws noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from converter.architecture import Architecture
from converter.bundle import Bundle
from targets.base import Artifact, Conformance, ToolchainError
from targets.mnn.engine import PROFILE, TOKENIZER, Demand, Fed, demands
from targets.mnn.model import Model, PortOf, UnreadableModelError, read_model
from targets.mnn.mtok import mtok
from targets.mnn.runner import check_whole

READER = "sdconv's reader"


def check_folder(bundle: Bundle, artifacts: Sequence[Artifact], folder: Path) -> list[Conformance]:
    """Check every file that the engine opens; nothing where the profile is another consumer's."""
    if bundle.profile != PROFILE or not artifacts:
        return []
    target = artifacts[0].target
    unet = Architecture.from_json(bundle.architecture).unet
    wanted = demands(0 if unet is None else unet.context_dim)
    by_component = {artifact.component: artifact for artifact in artifacts}
    results = [
        Conformance(
            component,
            target,
            demand.file,
            PROFILE,
            READER,
            tuple(_faults(demand, by_component.get(component), folder)),
        )
        for component, demand in wanted.items()
    ]
    faults = tuple(_tokenizer_faults(folder / TOKENIZER, bundle.words))
    return [*results, Conformance("text_encoder", target, TOKENIZER, PROFILE, READER, faults)]


def _faults(demand: Demand, artifact: Artifact | None, folder: Path) -> Iterator[str]:
    if artifact is None:
        yield "not there: compile all three, without --components"
        return
    if artifact.path != demand.file:
        yield f"it lies at {artifact.path}, where the engine does not look"
    try:
        check_whole(folder / artifact.path)
        model = read_model(folder / artifact.path)
    except (ToolchainError, UnreadableModelError) as e:
        yield str(e)
    else:
        yield from _port_faults(demand, model)


def _port_faults(demand: Demand, model: Model) -> Iterator[str]:
    found = {port.name: port for port in model.inputs}
    for fed in demand.inputs:
        if fed.name not in found:
            yield f"no input {fed.name}, which is fed; it has {', '.join(found)}"
        elif not _takes(found[fed.name], fed):
            port = found[fed.name]
            yield (
                f"input {fed.name} is {port.dtype} {list(port.shape)}, and {fed.dtype} "
                f"{list(fed.shape)} is fed"
            )
    extra = found.keys() - {fed.name for fed in demand.inputs}
    if extra:
        yield f"input {', '.join(sorted(extra))} is fed nothing"
    for name in demand.outputs:
        if name not in model.outputs:
            yield f"no output {name}, which is asked for; it has {', '.join(model.outputs)}"


def _takes(port: PortOf, fed: Fed) -> bool:
    """Whether the port takes what is fed. Of any number of rows, a file says that it is one."""
    (rows, *fixed), (fed_rows, *fed_fixed) = port.shape, fed.shape
    fits = len(fixed) == len(fed_fixed) and all(
        mine in (-1, theirs) for mine, theirs in zip(fixed, fed_fixed, strict=True)
    )
    return port.dtype == fed.dtype and rows in (-1, 1, fed_rows) and fits


def _tokenizer_faults(path: Path, words: Mapping[str, Sequence[int]]) -> Iterator[str]:
    if not path.is_file():
        yield "not there: run the same compile again"
    elif path.read_bytes() != mtok(words):
        yield "not the tokenizer of this bundle: run the same compile again"
