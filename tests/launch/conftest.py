from pathlib import Path

import pytest
from sweep_runs import Sweeps


@pytest.fixture
def sweeps(tmp_path: Path):
    made = Sweeps(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
