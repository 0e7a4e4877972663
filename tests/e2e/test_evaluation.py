"""Evaluation jobs under mpirun give what scikit-learn and brute force give, at any number of ranks."""

import json
import os
import signal

import numpy as np
import pytest
from sklearn import metrics, model_selection

from harness import FAILED, INVALID_USE, STOPPED, Case, Name

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


def brute_force(case, gallery=None):
    """Scores and labels of every pair that counts: each probe with each gallery row, or each pair of rows once."""
    counts = case.identities >= 0
    x, y = directions(case.embeddings[counts]), case.identities[counts]
    if gallery is None:
        upper = np.triu_indices(len(y), 1)
        return (x @ x.T)[upper], (y[:, None] == y[None, :])[upper]
    other, names = gallery
    return (x @ directions(other).T).ravel(), (y[:, None] == names[None, :]).ravel()


def assert_rates_of(scores, same, entries, slack, share="fpr", found="tpr"):
    """The rates of `entries` are those of scikit-learn, but for `slack` pairs that rounding may move."""
    fpr, tpr, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    for entry in entries:
        assert entry["resolvable"] == (entry[share] * (~same).sum() >= 1)
        if entry["resolvable"]:
            assert abs(entry["true_accepts"] - round(tpr[fpr <= entry[share]].max() * same.sum())) <= slack
            assert entry[found] == entry["true_accepts"] / same.sum()
            assert entry["false_accepts"] / (~same).sum() <= entry[share]


FPRS = [0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-9]


@pytest.mark.sanitized
def test_all_pairs_equal_scikit_learn_on_1_2_and_3_ranks(tmp_path):
    case = make_case(tmp_path / "job", {"all_pairs": {"fprs": FPRS}}, rows=900, identities=90)
    results = [on_ranks(case, ranks) for ranks in (1, 2, 3)]
    scores, same = brute_force(case)
    assert results[0]["genuine_pairs"] == same.sum() and results[0]["impostor_pairs"] == (~same).sum()
    assert_rates_of(scores, same, results[0]["tpr_at_fpr"], slack=1)
    assert without_speed(results[0]) == without_speed(results[1]) == without_speed(results[2])
    curve = results[0]["roc"]
    fpr, tpr, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    assert np.allclose(np.interp(curve["fpr"][1:-1], fpr, tpr), curve["tpr"][1:-1], atol=0.01)


def test_all_pairs_against_a_gallery_in_bfloat16(tmp_path):
    files = {"gallery_embeddings": "ge.npy", "gallery_identities": "gi.npy"}
    case = make_case(tmp_path / "job", {"all_pairs": {**files, "fprs": FPRS, "precision": Name("BFLOAT16")}})
    other = make_case(tmp_path / "other", {}, rows=1500, identities=60)
    case.save(ge=other.embeddings, gi=other.identities)
    results = [on_ranks(case, ranks, "--threads=2") for ranks in (1, 2)]
    assert without_speed(results[0]) == without_speed(results[1])
    counts = other.identities >= 0
    scores, same = brute_force(case, (other.embeddings[counts], other.identities[counts]))
    assert results[0]["impostor_pairs"] == (~same).sum()
    # bfloat16 moves a cosine by up to 0.004.
    for entry in results[0]["tpr_at_fpr"]:
        if entry["resolvable"] and entry["fpr"] >= 1e-3:
            threshold = np.sort(scores[~same])[::-1][int(entry["fpr"] * (~same).sum())]
            low, high = (scores[same] >= threshold + 0.01).mean(), (scores[same] >= threshold - 0.01).mean()
            assert low <= entry["tpr"] <= high


def test_identification_equals_brute_force_on_1_2_and_3_ranks(tmp_path):
    counts = [10, 100, 1000]
    protocol = {"distractors": "d.npy", "distractor_counts": counts, "max_rank": 20, "fars": FPRS}
    case = make_case(tmp_path / "job", {"identification": protocol}, rows=300)
    distractors = make_case(tmp_path / "other", {}, rows=700, seed=6).embeddings
    case.save(d=distractors)
    results = [on_ranks(case, ranks) for ranks in (1, 2, 3)]
    assert without_speed(results[0]) == without_speed(results[1]) == without_speed(results[2])
    result = results[0]
    groups = [np.flatnonzero(case.identities == identity) for identity in range(IDENTITIES)]
    probes = np.concatenate([group for group in groups if len(group) > 1])
    x, y, other = directions(case.embeddings[probes]), case.identities[probes], directions(distractors)
    mates, same = x @ x.T, (y[:, None] == y[None, :]) & ~np.eye(len(y), dtype=bool)
    probe_of, _ = np.nonzero(same)
    ranks = 1 + (np.sort(x @ other.T, axis=1)[probe_of] >= mates[same][:, None]).sum(axis=1)
    whole = result["cmc"][-1]
    assert [entry["distractors"] for entry in result["cmc"]] == [10, 100, 700] and whole["distractors"] == 700
    for rank, rate in enumerate(whole["rates"], 1):
        # A score in float32 may move one mate by a rank.
        assert abs(rate - (ranks <= rank).mean()) <= 2 / len(ranks)
    rank_1 = {entry["distractors"]: entry for entry in result["rank_1"]}
    assert rank_1[10]["rate"] >= rank_1[100]["rate"] >= rank_1[700]["rate"] == whole["rates"][0]
    assert rank_1[1000] == {"distractors": 1000, "resolvable": False, "reason": "there are 700 distractors"}
    scores = np.concatenate([mates[same], (x @ other.T).ravel()])
    genuine = np.arange(len(scores)) < same.sum()
    assert_rates_of(scores, genuine, result["tar_at_far"], slack=1, share="far", found="tar")


def test_a_signal_stops_all_pairs_between_tiles(tmp_path):
    """Then there is no result, and --resume begins anew."""
    case = make_case(tmp_path / "job", {"all_pairs": {}}, rows=150_000)
    with case.launch(2, "--progress=lines") as running:
        running.wait_until(lambda: "% of" in running.text(), "the first line of progress")
        os.kill(running.ranks()[1], signal.SIGTERM)
        result = running.wait(STOPPED)
    result.says(r"\d+\.\d % of 1\.\d+e\+10 pairs  .* pairs/s  eta ", r"stopped on request")
    assert not (case.out / "result.json").exists()
    case.embeddings, case.identities = case.embeddings[:500], case.identities[:500]
    case.save(e=case.embeddings, i=case.identities)
    case.run(2, "--resume")
    assert result_of(case)["embeddings"] == 500


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
