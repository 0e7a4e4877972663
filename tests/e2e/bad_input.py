"""What the tests of bad input share: a small sound job that each spoils, and the check that it ends as it must.

Bad input ends the job soon, with the exit code of its kind, a message that says what is wrong and where, and no
checkpoint of weights that it would have spoilt.
"""

import re

import pytest

from harness import FAILED, make_data, training_case

C, D, B, ROWS = 20, 8, 4, 30


def table(rows, names):
    """Parametrises a test by a dict: name of the case -> values."""
    return pytest.mark.parametrize(names, list(rows.values()), ids=list(rows))


def make_case(folder, **train):
    case = training_case(folder, "bad", C, D, B, 10, checkpoint={"every_steps": 0})
    case.change(**train)
    case.features, case.labels, case.weights = make_data(11, ROWS, C, D, ignored=0)
    case.save(x=case.features, y=case.labels)
    return case


@pytest.fixture
def case(tmp_path):
    return make_case(tmp_path / "job")


def assert_refused(case, code, *patterns, ranks=2, flags=(), **launch):
    """The job ends with `code`, says all patterns, also in log.txt if there is one, and left no checkpoint."""
    result = case.run(ranks, *flags, expect=code, **launch)
    result.says(*patterns)
    assert case.checkpoints() == []
    if code == FAILED and (case.out / "log.txt").exists():
        for pattern in patterns:
            assert re.search(pattern, case.log()), f"log.txt does not say {pattern!r}:\n{case.log()}"
    return result
