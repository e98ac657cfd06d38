"""Schemas with the distiller ``private``, their regions and their packets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import OutrouteError, SchemaError
from outroute.packet import (
    SQUARE_HALF,
    STEPS,
    Rejection,
    accept,
    build_noisy,
    class_counts,
    contributions,
    moments,
    noisy_sums,
    places,
    region_of,
    regions_of,
    sign,
)
from outroute.packet.layout import MAX_SIZE
from outroute.schema import (
    MISSING,
    Distiller,
    Landmarks,
    Meaning,
    OutcomeKind,
    Privacy,
    Schema,
    canonical,
    diff,
    drawn_landmarks,
    dumps,
    grid_landmarks,
    loads,
    recipe_of,
)

from .making import ALICE, NOW, agreed, categorical_field, codes_of, numeric_field, schema_of
from .second import regions as second_regions

FIELDS = (numeric_field(), categorical_field(), categorical_field("f", facet=True))


def private(**given: Any) -> Privacy:
    wanted: dict[str, Any] = {"k": 1, "epsilon": Decimal(1), "m": 1, "releases": 5}
    return Privacy(distiller=Distiller.PRIVATE, **(wanted | given))


def private_schema(kind: OutcomeKind = OutcomeKind.BINARY, **given: Any) -> Schema:
    return schema_of(*FIELDS, kind=kind, **({"privacy": private()} | given))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(OutcomeKind),
    st.integers(1, 40),
    st.sampled_from([1, 2, 30]),
    st.sampled_from([3, 1_000, 2**33]),
    st.integers(0, 2**32 - 1),
)
def test_whatever_the_noise_packets_are_accepted(kind: OutcomeKind, marks: int, k: int, reach: int, seed: int) -> None:
    schema = private_schema(kind, landmarks=drawn_landmarks(FIELDS, marks), privacy=private(k=k))
    rng, regions = np.random.default_rng(seed), regions_of(schema)
    sums = rng.integers(-reach, reach + 1, (len(regions), places(schema)))
    made = build_noisy(
        schema,
        author=ALICE.public_key,
        sequence=np.arange(len(regions), dtype=np.uint64),
        regions=np.arange(len(regions)),
        sums=sums,
        bucket=schema.time.bucket(NOW),
    )
    sign(made, ALICE)
    assert accept(made, schema, NOW).ok.all()
    told = noisy_sums(schema, made)
    size = made["size"].astype(np.int64)
    if k == 1:
        assert np.array_equal(told, np.clip(sums, -(2**31) + 1, 2**31 - 1))
    assert ((size >= k) | (told == 0).all(axis=1) | (k == 1)).all()
    assert size.max(initial=0) <= MAX_SIZE
    if kind is OutcomeKind.NUMERIC:
        mean, variance = moments(schema, made)
        assert ((mean >= -1) & (mean <= 9) & (variance >= 0) & (variance <= 25)).all()
    else:
        assert np.array_equal(class_counts(schema, made), told)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_every_case_has_one_region_and_every_region_is_its_own(marks: int, seed: int) -> None:
    schema = private_schema(landmarks=drawn_landmarks(FIELDS, marks))
    regions = regions_of(schema)
    assert len(regions) == len(regions.marks) * 4  # three categories, or missing
    assert np.array_equal(region_of(schema, regions.codes), np.arange(len(regions)))
    codes = codes_of(schema, np.random.default_rng(seed), 50)
    found = region_of(schema, codes)
    where = schema.slots["f"]
    assert np.array_equal(regions.codes[found][:, where], codes[:, where])
    assert regions.codes.tolist() == second_regions(agreed_as(schema))


def agreed_as(schema: Schema) -> Any:
    """The second implementation's view, with the promise filled in."""
    made = agreed(schema_of(*schema.fields, landmarks=schema.landmarks))
    made.marks = schema.landmarks.codes.tolist()
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_an_observation_adds_no_more_than_its_noise_is_made_for(values: list[float]) -> None:
    schema = private_schema(OutcomeKind.NUMERIC)
    added = contributions(schema, np.array(values))
    assert (np.abs(added) <= [1, STEPS, SQUARE_HALF]).all()
    assert (added[:, 0] == 1).all()


def test_an_honest_mean_comes_back() -> None:
    schema = private_schema(OutcomeKind.NUMERIC)
    values = np.random.default_rng(1).normal(4, 1.5, 5_000).clip(-1, 9)
    made = build_noisy(
        schema,
        author=ALICE.public_key,
        sequence=np.zeros(1, dtype=np.uint64),
        regions=np.array([3]),
        sums=contributions(schema, values).sum(axis=0)[None],
        bucket=schema.time.bucket(NOW),
    )
    mean, variance = moments(schema, made)
    assert mean[0] == pytest.approx(values.mean(), abs=1e-3)
    assert variance[0] == pytest.approx(values.var(), abs=2e-3)
    assert made["size"][0] == 5_000


def test_other_schemas_take_no_packets_with_noise_and_this_one_no_others() -> None:
    schema = private_schema()
    made = build_noisy(
        schema,
        author=ALICE.public_key,
        sequence=np.zeros(1, dtype=np.uint64),
        regions=np.array([0]),
        sums=np.array([[3, 4]]),
        bucket=schema.time.bucket(NOW),
    )
    made["distiller"] = 2
    assert accept(made, schema, NOW).reason[0] == Rejection.DISTILLER
    with pytest.raises(OutrouteError) as error:
        build_noisy(
            schema_of(*FIELDS),
            author=ALICE.public_key,
            sequence=np.zeros(1, dtype=np.uint64),
            regions=np.array([0]),
            sums=np.array([[3, 4]]),
            bucket=0,
        )
    assert error.value.code == "packet.distiller"


# schemas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epsilon": None}, "needs epsilon"),
        ({"epsilon": Decimal(0)}, "above 0"),
        ({"epsilon": Decimal(101)}, "at most 100"),
        ({"epsilon": Decimal("0.0000001")}, "decimals"),
        ({"epsilon": Decimal("nan")}, "above 0"),
        ({"delta": Decimal("0.01")}, "delta"),
        ({"delta": Decimal(-1)}, "delta"),
        ({"m": 0}, "m lies"),
        ({"m": 1.5}, "whole number"),
        ({"releases": 10_001}, "releases lies"),
        ({"k": 0}, "k lies"),
    ],
)
def test_what_a_promise_may_be(given: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        private(**given)


def test_a_promise_belongs_to_its_distiller() -> None:
    with pytest.raises(SchemaError, match="go with distiller 'private'"):
        Privacy(k=5, epsilon=Decimal(1))


def test_landmarks_from_records_need_a_declaration() -> None:
    learnt = Landmarks(np.array([[1, 65534, 0, 0, 65534, 0, 0], [9, 0, 65534, 0, 65534, 0, 0]], dtype=np.uint16))
    with pytest.raises(SchemaError, match="must not be learnt") as error:
        private_schema(landmarks=learnt)
    assert error.value.code == "schema.private"
    public = private_schema(landmarks=learnt, privacy=private(public_landmarks=True))
    text = dumps(public, landmarks_file="marks")
    assert "public = true" in text
    assert loads(text, lambda _: learnt.to_bytes()).id == public.id
    assert public.id != private_schema().id


def test_too_many_cells_are_refused() -> None:
    facets = tuple(categorical_field(f"f{i}", facet=True, categories=tuple("abcdefghij")) for i in range(4))
    with pytest.raises(SchemaError, match="16,384 at most"):
        schema_of(numeric_field(), *facets, privacy=private(), landmarks=drawn_landmarks((numeric_field(), *facets), 2))


@pytest.mark.parametrize("levels", [{"x": 4}, {"x": 5, "c": 3}, {"c": 3}])
def test_grids_come_back_from_toml(levels: dict[str, int]) -> None:
    schema = private_schema(landmarks=grid_landmarks(FIELDS, levels), privacy=private(delta=Decimal("0.000001"), m=3))
    recipe = recipe_of(schema.fields, schema.landmarks)
    assert recipe is not None
    assert (recipe.kind, dict(recipe.levels)) == ("grid", levels)
    assert loads(dumps(schema)) == schema
    assert not (schema.landmarks.codes == MISSING).any()
    assert b'"delta":"0.000001"' in canonical(schema)


@pytest.mark.parametrize(
    ("levels", "says"),
    [({"y": 2}, "no field"), ({"f": 3}, "facet"), ({"c": 2}, "3 categories"), ({"x": 1}, "2 to"), ({}, "2 to 16,384")],
)
def test_grids_that_are_none(levels: dict[str, int], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        grid_landmarks(FIELDS, levels)


def test_differences_say_what_a_promise_means() -> None:
    cohort, one = schema_of(*FIELDS), private_schema()

    def meanings(a: Schema, b: Schema) -> dict[str, Meaning]:
        return {change.text.split(" ")[0]: change.meaning for change in diff(a, b) if change.where == "privacy"}

    assert set(meanings(cohort, one).values()) == {Meaning.NARROWS}
    assert set(meanings(one, cohort).values()) == {Meaning.WEAKENS}
    more = private_schema(privacy=private(epsilon=Decimal(2), delta=Decimal("0.0001"), m=2, releases=9))
    assert meanings(one, more)["epsilon"] is meanings(one, more)["delta"] is Meaning.WEAKENS
    assert meanings(more, one)["epsilon"] is Meaning.NARROWS
    assert len(diff(one, more)) == 4
