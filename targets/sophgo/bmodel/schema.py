"""What a bmodel's FlatBuffer holds: every table with its fields, their ids, types and defaults.

Source: tpu-mlir, include/tpu_mlir/Builder/BM168x/bmodel.fbs, version 2.2 of the format. The tables
of old files (NetStatic, NetDynamic; ids 1 and 2 of Net) are left out: nothing reads them.
"""

from dataclasses import dataclass
from typing import ClassVar

from targets.sophgo.bmodel.kinds import (
    Binary,
    Inline,
    Many,
    Number,
    Struct,
    Table,
    binary,
    described,
    int32,
    numbers,
    table,
    tables,
    text,
    uint32,
    uint64,
)


@dataclass(frozen=True)
class RelEntry(Struct):
    """One address among the commands that the runtime replaces by a user's own (address mode 4)."""

    layout: ClassVar[str] = "<III"

    base_addr_id: int
    addr_offset: int
    cmd_offset: int


@dataclass(frozen=True)
class Shape(Table):
    """The dimensions of a tensor."""

    dim: tuple[int, ...] = numbers(0, "Q")


@dataclass(frozen=True)
class CmdGroup(Table):
    """Instructions between two synchronisations: for the compute engine (BDC) and for the DMA."""

    bdc_num: int = uint32(0)
    gdma_num: int = uint32(1)
    binary_bdc: Binary | None = binary(2)
    binary_gdma: Binary | None = binary(3)
    bdc_cmd_byte: int = uint32(4)
    gdma_cmd_byte: int = uint32(5)
    reloc_entries: tuple[RelEntry, ...] = described(6, Many(Inline(RelEntry)), ())


@dataclass(frozen=True)
class CoreCommands(Table):
    """The instructions of one core of a chip that has several."""

    gdma_tiu_commands: tuple[CmdGroup, ...] = tables(0, CmdGroup)
    sdma_commands: tuple[Binary, ...] = described(1, Many(Inline(Binary)), ())
    hau_commands: tuple[Binary, ...] = described(2, Many(Inline(Binary)), ())
    cdma_commands: tuple[Binary, ...] = described(3, Many(Inline(Binary)), ())


@dataclass(frozen=True)
class StageIR(Table):
    """The range of sizes of a dynamic network."""

    ir_info_len: int = uint32(0)
    height_high: int = int32(1)
    height_low: int = int32(2)
    width_high: int = int32(3)
    width_low: int = int32(4)


@dataclass(frozen=True)
class Location(Table):
    """One packed weight: `offset` and `size` in bytes, counted in the weight region."""

    name: str = text(0, required=True)
    offset: int = uint64(1)
    size: int = uint64(2)


@dataclass(frozen=True)
class CoeffMem(Table):
    """The weight region of a stage: device address, SHA-256 of its bytes, what lies where."""

    address: int = uint64(0)
    check_code: bytes = numbers(1, "B")
    binary_coeff: Binary | None = binary(2)
    location: tuple[Location, ...] = tables(3, Location)
    encrypt_mode: int = int32(4)
    decrypt_size: int = uint64(5)


@dataclass(frozen=True)
class Tensor(Table):
    """An input or output: `size` in bytes of device memory at `device_addr`."""

    name: str = text(0, required=True)
    data_type: int = uint32(1)
    gmem_stmode: int = int32(2)
    device_addr: int = uint64(3)
    size: int = uint64(4)
    shape: tuple[Shape, ...] = tables(5, Shape)
    mem_type: int = uint32(6)
    scale: float = described(7, Number("f"), 1.0)
    cpu_addr: int = uint32(8)
    pad_h: int = uint32(9)
    zero_point: int = int32(10)
    hidden: int = int32(11)
    index: int = int32(12)
    relentry: RelEntry | None = described(13, Inline(RelEntry), None)


@dataclass(frozen=True)
class CpuConst(Table):
    """A constant of a layer that runs on the host."""

    name: str = text(0)
    const_data: Binary | None = binary(1)
    check_code: bytes = numbers(2, "B")


@dataclass(frozen=True)
class CpuParam(Table):
    """A layer that runs on the host."""

    op_type: int = int32(0)
    binary_param: Binary | None = binary(1)
    cpu_const: tuple[CpuConst, ...] = tables(2, CpuConst)
    is_custom: int = int32(3)


@dataclass(frozen=True)
class OutputFrom(Table):
    """From which subnets an output may come."""

    indice: tuple[int, ...] = numbers(0, "i")


@dataclass(frozen=True)
class MergeParam(Table):
    """Where branches of a network meet."""

    output_from: tuple[OutputFrom, ...] = tables(0, OutputFrom)


@dataclass(frozen=True)
class SwitchParam(Table):
    """Where a network branches."""

    output_from: tuple[int, ...] = numbers(0, "i")
    output_branch: tuple[int, ...] = numbers(1, "i")


@dataclass(frozen=True)
class SubNet(Table):
    """A part of a network that runs without interruption, on the chip or on the host."""

    subnet_mode: int = int32(0)
    cmd_group: tuple[CmdGroup, ...] = tables(1, CmdGroup)
    cpu_param: tuple[CpuParam, ...] = tables(2, CpuParam)
    input_tensor: tuple[Tensor, ...] = tables(3, Tensor)
    output_tensor: tuple[Tensor, ...] = tables(4, Tensor)
    is_dynamic: int = int32(5)
    ir_offset: int = uint32(6)
    ir_len: int = uint32(7)
    n_dynamic: int = int32(8)
    h_w_dynamic: int = int32(9)
    id: int = int32(10, -1)
    next_subnet_ids: tuple[int, ...] = numbers(11, "i")
    merge_param: MergeParam | None = table(12, MergeParam)
    switch_param: SwitchParam | None = table(13, SwitchParam)
    core_commands: tuple[CoreCommands, ...] = tables(14, CoreCommands)
    run_core: int = uint32(15)


@dataclass(frozen=True)
class NetParameter(Table):
    """A stage: one network at one size. Addresses are of the device, sizes in bytes."""

    input_tensor: tuple[Tensor, ...] = tables(0, Tensor, required=True)
    output_tensor: tuple[Tensor, ...] = tables(1, Tensor, required=True)
    ctx_addr: int = uint64(2)
    ctx_size: int = uint64(3)
    coeff_mem: CoeffMem | None = table(4, CoeffMem)
    is_dynamic: int = int32(5)
    n_dynamic: int = int32(6)
    h_w_dynamic: int = int32(7)
    cmd_group: tuple[CmdGroup, ...] = tables(8, CmdGroup)
    net_profile: Binary | None = binary(9)
    stage_ir: tuple[StageIR, ...] = tables(10, StageIR)
    binary_ir: Binary | None = binary(11)
    sub_net: tuple[SubNet, ...] = tables(12, SubNet)
    cpu_mem_size: int = uint32(13)
    ctx_sizes: tuple[int, ...] = numbers(14, "Q")
    net_stat: Binary | None = binary(15)
    core_num: int = uint32(16)
    io_addr: int = uint64(17)
    io_size: int = uint64(18)
    tensor_loc: Binary | None = binary(19)
    dynamic_ctx_addr: int = uint64(20)
    dynamic_coeff_offset: int = uint64(21)
    dynamic_combined_coeff_offset: int = uint64(22)


@dataclass(frozen=True)
class Cascade(Table):
    """Which part of a network over several devices a net is."""

    device_id: int = uint32(0)
    step: int = uint32(1)
    main_name: str = text(2)


@dataclass(frozen=True)
class Net(Table):
    """A network: a stage for every size."""

    name: str = text(0, required=True)
    parameter: tuple[NetParameter, ...] = tables(3, NetParameter)
    cascade: Cascade | None = table(4, Cascade)
    addr_mode: int = int32(5)


@dataclass(frozen=True)
class KernelModule(Table):
    """The program that the chip's own processor runs, the same for every network."""

    file_name: str = text(0, required=True)
    binary: Binary | None = binary(1, required=True)
    mode: int = int32(2)


@dataclass(frozen=True)
class CpuopModule(Table):
    """A library of layers for the host."""

    file_name: str = text(0, required=True)
    binary: Binary | None = binary(1, required=True)


@dataclass(frozen=True)
class Model(Table):
    """The root. `neuron_size` is the largest `ctx_size`; `bmodel_type` 1: one weight region."""

    type: str = text(0, required=True)
    version: str = text(1, required=True)
    time: str = text(2, required=True)
    chip: str = text(3, required=True)
    net: tuple[Net, ...] = tables(4, Net, required=True)
    neuron_size: int = uint64(5)
    kernel_module: KernelModule | None = table(6, KernelModule)
    device_num: int = uint32(7)
    cpuop_module: CpuopModule | None = table(8, CpuopModule)
    bmodel_type: int = uint32(9)
    lib_backend: Binary | None = binary(10)
