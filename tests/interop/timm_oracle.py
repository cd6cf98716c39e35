"""timm's VisionTransformer.forward over its own parameter names, in float64 numpy; its GELU exact, or the tanh's."""

import math

import numpy as np

EXACT = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def forward(arrays, images, heads, gelu=tanh_gelu):
    """Logits of images [B, Y, X, 3] in [-1, 1]. Pools the CLS token where there is one, else the mean."""
    p = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    x = patches(p, images)
    if "patch_embed.norm.weight" in p:
        x = norm(p, "patch_embed.norm", x)
    if "cls_token" in p:
        cls = np.repeat(p["cls_token"], len(x), axis=0)
        whole = p["pos_embed"].shape[1] == x.shape[1] + 1
        x = np.concatenate([cls, x], 1) + p["pos_embed"] if whole else np.concatenate([cls, x + p["pos_embed"]], 1)
    else:
        x = x + p["pos_embed"]
    for index in range(1 + max(int(name.split(".")[1]) for name in p if name.startswith("blocks."))):
        b = f"blocks.{index}."
        x = x + p.get(f"{b}ls1.gamma", 1.0) * attention(p, f"{b}attn.", norm(p, f"{b}norm1", x), heads)
        hidden = gelu(linear(p, f"{b}mlp.fc1", norm(p, f"{b}norm2", x)))
        x = x + p.get(f"{b}ls2.gamma", 1.0) * linear(p, f"{b}mlp.fc2", hidden)
    x = norm(p, "norm", x)
    return linear(p, "head", x[:, 0] if "cls_token" in p else x.mean(1))


def patches(p, images):
    kernel = p["patch_embed.proj.weight"]  # [D, 3, p, p]
    side = kernel.shape[-1]
    b, rows = len(images), images.shape[1] // side
    tiles = images.astype(np.float64).reshape(b, rows, side, rows, side, 3)
    return np.einsum("briwjc,dcij->brwd", tiles, kernel).reshape(b, rows**2, -1) + p["patch_embed.proj.bias"]


def attention(p, name, x, heads):
    b, n, d = x.shape
    q, k, v = linear(p, f"{name}qkv", x).reshape(b, n, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
    if f"{name}q_norm.weight" in p:
        q, k = norm(p, f"{name}q_norm", q), norm(p, f"{name}k_norm", k)
    z = q @ k.swapaxes(-1, -2) / math.sqrt(d // heads)
    w = np.exp(z - z.max(-1, keepdims=True))
    w /= w.sum(-1, keepdims=True)
    return linear(p, f"{name}proj", (w @ v).transpose(0, 2, 1, 3).reshape(b, n, d))


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def norm(p, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[f"{name}.weight"] + p[f"{name}.bias"]
