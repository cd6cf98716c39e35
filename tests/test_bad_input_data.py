"""Mistakes in recipes, data sets and evaluators: one line, exit code 2, before anything is compiled or created."""

import pytest
from test_bad_input import refused
from trainer_runs import command

CASES = {
    "crop": (["--config.data.crop=random"], ["config.data.crop", "'random'", "resize, inception"]),
    "augmentation": (["--config.data.randaugment=2"], ["config.data.randaugment", "did you mean 'randaug_"]),
    "mixup": (["--config.data.mixup=-0.1"], ["config.data.mixup=-0.1", ">= 0"]),
    "erasing": (["--config.data.random_erasing=1.5"], ["config.data.random_erasing=1.5", "<= 1"]),
    "bad images": (["--config.data.on_bad_image=ignore"], ["config.data.on_bad_image", "'ignore'", "fail, skip"]),
    "workers": (["--config.data.workers=-2"], ["config.data.workers=-2", ">= -1"]),
    "smoothing": (["--config.train.label_smoothing=1"], ["config.train.label_smoothing=1.0", "< 1"]),
    "epochs without images": (["--config.train.epochs=3"], ["config.train.epochs=3", "config.train.epoch_images"]),
    "resize": (["--config.eval.resize_pixels=20"], ["config.eval.resize_pixels=20", "config.model.image_size=28"]),
    "evaluator": (["--config.evals.x.type=linear"], ["config.evals.x.type", "'linear'", "fewshot, attention_stats"]),
    "evaluator without type": (["--config.evals.x.steps=3"], ["config.evals.x.type", "classification"]),
    "its data set": (
        ["--config.evals.x.type=classification", "--config.evals.x.data.name=mnist"],
        ["config.evals.x.data", "'mnist'", "fashion_mnist_12k"],
    ),
    "its split": (
        ["--config.evals.x.type=classification", "--config.evals.x.data.split=test"],
        ["'test'", "train", "validation"],
    ),
    "its label key": (
        ["--config.evals.x.type=classification", "--config.evals.x.data.label_key=real_label"],
        ["config.evals.x.data.label_key", "'real_label'", "image, label"],
    ),
    "its version": (
        ["--config.evals.x.type=classification", "--config.evals.x.data.version=9.9.9"],
        ["config.evals.x.data.version", "9.9.9"],
    ),
    "no ids": (["--config.evals.x.type=label_subset"], ["config.evals.x", "head_ids"]),
    "ids that are not there": (
        ["--config.evals.x.type=label_subset", "--config.evals.x.head_ids=/nowhere.txt"],
        ["config.evals.x.head_ids='/nowhere.txt'"],
    ),
    "no l2": (["--config.evals.x.type=fewshot", "--config.evals.x.l2=[]"], ["config.evals.x.l2", "empty"]),
    "no few-shot set": (
        ["--config.evals.x.type=fewshot", "--config.evals.x.data_dir=/nowhere", "--config.evals.x.sets=['dtd']"],
        ["config.evals.x", "'dtd'", "download_and_prepare", "--config.evals.x=none"],
    ),
    "unknown few-shot set": (
        ["--config.evals.x.type=fewshot", "--config.evals.x.sets=['cub']"],
        ["config.evals.x.sets", "'cub'", "uc_merced"],
    ),
    "folder": (["--config.data.name=/nowhere/photos"], ["/nowhere/photos"]),
}


@pytest.mark.parametrize("case", CASES)
def test_settings(tmp_path, capfd, case):
    flags, words = CASES[case]
    line = refused(capfd, *command(tmp_path / "run"), *flags)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


RECIPES = {
    "level": ("configs/vit_i1k.py:aug=medium9", ["medium9", "light1", "strong2"]),
    "variant without a level": ("configs/vit_i21k.py:variant=g/14", ["variant=g/14", "aug", "medium2"]),
    "argument": ("configs/vit_s16_i1k.py:gates=gau", ["gates=gau", "qk_norm"]),
    "not prepared": ("configs/vit_s16_i1k.py:data_dir=/nowhere", ["'imagenet2012'", "/nowhere", "download_and_prepare"]),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes(tmp_path, capfd, case):
    config, words = RECIPES[case]
    line = refused(capfd, "--config", config, "--workdir", tmp_path / "run")
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()
