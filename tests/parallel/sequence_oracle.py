"""The judge of attention over devices: outputs and all gradients in numpy float64, derived by hand from the formulas."""

import math

import numpy as np

LENGTH, HEADS, WIDTH = 13, 3, 5
ALPHA = np.linspace(0.4, 1.3, HEADS)
GAMMA, ZETA, PER_LENGTH = -0.03, 1.02, 0.4
SLOPE = math.sqrt(2 / math.pi)


def tanh_part(z):
    return np.tanh(SLOPE * (z + 0.044715 * z**3))


def logistic(z):
    return 1 / (1 + np.exp(-z))


POINTWISE = {  # h and its derivative
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "gelu": (
        lambda z: z * (1 + tanh_part(z)) / 2,
        lambda z: (1 + tanh_part(z)) / 2 + z / 2 * (1 - tanh_part(z) ** 2) * SLOPE * (1 + 3 * 0.044715 * z**2),
    ),
}


def normalize(x, scale, bias):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / deviation * scale + bias


def pull_normalize(x, scale, d):
    """The gradients of x, scale and bias."""
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    unit = (x - x.mean(-1, keepdims=True)) / deviation
    dx = d * scale
    dx = (dx - dx.mean(-1, keepdims=True) - unit * (dx * unit).mean(-1, keepdims=True)) / deviation
    return dx, (d * unit).sum((0, 1, 2)), d.sum((0, 1, 2))


def weights(h, z):
    """(w, dw -> dz, the clipped softmax before clipping) of all heads, [B, H, q, k]."""
    length = z.shape[-1]
    if h in POINTWISE:
        scale = length ** -ALPHA[:, None, None]
        return scale * POINTWISE[h][0](z), lambda dw: scale * POINTWISE[h][1](z) * dw, None
    if h == "sigmoid_bias":
        w = logistic(z - math.log(length))
        return w, lambda dw: w * (1 - w) * dw, None
    top = np.maximum(z.max(-1, keepdims=True), 0 if h == "softmax1" else -np.inf)
    e = np.exp(z - top)
    p = e / (e.sum(-1, keepdims=True) + (np.exp(-top) if h == "softmax1" else 0))
    pull = lambda dp: p * (dp - (p * dp).sum(-1, keepdims=True))
    if h != "clipped_softmax":
        return p, pull, None
    gamma = GAMMA - PER_LENGTH / length
    stretched = (ZETA - gamma) * p + gamma
    inside = (stretched > 0) & (stretched < 1)
    return np.clip(stretched, 0, 1), lambda dw: pull((ZETA - gamma) * dw * inside), (p, inside)


def oracle(h, qk_norm, q, k, v, table, d_out):
    """(outputs, the gradients of q, k, v, alpha, gamma, zeta and the rows of `table`: scale and bias of q, then of k)."""
    q, k, v, table, d_out = (np.asarray(x, np.float64) for x in (q, k, v, table, d_out))
    normed = (normalize(q, *table[:2]), normalize(k, *table[2:])) if qk_norm == "head" else (q, k)
    a, b, values, d = (x.swapaxes(1, 2) for x in (*normed, v, d_out))
    w, pull, clipped = weights(h, a @ b.swapaxes(2, 3) / math.sqrt(q.shape[-1]))
    dw = d @ values.swapaxes(2, 3)
    dz = pull(dw) / math.sqrt(q.shape[-1])
    out, dq, dk, dv = (x.swapaxes(1, 2) for x in (w @ values, dz @ b, dz.swapaxes(2, 3) @ a, w.swapaxes(2, 3) @ d))
    d_alpha = -math.log(k.shape[1]) * (dw * w).sum((0, 2, 3)) * (h in POINTWISE)
    d_gamma, d_zeta = ((dw * clipped[1] * x).sum() for x in (1 - clipped[0], clipped[0])) if clipped else (0.0, 0.0)
    d_table = np.zeros_like(table)
    if qk_norm == "head":
        dq, *d_table[:2] = pull_normalize(q, table[0], dq)
        dk, *d_table[2:] = pull_normalize(k, table[2], dk)
    return out, (dq, dk, dv, d_alpha, d_gamma, d_zeta, d_table)
