"""The kernels between projections, as the real TPU compiler takes them. Nothing runs: facts about the programs."""

import math
import re

import pytest
import tpu_compiler

SNIPPET = """
import json, sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from vit_attn.ops.form import Form
from vit_attn.ops.norm import QKNorm
from vit_attn.ops.pallas.attention import fused

H, d, D = 6, 64, 384


def compiled(chip, h, qk_norm, batch, length):
    device = topologies.get_topology_desc(platform="tpu", topology_name=chip).devices[0]
    struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=SingleDeviceSharding(device))
    stretch, norm = (jnp.float32(-0.01), jnp.float32(1.0)), QKNorm()

    def loss(params, patches):
        x = patches @ params["embed"]
        q, k, v = ((x @ params[n] + params[n + "_bias"]).reshape(batch, length, H, d) for n in "qkv")
        out = fused(Form(h, qk_norm=qk_norm), q, k, v, jnp.full(H, 1.0 / length), stretch, norm)
        return jnp.square((x + out.reshape(batch, length, D) @ params["out"]).astype(jnp.float32)).sum()

    params = {n: struct(D, D) for n in ("embed", "q", "k", "v", "out")} | {n + "_bias": struct(D) for n in "qkv"}
    program = jax.jit(jax.grad(loss)).lower(params, struct(batch, length, D)).compile()
    return {"text": program.as_text(), "temp": program.memory_analysis().temp_size_in_bytes}


print(json.dumps([compiled(*case) for case in CASES]))
"""
CASES = [  # chip, h, qk_norm, batch, L: S/16 and S/8 at 224 pixels, S/8 at 448
    ("v5e:2x2", "relu", "head", 256, 196),
    ("v5e:2x2", "relu", "head", 32, 784),
    ("v5e:2x2", "clipped_softmax", "head", 8, 3136),
    ("v5p:2x2x1", "relu", "head", 8, 3136),
    ("v6e:2x2", "softmax", "none", 32, 784),
]


@pytest.fixture(scope="module")
def programs():
    found = tpu_compiler.run(f"CASES = {CASES!r}\n{SNIPPET}")
    return dict(zip(CASES, found, strict=True))


def arrays(text):
    """(instruction, elements) of every instruction of HLO text that gives one array."""
    for match in re.finditer(r"%([\w\-.]+) = (?:bf16|f32|s32|pred|u8)\[([\d,]+)\]", text):
        yield match[1], math.prod(int(n) for n in match[2].split(","))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_program(programs, case):
    """Two kernels, no logits in memory, and nothing of q's size copied or transposed between projections and kernels.

    copy-done ends a copy of an array as it is, ahead of its use; a fusion may read in another order without a copy.
    """
    *_, batch, length = case
    text, q_size = programs[case]["text"], batch * length * 384
    assert text.count('custom_call_target="tpu_custom_call"') == 2
    assert max(size for _, size in arrays(text)) == q_size < batch * 6 * length**2
    whole = [name for name, size in arrays(text[text.index("ENTRY") :]) if size == q_size]
    assert whole
    assert not [name for name in whole if re.search(r"copy(?!-done)|transpose|reshape|pad|concatenate", name)]
    assert programs[case]["temp"] < 10 * 2 * q_size
