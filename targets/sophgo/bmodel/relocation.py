"""Several sizes -> one bmodel whose stages share every weight that is packed alike.

What the vendor's ``model_tool --combine_coeff`` does (tpu-mlir, tools/model_tool/bm_tool.hpp) for
sizes whose weight regions differ in a few tensors: one region holds the first size's weights and,
after them, what the later sizes have besides. The instructions of a size were made for a region of
its own: their addresses are changed to where its weights lie now, and to where the memory behind
the region has moved. Weights are not at hand here: the caller names what lies at each location.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.errors import InputError
from targets.sophgo.bmodel.combining import NOTHING, Source, combined_model, placed_kernel, plan
from targets.sophgo.bmodel.commands import FORMATS, Moves, Relocated
from targets.sophgo.bmodel.conflicts import check_combinable
from targets.sophgo.bmodel.kinds import Binary, with_binaries
from targets.sophgo.bmodel.layout import (
    SHA256_SIZE,
    Copied,
    Layout,
    Part,
    RegionBuilder,
    Reserved,
)
from targets.sophgo.bmodel.reading import Bmodel, stages
from targets.sophgo.bmodel.schema import (
    CmdGroup,
    CoeffMem,
    CoreCommands,
    CpuopModule,
    Location,
    NetParameter,
    Tensor,
)

_MODES = (0, 2)
"""Address modes: all addresses are final; or those of inputs and outputs are distances from where
the runtime puts them, as those of weights and other memory are on chips with address tags (on
which nothing lies behind the weights)."""


@dataclass(frozen=True)
class Located:
    """A bmodel of one size, with or without its weights, and a name for the bytes at each location.

    `names`: offset of a `Location` -> name. Equal names mean equal bytes, in this file and others.
    """

    bmodel: Bmodel
    names: Mapping[int, str]


def plan_shared(sources: Sequence[Located]) -> Layout:
    """One file with the stages of all and one weight region. Raises InputError.

    A single file comes out as it is. Otherwise check codes are zeros until weights are there.
    """
    bmodels = [source.bmodel for source in sources]
    if len(bmodels) == 1:
        return plan([Source(bmodels[0], "")])
    check_combinable(bmodels)
    merged = _Merged()
    shifts = [merged.add(number, source) for number, source in enumerate(sources)]
    moves = [_moves(bmodel, by, merged.size) for bmodel, by in zip(bmodels, shifts, strict=True)]
    region = RegionBuilder()
    weights = region.reserve(merged.size)
    # The vendor's order: weights, instructions, modules, then what else a stage points to.
    placed = _placed_commands(region, bmodels, moves)
    kernel = placed_kernel(region, bmodels)
    library = bmodels[0].model.cpuop_module
    # Libraries were found to be empty, yet the vendor's tool gives this one a place.
    place = region.add(Copied(bmodels[0], library.binary or NOTHING)) if library else NOTHING

    def changed(number: int, stage: NetParameter) -> NetParameter:
        def change(binary: Binary) -> Binary:
            if binary == bmodels[number].weights[0]:
                return weights
            known = placed.get((number, binary))
            return region.add(Copied(bmodels[number], binary)) if known is None else known

        return with_binaries(_readdressed(stage, moves[number].rest, merged), change)

    model = replace(
        combined_model(bmodels, kernel, changed),
        cpuop_module=CpuopModule(kernel.file_name, place),
        device_num=0,  # so the vendor's tool, and its runtime takes it
        bmodel_type=1,
    )
    users = tuple(range(len(sources)))
    return region.layout(model, [Reserved(weights, tuple(merged.parts), users)])


class _Merged:
    """The one weight region, which grows by what each further size has for itself."""

    def __init__(self) -> None:
        self.size = 0
        self.locations: list[Location] = []
        self.parts: list[Part] = []
        self._known: dict[tuple[str, int, str], int] = {}

    def add(self, number: int, source: Located) -> tuple[int, ...]:
        """Take in a size; by how many bytes each of its locations moves."""
        _, memory = _movable(source.bmodel)
        (region,) = source.bmodel.weights
        if number == 0:
            self.parts.append(Part(0, number, region))
        targets = []
        new: dict[tuple[str, int, str], int] = {}
        for location in memory.location:
            key = location.name, location.size, source.names[location.offset]
            # The vendor compares with other files only: within a file all stays apart.
            if key in self._known:
                targets.append(self._known[key])
                continue
            target = location.offset if number == 0 else self.size
            if number > 0:
                run = Binary(region.start + location.offset, location.size)
                self.parts.append(Part(target, number, run))
            self.size = target + location.size
            self.locations.append(replace(location, offset=target))
            new.setdefault(key, target)
            targets.append(target)
        self._known |= new
        moved = zip(targets, memory.location, strict=True)
        return tuple(target - location.offset for target, location in moved)


def _movable(bmodel: Bmodel) -> tuple[NetParameter, CoeffMem]:
    """The one stage of a file and its weights. Raises InputError where these cannot be moved."""
    found = [stage for _, stage in stages(bmodel.model)]
    memory = found[0].coeff_mem if len(found) == 1 else None
    if bmodel.model.chip not in FORMATS:
        reason = f"the commands of {bmodel.model.chip} are not known"
    elif memory is None or not bmodel.weights:
        reason = "one stage with weights was expected"
    elif not _tiled(memory.location, bmodel.weights[0].size):
        reason = "it does not say where each of its weights lies"
    elif found[0].is_dynamic or found[0].io_size or bmodel.model.net[0].addr_mode not in _MODES:
        reason = "its memory is laid out while it runs"
    elif any(core.hau_commands or core.cdma_commands for core in _cores(found[0])):
        reason = "it has commands of other engines than compute and DMA"
    else:
        return found[0], memory
    raise InputError(f"{bmodel.path}: its weights cannot be shared with other sizes: {reason}")


def _tiled(locations: Sequence[Location], size: int) -> bool:
    """Whether the locations, one after another, are the whole region."""
    end = 0
    for location in locations:
        if location.offset != end:
            return False
        end += location.size
    return bool(locations) and end == size


def _moves(bmodel: Bmodel, shifts: tuple[int, ...], size: int) -> Moves:
    """Where the device memory of a file goes when its weight region becomes `size` bytes."""
    stage, memory = _movable(bmodel)
    return Moves(
        starts=tuple(memory.address + location.offset for location in memory.location),
        sizes=tuple(location.size for location in memory.location),
        shifts=shifts,
        behind=stage.ctx_addr,
        rest=max(memory.address + size - stage.ctx_addr, 0),
    )


def _placed_commands(
    region: RegionBuilder, bmodels: Sequence[Bmodel], moves: Sequence[Moves]
) -> dict[tuple[int, Binary], Binary]:
    """Put all instructions into the region; (number of the file, place in it) -> new place."""
    placed: dict[tuple[int, Binary], Binary] = {}
    for number, bmodel in enumerate(bmodels):
        for group in _groups(_movable(bmodel)[0]):
            if group.binary_bdc is not None:
                placed[number, group.binary_bdc] = region.add(Copied(bmodel, group.binary_bdc))
            if group.binary_gdma is not None:
                commands = Relocated(bmodel, group.binary_gdma, group.gdma_num, moves[number])
                placed[number, group.binary_gdma] = region.add(commands)
        for core in _cores(_movable(bmodel)[0]):
            for binary in core.sdma_commands:
                placed[number, binary] = region.add(Relocated(bmodel, binary, None, moves[number]))
    return placed


def _groups(stage: NetParameter) -> Iterator[CmdGroup]:
    """The instructions of a stage in the vendor's order."""
    for subnet in stage.sub_net:
        yield from subnet.cmd_group
        for core in subnet.core_commands:
            yield from core.gdma_tiu_commands
    yield from stage.cmd_group


def _cores(stage: NetParameter) -> Iterator[CoreCommands]:
    """What each core of a chip of several does in a stage."""
    for subnet in stage.sub_net:
        yield from subnet.core_commands


def _readdressed(stage: NetParameter, rest: int, merged: _Merged) -> NetParameter:
    """The stage's tables for the merged region, and what lies behind it moved by `rest`."""

    def moved(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(replace(t, device_addr=t.device_addr + rest) for t in tensors)

    assert stage.coeff_mem is not None, "checked when its weights were merged"
    return replace(
        stage,
        input_tensor=moved(stage.input_tensor),
        output_tensor=moved(stage.output_tensor),
        ctx_addr=stage.ctx_addr + rest,
        coeff_mem=replace(
            stage.coeff_mem, location=tuple(merged.locations), check_code=bytes(SHA256_SIZE)
        ),
        sub_net=tuple(
            replace(s, input_tensor=moved(s.input_tensor), output_tensor=moved(s.output_tensor))
            for s in stage.sub_net
        ),
        dynamic_combined_coeff_offset=merged.size,
    )
