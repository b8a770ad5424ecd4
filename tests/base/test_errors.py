from autoscale_exp.base.errors import first_line


def test_only_the_first_line_of_a_message_is_told():
    assert first_line(ValueError("\nno such file\nat line 3")) == "no such file"


def test_an_error_without_a_message_is_told_by_its_type():
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError(" \n")) == "ValueError"
