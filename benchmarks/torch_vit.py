"""The peer in PyTorch, eager: a ViT of torch's own parts under timm's names, trained in a process of its own.

    python -m benchmarks.torch_vit FOLDER

Needs torch and numpy, no jax. FOLDER holds settings.json (Settings) and arrays.npz: the parameters by timm's names, `images`
[B, Y, X, 3] and `labels` [B]. It prints a line when it is ready; then each line that it reads is a step, answered by a line of
JSON: seconds, loss, l2_grads. The end of its input is its end.
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vit_attn.parallel.host_memory import keep_freed_memory


@dataclass(frozen=True)
class Settings:
    """Of the model and of its training: those of RunSpec. h: softmax or relu (L^-1 relu)."""

    h: str
    classes: int
    side: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    peak_lr: float
    weight_decay: float
    clip_norm: float
    betas: tuple[float, float]
    eps: float
    steps: int


class Attention(nn.Module):
    """torch's fused scaled_dot_product_attention for softmax; relu, which it has not, written out."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.h, self.heads = settings.h, settings.heads
        self.qkv = nn.Linear(settings.width, 3 * settings.width)
        self.proj = nn.Linear(settings.width, settings.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.h == "softmax":
            out = functional.scaled_dot_product_attention(q, k, v)
        else:
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            out = functional.relu(logits, inplace=True) @ v / length
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.width, settings.mlp_dim)
        self.fc2 = nn.Linear(settings.mlp_dim, settings.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(settings.width, eps=1e-6), Attention(settings)
        self.norm2, self.mlp = nn.LayerNorm(settings.width, eps=1e-6), Mlp(settings)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, settings.width, settings.patch, settings.patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class TorchViT(nn.Module):
    """Mean over tokens behind the last LayerNorm, as ours."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(settings)
        self.pos_embed = nn.Parameter(torch.zeros(1, (settings.side // settings.patch) ** 2, settings.width))
        self.blocks = nn.Sequential(*(Block(settings) for _ in range(settings.depth)))
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)
        self.head = nn.Linear(settings.width, settings.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch_embed(images) + self.pos_embed)).mean(dim=1))


class Trainer:
    """A model, its optimizer and a batch."""

    def __init__(self, settings: Settings, arrays: dict[str, Any]) -> None:
        self._settings, self._done = settings, 0
        self._images = torch.from_numpy(arrays.pop("images").transpose(0, 3, 1, 2).copy())
        self._labels = torch.from_numpy(arrays.pop("labels")).long()
        self._model = TorchViT(settings)
        self._model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
        self._optimizer = self._adamw()

    def _adamw(self) -> Any:
        """AdamW multiplies the decay by the learning rate and ours does not: here it is divided by the peak. Kernels only."""
        named = dict(self._model.named_parameters())
        kernels = [x for name, x in named.items() if name.endswith("weight") and x.ndim > 1]
        others = [x for name, x in named.items() if not (name.endswith("weight") and x.ndim > 1)]
        s = self._settings
        groups = [{"params": kernels, "weight_decay": s.weight_decay / s.peak_lr}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=s.peak_lr, betas=s.betas, eps=s.eps, fused=True)

    def step(self) -> dict[str, float]:
        """One update, as vit_attn.train.step makes it without warm-up."""
        start = time.perf_counter()
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.peak_lr * (1 + math.cos(math.pi * self._done / self._settings.steps)) / 2
        self._optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self._model(self._images), self._labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip_norm)
        self._optimizer.step()
        self._done += 1
        return {"seconds": time.perf_counter() - start, "loss": loss.item(), "l2_grads": norm.item()}


def main() -> None:
    keep_freed_memory()  # as the trainer does
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    arrays = dict(np.load(folder / "arrays.npz"))
    trainer = Trainer(Settings(**{**settings, "betas": tuple(settings["betas"])}), arrays)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    for _ in sys.stdin:
        print(json.dumps(trainer.step()), flush=True)


if __name__ == "__main__":
    main()
