"""Why 1/L: the mean and standard deviation of attention weights at initialisation, for each h and alpha, against L.

python -m vit_attn.analysis.init_scale
python -m vit_attn.analysis.init_scale --h relu,softmax --alpha 0.9,1,1.1 --L 196,784 --qk-norm none --seeds 10

Nothing is trained. Queries and keys are those of a ViT-S that has just been initialised: LayerNorm of random projections of
random tokens (vit_attn/analysis/initial_weights.py has the recipe). Softmax's mean weight is 1/L; that of L^-alpha * h goes
with 1/L at alpha = 1 only: mean * L goes with L^(1 - alpha). Writes init_scale.csv, init_scale.png and init_scale.svg.
"""

import csv
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.table import Table

from vit_attn.analysis.initial_weights import InitialWeights, by_curve, measure, slope
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import UserError, exit_code_of, unknown
from vit_attn.spec.flags import Flags

HS = ("softmax", *POINTWISE, "sigmoid_bias")
ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)
LENGTHS = (49, 196, 784, 3136)  # 224 pixels in patches of 32, 16, 8 and 4
MOST_KEYS = 2**17  # a token takes 6 KiB
MOST_ALPHA = 4.0  # beyond, squares of weights leave float32
Value = TypeVar("Value")


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for a wrong flag, before anything is computed or created."""
    flags = _flags().parse_args(argv)
    hs = _values(flags.h, _name)
    alphas = _values(flags.alpha, _alpha)
    lengths = sorted(_values(flags.L, lambda text: _whole("--L", text, MOST_KEYS)))
    seeds = _whole("--seeds", flags.seeds, 1000)
    if flags.qk_norm not in ("head", "width", "none"):
        raise unknown("--qk-norm: the value", flags.qk_norm, ("head", "width", "none"))
    _refuse_files(flags.out)

    from vit_attn.analysis.init_figure import pictures  # here: a wrong flag is told before matplotlib is loaded

    rows = measure(hs, alphas, lengths, seeds, flags.qk_norm)
    drawn = pictures(rows)
    _write(flags.out, rows, drawn, flags.qk_norm, seeds)
    wide_console().print(table(rows, flags.qk_norm, seeds))
    print(f"wrote {', '.join(f'init_scale.{kind}' for kind in ('csv', *drawn))} to {flags.out}")
    return 0


def _flags() -> Flags:
    parser = Flags("vit_attn.analysis.init_scale", __doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/init_scale"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--h", default=",".join(HS), help="default: %(default)s")
    parser.add_argument("--alpha", default=_joined(ALPHAS), help="default: %(default)s")
    parser.add_argument("--L", default=_joined(LENGTHS), help="numbers of keys; default: %(default)s")
    parser.add_argument("--seeds", default="3", metavar="N", help="draws of tokens and projections; default: %(default)s")
    parser.add_argument("--qk-norm", default="head", help="head, width or none; default: %(default)s")
    return parser


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _values(text: str, read: Callable[[str], Value]) -> list[Value]:
    """The values between commas, each once."""
    return list(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def _name(text: str) -> str:
    if text not in NONLINEARITY:
        raise unknown("--h: the name", text, NONLINEARITY)
    return text


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not abs(alpha) <= MOST_ALPHA:
        raise UserError(f"--alpha: {text!r} is not a number from {-MOST_ALPHA:g} to {MOST_ALPHA:g}")
    return alpha


def _whole(flag: str, text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise UserError(f"{flag}: {text!r} is not a whole number from 1 to {most}")
    return int(text)


def _refuse_files(out: Path) -> None:
    """A UserError if a file is where `out` or a directory above it should be."""
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise UserError(f"--out={out}: {path} is a file, not a directory")
            return


def table(rows: Sequence[InitialWeights], qk_norm: str, seeds: int) -> Table:
    """A line for each h and alpha: mean and standard deviation times L at each L, and the slope of the former."""
    deviations = {row.length: row.logit_std for row in rows}
    stds = ", ".join(f"{std:.3f} at L = {length}" for length, std in deviations.items())
    title = f"attention weights at initialisation, qk-layernorm {qk_norm}, {seeds} seeds\nstd of the logits: {stds}"
    result = Table(title=title, box=box.SIMPLE_HEAD, header_style="bold")
    heads = [*(f"mean*L\nL={length}" for length in deviations), *(f"std*L\nL={length}" for length in deviations)]
    result.add_column("h")
    for head in ("alpha", *heads, "slope of\nmean*L"):
        result.add_column(head, justify="right", no_wrap=True)
    before = rows[0].h
    for (h, alpha), of in by_curve(rows).items():
        if h != before:
            result.add_section()
            before = h
        cells = [*(f"{row.sum:.4g}" for row in of), *(f"{row.std * row.length:.4g}" for row in of)]
        steep = slope(of)
        result.add_row(
            h, "" if alpha is None else f"{alpha:g}", *cells, "" if steep is None else f"{round(steep, 3) + 0.0:.3f}"
        )
    return result


def _write(out: Path, rows: Sequence[InitialWeights], drawn: dict[str, bytes], qk_norm: str, seeds: int) -> None:
    head = ["h", "alpha", "L", "mean", "std", "mean_times_L", "spread_of_mean", "logit_std", "qk_norm", "seeds"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for kind, content in drawn.items():
            (out / f"init_scale.{kind}").write_bytes(content)
        with open(out / "init_scale.csv", "w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(head)
            for r in rows:
                writer.writerow([r.h, r.alpha, r.length, r.mean, r.std, r.sum, r.spread, r.logit_std, qk_norm, seeds])
    except OSError as error:
        raise UserError(f"--out={out}: {error}") from error


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
