"""Evaluation jobs under mpirun give what scikit-learn and brute force give, at any number of ranks."""

import json

import numpy as np
import pytest
from sklearn import metrics, model_selection

from harness import FAILED, INVALID_USE, Case

ROWS, D, IDENTITIES = 400, 16, 40


def make_case(folder, protocol, rows=ROWS, identities=IDENTITIES, dtype=np.float32, seed=5):
    case = Case(
        folder,
        {"name": "scores", "evaluate": {"embeddings": "e.npy", "identities": "i.npy", **protocol}},
    )
    rng = np.random.default_rng(seed)
    case.identities = rng.integers(0, identities, rows)
    centres = rng.standard_normal((identities, D))
    noise = 0.9 * rng.standard_normal((rows, D))
    case.embeddings = ((centres[case.identities] + noise) * rng.uniform(0.1, 30, (rows, 1))).astype(dtype)
    case.identities[rng.random(rows) < 0.05] = -1
    case.save(e=case.embeddings, i=case.identities)
    return case


def result_of(case):
    return json.loads((case.out / "result.json").read_text())


def without_speed(result):
    return {key: value for key, value in result.items() if key not in ("ranks", "speed")}


def on_ranks(case, ranks, *flags):
    """The result of the same job with its own folder."""
    other = case.in_new_folder(f"on-{ranks}")
    other.run(ranks, *flags)
    return result_of(other)


def directions(embeddings):
    x = embeddings.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw_pairs(case, count, seed=9):
    """[count, 3] pairs of rows that count, about half of them genuine."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(case.identities >= 0)
    i, j = np.array([rng.choice(rows, 2, replace=False) for _ in range(20 * count)]).T
    same = case.identities[i] == case.identities[j]
    genuine, impostor = np.flatnonzero(same)[: count // 2], np.flatnonzero(~same)[: count - count // 2]
    chosen = rng.permutation(np.concatenate([genuine, impostor]))
    return np.stack([i[chosen], j[chosen], same[chosen].astype(np.int64)], axis=1)


def equal_error_rate(far, tar):
    """Where FAR = 1 - TAR on straight lines, by bisection."""
    low, high = 0.0, float(len(far) - 1)
    at = np.arange(len(far))
    for _ in range(200):
        middle = (low + high) / 2
        if np.interp(middle, at, far) < 1 - np.interp(middle, at, tar):
            low = middle
        else:
            high = middle
    return np.interp(low, at, far)


@pytest.mark.sanitized
def test_verification_equals_scikit_learn(tmp_path):
    fars = [0.5, 0.1, 0.01, 0.001]
    case = make_case(tmp_path / "job", {"verification": {"pairs": "p.npy", "folds": 10, "fars": fars}})
    pairs = draw_pairs(case, 603)
    case.save(p=pairs)
    case.run(2)
    result = result_of(case)
    x = directions(case.embeddings)
    scores, same = (x[pairs[:, 0]] * x[pairs[:, 1]]).sum(axis=1), pairs[:, 2]
    far, tar, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    assert result["genuine_pairs"] == same.sum() and result["impostor_pairs"] == (1 - same).sum()
    assert result["auc"] == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)
    assert result["eer"] == pytest.approx(equal_error_rate(far, tar), abs=1e-9)
    for entry, rate in zip(result["tar_at_far"], fars):
        assert entry["far"] == rate
        assert entry["resolvable"] == (rate * (1 - same).sum() >= 1)
        if entry["resolvable"]:
            assert entry["tar"] == tar[far <= rate].max()

    accuracies = []
    for train, test in model_selection.KFold(10).split(scores):
        best = max(np.concatenate([scores[train], [2]]), key=lambda t: ((scores[train] >= t) == same[train]).sum())
        fold = result["accuracy"]["folds"][len(accuracies)]
        # Another threshold between the same two scores judges the other folds alike.
        most = ((scores[train] >= best) == same[train]).sum()
        assert ((scores[train] >= fold["threshold"]) == same[train]).sum() == most
        accuracies.append(((scores[test] >= fold["threshold"]) == same[test]).mean())
        assert fold["accuracy"] == pytest.approx(accuracies[-1], abs=1e-15)
    assert result["accuracy"]["mean"] == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert result["accuracy"]["deviation"] == pytest.approx(np.std(accuracies), abs=1e-12)


def test_verification_is_the_same_on_1_2_and_3_ranks(tmp_path):
    case = make_case(tmp_path / "job", {"verification": {"num_pairs": 2000}}, dtype=np.float16)
    results = [on_ranks(case, ranks) for ranks in (1, 2, 3)]
    assert [result["ranks"] for result in results] == [1, 2, 3]
    assert without_speed(results[0]) == without_speed(results[1]) == without_speed(results[2])


def test_the_log_has_a_table_and_the_folder_the_spec(tmp_path):
    case = make_case(tmp_path / "job", {"verification": {"num_pairs": 600, "fars": [0.01, 1e-6]}})
    printed = case.run(2)
    for text in (printed.text, case.log()):
        assert "verification: 300 genuine and 300 impostor pairs of 40 identities" in text
        assert "accuracy" in text and "equal error rate" in text
        assert "TAR at FAR 1e-06" in text and "not resolvable: takes 1000000 impostor pairs, there are 300" in text
    spec = json.loads((case.out / "job.json").read_text())["evaluate"]["verification"]
    assert spec == {"num_pairs": 600, "seed": 1, "folds": 10, "fars": [0.01, 1e-6]}


def test_a_finished_evaluation_is_not_overwritten_but_for_resume(tmp_path):
    case = make_case(tmp_path / "job", {"verification": {"num_pairs": 600}})
    case.run(1)
    first = result_of(case)
    case.run(1, expect=INVALID_USE).says(r"the folder holds a job already")
    case.run(2, "--resume")
    assert without_speed(result_of(case)) == without_speed(first)


def test_bad_input_ends_the_job_with_its_row(tmp_path):
    case = make_case(tmp_path / "job", {"verification": {"num_pairs": 600}})
    case.identities[390] = 3
    case.save(i=case.identities)
    case.embeddings[390, 2] = np.nan
    case.save(e=case.embeddings)
    case.run(3, expect=FAILED).says(r"evaluate\.embeddings: .*e\.npy: row 390: column 2 is nan")
    assert not (case.out / "result.json").exists()
    case.spec["evaluate"]["embeddings"] = "../e.npy"
    case.run(2, f"--data_root={case.folder}", expect=FAILED).says(r"evaluate\.embeddings: .* outside the data roots")
    case.spec["evaluate"]["verification"] = {"folds": 1}
    case.run(2, expect=INVALID_USE).says(r"evaluate\.verification\.folds is 1: allowed is 2 to 1000")
    case.spec["evaluate"]["verification"] = {}
    case.run(2, "--backend=reference", expect=FAILED).says(r"evaluation jobs run on the CPU")
