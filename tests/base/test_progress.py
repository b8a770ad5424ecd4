import logging

from autoscale_exp.base import progress
from autoscale_exp.base.progress import Progress


def test_only_what_takes_long_says_how_far_it_is(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    told = Progress(logging.getLogger("test"), "counting")
    for second in range(12):
        now[0] = float(second)
        told.tell(f"{second} of 12")
    assert [record.message for record in caplog.records] == ["counting: 5 of 12", "counting: 10 of 12"]
