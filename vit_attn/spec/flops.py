"""What the model's matrix products cost, and what share of the devices' peak a run makes of it."""

import re

from vit_attn.spec.model import ModelSpec

# Dense products in bfloat16, 1e12 FLOP/s a device as jax counts them (of TPU v2 and v3, half a chip), by `device_kind`; the
# longer name first. TPUs: cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e}. GPUs: NVIDIA's data sheets, which print the
# double for sparse matrices.
_PEAK_TFLOPS = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA GH200": 989.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA B200": 2250.0,
}


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s of one device, in bfloat16 whatever a run computes in; None where it is not known (a CPU)."""
    known = (tflops for name, tflops in _PEAK_TFLOPS.items() if re.match(rf"{re.escape(name)}\b", device_kind))
    return next((tflops * 1e12 for tflops in known), None)


def flops_per_image(model: ModelSpec) -> int:
    """Of a training step: forward, and backward as twice that. A product of [a, b] and [b, c] has 2 a b c.

    What the mathematics asks for, not what is carried out: nothing that is computed again in the backward pass counts, nor
    padding, nor the zeros of block-diagonal matrices.
    """
    return 3 * forward_flops(model)


def forward_flops(model: ModelSpec) -> int:
    """Of one image: its embedding, the encoder, the pooling and the head."""
    L, D, M = model.length, model.width, model.mlp_dim
    patches = L - (model.pool == "tok")
    embedding = 2 * patches * (3 * model.patch**2) * D
    projections, scores_and_sums, mlp = 4 * 2 * L * D * D, 2 * 2 * L * L * D, 2 * 2 * L * D * M
    block = projections + scores_and_sums + _gate(model) + mlp
    one_query = 2 * 2 * D * D + 2 * 2 * L * D * D + 2 * 2 * L * D + 2 * 2 * D * M  # query and out; key and value; ...; MLP
    pooling = one_query if model.pool == "map" else 0
    head = 2 * D * D * model.rep_size + 2 * D * model.num_classes
    return embedding + model.depth * block + pooling + head


def _gate(model: ModelSpec) -> int:
    """The kinds of ops.gate. Of linear and mlp, each head sees its own D / H channels."""
    L, D, H, hidden = model.length, model.width, model.heads, model.attention.n_hid or 0
    products = {"none": 0, "gau": D * D, "all_heads": D * H, "linear": D, "mlp": D * hidden + H * hidden}
    return 2 * L * products[model.attention.gate]


def flops_line(model: ModelSpec, batch_images: int, devices: int, device_kind: str) -> str:
    """ "27.6 GFLOPs per image, 28.2 TFLOPs per step (...); the devices' peak is ...": for the start of a run."""
    image, peak = flops_per_image(model), peak_flops(device_kind)
    known = "" if peak is None else f"; the peak of {devices} x {device_kind} is {_flops(peak * devices)}/s (bfloat16)"
    return f"{_flops(image)} per image, {_flops(image * batch_images)} per step (matrix products, forward and backward){known}"


def _flops(number: float) -> str:
    """ "27.6 GFLOPs"."""
    powers = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
    unit, letter = next((one for one in powers if number >= one[0]), (1.0, ""))
    return f"{number / unit:,.3g} {letter}FLOPs"
