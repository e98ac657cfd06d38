"""A data set as its sites observed it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import number, schema, two_classes
from outroute.datasets.observations import observations_of


@pytest.fixture
def data() -> Dataset:
    return Dataset(
        name="small",
        columns={"age": np.array([30.0, 31.0, 60.0, 61.0, 80.0])},
        outcome=np.array(["well", "sick", None, "sick", "well"], dtype=object),
        site=np.array(["a", "a", "a", "b", "b"], dtype=object),
        case=np.array(list("vwxyz"), dtype=object),
        group=np.array([7, 7, 8, 9, 9], dtype=np.int64),
        group_kind=GroupKind.SUBJECT,
        time=None,
        schema=schema(
            "small",
            (number("age", "0", "120", "years"),),
            two_classes("diagnosis", "well", "sick"),
            k=2,
            subject="person",
        ),
        provenance="drawn",
        licence="none",
    )


def test_records_of_one_person_are_one_subject_and_unknown_outcomes_are_left_out(data: Dataset) -> None:
    found = observations_of(data)
    assert found["a"].subject.tolist() == [7, 7]
    assert found["b"].subject.tolist() == [9, 9]
    assert [found[site].outcome.tolist() for site in "ab"] == [[0.0, 1.0], [1.0, 0.0]]


def test_groups_that_are_no_people_leave_each_row_a_subject_of_its_own(data: Dataset) -> None:
    for of in (replace(data, group_kind=GroupKind.DAY), replace(data, group=None, group_kind=GroupKind.NONE)):
        assert [len(np.unique(rows.subject)) for rows in observations_of(of).values()] == [2, 2]
