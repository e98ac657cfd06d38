from __future__ import annotations

import dataclasses
import functools
import io
import json
import os

import numpy as np
import pytest

from outroute import datasets, trial
from outroute.datasets import GroupKind
from outroute.errors import DataError, MissingExtraError
from outroute.trial import Answer, Fold, Named, Protocol, SiteOut, plots, report
from outroute.trial.metrics import MIN_PER_CLASS

from .making import first_fold, make, without_outcomes


def constant(name: str, positive: float, out: dict[str, SiteOut] | None = None) -> Named:
    def answer(fold: Fold) -> Answer:
        return Answer(
            predictions={site: np.tile([1 - positive, positive], (len(cases), 1)) for site, cases in fold.test.items()},
            out=out or {},
        )

    return Named(name, answer)


@functools.cache
def small(repeats: int = 2) -> trial.Result:
    sent = {"site 0": SiteOut(packets=3, bytes_out=1536), "site 1": SiteOut(packets=1, bytes_out=512)}
    methods = [constant("outroute", 0.6, sent), trial.majority(), trial.local()]
    return trial.run(make(), methods, repeats=repeats)


def test_json_has_what_is_promised() -> None:
    found = json.loads(json.dumps(small().to_json(), allow_nan=False))
    assert (found["sites"], found["packets"], found["bytes_out"], found["records_out"]) == (3, 4, 2048, 0)
    assert set(found["scores"]) == {"outroute", "majority", "local"}
    assert set(found["scores"]["local"]) == {"auc", "accuracy", "log_loss", "brier"}
    assert set(found["differences"]) == {"majority", "local"}
    assert set(found["differences"]["local"]["auc"]) == {
        "mean",
        "se",
        "low",
        "high",
        "margin",
        "verdict",
        "repeats",
    }
    assert found["per_site"]["site 0"]["packets"] == 3
    assert set(found["per_site"]["site 2"]["scores"]) == {"outroute", "majority", "local"}
    assert found["protocol"] == "rows"
    assert (found["repeats"], found["seed"]) == (2, 0)
    assert any("20 are needed" in text for text in found["warnings"])


def test_numbers_have_their_own_metrics() -> None:
    result = trial.run(make(outcome="numeric"), [trial.majority(), trial.pooled()], subject="pooled", repeats=2)
    found = result.to_json()
    assert set(found["scores"]["pooled"]) == {"r2", "mae"}
    assert found["differences"]["majority"]["mae"]["margin"] == pytest.approx(0.01 * result.score("majority", "mae"))


def test_differences_are_paired_by_repeat() -> None:
    result = small(repeats=3)
    each = result.per_repeat("outroute", "log_loss") - result.per_repeat("local", "log_loss")
    found = result.difference("local", "log_loss")
    assert found.mean == pytest.approx(each.mean())
    test = sum(size.test for size in result.sizes.values())
    train = sum(size.train for size in result.sizes.values())
    assert found.se == pytest.approx(np.sqrt((1 / 3 + test / train) * each.var(ddof=1)))


def test_figures_do_not_depend_on_who_else_takes_part() -> None:
    dataset = make()
    alone = trial.run(dataset, [trial.fedavg_recal()], subject="fedavg_recal", repeats=2)
    others = [trial.majority(), trial.fedavg(), trial.pooled(), trial.fedavg_recal()]
    together = trial.run(dataset, others, subject="fedavg_recal", repeats=2)
    mine = "fedavg_recal"
    np.testing.assert_array_equal(alone.values[mine]["log_loss"], together.values[mine]["log_loss"])


def test_a_site_with_few_of_a_class_is_shown_but_not_in_the_auc_mean() -> None:
    dataset = make(sizes=(200, 200, 30))
    result = trial.run(dataset, [trial.majority(), trial.pooled()], subject="pooled", repeats=2)
    assert result.counts.tolist() == [[True, True, False]] * 2
    assert not np.isnan(result.site_score("pooled", "auc", "site 2"))
    both = result.values["pooled"]["auc"][:, :2]
    assert result.score("pooled", "auc") == pytest.approx(both.mean())
    assert any("site 2" in text and str(MIN_PER_CLASS) in text for text in result.warnings)


def test_the_r2_of_a_handful_of_cases_is_shown_but_not_in_the_mean() -> None:
    dataset = make(sizes=(200, 20), outcome="numeric")
    result = trial.run(dataset, [trial.majority(), trial.pooled()], subject="pooled", repeats=2)
    assert result.counts.tolist() == [[True, False]] * 2
    assert result.score("pooled", "r2") == pytest.approx(result.site_score("pooled", "r2", "site 0"))
    both = [result.site_score("pooled", "mae", site) for site in result.sites]
    assert result.score("pooled", "mae") == pytest.approx(np.mean(both))
    assert any("R2" in text and "site 1" in text for text in result.warnings)


def test_strata_are_means_over_the_named_sites_only() -> None:
    result = small()
    assert result.score("local", "log_loss", ["site 1"]) == pytest.approx(
        result.site_score("local", "log_loss", "site 1")
    )
    one = result.difference("local", "log_loss", ["site 1"])
    assert one.mean == pytest.approx(result.site_difference("local", "log_loss", "site 1").mean)


def test_ctrl_c_keeps_what_is_complete() -> None:
    calls = []

    def stop(fold: Fold) -> Answer:
        calls.append(fold.repeat)
        if fold.repeat == 2:
            raise KeyboardInterrupt
        return constant("outroute", 0.5)(fold)

    result = trial.run(make(), [Named("outroute", stop)], repeats=5)
    assert calls == [0, 1, 2]
    assert result.repeats == 2
    assert "interrupted: 2 of 5" in " ".join(result.warnings)

    def at_once(fold: Fold) -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial.run(make(), [Named("outroute", at_once)], repeats=5)


def test_progress_is_told_before_every_step() -> None:
    seen = []
    trial.run(make(), [trial.majority(), constant("outroute", 0.5)], repeats=2, progress=seen.append)
    assert [(p.repeat, p.method, p.step, p.steps) for p in seen] == [
        (0, "majority", 0, 4),
        (0, "outroute", 1, 4),
        (1, "majority", 2, 4),
        (1, "outroute", 3, 4),
    ]


def test_methods_see_no_outcome_of_a_test_case() -> None:
    fold, _ = first_fold(make())
    for cases in fold.test.values():
        assert not hasattr(cases, "y")
        assert not hasattr(cases, "outcome")
        assert "y" not in cases.columns


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda n: np.full((n, 3), 1 / 3), "shape"),
        (lambda n: np.full((n, 2), np.nan), "finite"),
        (lambda n: np.full((n, 2), 0.7), "probabilities"),
        (lambda n: np.tile([1.5, -0.5], (n, 1)), "probabilities"),
        (lambda n: None, "no predictions"),
    ],
)
def test_answers_that_do_not_fit_are_refused(wrong, message: str) -> None:
    method = Named("outroute", lambda fold: Answer(predictions={s: wrong(len(c)) for s, c in fold.test.items()}))
    with pytest.raises(DataError, match=message):
        trial.run(make(), [method], repeats=1)


def test_bad_data_says_what_is_wrong() -> None:
    dataset = make()
    n = len(dataset)
    nothing = without_outcomes(dataset, np.arange(n))
    with pytest.raises(DataError, match="has an outcome"):
        trial.run(nothing, [constant("outroute", 0.5)], repeats=1)
    equal = dataclasses.replace(dataset, outcome=np.full(n, "good", dtype=object))
    with pytest.raises(DataError, match="are equal"):
        trial.run(equal, [constant("outroute", 0.5)], repeats=1)
    twice = dataclasses.replace(dataset, case=np.full(n, "same", dtype=object))
    with pytest.raises(DataError, match="one case identifier"):
        trial.run(twice, [constant("outroute", 0.5)], repeats=1)
    with pytest.raises(DataError, match="different names"):
        trial.run(dataset, [trial.local()], repeats=1)
    with pytest.raises(DataError, match="repeats"):
        trial.run(dataset, [constant("outroute", 0.5)], repeats=0)


def test_warnings_name_what_flatters() -> None:
    dataset = make(groups=10)
    methods = [constant("outroute", 0.5)]
    rows = trial.run(dataset, methods, repeats=1, protocol=Protocol.ROWS)
    assert any("both sides of the split" in text for text in rows.warnings)
    concurrent = trial.run(dataset, methods, repeats=1, protocol=Protocol.CONCURRENT)
    assert any("concurrent" in text for text in concurrent.warnings)
    one = trial.run(make(sizes=(50,)), methods, repeats=1)
    assert any("one site only" in text for text in one.warnings)
    some = trial.run(without_outcomes(make(), np.arange(7)), methods, repeats=1)
    assert any(text.startswith("7 rows") for text in some.warnings)
    assert sum(size.rows for size in some.sizes.values()) == 270 - 7


def test_a_site_without_test_cases_is_left_out_of_that_repeat() -> None:
    dataset = make(sizes=(100, 60))
    group = np.where(dataset.site == "site 1", 0, np.arange(160) % 8)
    dataset = dataclasses.replace(dataset, group=group, group_kind=GroupKind.DAY)
    methods = [trial.majority(), trial.pooled()]
    result = trial.run(dataset, methods, subject="pooled", repeats=4)
    gone = np.isnan(result.values["pooled"]["log_loss"][:, 1])
    assert gone.any()
    expected = result.values["pooled"]["log_loss"][gone][:, 0]
    np.testing.assert_allclose(result.per_repeat("pooled", "log_loss")[gone], expected)
    json.dumps(result.to_json(), allow_nan=False)


def test_report_shows_every_method_and_marks_what_is_lost() -> None:
    from rich.console import Console

    result = small()
    screen = Console(file=io.StringIO(), width=200)
    report.show(result, screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    for words in ("outcome routing", "each site alone", "base rate", "site 2", "*", "warning:", "2,048"):
        assert words in text
    assert "worse" in text or "undecided" in text


def test_plot_is_written_and_misuse_is_explained(tmp_path) -> None:
    result = small()
    plots.forest(result, tmp_path / "gain.png")
    assert (tmp_path / "gain.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="cannot draw"):
        plots.forest(result, tmp_path / "x.png", other="fedavg")
    with pytest.raises(DataError, match="cannot write"):
        plots.forest(result, tmp_path / "x.nothing")


def test_plot_names_the_extra(monkeypatch, tmp_path) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"outroute\[plot\]"):
        plots.forest(small(), tmp_path / "x.png")


def test_heart_agrees_with_known_figures() -> None:
    if not os.environ.get(datasets.DATA_VARIABLE):
        pytest.skip(f"set {datasets.DATA_VARIABLE}")
    methods = [trial.majority(), trial.local(), trial.fedavg(), trial.fedavg_recal(), trial.pooled()]
    result = trial.run(datasets.heart(), methods, subject="local", repeats=2)
    assert result.protocol is Protocol.ROWS
    assert result.counts.sum(axis=0).tolist() == [2, 2, 0, 2]  # Switzerland has too few without disease
    assert 0.77 < result.score("local", "auc") < 0.87
    assert 0.78 < result.score("pooled", "auc") < 0.88
    assert abs(result.score("fedavg", "auc") - result.score("pooled", "auc")) < 0.02
    assert result.score("fedavg_recal", "log_loss") < result.score("fedavg", "log_loss")
    assert result.score("majority", "log_loss") > result.score("local", "log_loss") + 0.05
