"""Export: a checkpoint and its adapters become a bundle.

Per component: the template gives the graph, the profile its ports, the checkpoint its weights.
Finished components are recorded at once, so an interrupted export goes on where it stopped and a
changed one redoes only what changed: another scale of a LoRA, only the tensors that it touches.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converter.adapters.adapter import Adapter
from converter.adapters.binding import AdaptedModel
from converter.adapters.choice import AdapterChoice
from converter.adapters.lcm import recommended_sampling
from converter.adapters.load import load_adapters
from converter.bundle import GRAPH_FILE, Bundle, BundleComponent
from converter.embeddings.choice import EmbeddingChoice
from converter.embeddings.embedding import appended_rows, with_embeddings
from converter.embeddings.load import load_embeddings
from converter.errors import InputError
from converter.export_record import export_record
from converter.families.prediction import PREDICTION_TYPES, Prediction
from converter.families.registry import check_family
from converter.files import blake3_of, replacing, require_space, sha256_of, size_of
from converter.graph_record import GraphRecord, component_graph, graph_bytes, remember_graph
from converter.interface_profile import InterfaceProfile
from converter.linking import link_files, linked_records, plan_links
from converter.merged import MergedWeights
from converter.model_files import ModelFiles
from converter.profiles import get_profile
from converter.progress import Event, Progress, silent
from converter.source import Source, open_source
from converter.stream import file_size, write_weights
from passes.linked_weights import link_weights, own_places
from passes.weights import WEIGHTS_FILE, Place, weight_places


@dataclass(frozen=True)
class ExportRequest:
    """What to export. `components` None means everything that the checkpoint must hold.

    `batch` None takes the profile's. `family`, where given, is the only one that is exported.

    `prediction` (``epsilon``, ``v_prediction``) and `zero_terminal_snr` override what the file
    tells. No graph depends on them: they are recorded for whoever samples.

    With `link` the graphs read the user's own files (`converter.linking`).
    `addresses` maps the files and folders that were fetched to where they came from.
    `parts`, `variant`, `ema` and `controlnet_base` are those of `ModelFiles`, `clip_skip` that of
    `converter.clip_skip`.
    """

    checkpoint: Path | None
    output: Path
    adapters: tuple[AdapterChoice, ...] = ()
    profile: str = "sd-lcm-tpu"
    batch: int | None = None
    components: tuple[str, ...] | None = None
    allow_unused: bool = False
    prediction: str | None = None
    zero_terminal_snr: bool = False
    parts: Mapping[str, Path] = field(default_factory=dict)
    variant: str | None = None
    ema: bool = False
    controlnet_base: Path | None = None
    link: bool = False
    clip_skip: int | None = None
    embeddings: tuple[EmbeddingChoice, ...] = ()
    addresses: Mapping[Path, str] = field(default_factory=dict)
    family: str | None = None

    @property
    def unet_batch(self) -> int:
        """The batch asked for, else the profile's."""
        return get_profile(self.profile).batch if self.batch is None else self.batch

    @property
    def files(self) -> ModelFiles:
        """The files of the model."""
        return ModelFiles(self.checkpoint, self.parts, self.variant, self.ema, self.controlnet_base)

    def command(self) -> list[str]:
        """The command line that makes the same request."""
        words = ["sdconv", "export", *self.files.words()]
        for adapter in self.adapters:
            words += ["-l", str(adapter)]
        words += ["-o", str(self.output), "--profile", self.profile, "-b", str(self.unet_batch)]
        chosen = {
            "--components": None if self.components is None else ",".join(self.components),
            "-v": self.family,
            "--prediction": self.prediction,
            "--clip-skip": self.clip_skip,
        }
        for option, value in chosen.items():
            words += [] if value is None else [option, str(value)]
        if self.zero_terminal_snr:
            words += ["--zero-terminal-snr"]
        for embedding in self.embeddings:
            words += ["--embedding", str(embedding)]
        if self.link:
            words += ["--link"]
        if self.allow_unused:
            words += ["--allow-unused"]
        for path, address in self.addresses.items():
            words = [word.replace(str(path), address) for word in words]
        return words

    def address_of(self, file: Path) -> str | None:
        """The address that a file, or the folder it lies in, was fetched from."""
        around = (path for path in (file, *file.parents) if path in self.addresses)
        return next((self.addresses[path] for path in around), None)


@dataclass(frozen=True)
class _Part:
    """One component, planned: its graph as bytes, places in its own file, weights, record."""

    graph: bytes
    places: Mapping[str, Place]
    weights: MergedWeights
    record: BundleComponent


def export(request: ExportRequest, progress: Progress = silent) -> Bundle:
    """Export a checkpoint to `request.output`; raises InputError, having written nothing.

    What an earlier run into the same folder left whole is reused.
    """
    profile = get_profile(request.profile)
    if request.unet_batch < 1:
        raise InputError(f"batch {request.batch}: it must be at least 1")
    source = open_source(request.files, profile, request.components, request.clip_skip)
    if request.family is not None:
        check_family(request.family, source.architecture.family)
    source = as_requested(source, request)
    with ThreadPoolExecutor(1) as pool:  # hashing gigabytes overlaps with what does not need it
        contents = pool.submit(source.contents)
        adapters = requested_adapters(source, request)
        link_into = request.output if request.link else None
        parts = [_plan(c, profile, source, adapters, contents, link_into, progress)
                 for c in source.components]  # fmt: skip
    bundle = _bundle(request, profile, source, adapters, contents.result())
    earlier = _earlier(request.output)
    todo = [p for p in parts if not _reusable(p.record, earlier, request.output)]
    needed = sum(part.record.weights_bytes for part in todo)
    require_space(request.output, needed, "this export")
    for name in (p.record.name for p in parts if p not in todo):
        progress(Event(f"export {name}", 1.0, f"{name}: reused, same sources and recipe"))
    bundle = replace(bundle, components=earlier, complete=False)
    for part in todo:
        name = part.record.name
        others = {n: record for n, record in bundle.components.items() if n != name}
        bundle = replace(bundle, components=others)
        bundle.save()  # nothing vouches for bytes that are about to change
        record = _write(part, earlier.get(name), request.output, progress)
        bundle = replace(bundle, components={**others, name: record})
        bundle.save()
    ordered = {c: bundle.components[c] for c in source.components}
    bundle = replace(bundle, components=ordered, complete=True)
    bundle.save()
    return bundle


def as_requested(
    source: Source, request: ExportRequest, content: Callable[[Path], str] = blake3_of
) -> Source:
    """A model with what the request says of its prediction, and with its embeddings."""
    embeddings = load_embeddings(
        request.embeddings, source.architecture, source.components, content
    )
    return replace(
        source,
        architecture=with_embeddings(source.architecture, embeddings),
        prediction=_prediction(request, source.prediction),
        embeddings=embeddings,
    )


def requested_adapters(
    source: Source, request: ExportRequest, content: Callable[[Path], str] = blake3_of
) -> list[Adapter]:
    """Open the request's adapters for a model."""
    adapted = AdaptedModel.of(source.architecture.family, source.tables, source.components)
    return load_adapters(
        request.adapters, adapted, allow_unused=request.allow_unused, content=content
    )


def _prediction(request: ExportRequest, detected: Prediction) -> Prediction:
    """What was asked for, else what the file tells."""
    if request.prediction not in (None, *PREDICTION_TYPES):
        raise InputError(
            f"unknown prediction {request.prediction!r}: choose {' or '.join(PREDICTION_TYPES)}"
        )
    return replace(
        detected,
        type=request.prediction or detected.type,
        zero_terminal_snr=request.zero_terminal_snr or detected.zero_terminal_snr,
    )


def _plan(
    component: str,
    profile: InterfaceProfile,
    source: Source,
    adapters: Sequence[Adapter],
    contents: Future[Mapping[Path, str]],
    link_into: Path | None,
    progress: Progress,
) -> _Part:
    architecture = source.architecture
    graph, key = component_graph(component, profile, architecture, progress)
    places = weight_places(graph)
    table = source.tables[component]
    appended = appended_rows(source.embeddings, component)
    weights = MergedWeights(
        component, source.model.file, contents.result(), table, places, adapters, appended
    )
    mine = profile.interface(component, architecture)
    linked: dict[str, dict[str, Any]] = {}
    if link_into is None:
        data, own, keys = graph_bytes(graph), places, weights.tensor_keys
        record = GraphRecord.of(data, places)
        remember_graph(record, component, profile, architecture, key)
    else:
        links, files = plan_links(weights)
        linked = linked_records(files, link_into)
        link_weights(graph, links)
        data, own = graph_bytes(graph), own_places(graph)
        keys = {}  # the file beside it holds a few of the tensors, at other places
    described = BundleComponent(
        name=component,
        graph=f"{component}/{GRAPH_FILE}",
        weights=f"{component}/{WEIGHTS_FILE}",
        interface=mine,
        graph_sha256=hashlib.sha256(data).hexdigest(),
        weights_key=weights.key,
        weights_bytes=file_size(own),
        parameters=sum(place.nbytes // 4 for place in places.values()),
        template_key=key,
        linked=linked,
        tensor_keys=keys,
    )
    return _Part(data, own, weights, described)


def _bundle(
    request: ExportRequest,
    profile: InterfaceProfile,
    source: Source,
    adapters: Sequence[Adapter],
    contents: Mapping[Path, str],
) -> Bundle:
    return Bundle(
        folder=request.output,
        family=source.architecture.family,
        architecture=source.architecture.to_json(),
        profile=profile.name,
        batch=request.unet_batch,
        prediction_type=source.prediction.type,
        zero_terminal_snr=source.prediction.zero_terminal_snr,
        components={},
        sources=[
            {
                "role": source.model.roles[file],
                "path": str(file.absolute()),
                "bytes": file.stat().st_size,
                "blake3": content,
                **({} if (address := request.address_of(file)) is None else {"address": address}),
            }
            for file, content in contents.items()
        ],
        adapters=[adapter.record() for adapter in adapters],
        sampling=_sampling(profile, source, adapters),
        command=request.command(),
        recipe=export_record(request),
        embeddings=[embedding.record() for embedding in source.embeddings],
        versions={p: importlib.metadata.version(p) for p in ("sdconv", "onnx", "onnx-ir")},
    )


def _sampling(
    profile: InterfaceProfile, source: Source, adapters: Sequence[Adapter]
) -> dict[str, Any] | None:
    """How to draw with this model, if it or its consumer says so; InputError if both do."""
    advice = recommended_sampling(source.architecture.unet, adapters)
    if profile.sampling is None or advice is None:
        return advice if profile.sampling is None else profile.sampling.advice()
    raise InputError(
        f"{advice['because']}, and profile {profile.name} draws with {profile.sampling.scheduler} "
        f"and guidance {profile.sampling.guidance:g} only ({profile.consumer}): leave it out, or "
        "add --profile diffusers"
    )


def _earlier(folder: Path) -> Mapping[str, BundleComponent]:
    """Components whose weights an earlier export left whole in `folder`."""
    try:
        records = Bundle.read(folder).components
    except InputError:
        return {}
    return {
        name: record
        for name, record in records.items()
        if size_of(folder / record.weights) == record.weights_bytes
    }


def _reusable(
    record: BundleComponent, earlier: Mapping[str, BundleComponent], folder: Path
) -> bool:
    graph = folder / record.graph
    return (
        earlier.get(record.name) == record
        and graph.is_file()
        and sha256_of(graph) == record.graph_sha256
        and all((graph.parent / name).is_file() for name in record.linked)
    )


def _write(
    part: _Part, earlier: BundleComponent | None, folder: Path, progress: Progress
) -> BundleComponent:
    """Write what `earlier`, the record of the files that lie there, does not vouch for."""
    stage = f"export {part.record.name}"
    progress(Event(stage, 0.0))
    weights, places = folder / part.record.weights, part.places
    changed = None
    keys = {} if earlier is None else earlier.tensor_keys
    if earlier is not None and keys and weights.stat().st_mtime_ns == earlier.weights_mtime_ns:
        changed = part.weights.keep(keys, earlier.changes)
    link_files(part.record.linked, weights.parent)
    if not places:
        weights.unlink(missing_ok=True)
    elif changed != []:
        write_weights(part.weights, places, weights, progress, stage, changed)
    for name in earlier.linked if earlier is not None else ():
        if name not in part.record.linked:
            (weights.parent / name).unlink(missing_ok=True)
    with replacing(folder / part.record.graph) as work:
        work.write_bytes(part.graph)
    return replace(
        part.record,
        changes=part.weights.changes,
        weights_mtime_ns=weights.stat().st_mtime_ns if places else 0,
    )
