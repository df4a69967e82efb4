"""Interface profiles: which consumer an artifact must run in unchanged, as data."""

from converter.architecture import CONTROLNET
from converter.components import END_STATE, LAST_STATE, PENULTIMATE_STATE, POOLED
from converter.errors import InputError
from converter.interface_profile import (
    ComponentProfile,
    Deployment,
    InterfaceProfile,
    OwnSampling,
)
from converter.sizes import Size

_UNET_AND_VAE = {
    "unet": ComponentProfile(outputs={"out_sample": "noise_pred"}),
    "vae_encoder": ComponentProfile(
        inputs={"sample": "image"}, outputs={"latent_parameters": "moments"}
    ),
    "vae_decoder": ComponentProfile(
        inputs={"latent_sample": "latent"}, outputs={"sample": "image"}
    ),
}
"""Names that no consumer on a Sophgo chip looks at: they bind by position."""

SD_LCM_TPU = InterfaceProfile(
    name="sd-lcm-tpu",
    consumer="SD1.5 hosts on Sophgo BM1684X: binds by position, reads output 0, knows no int64",
    always_residual_ports=True,
    target="bm1684x",
    deployments={
        ("sd15", True): Deployment(
            {
                "text_encoder": "sdv15_text",
                "unet": "sdv15_unet_multisize",
                "vae_decoder": "sdv15_vd_multisize",
                "vae_encoder": "sdv15_ve_multisize",
                CONTROLNET: "sdv15_cn_multisize",
            },
            Size(512, 512),
        )
    },
    components={
        "text_encoder": ComponentProfile(
            inputs={"input_ids": "tokens"}, outputs={LAST_STATE: LAST_STATE}
        ),
        CONTROLNET: ComponentProfile(
            inputs={"controlnet_cond": "image"},
            order=("sample", "encoder_hidden_states", "controlnet_cond", "timestep"),
        ),
        **_UNET_AND_VAE,
    },
)

SOPHON_DEMO = InterfaceProfile(
    name="sophon-demo",
    consumer="Sophgo's own demos of SD1.5 and SDXL on BM1684X: both halves of guidance in one run",
    always_residual_ports=False,
    target="bm1684x",
    batch=2,
    precisions={
        "text_encoder": "f32",
        "text_encoder_2": "f16",
        "unet": "bf16",
        CONTROLNET: "bf16",
        "vae_encoder": "bf16",
        "vae_decoder": "bf16",
    },
    deployments={
        # https://github.com/sophgo/sophon-demo, sample/StableDiffusionV1_5 and StableDiffusionXL:
        # names below its models/BM1684X. Those of SD1.5 say f16 of what its scripts make in BF16.
        ("sd15", False): Deployment(
            {
                "text_encoder": "singlize/text_encoder_1684x_f32",
                "unet": "singlize/unet_1684x_f16",
                "vae_decoder": "singlize/vae_decoder_1684x_f16",
                "vae_encoder": "singlize/vae_encoder_1684x_f16",
            },
            Size(512, 512),
        ),
        ("sd15", True): Deployment(
            {
                "text_encoder": "multilize/text_encoder_1684x_f32",
                "unet": "multilize/unet_multize",
                "vae_decoder": "multilize/vae_decoder_multize",
                "vae_encoder": "multilize/vae_encoder_multize",
                CONTROLNET: "controlnets/controlnet_fp16",
            },
            Size(512, 512),
        ),
        ("sdxl", False): Deployment(
            {
                "text_encoder": "text_encoder_1_1684x_f32",
                "text_encoder_2": "text_encoder_2_1684x_f16",
                "unet": "unet_base_1684x_bf16",
                "vae_decoder": "vae_decoder_1684x_bf16",
                "vae_encoder": "vae_encoder_1684x_bf16",
            },
            Size(1024, 1024),
        ),
    },
    components={
        # SDXL's loop takes output 1 of both as the hidden state, and output 0 of the second alone.
        "text_encoder": ComponentProfile(
            inputs={"input_ids": "tokens"},
            outputs={LAST_STATE: LAST_STATE, PENULTIMATE_STATE: PENULTIMATE_STATE},
        ),
        "text_encoder_2": ComponentProfile(
            inputs={"input_ids": "tokens"},
            outputs={POOLED: POOLED, PENULTIMATE_STATE: PENULTIMATE_STATE},
        ),
        CONTROLNET: ComponentProfile(inputs={"controlnet_cond": "image"}),
        **_UNET_AND_VAE,
    },
)

DIFFUSERS = InterfaceProfile(
    name="diffusers",
    consumer="ONNX Runtime pipelines of diffusers and Optimum: binds by name",
    always_residual_ports=False,
    components={
        "text_encoder": ComponentProfile(dtypes={"input_ids": "int64"}),
        "text_encoder_2": ComponentProfile(dtypes={"input_ids": "int64"}),
    },
)

MNN = InterfaceProfile(
    name="mnn",
    consumer="MNN's own diffusion engine, 3.6.1: 512x512, both halves of guidance in one run",
    always_residual_ports=False,
    target="mnn",
    batch=2,
    batches={"text_encoder": 2},
    padding={"text_encoder": 0},
    sampling=OwnSampling(
        "plms", 20, 7.5, "libstdc++", "MNN's diffusion engine draws so, with any number of steps"
    ),
    # The engine loads everything in memory mode low: on a CPU 8-bit activations with 8-bit weights.
    precisions={"text_encoder": "w8a8", "unet": "w8a8", "vae_decoder": "f16"},
    deployments={
        # https://github.com/alibaba/MNN, tag 3.6.1, transformers/diffusion/engine/src/
        # stable_diffusion.cpp, `load`; it has no use for a VAE encoder.
        ("sd15", False): Deployment(
            {"text_encoder": "text_encoder", "unet": "unet", "vae_decoder": "vae_decoder"},
            Size(512, 512),
            only=True,
        ),
    },
    components={"unet": ComponentProfile(dtypes={"timestep": "int32"})},
)

ADRENO = InterfaceProfile(
    name="adreno",
    consumer="phones with an Adreno GPU: text encoders run by MNN, embeddings on the host, both "
    "halves of guidance one by one",
    always_residual_ports=False,
    target="adreno-clml",
    kinds=("text_encoder", "text_encoder_2", "unet", "vae_decoder"),
    precisions={"text_encoder": "w8", "text_encoder_2": "w8"},
    embedded=True,
    deployments={
        ("sd15", False): Deployment({}, Size(512, 512)),
        ("sdxl", False): Deployment({}, Size(1024, 1024)),
    },
    components={
        kind: ComponentProfile(
            outputs={
                # One of these, whichever the UNet takes.
                LAST_STATE: LAST_STATE,
                PENULTIMATE_STATE: LAST_STATE,
                END_STATE: "pooled_output",
                POOLED: "pooled_output",
            }
        )
        for kind in ("text_encoder", "text_encoder_2")
    },
)

PROFILES = {profile.name: profile for profile in (SD_LCM_TPU, SOPHON_DEMO, DIFFUSERS, MNN, ADRENO)}


def get_profile(name: str) -> InterfaceProfile:
    """The profile of that name; raises InputError listing what exists."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
