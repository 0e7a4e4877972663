"""What a job would cost, without running it: --dry_run, and the table of docs/performance.md that is made of it."""

import os
import pathlib
import re
import subprocess

import pytest
from harness import INVALID_USE, MPIRUN, ROOT

JOB = """name: "cost" train {{ num_classes: {classes} dim: 512 batch_size: {batch} steps: 1 live {{ trainers: 1 }}
  optimizer {{ sgd {{ momentum: 0.9 }} }} precision: {precision} }}
"""


def dry_run(folder: pathlib.Path, job: str, ranks: int) -> subprocess.CompletedProcess:
    path = folder / "job.textproto"
    path.write_text(job)
    worker = [os.environ["SHARDMAX_WORKER"], f"--job={path}", f"--output={folder / 'out'}", f"--dry_run={ranks}"]
    return subprocess.run([MPIRUN, "-n", "1", *worker], capture_output=True, text=True, timeout=120, check=False)


def rows_of_the_table():
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    table = text[text.index("| C | ranks | precision | B | MB a rank"):]
    for line in table[:table.index("\n\n")].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_the_cost_model_is_what_a_dry_run_prints(tmp_path):
    rows = list(rows_of_the_table())
    assert len(rows) == 18
    for classes, ranks, precision, batch, memory, products, _, _, _, seconds, dominates in rows:
        job = JOB.format(classes=classes, batch=batch, precision=precision)
        printed = dry_run(tmp_path, job, int(ranks)).stdout
        where = f"C = {classes}, {ranks} ranks, {precision}: {printed}"
        assert re.search(r"^memory of a rank: (\d+) MB.*workspace", printed, re.MULTILINE)[1] == memory, where
        assert f"{float(re.search(r'products of a step: (.*) operations', printed)[1]):.2e}" == products, where
        model = re.search(r"products ([\d.]+) ms, device memory ([\d.]+) ms, wire ([\d.]+) ms, copies to and from the "
                          r"host ([\d.]+) ms, so (.*) dominate", printed)
        for said, wanted in zip(model.groups(), seconds.split(", ")):
            assert float(said) == pytest.approx(float(wanted), abs=0.0056), where
        assert dominates == ("does not fit" if "it does not fit" in printed else model[5]), where
    assert not (tmp_path / "out").exists(), "a dry run writes nothing"


@pytest.mark.sanitized
def test_an_evaluation_has_no_dry_run(tmp_path):
    job = 'name: "e" evaluate { embeddings: "x.npy" identities: "y.npy" verification {} }'
    refused = dry_run(tmp_path, job, 2)
    assert refused.returncode == INVALID_USE
    assert "--dry_run is for jobs that train" in refused.stderr
