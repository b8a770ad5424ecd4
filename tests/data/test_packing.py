import json
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.data.corpus import Corpus, Document
from autoscale_exp.data.packing import RowWriter, Split
from autoscale_exp.data.tokenizer import train_bpe

DOCUMENTS = [Document(f"document {number} " + "abc " * (number % 9), f"g{number}") for number in range(600)]
TOKENIZER = train_bpe([document.text for document in DOCUMENTS], 280)


def grouped_corpus(folder: Path, extra: dict[str, list[dict]] | None = None) -> Corpus:
    """Two domains with 5 documents in each of 200 groups, the groups being the same in both."""
    for domain in ("web", "books"):
        records = [{"text": f"{domain} {g} {d}", "group": f"g{g}"} for g in range(200) for d in range(5)]
        lines = [json.dumps(record) + "\n" for record in records + (extra or {}).get(domain, [])]
        (folder / f"{domain}.jsonl").write_text("".join(lines))
    return Corpus(folder, group_field="group")


@pytest.mark.parametrize("seq_len", [2, 16, 100])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_rows_are_the_documents_each_followed_by_end_of_text(seq_len, dtype, tmp_path: Path):
    writer = RowWriter(tmp_path / "rows.bin", seq_len, np.dtype(dtype))
    num_tokens = sum(writer.write(DOCUMENTS, TOKENIZER))
    expected = [token for d in DOCUMENTS for token in (*TOKENIZER.encode(d.text), TOKENIZER.eos_token_id)]
    rows = np.fromfile(tmp_path / "rows.bin", dtype)
    assert rows.tolist() == expected[: len(expected) // seq_len * seq_len]
    assert writer.rows * seq_len == writer.tokens == num_tokens == rows.size
    assert writer.dropped_tokens == len(expected) % seq_len
    assert writer.documents == 600
    assert writer.characters == sum(len(d.text) for d in DOCUMENTS)


def test_no_documents_give_an_empty_file(tmp_path: Path):
    writer = RowWriter(tmp_path / "rows.bin", 16, np.dtype("<u2"))
    assert list(writer.write([], TOKENIZER)) == []
    assert (tmp_path / "rows.bin").read_bytes() == b""
    assert writer.rows == 0


def test_a_group_is_on_one_side_of_the_split_in_all_domains(tmp_path: Path):
    split = Split(grouped_corpus(tmp_path), ["web", "books"], 0.2)
    held_out = {d.group for domain in ("web", "books") for d in split.validation(domain)}
    trained_on = {d.group for domain in ("web", "books") for d in split.training(domain)}
    assert held_out | trained_on == {f"g{number}" for number in range(200)}
    assert not held_out & trained_on
    assert abs(len(held_out) - 40) < 5 * np.sqrt(200 * 0.2 * 0.8)


def test_no_document_is_lost_by_the_split(tmp_path: Path):
    split = Split(grouped_corpus(tmp_path), ["web", "books"], 0.2)
    assert len([*split.validation("web"), *split.training("web")]) == 1000


def test_a_larger_fraction_holds_out_more_groups_and_the_same_ones(tmp_path: Path):
    corpus = grouped_corpus(tmp_path)
    smaller, larger = ({d.group for d in Split(corpus, ["web"], f).validation("web")} for f in (0.1, 0.3))
    assert smaller < larger


def test_training_has_no_text_that_is_held_out_in_any_domain(tmp_path: Path):
    plain = Split(grouped_corpus(tmp_path), ["web", "books"], 0.2)
    held_out = [next(plain.validation("web")).text, next(plain.validation("books")).text]
    trained_on = next(plain.training("books")).group
    copies = [{"text": text, "group": trained_on} for text in held_out]
    split = Split(grouped_corpus(tmp_path, {"books": copies}), ["web", "books"], 0.2)
    assert list(split.training("books")) == list(plain.training("books"))
    assert list(split.training("web")) == list(plain.training("web"))
    assert split.duplicates == {"web": 0, "books": 2}
    assert sorted(d.text for d in split.validation("web")) == sorted(d.text for d in plain.validation("web"))


def test_copies_within_training_are_kept(tmp_path: Path):
    plain = Split(grouped_corpus(tmp_path), ["web"], 0.2)
    document = next(plain.training("web"))
    copy = {"text": document.text, "group": document.group}
    split = Split(grouped_corpus(tmp_path, {"web": [copy]}), ["web"], 0.2)
    assert [d.text for d in split.training("web")].count(document.text) == 2
