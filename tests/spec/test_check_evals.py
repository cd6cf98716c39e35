"""Values of config.evals that cannot be are refused, each by one line that names its setting."""

import pytest

from vit_attn.spec.check_evals import check_evals, check_id_files
from vit_attn.spec.errors import UserError
from vit_attn.spec.evals import FEWSHOT_SETS, FewshotSpec, LabelSubsetSpec
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec


def fewshot(**own):
    return RunSpec(model=ModelSpec(image_size=28), evals={"few": FewshotSpec(**own)})


WRONG = {
    "sets is empty": {"sets": ()},
    r"sets: the data set 'cars' is unknown; did you mean 'cars196'\?": {"sets": ("cars",)},
    r"sets=\['dtd', 'dtd'\] has a value more than once": {"sets": ("dtd", "dtd")},
    "shots is empty": {"shots": ()},
    r"shots=\[5, 0\]: 0 must be at least 1": {"shots": (5, 0)},
    r"shots=\[5, 5\] has a value more than once": {"shots": (5, 5)},
    "seeds is empty": {"seeds": ()},
    r"seeds=\[0, -1\]: -1 must be at least 0": {"seeds": (0, -1)},
    "l2 is empty": {"l2": ()},
    r"l2=\[1.0, 0.0\]: 0.0 is not": {"l2": (1.0, 0.0)},
    r"l2=\[nan\]: nan is not": {"l2": (float("nan"),)},
    r"l2=\[inf\]: inf is not": {"l2": (float("inf"),)},
    "resize_pixels=27 is less than config.model.image_size=28": {"resize_pixels": 27},
}


@pytest.mark.parametrize("message", WRONG)
def test_values_that_cannot_be(message):
    with pytest.raises(UserError, match=rf"config\.evals\.few\.{message}"):
        check_evals(fewshot(**WRONG[message]))


def test_values_that_can_be():
    check_evals(fewshot(resize_pixels=28))
    check_evals(fewshot(sets=FEWSHOT_SETS, l2=(1.0, 2.0), seeds=(0,)))


def test_every_config_is_checked():
    with pytest.raises(UserError, match=r"config\.evals\.few\.shots is empty"):
        resolve({"evals": {"few": {"type": "fewshot", "shots": []}}})


@pytest.mark.parametrize("key", ["head_ids", "set_ids"])
def test_files_that_are_not_there(key, tmp_path):
    """They are asked for when a run is made, not when it is read again."""

    def spec(file):
        return RunSpec(evals={"sub": LabelSubsetSpec(**{key: str(file)})})

    check_evals(spec(tmp_path / "nothing.txt"))
    with pytest.raises(UserError, match=rf"config\.evals\.sub\.{key}='.*nothing.txt' is not there"):
        check_id_files(spec(tmp_path / "nothing.txt"))
    (tmp_path / "ids.txt").touch()
    check_id_files(spec(tmp_path / "ids.txt"))
    check_id_files(spec("gs://bucket/ids.txt"))
