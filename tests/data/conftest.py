from pathlib import Path

import pytest
from tfds_sets import write_cifar10, write_gray


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with good and bad data sets; tests only read it."""
    data_dir = tmp_path_factory.mktemp("data sets")  # with a space
    write_cifar10(data_dir)
    write_gray(data_dir, "several_versions", [0], version="1.9.0")
    write_gray(data_dir, "several_versions", [0, 1], version="1.10.0")
    write_gray(data_dir, "with_configs", [1, 2, 3], config="small")
    write_gray(data_dir, "bad_label", [0, 1, 2, 9, 10, 0])
    write_gray(data_dir, "negative_label", [0, 1, -1])
    write_gray(data_dir, "huge_label", [0, 2**40])
    write_gray(data_dir, "truncated", range(7), truncated=[5])
    return data_dir
