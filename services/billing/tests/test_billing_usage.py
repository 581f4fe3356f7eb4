"""Usage reports: what may be asked, and how sums become figures."""

from typing import Any

import pytest
from collegium_billing.errors import QuestionError
from collegium_billing.reports import usage
from collegium_billing.reports.usage import DAY_MS, Sums
from collegium_contracts.requests import UsageRequest


def asked(**fields: Any) -> UsageRequest:
    return UsageRequest(**({"tenant": "acme", "from_ms": 0, "to_ms": DAY_MS} | fields))


def sums(*group: str) -> Sums:
    return Sums(group, 1, 2, 3, 4, 5 * 10**12, 25 * 10**10, 10**40, 0, 6, 7)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"group_by": ["tenant", "secret"]}, "group_by"),
        ({"group_by": ["tenant; DROP TABLE billing.tasks"]}, "group_by"),
        ({"tenant": "Acme"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"from_ms": 5, "to_ms": 5}, "from"),
        ({"from_ms": -1}, "from"),
        ({"to_ms": 10**18}, "from"),
        ({"to_ms": (usage.RANGE_DAYS_MAX + 1) * DAY_MS}, "from"),
    ],
)
def test_a_question_at_fault_is_refused_with_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(QuestionError) as refused:
        usage.query(asked(**fields))
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


def test_groups_count_once_and_keep_their_order() -> None:
    assert usage.query(asked(group_by=["tag", "day", "tag"])).groups == ("tag", "day")


def test_figures_are_exact_decimal_strings() -> None:
    figures = usage.figures(sums())
    assert (figures.cost_usd, figures.wasted_usd, figures.saved_usd) == ("5", "0.25", "0")
    assert figures.charged_usd == "1" + "0" * 28


def test_rows_are_named_and_sorted() -> None:
    query = usage.query(asked(group_by=["tenant", "day"]))
    reply = usage.reply(query, [sums("b", "2026-01-01"), sums("a", "2026-01-02")], sums())
    assert [row.group for row in reply.rows] == [
        {"tenant": "a", "day": "2026-01-02"},
        {"tenant": "b", "day": "2026-01-01"},
    ]


def test_a_report_that_does_not_fit_a_reply_is_refused() -> None:
    query = usage.query(asked(group_by=["key"]))
    with pytest.raises(QuestionError):
        usage.reply(query, [sums(str(number)) for number in range(usage.ROWS_MAX + 1)], sums())
    with pytest.raises(QuestionError):
        usage.check_size(usage.REPLY_BYTES_MAX + 1)
