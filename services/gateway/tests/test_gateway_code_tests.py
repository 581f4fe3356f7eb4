"""Tests that come with a request: what is refused at both doors, and by which path."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_contracts.code_tests import TESTS_MAX, CodeTest, decode_tests
from collegium_contracts.envelope import IdentityKeyring
from collegium_gateway.admission.code_tests import answer_of, check_tests, sealed_tests
from collegium_gateway.admission.requests import Options, decode_task, options_of, parse
from collegium_gateway.errors import ApiError
from collegium_gateway.grpc.requests import asked_over_tasks
from collegium_protocol.v1.chat_pb2 import CodeTest as WireTest
from collegium_protocol.v1.tasks_pb2 import SubmitRequest

GOOD: list[dict[str, Any]] = [{"call": "f(2)", "equals": 4}, {"code": "assert f(3) == 9"}]


def options(tests: Any, **fields: Any) -> Options:
    body = msgspec.json.encode({"input": "x", "tests": tests, **fields})
    return options_of(parse(decode_task, body))


def test_good_tests_pass_and_mean_that_the_answer_is_code() -> None:
    good = options([*GOOD, {"call": "f(None)", "equals": None}])
    check_tests(good, 1)
    assert answer_of(good) == "code"
    sealed = sealed_tests(IdentityKeyring(), "acme", good)
    assert sealed is not None
    assert decode_tests(IdentityKeyring().open("acme", sealed)) == good.tests
    assert sealed_tests(IdentityKeyring(), "acme", Options()) is None


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"call": "f(2", "equals": 4}, "tests[2].call"),
        ({"call": "f(2)"}, "tests[2].equals"),
        ({"equals": 4}, "tests[2]"),
        ({"call": "2 + 2", "equals": 4}, "tests[2].call"),
        ({"call": "x = f(2)", "equals": 4}, "tests[2].call"),
        ({"code": "f(3)"}, "tests[2].code"),
        ({"code": "assert f("}, "tests[2].code"),
        ({"code": "assert f(1)", "equals": 1}, "tests[2].equals"),
        ({"code": "assert f(1)", "call": "f(1)", "equals": 1}, "tests[2]"),
        ({}, "tests[2]"),
        ({"call": " ", "equals": 1}, "tests[2]"),
        ({"code": "assert f(" + "-" * 3_900 + "1)"}, "tests[2].code"),
        ({"call": f"f('{'x' * 4_000}')", "equals": 1}, "tests[2]"),
        ({"call": "f(1)", "equals": "x" * 4_000}, "tests[2]"),
        ({"code": "assert f(1)\x00"}, "tests[2].code"),
    ],
)
def test_a_test_that_cannot_be_run_is_refused_by_its_place(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_tests(options([*GOOD, wrong]), 1)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("tests", "fields", "param"),
    [
        ([], {}, "tests"),
        ([GOOD[0]] * (TESTS_MAX + 1), {}, "tests"),
        ([{"call": f"f('{'x' * 3_900}')", "equals": 1}] * 9, {}, "tests"),
        (GOOD, {"answer": "number"}, "answer"),
    ],
)
def test_too_many_or_for_another_type_are_refused(tests: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_tests(options(tests, **fields), 1)
    assert refused.value.param == param


def test_tests_are_of_one_answer() -> None:
    with pytest.raises(ApiError) as refused:
        check_tests(options(GOOD), 2)
    assert (refused.value.code, refused.value.param) == ("unsupported_option", "n")


@pytest.mark.parametrize("wrong", [{"call": 1, "equals": 1}, {"call": "f(1)", "equal": 1}, "assert f(1)"])
def test_what_is_no_test_at_all_is_refused_with_its_path(wrong: Any) -> None:
    with pytest.raises(ApiError) as refused:
        options([wrong])
    assert (refused.value.param or "tests").startswith("tests")


def test_both_doors_take_the_same() -> None:
    wire = [WireTest(call="f(2)", equals_json="4"), WireTest(code="assert f(3) == 9")]
    asked = asked_over_tasks(SubmitRequest(input="x", tests=wire))
    assert asked.options.tests == [CodeTest(call="f(2)", equals=4), CodeTest(code="assert f(3) == 9")]
    assert asked.sampling.answer == "code"
    with pytest.raises(ApiError) as refused:
        asked_over_tasks(SubmitRequest(input="x", tests=[WireTest(call="f(2)", equals_json="{")]))
    assert refused.value.param == "tests[0].equals"
