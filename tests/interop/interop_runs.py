"""Files of parameters, and runs made of them, for the tests of interop."""

import golden_inputs as inputs
import jax
import numpy as np

from vit_attn.interop.__main__ import main
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.resolve import resolve
from vit_attn.train.saved import abstract_state

SIZES = {**inputs.SIZES, "image_size": inputs.SIDE, "num_classes": inputs.CLASSES}
PLAIN = {"h": "softmax", "qk_norm": "none"}


def interop(*argv):
    """The command in this process: its exit code."""
    return exit_code_of(lambda: main([str(word) for word in argv]))


def refused(capsys, *argv):
    """The one line that a command with a mistake prints."""
    assert interop(*argv) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def spec_of(attention=PLAIN, **model):
    return resolve({"model": {**SIZES, "attention": attention, **model}})


def flat_of(spec):
    """Parameters for a run, the same for the same names and shapes."""
    leaves = jax.tree_util.tree_flatten_with_path(abstract_state(spec).params)[0]
    return inputs.parameters({"/".join(key.key for key in path): leaf.shape for path, leaf in leaves})


def same_arrays(one, other):
    """Names, types and bits."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert np.ascontiguousarray(value).tobytes() == np.ascontiguousarray(other[name]).tobytes(), name
        assert value.shape == other[name].shape, name
