"""The one line that says why a worker ended."""

import pytest

from launch.failure import LONGEST, reason

FIRST_ATTEMPT = "$ python -m worker\nValueError: of the first attempt\n"
TRACEBACK = (
    "Traceback (most recent call last):\n  File x.py\njax.errors.JaxRuntimeError: out of memory\n----\nFor simplicity,\n"
)


@pytest.mark.parametrize(
    ("code", "printed", "told"),
    [
        (1, TRACEBACK, "exit code 1: jax.errors.JaxRuntimeError: out of memory"),
        (2, "loading\nerror: data set 'x' is not prepared\n\n", "exit code 2: error: data set 'x' is not prepared"),
        (-11, "step 3\nstep 4\n", "killed by SIGSEGV: step 4"),
        (-9, "", "killed by SIGKILL, and it printed nothing"),
        (0, "bye", "exit code 0: bye"),
        (1, "x" * 1000, f"exit code 1: {'x' * LONGEST}"),
    ],
)
def test_the_reason_is_the_last_error_of_this_attempt(tmp_path, code, printed, told):
    log = tmp_path / "pack.log"
    log.write_text(FIRST_ATTEMPT + "$ python -m worker\n" + printed)
    why = reason(code, log, start=len(FIRST_ATTEMPT))
    assert why == told or (not printed and why == f"{told} (log: {log})")
