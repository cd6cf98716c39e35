"""The compiled functions of one pack: same spec but for the knobs, same mesh, same shapes. Nothing is traced later."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_attn.data.batch import Batch
from vit_attn.evals.evaluator import Evaluator
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.mesh import local_rows, replicated, to_devices, to_global
from vit_attn.parallel.rules import ambient, batched
from vit_attn.spec.mesh import RulesSpec
from vit_attn.spec.run import Knobs, RunSpec, static_of
from vit_attn.train.placement import placed
from vit_attn.train.state import State, init_state
from vit_attn.train.step import Examples, prepare, update


class Program:
    """init, prepare, update and what evaluators compute: each compiled once, at construction, in parallel."""

    def __init__(self, spec: RunSpec, mesh: Mesh, evaluators: Sequence[Evaluator], fresh: bool) -> None:
        """`fresh`: some member starts from new parameters, so that `init` is needed."""
        self.mesh, self._rules = mesh, spec.rules
        static, whole, split = static_of(spec), replicated(mesh), batched(mesh, spec.rules)
        init, augment, step = (partial(function, static) for function in (init_state, prepare, update))
        knobs = jax.tree.map(lambda dtype: _shape((), dtype, whole), _KNOB_DTYPES)
        first = (_train_batch(spec, split), _shape((), jnp.int32, whole))
        state: State = placed(spec, jax.eval_shape(init, knobs), mesh)
        examples: Examples = jax.tree.map(
            lambda x: _shape(x.shape, x.dtype, split if x.ndim else whole), jax.eval_shape(augment, *first)
        )
        self.abstract_state, places = state, _shardings(state)  # global shapes, with where they lie
        jobs: dict[str, Traced] = {
            "prepare": (jax.jit(augment, out_shardings=_shardings(examples)), first),
            "update": (jax.jit(step, donate_argnums=0, out_shardings=(places, whole)), (state, knobs, examples)),
        }
        for one in evaluators:
            batch = _eval_batch(one, spec.model.image_size, split)
            jobs[one.program] = (jax.jit(one.compute, out_shardings=whole), (state.params, knobs, batch))
        if fresh:
            jobs["init"] = (jax.jit(init, out_shardings=places), (knobs,))
        self._compiled = _compile(jobs, mesh, spec.rules)

    @property
    def update_compiled(self) -> Any:
        """The compiled update, for who asks it about memory."""
        return self._compiled["update"]

    def knobs(self, knobs: Knobs) -> Knobs:
        """Numbers -> device scalars."""
        return jax.tree.map(self._scalar, knobs, _KNOB_DTYPES)

    def init(self, knobs: Knobs) -> State:
        return self._compiled["init"](knobs)

    def prepare(self, batch: dict[str, jax.Array], step: int) -> Examples:
        """A batch that `put` brought to the devices -> augmented examples; `step` counts the updates already made."""
        return self._compiled["prepare"](batch, self._scalar(step, jnp.int32))

    def update(self, state: State, knobs: Knobs, examples: Examples) -> tuple[State, dict[str, jax.Array]]:
        """The next state (the old one's memory is reused) and metrics that are still being computed."""
        return self._compiled["update"](state, knobs, examples)

    def evaluate(self, evaluator: Evaluator, params: Any, knobs: Knobs, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """A member's outputs on a batch of one of the evaluator's passes, still being computed."""
        return self._compiled[evaluator.program](params, knobs, batch)

    def put(self, batch: Batch, batch_images: int) -> dict[str, jax.Array]:
        """This process's rows of a batch -> global arrays, split over the devices. Returns before they are there."""
        return to_global(self.mesh, batch, batch_images, self._rules)

    def local_rows(self, batch_images: int) -> list[int]:
        """The rows of a batch that lie on devices of this process, in order."""
        return local_rows(self.mesh, batch_images, self._rules)

    def _scalar(self, value: float, dtype: Any) -> jax.Array:
        return to_devices(replicated(self.mesh), np.asarray(value, dtype), ())


Traced = tuple[Any, tuple[Any, ...]]  # a jitted function and the shapes of its arguments
_NUMBER_DTYPES = Numbers(*(jnp.float32 for _ in Numbers._fields))
_KNOB_DTYPES = Knobs(_NUMBER_DTYPES, peak_lr=jnp.float32, weight_decay=jnp.float32, seed=jnp.uint32)


def _shape(shape: tuple[int, ...], dtype: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _shardings(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, tree)


def _train_batch(spec: RunSpec, sharding: Any) -> dict[str, jax.ShapeDtypeStruct]:
    images, side = spec.train.batch_images, spec.model.image_size
    return {
        "image": _shape((images, side, side, 3), jnp.uint8, sharding),
        "labels": _shape((images, spec.data.max_labels), jnp.int32, sharding),
        "epoch": _shape((images,), jnp.int32, sharding),
        "index": _shape((images,), jnp.int32, sharding),
    }


def _eval_batch(evaluator: Evaluator, side: int, sharding: Any) -> dict[str, jax.ShapeDtypeStruct]:
    one = next(iter(evaluator.passes.values()))
    return {
        "image": _shape((one.batch_images, side, side, 3), jnp.uint8, sharding),
        "labels": _shape((one.batch_images, one.max_labels), jnp.int32, sharding),
        "mask": _shape((one.batch_images,), jnp.float32, sharding),
    }


def _compile(jobs: dict[str, Traced], mesh: Mesh, rules: RulesSpec) -> dict[str, Callable[..., Any]]:
    """Traces the functions one by one, for the mesh (`init` for none: its batch is of one), and compiles them side by side."""
    lowered = {}
    for name, (function, arguments) in jobs.items():
        with nullcontext() if name == "init" else ambient(mesh, rules):
            lowered[name] = function.lower(*arguments)
    on_cpu = jax.default_backend() == "cpu"
    # init runs once: a third less time to compile it is worth more than its own speed
    options = {"init": {"xla_backend_optimization_level": 1}} if on_cpu else {}
    with ThreadPoolExecutor(len(lowered)) as pool:
        jobs_running = {name: pool.submit(one.compile, options.get(name)) for name, one in lowered.items()}
        return {name: job.result() for name, job in jobs_running.items()}
