"""Errors carry every problem, name the exit code and survive pickling."""

from __future__ import annotations

import math
import pickle
from types import SimpleNamespace

import pytest

from mlkd.errors import MlkdError, Problem, did_you_mean, fail, out_of_range


def test_how_a_problem_reads() -> None:
    assert str(Problem("E204", "must be > 0 (got 0)", "optim.lr", "set optim.lr=2e-5")) == (
        "error[E204]: optim.lr: must be > 0 (got 0)\n  fix: set optim.lr=2e-5"
    )
    assert str(Problem("E303", "a.en is empty")) == "error[E303]: a.en is empty"


@pytest.mark.parametrize(("code", "exit_code"), [("E201", 2), ("E301", 3), ("E401", 4), ("E502", 5), ("E601", 6)])
def test_the_exit_code_follows_from_the_first_problem(code: str, exit_code: int) -> None:
    assert fail(code, "what").exit_code == exit_code
    assert MlkdError([Problem(code, "one"), Problem("E999", "two")]).exit_code == exit_code


def test_all_problems_are_told_and_survive_pickling() -> None:
    error = MlkdError(Problem("E204", f"problem {i}", f"field{i}", "mend it") for i in range(3))
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems and str(again) == str(error) and again.exit_code == 2
    assert str(error).count("error[E204]") == 3
    assert isinstance(error, ValueError)


def test_the_same_problem_is_told_once() -> None:
    first, second = Problem("E301", "no such file", "a.tsv"), Problem("E301", "no such file", "b.tsv")
    assert MlkdError([second, first, Problem("E301", "no such file", "b.tsv"), first]).problems == [second, first]


def test_an_error_without_a_problem_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        MlkdError([])


def test_the_nearest_name_is_offered_if_there_is_one() -> None:
    assert did_you_mean("jp", ["ja", "jpx", "de"]) == " Did you mean 'jpx'?"
    assert did_you_mean("qqqq", ["ja", "de"]) == ""
    assert did_you_mean("x", []) == ""


@pytest.mark.parametrize(
    ("value", "told"), [(math.inf, "> 0 and finite"), (-math.inf, "> 0 and finite"), (math.nan, "> 0")]
)
def test_what_is_no_finite_number_is_in_no_range(value: float, told: str) -> None:
    (problem,) = out_of_range(SimpleNamespace(lr=value), "lr", gt=0)
    assert (problem.code, problem.what) == ("E204", f"must be {told} (got {value})")
