"""The contract of a family: its constants, and where the original layout keeps its parts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.architecture import (
    Architecture,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)
from converter.checkpoint import TensorInfo
from converter.families.controlnet import (
    controlnet_rules,
    home,
    infer_controlnets,
    is_controlnet,
)
from converter.families.infer_unet import infer_unet
from converter.families.rules import TensorRule
from converter.families.text import TextLayout
from converter.families.unet import UNET_PREFIX, unet_rules
from converter.families.vae import VAE_PREFIX, infer_vae, vae_decoder_rules, vae_encoder_rules


@dataclass(frozen=True)
class Family:
    """One family of checkpoints, as data.

    `text_encoders` maps component names to the layouts in use, the usual one first.
    `attention_heads` is the number at every level of the UNet (None: one per 64 channels),
    `scaling_factor` what the VAE's latents are multiplied by, `time_ids` how many sizes and crops
    the UNet is told, `prediction` what its UNets predict when no marker says other: ``epsilon``,
    or ``unknown`` where both exist.
    """

    name: str
    title: str
    text_encoders: Mapping[str, Sequence[TextLayout]]
    attention_heads: int | None
    scaling_factor: float
    time_ids: int = 0
    prediction: str = "epsilon"

    @property
    def components(self) -> tuple[str, ...]:
        """What a complete checkpoint of the family holds."""
        return (*self.text_encoders, "unet", "vae_encoder", "vae_decoder")

    def infer(self, tensors: Mapping[str, TensorInfo]) -> Architecture:
        """Read every hyper-parameter off names and shapes; parts that are missing become None."""
        text = {name: self.layout(name, tensors).infer(tensors) for name in self.text_encoders}
        return Architecture(
            family=self.name,
            unet=infer_unet(tensors, self.attention_heads, self.time_ids),
            text_encoder=text.get("text_encoder"),
            vae=infer_vae(tensors, self.scaling_factor),
            text_encoder_2=text.get("text_encoder_2"),
            controlnets=tuple(infer_controlnets(tensors, self.attention_heads, self.time_ids)),
        )

    def rules(
        self,
        component: str,
        part: UNetArchitecture | TextEncoderArchitecture | VaeArchitecture,
        names: Collection[str],
    ) -> Iterator[TensorRule]:
        """Every tensor of a component; of several spellings the one found in `names`."""
        if isinstance(part, UNetArchitecture):
            if is_controlnet(component):
                return controlnet_rules(part, home(component))
            return unet_rules(part)
        if isinstance(part, TextEncoderArchitecture):
            layout = self.layout(component, names)
            return layout.rules(part, layout.prefix(names))
        return vae_encoder_rules(part) if component == "vae_encoder" else vae_decoder_rules(part)

    def layout(self, component: str, names: Collection[str]) -> TextLayout:
        """The layout of a text encoder in a file of these tensor names."""
        layouts = self.text_encoders[component]
        return next((layout for layout in layouts if layout.is_in(names)), layouts[0])

    def prefixes(self, component: str) -> tuple[str, ...]:
        """Beginnings of the names of a component's tensors."""
        if is_controlnet(component):
            return (home(component),)
        if component in self.text_encoders:
            return tuple(p for layout in self.text_encoders[component] for p in layout.prefixes)
        return {
            "unet": (UNET_PREFIX,),
            "vae_encoder": (f"{VAE_PREFIX}encoder.", f"{VAE_PREFIX}quant_conv."),
            "vae_decoder": (f"{VAE_PREFIX}decoder.", f"{VAE_PREFIX}post_quant_conv."),
        }[component]

    @property
    def unused(self) -> tuple[str, ...]:
        """Beginnings of names that files carry and that no graph needs."""
        return tuple(
            prefix + name
            for layouts in self.text_encoders.values()
            for layout in layouts
            for prefix in layout.prefixes
            for name in layout.unused
        )
