"""A CLIP text encoder as transformers names it: SD1.x, SDXL's first; any in diffusers folders."""

from collections.abc import Iterator, Mapping

from converter.architecture import TextEncoderArchitecture
from converter.checkpoint import TensorInfo
from converter.families.rules import Place, TensorRule, extent, unneeded
from converter.families.text import TextLayout


class ClipLayout(TextLayout):
    """Names of `transformers.CLIPTextModel`, below whatever prefix.

    The projection stands beside ``text_model.``, as in `CLIPTextModelWithProjection`.
    """

    probe = "embeddings.token_embedding.weight"
    positions = "embeddings.position_embedding.weight"
    layers = "encoder.layers."
    first_mlp = "mlp.fc1.weight"
    unused = ("embeddings.position_ids", "text_projection.")

    def projection_dim(self, tensors: Mapping[str, TensorInfo], prefix: str) -> int:
        """Numbers in the projected output, 0 when it is not in the file."""
        return extent(tensors.get(_projection(prefix)), 0)

    def rules(self, arch: TextEncoderArchitecture, prefix: str) -> Iterator[TensorRule]:
        """Every tensor of the text encoder."""
        root, width = Place("", prefix), arch.hidden_size
        yield from root.at("embeddings.token_embedding").weight(arch.vocabulary, width)
        yield from root.at("embeddings.position_embedding").weight(arch.positions, width)
        for index in range(arch.layers):
            layer = _layer(root.at(f"encoder.layers.{index}"), arch)
            yield from layer if index < arch.computed_layers else unneeded(layer)
        norm = root.at("final_layer_norm").weight_and_bias(width)
        yield from norm if arch.norm_is_computed else unneeded(norm)
        if arch.projection_dim:
            shape = (arch.projection_dim, width)
            yield TensorRule("text_projection.weight", _projection(prefix), shape)


def _projection(prefix: str) -> str:
    return f"{prefix.removesuffix('text_model.')}text_projection.weight"


def _layer(layer: Place, arch: TextEncoderArchitecture) -> Iterator[TensorRule]:
    width = arch.hidden_size
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield from layer.at(f"self_attn.{name}").weight_and_bias(width, width)
    for name in ("layer_norm1", "layer_norm2"):
        yield from layer.at(name).weight_and_bias(width)
    yield from layer.at("mlp.fc1").weight_and_bias(arch.intermediate_size, width)
    yield from layer.at("mlp.fc2").weight_and_bias(width, arch.intermediate_size)
