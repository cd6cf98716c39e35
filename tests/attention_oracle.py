"""Attention in numpy float64, written from the formulas of arXiv:2309.08586 and arXiv:2306.12929: the judge of every form."""

import math

import numpy as np

POINTWISE = {
    "relu": lambda z: np.maximum(z, 0),
    "relu2": lambda z: np.maximum(z, 0) ** 2,
    "gelu": lambda z: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "softplus": lambda z: np.logaddexp(0, z),
    "identity": lambda z: z,
    "relu6": lambda z: np.clip(z, 0, 6),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}
FORMS = [*POINTWISE, "sigmoid_bias", "softmax", "softmax1", "clipped_softmax"]
NUMBERS = {"alpha": 0.7, "gamma": -0.04, "zeta": 1.03}


def float64(tree):
    """Nested dictionaries of arrays -> of float64 arrays."""
    if isinstance(tree, dict):
        return {key: float64(value) for key, value in tree.items()}
    return np.asarray(tree, np.float64)


def weights(h, z, alpha=0.0, gamma=0.0, zeta=1.0):
    """[..., q, k] -> [..., q, k]; L is the number of keys."""
    length = z.shape[-1]
    if h == "sigmoid_bias":
        return POINTWISE["sigmoid"](z - math.log(length))
    if h in POINTWISE:
        return np.asarray(length ** -np.asarray(alpha)) * POINTWISE[h](z)
    e = np.exp(z - z.max(-1, keepdims=True))
    zero = np.exp(-z.max(-1, keepdims=True)) if h == "softmax1" else 0.0
    p = e / (e.sum(-1, keepdims=True) + zero)
    return np.clip((zeta - gamma) * p + gamma, 0, 1) if h == "clipped_softmax" else p


def attend(h, q, k, v, alpha=0.0, gamma=0.0, zeta=1.0):
    """[B, L, H, d] -> [B, L, H, d], a head at a time. alpha: a number, or one a head."""
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for head in range(q.shape[2]):
        z = q[:, :, head] @ k[:, :, head].swapaxes(1, 2) / math.sqrt(q.shape[-1])
        of_head = alpha[head] if np.ndim(alpha) else alpha
        out[:, :, head] = weights(h, z, of_head, gamma, zeta) @ v[:, :, head]
    return out


def layer_norm(x, axes, params):
    """flax's: eps 1e-6 inside the root, the biased variance."""
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-6)
    return y * params.get("scale", 1.0) + params.get("bias", 0.0)


def gate(kind, params, x, shape):
    """What multiplies the output: [B, L, H, d] for gau, [B, L, H, 1] for the others."""
    batch, length, heads, d = shape
    dense = params["dense"]
    if kind == "gau":
        logits = np.einsum("bld,dhe->blhe", x, dense["kernel"]) + dense["bias"]
        return logits / (1 + np.exp(-logits))
    if kind == "all_heads":
        logits = x @ dense["kernel"][0] + dense["bias"][0]
    else:
        own = x.reshape(batch, length, heads, d)
        if kind == "mlp":
            own = np.maximum(np.einsum("blhd,hde->blhe", own, params["hidden"]["kernel"]) + params["hidden"]["bias"], 0)
        logits = np.einsum("blhe,heg->blhg", own, dense["kernel"])[..., 0] + dense["bias"][..., 0]
    return (1 / (1 + np.exp(-logits)))[..., None]


def attention(spec, params, x, numbers):
    """The whole module on [B, L, D]: projections, qk-layernorm, weights, gate, output projection."""
    q, k, v = (np.einsum("bld,dhe->blhe", x, params[n]["kernel"]) + params[n]["bias"] for n in ("query", "key", "value"))
    if spec.qk_norm != "none":
        axes = (-1,) if spec.qk_norm == "head" else (-2, -1)
        q, k = layer_norm(q, axes, params.get("query_ln", {})), layer_norm(k, axes, params.get("key_ln", {}))
    numbers = {**numbers, "alpha": params.get("alpha", numbers["alpha"])}
    out = attend(spec.h, q, k, v, **numbers)
    if spec.gate != "none":
        out = out * gate(spec.gate, params["gate"], x, out.shape)
    return np.einsum("blhe,hed->bld", out, params["out"]["kernel"]) + params["out"]["bias"]


def slope(function, inputs, key, direction, step=1e-7):
    """d function(inputs) / d inputs[key] along `direction`, by central differences; exact to about 1e-8, at kinks too."""
    ends = [function({**inputs, key: inputs[key] + sign * step * direction}) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)
