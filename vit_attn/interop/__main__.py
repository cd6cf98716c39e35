"""Weights in and out: big_vision's and AugReg's .npz, timm's .safetensors, and programs in StableHLO.

    python -m vit_attn.interop import --from S_16.npz --workdir runs/s16
    python -m vit_attn.interop import --from S_16.npz --workdir runs/s16 --config configs/vit_s16_i1k.py:qk_norm=none
    python -m vit_attn.interop export runs/one --to one.safetensors
    python -m vit_attn.interop export runs/one --to one.stablehlo --images float32

An import makes a run whose checkpoint of step 0 has the file's parameters: train it on with `vit_attn.main --run`, or look at
its attention. The model is what the file's names and shapes say; with --config it is the config's, and the file has to fit.
--config.KEY=VALUE overrides any setting. An export takes the newest good checkpoint. What the format's own models do not
compute (another h, a gate, ...) is refused; .stablehlo takes every model. Images are numbers in [-1, 1]: a file from a model
that was trained on others has to be adapted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epy

from vit_attn.spec.errors import UserError, exit_code_of, unknown
from vit_attn.spec.flags import Flags
from vit_attn.spec.load import split_overrides

with epy.lazy_imports():  # so that --help and mistakes do not wait for jax
    from vit_attn.interop import flat as parameters
    from vit_attn.interop import formats, new_run, stablehlo, timm
    from vit_attn.interop import run as runs

COMMANDS = ("import", "export")


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for a mistake, before anything is created."""
    words, overrides = split_overrides(argv)
    flags = _flags().parse_args(words)
    if flags.command == "import":
        return _import(flags, overrides)
    if flags.command == "export":
        if overrides:
            raise UserError(f"export takes a run as it is: it goes with none of --config.{next(iter(overrides))}")
        return _export(flags)
    raise unknown("the command", flags.command, COMMANDS)


def _flags() -> Flags:
    parser = Flags("vit_attn.interop", __doc__)
    parser.add_argument("command", metavar="import|export")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN_DIR", help="export: the run, which has saved a checkpoint")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="import: .npz or .safetensors")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="import: where the run is to live")
    parser.add_argument("--config", metavar="FILE[:KEY=VALUE,...]", help="import: the run's config; default: fits the file")
    parser.add_argument("--to", type=Path, metavar="FILE", help="export: .npz, .safetensors or .stablehlo")
    parser.add_argument("--step", type=int, metavar="N", help="export: this checkpoint and not the newest")
    parser.add_argument("--format", metavar="big_vision|timm", help="whose names; default: .npz big_vision, .safetensors timm")
    parser.add_argument("--images", metavar="uint8|float32", help="export to .stablehlo: what it takes; default: uint8")
    return parser


def _import(flags: argparse.Namespace, overrides: dict[str, object]) -> int:
    _refuse(flags, "import", run="RUN_DIR", to="--to", step="--step", images="--images")
    if flags.source is None or flags.workdir is None:
        raise UserError("import needs --from=FILE and --workdir=DIR")
    formats.format_of(flags.source, flags.format, "--from")
    spec = new_run.import_run(flags.source, flags.workdir, flags.config, overrides, flags.format)
    model = spec.model
    print(
        f"{flags.workdir}: {model.variant}, {model.depth} blocks of width {model.width}, {model.heads} heads, "
        f"{model.image_size} pixels, {model.num_classes} classes, pool {model.pool}, qk_norm {model.attention.qk_norm}"
    )
    if formats.format_of(flags.source, flags.format, "--from") == "timm":
        print('note: GELU is the tanh approximation here; logits are those of timm with act_layer="gelu_tanh"')
    return 0


def _export(flags: argparse.Namespace) -> int:
    _refuse(flags, "export", source="--from", workdir="--workdir", config="--config")
    if flags.run is None or flags.to is None:
        raise UserError("export needs a RUN_DIR and --to=FILE")
    if not flags.to.absolute().parent.is_dir():
        raise UserError(f"--to={flags.to}: the directory {flags.to.parent} does not exist")
    whole = flags.to.suffix == ".stablehlo"
    if flags.images is not None and not whole:
        raise UserError(f"--images={flags.images} is for --to=FILE.stablehlo: other files hold parameters only")
    if whole and flags.images not in (None, *stablehlo.IMAGES):
        raise unknown("--images: the value", flags.images, stablehlo.IMAGES)
    if whole and flags.format is not None:
        raise UserError(f"--format={flags.format} is for parameters, and --to={flags.to} is a program")
    if not whole:
        _check_suffix(flags.to, flags.format)
    run = runs.load_run(flags.run, step=flags.step)
    if whole:
        stablehlo.write_stablehlo(flags.to, run, flags.images or "uint8")
    else:
        formats.write(flags.to, flags.format, run.spec.model, parameters.flattened(run.params))
    print(f"wrote {flags.to}: {flags.run}, step {run.step}")
    if not whole and formats.format_of(flags.to, flags.format, "--to") == "timm":
        words = ", ".join(f"{name}={value!r}" for name, value in timm.arguments(run.spec.model).items())
        print(f"its network in timm: VisionTransformer({words}), for images in [-1, 1]")
    return 0


def _check_suffix(path: Path, form: str | None) -> None:
    if path.suffix not in formats.FORMATS:
        raise UserError(f"--to={path}: the name must end in .npz, .safetensors or .stablehlo")
    formats.format_of(path, form, "--to")


def _refuse(flags: argparse.Namespace, command: str, **others: str) -> None:
    """The flags of the other command."""
    for name, shown in others.items():
        if getattr(flags, name) is not None:
            raise UserError(f"{command} goes without {shown}")


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
