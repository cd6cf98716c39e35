"""PyTorch's matrix products, in a process of its own: see benchmarks/products.py.

    python -m benchmarks.torch_products

Needs torch and numpy, no jax. After its first line it answers each line that it reads, in JSON [kind, [rows of x, columns of x,
columns of w]], with one: the seconds of a product.
"""

import json
import sys

import torch

from benchmarks.product import REPEATS, arrays, seconds_of
from vit_attn.parallel.host_memory import keep_freed_memory

PRODUCTS = {
    "forward": lambda x, w, dy: x @ w,
    "dx": lambda x, w, dy: dy @ w.T,
    "dw": lambda x, w, dy: x.T @ dy,
}


def main() -> None:
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    torch.set_grad_enabled(False)
    for line in sys.stdin:
        kind, product = json.loads(line)
        inputs, function = [torch.from_numpy(x) for x in arrays(*product)], PRODUCTS[kind]
        print(json.dumps({"seconds": seconds_of(lambda: [function(*inputs) for _ in range(REPEATS)])}), flush=True)  # noqa: B023


if __name__ == "__main__":
    main()
