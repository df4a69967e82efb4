"""A CLIP text encoder as OpenCLIP names it: SD2.x (ViT-H), SDXL's second (ViT-bigG).

Names: https://github.com/mlfoundations/open_clip, `src/open_clip/transformer.py`. Query, key and
value are one matrix of 3 x width rows (torch's `MultiheadAttention`), and the projection is
stored as the right factor of a product: transposed against a linear layer's weight.
"""

from collections.abc import Iterator, Mapping

from converter.architecture import TextEncoderArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import Place, TensorRule, extent, unneeded
from converter.families.text import TextLayout


class OpenClipLayout(TextLayout):
    """Names of OpenCLIP's `TextTransformer`, below whatever prefix."""

    probe = "token_embedding.weight"
    positions = "positional_embedding"
    layers = "transformer.resblocks."
    first_mlp = "mlp.c_fc.weight"
    unused = ("attn_mask", "logit_scale", "text_projection")

    def projection_dim(self, tensors: Mapping[str, TensorInfo], prefix: str) -> int:
        """Numbers in the projected output, 0 when it is not in the file."""
        return extent(tensors.get(f"{prefix}text_projection"), 1)

    def rules(self, arch: TextEncoderArchitecture, prefix: str) -> Iterator[TensorRule]:
        """Every tensor of the text encoder."""
        root, width = Place("", prefix), arch.hidden_size
        yield from root.at("embeddings.token_embedding", "token_embedding").weight(
            arch.vocabulary, width
        )
        yield TensorRule(
            "embeddings.position_embedding.weight",
            f"{prefix}positional_embedding",
            (arch.positions, width),
        )
        for index in range(arch.layers):
            place = root.at(f"encoder.layers.{index}", f"transformer.resblocks.{index}")
            layer = _layer(place, arch)
            yield from layer if index < arch.computed_layers else unneeded(layer)
        norm = root.at("final_layer_norm", "ln_final").weight_and_bias(width)
        yield from norm if arch.norm_is_computed else unneeded(norm)
        if arch.projection_dim:
            yield TensorRule(
                "text_projection.weight",
                f"{prefix}text_projection",
                (arch.projection_dim, width),
                transposed=True,
            )


def _layer(layer: Place, arch: TextEncoderArchitecture) -> Iterator[TensorRule]:
    width = arch.hidden_size
    attention = layer.at("self_attn", "attn")
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind, shape in (("weight", (width, width)), ("bias", (width,))):
            source = f"{attention.source}in_proj_{kind}"
            yield TensorRule(f"{attention.name}{name}.{kind}", source, shape, part=(index, 3))
    yield from attention.at("out_proj").weight_and_bias(width, width)
    yield from layer.at("layer_norm1", "ln_1").weight_and_bias(width)
    yield from layer.at("layer_norm2", "ln_2").weight_and_bias(width)
    yield from layer.at("mlp.fc1", "mlp.c_fc").weight_and_bias(arch.intermediate_size, width)
    yield from layer.at("mlp.fc2", "mlp.c_proj").weight_and_bias(width, arch.intermediate_size)
