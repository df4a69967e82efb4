"""A bmodel of one stage, with bytes that are made up but hang together."""

import hashlib

from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.schema import (
    CmdGroup,
    CoeffMem,
    CoreCommands,
    KernelModule,
    Location,
    Model,
    Net,
    NetParameter,
    Shape,
    SubNet,
    Tensor,
)
from targets.sophgo.bmodel.writing import aligned, header_of

WEIGHTS_AT = 0x1_0000_0000
"""Device address of the first byte that a BM1684X gives away."""


def command(address: int) -> bytes:
    """A DMA command of a BM1684X of 96 bytes that reads from `address`; type 0 moves a tensor."""
    words = [0] * 24
    words[16], words[17] = address & 0xFFFFFFFF, address >> 32
    return b"".join(word.to_bytes(4, "little") for word in words)


def message(function: int) -> bytes:
    """A short command: 3 sends a message to other cores, 0 ends a list (of a BM1690)."""
    return b"".join(word.to_bytes(4, "little") for word in (8, function << 5 | 6, 0, 0))


def small_bmodel(
    name: str,
    width: int = 8,
    weights: dict[str, bytes] | None = None,
    net: str = "unet",
    chip: str = "BM1684X",
) -> bytes:
    """The file: `width` of its input, its packed `weights` by name, `name` in its instructions.

    For a BM1690 it is made for two cores, which do the same and whose SDMA reads a weight.
    """
    weights = {"a": b"A" * 4096, "b": b"B" * 8192} if weights is None else weights
    locations, region = [], b""
    for key, data in weights.items():
        locations.append(Location(key, len(region), len(data)))
        region += data
    address = WEIGHTS_AT + len(region)
    commands = b"".join(command(WEIGHTS_AT + at.offset) for at in locations)
    commands += command(address) + bytes(96)
    count = len(commands) // 96
    runs = {"kernel": b"kernel" * 1000, "weights": region, "bdc": name.encode() * 40}
    if chip == "BM1690":
        commands, count = message(3) + commands[:-96] + message(0), count + 1
        sdma = message(3) + command(WEIGHTS_AT + locations[-1].offset) + message(0)
        runs["sdma"] = sdma.ljust(256, b"\0")
    runs["gdma"] = commands
    content, at = b"", dict[str, Binary]()
    for key, data in runs.items():
        at[key] = Binary(len(content), len(data))
        content += data.ljust(aligned(len(data)), b"\0")
    group = CmdGroup(
        bdc_num=7,
        gdma_num=count,
        binary_bdc=at["bdc"],
        binary_gdma=at["gdma"],
        bdc_cmd_byte=at["bdc"].size,
        gdma_cmd_byte=at["gdma"].size,
    )
    shape = (Shape((1, 4, 8, width)),)
    inputs = (Tensor("sample", device_addr=address, shape=shape),)
    outputs = (Tensor("noise", device_addr=address + 4096, shape=shape),)
    groups: tuple[CmdGroup, ...] = (group,)
    cores: tuple[CoreCommands, ...] = ()
    if chip == "BM1690":
        groups, cores = (), (CoreCommands((group,), (at["sdma"],)),) * 2
    stage = NetParameter(
        inputs,
        outputs,
        ctx_addr=address,
        ctx_size=8192 * width,
        coeff_mem=CoeffMem(
            WEIGHTS_AT, hashlib.sha256(region).digest(), at["weights"], tuple(locations)
        ),
        cmd_group=groups,
        sub_net=(
            SubNet(
                0, groups, (), inputs, outputs, id=0, next_subnet_ids=(-1,), core_commands=cores
            ),
        ),
        core_num=max(1, len(cores)),
        dynamic_combined_coeff_offset=len(region),
    )
    model = Model(
        "B",
        "2.2+v1.30.2-20260831",
        "Sat Nov 21 13:59:50 2026\n",
        chip,
        (Net(net, (stage,)),),
        neuron_size=stage.ctx_size,
        kernel_module=KernelModule("kernel.so", at["kernel"]),
        device_num=1,
    )
    return header_of(model, len(content)) + content
