"""One of several processes that save and restore sharded states together.

    python sharded_process.py PROCESS PROCESSES PORT save|restore LAYOUT FOLDER

With `restore`, prints what it found in a line: "same", or why the checkpoint was refused.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from sharded_states import like_of, numbers, state_of

from vit_attn.spec.run import LoopSpec
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.paths import paths_of
from vit_attn.store.restore import BadCheckpointError
from vit_attn.store.run_dir import RunDir

process, processes, port, action, layout, folder = sys.argv[1:]
if int(processes) > 1:
    jax.distributed.initialize(f"localhost:{port}", int(processes), int(process))
members = [Checkpoints(RunDir(Path(folder, name)), LoopSpec(ckpt_keep=1)) for name in ("a", "b")]
if action == "save":
    for step in (3, 4):
        for number, checkpoints in enumerate(members):  # of a pack, at the same time
            checkpoints.save(
                step, state_of(layout, numbers(number)), {"step": step}, {"val/accuracy": 0.5 + jax.process_index()}
            )
    for checkpoints in members:
        checkpoints.close()
else:
    for number, checkpoints in enumerate(members):
        assert checkpoints.steps() == [4]
        try:
            state, info = checkpoints.restore(4, like_of(layout))
        except BadCheckpointError as error:
            print("refused:", error)
            checkpoints.set_aside(4)
            assert checkpoints.steps() == []
            continue
        assert info["metrics"] == {"val/accuracy": 0.5}  # of the first process
        for path, x in paths_of(state).items():
            (wanted,) = [value for name, value in numbers(number).items() if name in path] or [
                np.asarray(x.addressable_data(0))
            ]
            for shard in x.addressable_shards:
                assert np.asarray(shard.data).tobytes() == np.ascontiguousarray(wanted[shard.index]).tobytes(), path
        print("same")
