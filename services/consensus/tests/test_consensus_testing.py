"""Code in answers, whose fault it is where it does not run, what calls gave, and which answers may win. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_consensus.course import Ask, Late, Seen, Settle, Terms, Wait, close, follow
from collegium_consensus.testing.blame import blame
from collegium_consensus.testing.deciding import confidence_of
from collegium_consensus.testing.extraction import code_of
from collegium_consensus.testing.members import PASSED
from collegium_consensus.testing.values import behaviour, equals, plain
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("So:\n```py\na = 1\n```\nand\n```python\nb = 2\n```\nthat is all", "a = 1\n\nb = 2\n"),
        ("```\na = 1\n```\n```text\nnot this\n```", "a = 1\n"),
        ("```\nthis is no code\n```", ""),
        ("```json\n{}\n```", ""),
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("x * x", ""),
        ("I cannot do that.", ""),
        ("", ""),
        ("```python\na = 1\nif __name__ == '__main__':\n    a = 2\n    b = 3\nc = 4\n```", "a = 1\npass\n\n\nc = 4\n"),
        ("```python\ndef f(:\n```", "def f(:\n"),
        ("x" * 1_000_000, None),
        ("```python\n" + "a = 1\n" * 20_000 + "```", None),
    ],
)
def test_the_code_of_an_answer_is_what_is_marked_as_code(text: str, code: str | None) -> None:
    assert code_of(text) == code


@given(st.text())
def test_any_text_has_code_or_none(text: str) -> None:
    assert isinstance(code_of(text), str)


@pytest.mark.parametrize(
    ("kind", "message", "told"),
    [
        ("NotImplementedError", "The monty syntax parser does not yet support yield expressions", ("not_run", "lacks")),
        ("ModuleNotFoundError", "No module named 'heapq'", ("not_run", "lacks")),
        ("AttributeError", "module 'sys' has no attribute 'setrecursionlimit'", ("not_run", "lacks")),
        ("AttributeError", "'str' object has no attribute 'format_map'", ("not_run", "lacks")),
        ("AttributeError", "'list' object has no attribute 'push'", ("failed", "raised")),
        ("AttributeError", "'NoneType' object has no attribute 'x'", ("failed", "raised")),
        ("AttributeError", "'Node' object has no attribute 'x'", ("not_run", "lacks")),
        ("NameError", "name 'memoryview' is not defined", ("not_run", "lacks")),
        ("NameError", "name 'helper' is not defined", ("failed", "raised")),
        ("TypeError", "cannot convert 'list' object to bytes", ("not_run", "lacks")),
        ("TypeError", "f() takes 1 positional argument but 2 were given", ("failed", "raised")),
        ("TypeError", "unsupported operand type(s) for +: 'int' and 'str'", ("failed", "raised")),
        ("RuntimeError", "suspension limit 50 exceeded", ("not_run", "lacks")),
        ("PermissionError", "Permission denied: '/etc/passwd'", ("not_run", "lacks")),
        ("IndexError", "list index out of range", ("failed", "raised")),
        ("RecursionError", "maximum recursion depth exceeded", ("failed", "raised")),
        ("SystemExit", "", ("failed", "raised")),
        ("NameError", "NameError: name 'monty_hall' is not defined", ("failed", "raised")),
        ("ValueError", "ValueError: no monty here", ("failed", "raised")),
        ("AssertionError", "AssertionError: suspension limit 50 exceeded", ("failed", "raised")),
        ("RuntimeError", "RuntimeError: suspension limit 50 exceeded", ("not_run", "lacks")),
        ("TimeoutError", "TimeoutError: no answer", ("failed", "raised")),
        ("MemoryError", "memory limit exceeded", ("failed", "memory")),
        ("re.PatternError", "look-behind", ("not_run", "lacks")),
    ],
)
def test_what_the_interpreter_lacks_is_no_word_against_the_code(kind: str, message: str, told: Any) -> None:
    assert blame(kind, message, is_python=True) == told


def test_a_time_out_is_the_interpreters_where_all_time_had_passed() -> None:
    assert blame("TimeoutError", "feed time limit exceeded", is_python=True, is_over=True) == ("failed", "time")


def test_a_syntax_error_is_the_codes_where_python_does_not_read_it_either() -> None:
    assert blame("SyntaxError", "x", is_python=True) == ("not_run", "lacks")
    assert blame("SyntaxError", "x", is_python=False) == ("failed", "syntax")


@pytest.mark.parametrize(
    ("given_value", "wanted", "same"),
    [
        ((1, 2), [1, 2], True),
        ({3, 1, 2}, [1, 2, 3], True),
        ({"b", "aa"}, ["aa", "b"], True),
        ({"b", "aa"}, ["b", "aa"], False),
        ({3, -1}, [-1, 3], True),
        ({300, 2.5, -40_000, -(10**40), 10**30}, [-(10**40), -40_000, 2.5, 300, 10**30], True),
        ({(10, "b"), (2, "aa"), (2, "b")}, [[2, "aa"], [2, "b"], [10, "b"]], True),
        ({"é", "z", "\U0001f600", "\uff5e"}, ["z", "é", "\uff5e", "\U0001f600"], True),
        ({1, "a", None, (1,)}, [None, 1, "a", [1]], True),
        ({"\x00int odd", "a"}, ["\x00int odd", "a"], True),
        ({1: "a"}, {"1": "a"}, True),
        (0.1 + 0.2, 0.3, True),
        (2.0, 2, True),
        (2, 2.5, False),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (None, 0, False),
        ("2", 2, False),
        (10**40, 10**40, True),
        (10**40, 10**40 + 1, False),
        (float("nan"), None, False),
        ([1, [2, (3,)]], [1, [2, [3]]], True),
        (object(), "object", False),
        (b"a", "a", False),
    ],
)
def test_values_are_compared_as_json_has_them(given_value: Any, wanted: Any, same: bool) -> None:
    assert equals(plain(given_value), plain(wanted)) is same


def test_what_is_nested_without_end_is_compared_in_bounded_time() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    assert not equals(plain(deep), [])
    assert behaviour([plain(deep)]) == behaviour([plain(deep)])
    assert len(behaviour([plain(list(range(200_000)))])) == 32


def test_the_same_behaviour_is_the_same_whatever_the_last_digits() -> None:
    assert behaviour([plain([0.1 + 0.2, 2.0])]) == behaviour([plain((0.3, 2))])
    assert behaviour([plain(1)]) != behaviour([plain("1")])


def end(number: int, says: str) -> Seen:
    """An end: ``+`` passed, ``-n`` failed after n tests and gave that, ``~x`` could not be run and reads so, ``!``."""
    match says[0]:
        case "+":
            return Seen(number, f"m{number}", PASSED, 0, tested="passed", passed=9)
        case "-":
            return Seen(number, f"m{number}", f"\x00failed {says}", 0, tested="failed", passed=int(says[1]))
        case "~":
            return Seen(number, f"m{number}", says, 0, tested="not_run")
        case _:
            return Seen(number, f"m{number}", None, 0, "upstream_timeout")


def course(plan: Any, of: int, *says: str) -> list[Any]:
    terms = Terms(plan, of, 1_000, threshold=0.7, kind="code", tests=9)
    ends = [end(number, one) for number, one in enumerate(says, 1)]
    told: list[Any] = []
    for count in range(1, len(ends) + 1):
        match follow(ends[:count], terms):
            case Wait():
                told.append("wait")
            case Late():
                told.append("late")
            case Ask(numbers=numbers, reason=reason):
                told.append((list(numbers), reason))
            case Settle(judgement=judgement):
                told.append(judgement.winner if judgement is not None else 0)
    return told


@pytest.mark.parametrize(
    ("plan", "of", "says", "told"),
    [
        ("panel", 5, ["+"], [1]),
        ("panel", 5, ["-2", "+"], [([2], "tests"), 2]),
        ("panel", 5, ["-2", "-2", "+"], [([2], "tests"), ([3], "tests"), 3]),
        ("panel", 3, ["-2", "-5", "-2"], [([2], "tests"), ([3], "tests"), 2]),
        ("panel", 3, ["-2", "-2", "~a"], [([2], "tests"), ([3], "tests"), 3]),
        ("panel", 5, ["~a", "~a"], [([2], "tests"), 1]),
        ("panel", 3, ["-2", "-1", "-2"], [([2], "tests"), ([3], "tests"), 1]),
        ("panel", 5, ["+", "+"], [1, "late"]),
        ("panel", 2, ["!", "+"], [([2], "failure"), 2]),
        ("cascade", 4, ["+"], [1]),
        ("cascade", 4, ["-3", "-3", "+"], [([2], "tests"), ([3], "tests"), 3]),
        ("cascade", 4, ["-3", "-3", "-2", "-1"], [([2], "tests"), ([3], "tests"), ([4], "tests"), 1]),
        ("cascade", 3, ["-3", "~a", "-4"], [([2], "tests"), ([3], "tests"), 2]),
        ("single", 1, ["-3"], [1]),
        ("single", 1, ["+"], [1]),
        ("single", 1, ["!"], [0]),
    ],
)
def test_a_plan_asks_until_an_answer_passes_and_then_takes_what_failed_least(
    plan: Any, of: int, says: Any, told: Any
) -> None:
    assert course(plan, of, *says) == told


@given(st.lists(st.sampled_from(["+", "-1", "-2", "~a", "~b", "!"]), min_size=1, max_size=5), st.randoms())
def test_whoever_passed_is_given_in_whatever_order_answers_came(says: list[str], random: Any) -> None:
    ends = [end(number, one) for number, one in enumerate(says, 1)]
    random.shuffle(ends)
    terms = Terms("panel", 5, 1_000, kind="code", tests=9)
    judgement = close(ends, terms).judgement
    if all(one == "!" for one in says):
        assert judgement is None
        return
    assert judgement is not None
    assert judgement.evidence is not None
    order = {"+": 0, "~": 1, "-": 2, "!": 3}
    best = min(order[one[0]] for one in says)
    won = says[judgement.winner - 1]
    assert order[won[0]] == best
    [given_one] = [one for one in judgement.evidence.said if one.is_given]
    assert given_one.model == f"m{judgement.winner}"
    assert judgement.evidence.tests == 9
    if best == 0:
        assert judgement.confidence == pytest.approx(0.95)
        assert judgement.agreeing == says.count("+")


def test_more_tests_make_more_sure_and_a_failed_one_makes_unsure() -> None:
    assert [confidence_of("passed", tests, 0.5) for tests in (1, 3, 32)] == pytest.approx(
        [0.75, 0.875, 0.9848], abs=1e-3
    )
    assert confidence_of("failed", 3, 0.9) == 0.05
    assert confidence_of("not_run", 3, 0.9) == 0.9
