"""Several bmodels -> one with all their stages, planned without their weights.

What the vendor's ``model_tool --combine`` does (tpu-mlir, tools/model_tool/bm_tool.hpp): the kernel
module of the first file, then every stage's Binaries in the order of the schema. It finds equal
weight regions by comparing them; here they are not at hand, and the caller says which are equal.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from targets.sophgo.bmodel.conflicts import check_combinable
from targets.sophgo.bmodel.kinds import Binary, with_binaries
from targets.sophgo.bmodel.layout import Copied, Layout, Part, RegionBuilder, Reserved, layout_of
from targets.sophgo.bmodel.reading import Bmodel
from targets.sophgo.bmodel.schema import CpuopModule, KernelModule, Model, Net, NetParameter

NOTHING = Binary(0, 0)


@dataclass(frozen=True)
class Source:
    """A bmodel, with or without its weights, and a name for the bytes of its weight region.

    Equal names mean equal bytes: such regions are written once.
    """

    bmodel: Bmodel
    weights: str


def plan(sources: Sequence[Source]) -> Layout:
    """One file with the stages of all. A single file comes out as it is. Raises InputError.

    Networks of one name become one network of several stages, in the order given. Check codes
    stand as they were; time and version are those of the first file. Where the kernel module is cut
    out of every file, this one has none.
    """
    bmodels = [source.bmodel for source in sources]
    if len(bmodels) == 1 and not bmodels[0].lacks_kernel:
        return _unchanged(bmodels[0])
    check_combinable(bmodels)
    region = RegionBuilder()
    kernel = placed_kernel(region, bmodels)
    rooms: dict[str, Reserved] = {}

    def placed(number: int, binary: Binary) -> Binary:
        source = sources[number]
        if binary not in source.bmodel.weights:
            return region.add(Copied(source.bmodel, binary))
        room = rooms.get(source.weights)
        if room is None:
            room = Reserved(region.reserve(binary.size), (Part(0, number, binary),), ())
        if room.binary.size != binary.size:
            raise ValueError(f"weights of {room.binary.size} and {binary.size} bytes have one name")
        rooms[source.weights] = replace(room, users=(*dict.fromkeys((*room.users, number)),))
        return room.binary

    def changed(number: int, stage: NetParameter) -> NetParameter:
        return with_binaries(stage, partial(placed, number))

    model = combined_model(bmodels, kernel, changed)
    return region.layout(model, list(rooms.values()))


def _unchanged(bmodel: Bmodel) -> Layout:
    """The file itself, weights or not."""
    pieces, weights, start = [], [], 0
    for gap in (*bmodel.weights, Binary(bmodel.binary_size, 0)):
        between = Binary(start, gap.start - start)
        pieces.append((between, Copied(bmodel, between)))
        if gap.size:
            weights.append(Reserved(gap, (Part(0, 0, gap),), (0,)))
        start = gap.end
    return layout_of(bmodel.header, bmodel.binary_size, pieces, weights)


def placed_kernel(region: RegionBuilder, bmodels: Iterable[Bmodel]) -> KernelModule:
    """The first kernel module that one of the files has."""
    for bmodel in bmodels:
        kernel = bmodel.model.kernel_module
        if kernel is not None and kernel.binary is not None and not bmodel.lacks_kernel:
            return replace(kernel, binary=region.add(Copied(bmodel, kernel.binary)))
    return KernelModule("", NOTHING)


def combined_model(
    bmodels: Sequence[Bmodel],
    kernel: KernelModule,
    changed: Callable[[int, NetParameter], NetParameter],
) -> Model:
    """The tables of the combined file: `changed` gives the stage of input number so-and-so."""
    nets: dict[str, Net] = {}
    for number, bmodel in enumerate(bmodels):
        for net in bmodel.model.net:
            before = nets[net.name].parameter if net.name in nets else ()
            stages = tuple(changed(number, stage) for stage in net.parameter)
            nets[net.name] = replace(net, parameter=before + stages)
    models = [bmodel.model for bmodel in bmodels]
    return replace(
        models[0],
        net=tuple(nets.values()),
        neuron_size=max((s.ctx_size for net in nets.values() for s in net.parameter), default=0),
        kernel_module=kernel,
        device_num=max(model.device_num for model in models),
        cpuop_module=CpuopModule(kernel.file_name, NOTHING),
        bmodel_type=0,
        lib_backend=NOTHING,
    )
