import math
import re

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range


def test_the_ends_of_a_range_and_a_number_that_is_not_set_are_allowed():
    check_range({"a": 0, "b": 1.0, "c": None}, 0, 1)


@pytest.mark.parametrize("number", [-1, 2, math.nan, math.inf, -math.inf])
def test_a_number_outside_of_its_range_is_named_with_what_is_allowed(number):
    with pytest.raises(UserError, match=re.escape(f"seed is {number}; it must lie between 0 and 1")):
        check_range({"right": 1, "seed": number}, 0, 1)


def test_infinity_is_no_number_even_without_a_largest_one():
    check_range({"num_workers": 10**400}, 0)
    with pytest.raises(UserError, match="num_workers is inf; it must be at least 0"):
        check_range({"num_workers": math.inf}, 0)
