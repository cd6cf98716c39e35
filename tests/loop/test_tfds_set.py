"""Any data set that TFDS has prepared is trained through the same fields: here a small one under the name of CIFAR-10."""

from tfds_sets import CIFAR10_IMAGES, write_cifar10
from trainer_runs import command, run_here

from vit_attn.store.run_dir import RunDir


def test_the_example_config_trains_on_a_prepared_set(tmp_path):
    write_cifar10(tmp_path / "sets")
    config = f"configs/cifar10_tfds.py:h=relu,alpha=1,variant=mu/16,data_dir={tmp_path / 'sets'}"
    argv = command(tmp_path / "run", config, model__variant="mu/16", eval__split="test")
    assert run_here(*argv) == 0
    run = RunDir(tmp_path / "run")
    assert run.status().state == "done"
    assert run.status().metrics["val/images"] == CIFAR10_IMAGES["test"]
    assert run.spec().data.name == "cifar10"
