"""The ordinary way, for comparison: load the UNet with diffusers in float32, export with torch.

python -m benchmarks.ordinary_export sd15.safetensors unet.onnx
"""

import sys
from pathlib import Path

import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint


def main() -> None:
    """Export the UNet of argv[1] to argv[2] at 512x512, batch 1."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    unet = UNet2DConditionModel(cross_attention_dim=768).eval()
    state = safetensors.torch.load_file(source)
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, dict(unet.config)))
    del state
    arguments = (torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 768))
    with torch.no_grad():
        program = torch.onnx.export(unet, arguments, dynamo=True)
    assert program is not None
    program.save(target, external_data=True)


if __name__ == "__main__":
    main()
