"""The traceable torch module of each component: what a template is traced from, and the reference.

State-dict names are the names of the graph's weights. `forward` takes and returns the ports of
`converter.components.interface`, in that order. Needs the `torch` extra.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.architecture import (
    CLIP_VOCABULARY,
    Architecture,
    TextEncoderArchitecture,
    VaeArchitecture,
)
from converter.components import part
from converter.controlnet_module import controlnet_module
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.profiles import get_profile
from converter.unet_module import embedded_module, unet_module
from passes.weights import TRANSPOSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from converter.bundle import Bundle
    from converter.weights import Array, WeightSource


LISTED = 8
"""How many offenders an error names."""


def require_torch(purpose: str) -> None:
    """Raise InputError, saying what to install, when the torch extra is missing."""
    for package in ("torch", "diffusers", "transformers", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{purpose} needs {package}, which is not installed: "
                "pip install torch==2.13.0 && pip install 'sdconv[torch]'"
            )


def build_module(
    component: str, architecture: Architecture, *, residual_ports: bool
) -> torch.nn.Module:
    """Build the module with parameters on the meta device (no storage); buffers are real."""
    require_torch(f"building the {component}")
    from accelerate import init_empty_weights

    described = part(architecture, component)
    with init_empty_weights(include_buffers=False):
        if isinstance(described, TextEncoderArchitecture):
            module = _text_encoder(described)
        elif isinstance(described, VaeArchitecture):
            module = _vae_half(described, encoder=component == "vae_encoder")
        elif described is None:
            raise InputError(f"no module for component {component!r} of {architecture.family}")
        elif is_controlnet(component):
            module = controlnet_module(described)
        else:
            module = unet_module(described, residual_ports=residual_ports)
    return module.eval().requires_grad_(requires_grad=False)


def load_module(bundle: Bundle, component: str) -> torch.nn.Module:
    """Return the component's torch module with the bundle's weights, memory-mapped, float32.

    It takes its inputs in the order of the bundle's interface.
    """
    architecture = Architecture.from_json(bundle.architecture)
    profile = get_profile(bundle.profile)
    ports = profile.residual_ports(architecture)
    module = build_module(component, architecture, residual_ports=ports)
    fill_module(module, bundle.weights(component))
    canonical = profile.canonical(component, architecture)
    if profile.fed(component, architecture):
        return embedded_module(module)
    order = list(profile.inputs(component, canonical))
    names = [port.name for port in canonical.inputs]
    return module if order == names else _reordered(module, [order.index(name) for name in names])


def _reordered(module: torch.nn.Module, places: Sequence[int]) -> torch.nn.Module:
    """The module with other positions: its argument i is the one at `places[i]`."""
    import torch

    class Reordered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.module(*(inputs[place] for place in places))

    return Reordered().eval()


def fill_module(module: torch.nn.Module, weights: WeightSource) -> None:
    """Point every parameter of a meta module into `weights`; copy only what is not fp32.

    Raises InputError, naming the offenders, unless names and shapes fit in both directions. A
    graph may hold a norm's scale as [C, 1, 1] to multiply by it: extents of 1 do not count.
    """
    tensors = dict(_tensor(name, weights.read(name)) for name in weights.names())
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    offenders = [f"{name} is missing" for name in wanted if name not in tensors]
    offenders += [f"{name} has no place in the module" for name in tensors if name not in wanted]
    offenders += [
        f"{name} is {list(tensor.shape)} where {list(wanted[name])} was expected"
        for name, tensor in tensors.items()
        if name in wanted and _without_ones(tensor.shape) != _without_ones(wanted[name])
    ]
    if offenders:
        shown = "; ".join(offenders[:LISTED]) + ("; ..." if len(offenders) > LISTED else "")
        raise InputError(
            f"{len(offenders)} weights do not fit the torch module: {shown}: "
            "export the bundle again"
        )
    module.load_state_dict(
        {name: tensor.reshape(wanted[name]) for name, tensor in tensors.items()}, assign=True
    )
    module.requires_grad_(requires_grad=False)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [extent for extent in shape if extent != 1]


def _tensor(name: str, array: Array) -> tuple[str, torch.Tensor]:
    """One weight under the module's name and in its orientation."""
    import torch

    with warnings.catch_warnings():
        # The file is mapped read-only, and inference writes to no weight.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array.astype(np.float32, copy=False))
    if name.endswith(TRANSPOSED):
        return name.removesuffix(TRANSPOSED), tensor.T
    return name, tensor


def _text_encoder(arch: TextEncoderArchitecture) -> torch.nn.Module:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    class TextEncoder(CLIPTextModel):  # type: ignore[no-untyped-call]
        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if not arch.gives_more:
                out = super().forward(input_ids=input_ids)
                if not arch.final_norm:
                    return (out.last_hidden_state,)
                return out.last_hidden_state, out.pooler_output
            out = super().forward(input_ids=input_ids, output_hidden_states=True)
            hidden = out.hidden_states[-1 - arch.clip_skip]
            if arch.last_state:
                return hidden, out.last_hidden_state
            if arch.pooled:
                return hidden, out.pooler_output
            return hidden, self.get_submodule("text_projection")(out.pooler_output)

    config = CLIPTextConfig(
        vocab_size=arch.vocabulary,
        hidden_size=arch.hidden_size,
        intermediate_size=arch.intermediate_size,
        num_hidden_layers=arch.computed_layers,
        num_attention_heads=arch.heads,
        max_position_embeddings=arch.positions,
        hidden_act=arch.activation,
        # With 2 the pooled vector is taken at the highest token id, which is the first EOS
        # unless ids stand behind CLIP's own: then EOS itself is looked for.
        bos_token_id=0,
        eos_token_id=2 if arch.vocabulary <= CLIP_VOCABULARY else CLIP_VOCABULARY - 1,
    )
    # The default attention guards against fully masked rows with IsNaN and Where, which
    # accelerator compilers refuse; a causal mask has no such row.
    config._attn_implementation = "eager"
    module = TextEncoder(config)
    if not arch.norm_is_computed:
        module.add_module("final_layer_norm", torch.nn.Identity())
    if arch.projection_dim:
        projection = torch.nn.Linear(arch.hidden_size, arch.projection_dim, bias=False)
        module.add_module("text_projection", projection)
    return module


def _vae_half(arch: VaeArchitecture, *, encoder: bool) -> torch.nn.Module:
    import torch
    from diffusers import AutoencoderKL

    levels = len(arch.block_channels)
    vae = AutoencoderKL(
        block_out_channels=arch.block_channels,
        layers_per_block=arch.layers_per_block,
        latent_channels=arch.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )

    class VaeEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            return self.quant_conv(self.encoder(sample))  # type: ignore[no-any-return]

    class VaeDecoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

        def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.post_quant_conv(latent_sample))  # type: ignore[no-any-return]

    return VaeEncoder() if encoder else VaeDecoder()
