from dataclasses import replace
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.proposal import Proposal, read_proposals, write_proposals

PROPOSALS = [Proposal("next0_1M", 1_000_000, 0, (250_000.1, 749_999.9)), Proposal("b_seed2", 1_000_000, 2, (3e5, 9e5))]


def test_proposed_runs_are_read_as_they_were_written_in_the_order_of_the_domains(tmp_path: Path):
    path = tmp_path / "next_runs" / "3M.csv"
    write_proposals(path, ["web", "code"], PROPOSALS)
    assert read_proposals(path, ["web", "code"]) == PROPOSALS
    sized = [replace(PROPOSALS[0], params=124_000_000), replace(PROPOSALS[1], params=93_000)]
    write_proposals(tmp_path / "sized.csv", ["web", "code"], sized)
    assert read_proposals(tmp_path / "sized.csv", ["web", "code"]) == sized
    assert [proposal.tokens for proposal in read_proposals(path, ["code", "web"])] == [
        (749_999.9, 250_000.1),
        (9e5, 3e5),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,token_budget,seed,tokens.web\na,10,0,5\n", r"with the columns run, .*; needed are run, .*, tokens.code"),
        ("run,token_budget,seed,tokens.web,tokens.code\na,10.5,0,5,5\n", "run 'a': token_budget 10.5 and seed 0 must"),
        ("run,token_budget,seed,tokens.web,tokens.code\na,10,0,0,0\n", "its tokens above 0, but they sum to 0"),
        ("run,token_budget,seed,tokens.web,tokens.code\na,0,0,5,5\n", "column token_budget: 0 must be finite"),
    ],
)
def test_a_table_that_is_none_of_proposed_runs_is_refused(text, message, tmp_path: Path):
    path = tmp_path / "next.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_proposals(path, ["web", "code"])
