import pytest

from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError

PILE = ["Pile-CC", "Wikipedia (en)", "a, b: c", "no", "книги"]


def test_a_list_is_in_the_order_of_the_domains():
    assert in_order([0.25, 0.75], ["a", "b"], key="k") == [0.25, 0.75]


@pytest.mark.parametrize(
    "text",
    [
        "{Pile-CC: .1, Wikipedia (en): .2, 'a, b: c': .3, no: .4, книги: 0}",
        '{Pile-CC:.1,Wikipedia (en):2e-1,"a, b: c":0.3,no:.4,"книги":0}',
        " { книги : 0 , no : .4 , Pile-CC : .1 , Wikipedia (en) : .2 , 'a, b: c' : .3 } ",
    ],
)
def test_the_text_of_a_mapping_may_have_any_names(text):
    assert in_order(text, PILE, key="k") == [0.1, 0.2, 0.3, 0.4, 0]


def test_whole_numbers_of_a_mapping_stay_whole():
    assert in_order("{a: 9_007_199_254_740_993, b: 2}", ["a", "b"], key="k") == [9_007_199_254_740_993, 2]


def test_a_domain_that_is_not_named_has_the_number_of_the_others():
    assert in_order({"b": 0.5}, ["a", "b", "c"], key="k", others=1.0) == [1, 0.5, 1]
    assert in_order("{}", ["a", "b"], key="k", others=0.0) == [0, 0]


@pytest.mark.parametrize(
    ("domains", "read"),
    [
        (["no", "sv"], {False: 0.25, "sv": 0.75}),
        (["1.10", "x"], {1.1: 0.25, "x": 0.75}),
        (["2024", "x"], {2024: 0.25, "x": 0.75}),
    ],
)
def test_names_that_yaml_has_read_as_something_else_are_found(domains, read):
    assert in_order(read, domains, key="k") == [0.25, 0.75]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"c": 1.0}, "k names 'c'; the domains are a, b"),
        ({"a": 0.5, "c": 0.25, "d": 0.25}, "k names 'c', 'd'; the domains are a, b"),
        ({"a": 1.0}, "k does not name 'b'; give each of a, b a number"),
        ("{a: 1, a: 0, b: 0}", "k names 'a' twice; give one number per domain"),
        ("a: 1", r"k is 'a: 1'; write it as \{<domain>: <number>, ...\}"),
        ("{a 1}", r"k is '\{a 1\}'; write it as"),
        ("{a: x, b: 0}", "k of 'a' is 'x', which is no number"),
        ("{a: 5M, b: 0}", "k of 'a' is '5M', which is no number; a whole number is written out, as in 5_000_000"),
        ({"a": 1, "b": True}, "k of 'b' is True, which is no number"),
        ([0.5, "half"], "k of 'b' is 'half', which is no number"),
        (0.5, "k is 0.5; give a list in the order of a, b, or {<domain>: <number>}"),
    ],
)
def test_what_is_no_number_by_domain_is_refused(value, message):
    with pytest.raises(UserError, match=message):
        in_order(value, ["a", "b"], key="k")
