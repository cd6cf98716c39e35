"""PyTorch in a process of its own, which may have another interpreter: what it is to do goes in line by line."""

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.process import ROOT
from vit_attn.interop.flat import flattened
from vit_attn.interop.timm import to_timm
from vit_attn.spec.run import RunSpec
from vit_attn.train.step import Examples


class TorchProcess:
    """`python -m MODULE ARGUMENTS`, as a context. `about`: the first line that it prints."""

    def __init__(self, python: str, module: str, *arguments: str) -> None:
        """RuntimeError if it does not start."""
        command = [python, "-m", module, *arguments]
        self._name = module
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = self._answer()

    def ask(self, question: str) -> dict[str, float]:
        """Its answer, a line of JSON. RuntimeError if it has ended."""
        print(question, file=self._process.stdin, flush=True)
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}: what it said is above")
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class TorchRunner(TorchProcess):
    """benchmarks/torch_vit.py, with these parameters and this batch."""

    def __init__(self, python: str, spec: RunSpec, params: Any, examples: Examples) -> None:
        with tempfile.TemporaryDirectory() as name:  # it has read all when it says its first line
            _write(Path(name), spec, params, examples)
            super().__init__(python, "benchmarks.torch_vit", name)

    def step(self) -> dict[str, float]:
        """One update: seconds, loss, l2_grads."""
        return self.ask("step")


def _write(folder: Path, spec: RunSpec, params: Any, examples: Examples) -> None:
    """What torch_vit reads. The names of timm's parameters do not depend on h."""
    m, t = spec.model, spec.train
    settings = {name: getattr(m, name) for name in ("patch", "width", "depth", "heads", "mlp_dim")}
    settings |= {name: getattr(t, name) for name in ("peak_lr", "weight_decay", "clip_norm", "steps")}
    settings |= {"h": m.attention.h, "classes": m.num_classes, "side": m.image_size}
    settings |= {"betas": [t.adam_b1, t.adam_b2], "eps": t.adam_eps}
    (folder / "settings.json").write_text(json.dumps(settings))
    softmax = dataclasses.replace(m.attention, h="softmax", alpha=None)
    arrays: dict[str, Any] = to_timm(dataclasses.replace(m, attention=softmax), flattened(params), "the parameters")
    arrays |= {"images": np.asarray(examples.images), "labels": np.asarray(examples.labels[:, 0])}
    np.savez(folder / "arrays.npz", **arrays)
