"""benchmarks/torch_vit.py as a process beside this one: parameters and a batch go in, steps are asked for one by one."""

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.process import ROOT
from vit_attn.interop.flat import flattened
from vit_attn.interop.timm import to_timm
from vit_attn.spec.run import RunSpec
from vit_attn.train.step import Examples


class TorchRunner:
    """A context: the process lives as long as it."""

    def __init__(self, python: str, spec: RunSpec, params: Any, examples: Examples) -> None:
        """RuntimeError if the process does not start, with what it said."""
        self._folder = tempfile.TemporaryDirectory()
        _write(Path(self._folder.name), spec, params, examples)
        command = [python, "-m", "benchmarks.torch_vit", self._folder.name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
        self.version = self._answer()

    def step(self) -> dict[str, float]:
        """seconds, loss, l2_grads: as the process itself has them."""
        print("step", file=self._process.stdin, flush=True)
        return json.loads(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"benchmarks.torch_vit ended with {self._process.wait()}: see its output above")
        return line.strip()

    def __enter__(self) -> "TorchRunner":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def _write(folder: Path, spec: RunSpec, params: Any, examples: Examples) -> None:
    """What torch_vit reads. The names of timm's parameters do not depend on h."""
    m, t = spec.model, spec.train
    settings = {name: getattr(m, name) for name in ("patch", "width", "depth", "heads", "mlp_dim")}
    settings |= {name: getattr(t, name) for name in ("peak_lr", "weight_decay", "clip_norm", "steps")}
    settings |= {"h": m.attention.h, "classes": m.num_classes, "side": m.image_size}
    settings |= {"betas": [t.adam_b1, t.adam_b2], "eps": t.adam_eps}
    (folder / "settings.json").write_text(json.dumps(settings))
    plain = dataclasses.replace(m, attention=dataclasses.replace(m.attention, h="softmax"))
    arrays = to_timm(plain, flattened(params), "the parameters")
    np.savez(folder / "arrays.npz", **arrays, images=np.asarray(examples.images), labels=np.asarray(examples.labels[:, 0]))
