import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.studies.choices import choose_scales


def test_the_scales_are_a_third_of_the_target_and_a_third_of_that():
    assert choose_scales(10_000_000, [10**9, 10**9]) == [1_000_000, 3_000_000]


def test_little_text_makes_smaller_scales():
    assert choose_scales(10_000_000, [100_000, 10**9, 10**9]) == [50_000, 200_000]


def test_a_target_too_small_for_two_scales_is_refused():
    with pytest.raises(UserError, match="token_budgets ends with 2000, which leaves no room for two smaller scales"):
        choose_scales(2000, [10**9])
