"""Specs and results as JSON: the same value comes back, and what does not fit is one sentence."""

import dataclasses
import json
import types
import typing
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vtabflow.contracts import results, specs
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import UserError
from vtabflow.planning.keys import plan
from vtabflow.planning.study import Study

KINDS = [
    kind
    for module in (specs, results)
    for kind in vars(module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
]


def values(kind: Any) -> st.SearchStrategy:
    """Random values of a type that a contract's field may have."""
    if kind is Any:
        return st.none() | st.integers(-9, 9) | st.text(max_size=3)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fixed = {"version": st.just(kind.version)} if hasattr(kind, "version") else {}
        return st.builds(kind, **{f.name: fixed.get(f.name, values(hints[f.name])) for f in dataclasses.fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(each) for each in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*[values(each) for each in arguments])
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), values(arguments[1]), max_size=2)
    scalars = {
        str: st.text(max_size=5),
        int: st.integers(-(10**6), 10**6),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return scalars[kind]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_value_comes_back_from_its_json(kind, data):
    value = data.draw(values(kind))
    again = from_json(kind, json.loads(json.dumps(to_json(value))), "file.json")
    assert again == value and type(again) is kind


def test_the_specs_of_a_real_study_come_back(root):
    study = Study.model_validate(yaml.safe_load((root / "studies/smoke.yaml").read_text()))
    for spec in plan(study, root).specs():
        assert from_json(type(spec), json.loads(json.dumps(to_json(spec))), "spec") == spec


RECEIPT = {"key": "0123", "folder": "results/x", "made": True}
STORE = specs.StoreRef("svhn", "0123", "data/stores/svhn/0123", "data/stores/svhn/0123.json")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"made": None}, "receipt.json: made is None and should be bool; remove the file and run again"),
        ({"made": 1}, "receipt.json: made is 1 and should be bool"),
        ({"key": 3}, "receipt.json: key is 3 and should be str"),
        ({"color": 3}, "receipt.json: the field 'color' is not known (Receipt); another version of vtabflow wrote it"),
    ],
)
def test_a_field_that_does_not_fit_is_named(change, sentence):
    with pytest.raises(UserError) as error:
        from_json(results.Receipt, {**RECEIPT, **change}, "receipt.json")
    assert str(error.value).startswith(sentence)


def test_a_missing_field_and_another_version_are_named():
    with pytest.raises(UserError, match=r"^r\.json: the field 'folder' is missing \(Receipt\); .* run again$"):
        from_json(results.Receipt, {"key": "0123", "made": True}, "r.json")
    spec = specs.JobSpec("0123", "results/jobs/0123.json", ())
    old = {**to_json(spec), "version": 7}
    with pytest.raises(UserError, match=r"^s\.json is of version 7 of JobSpec and this code reads version 1: "):
        from_json(specs.JobSpec, old, "s.json")
    unversioned = {name: value for name, value in to_json(spec).items() if name != "version"}
    assert from_json(specs.JobSpec, unversioned, "s.json") == spec, "files from before versions are version 1"


def test_a_nested_place_is_named():
    data = {**RECEIPT, "cells": 1}
    with pytest.raises(UserError, match="the field 'cells' is not known"):
        from_json(results.Receipt, data, "r.json")
    card = {"key": "k", "study": "s", "cells": {"ok": 1, "failed": 0}, "complete": True, "state": "x", "figures": []}
    with pytest.raises(UserError, match=r"the field 'missing' is missing in cells \(CellCounts\)"):
        from_json(results.PageCard, {**card, "spec": {}}, "card.json")


def test_an_integer_where_a_float_is_asked_for_becomes_one():
    draw = from_json(specs.SubsetDraw, {"fraction": 1, "seed": 0}, "x")
    assert draw.fraction == 1.0 and isinstance(draw.fraction, float)
    with pytest.raises(UserError, match=r"x: seed is True and should be int"):
        from_json(specs.SubsetDraw, {"fraction": 1, "seed": True}, "x")
    with pytest.raises(UserError, match=r"x: seed is 0\.5 and should be int"):
        from_json(specs.SubsetDraw, {"fraction": 1, "seed": 0.5}, "x")
