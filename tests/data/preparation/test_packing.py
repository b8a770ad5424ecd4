from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.data.preparation import packing
from autoscale_exp.data.preparation.encoding import Encoder
from autoscale_exp.data.preparation.packing import WINDOW_CHARACTERS, RowFormat, RowWriter, draw_window
from autoscale_exp.data.tokenizer import train_bpe

TEXTS = [f"document {number} " + "abc " * (number % 9) for number in range(600)]
TOKENIZER = train_bpe(TEXTS, 280)
END = TOKENIZER.eos_token_id


def encoder_of(row_format: RowFormat, threads: int = 1) -> Encoder:
    return Encoder(TOKENIZER.backend_tokenizer, row_format.separator, row_format.dtype, lambda: threads)


def write_rows(
    path: Path, texts: list[str], row_format: RowFormat, threads: int = 1
) -> tuple[RowWriter, np.ndarray, int]:
    with encoder_of(row_format, threads) as encoder:
        writer = RowWriter(path, row_format, encoder)
        num_tokens = sum(writer.add(text) for text in texts) + writer.close()
    return writer, np.fromfile(path, row_format.dtype).reshape(-1, row_format.seq_len), num_tokens


@pytest.mark.parametrize("seq_len", [2, 16, 100])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("row_start", [None, 7])
@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (7, 1), (7, 5), (256, 2)])
def test_rows_are_the_documents_each_followed_by_the_separator(
    seq_len, dtype, row_start, batch, threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packing, "BATCH_DOCUMENTS", batch)
    writer, rows, num_tokens = write_rows(
        tmp_path / "rows.bin", TEXTS, RowFormat(seq_len, dtype, END, row_start), threads
    )
    expected = [token for text in TEXTS for token in (*TOKENIZER.encode(text), END)]
    starts = 0 if row_start is None else 1
    assert (rows[:, :starts] == row_start).all()
    assert rows[:, starts:].ravel().tolist() == expected[: len(expected) // (seq_len - starts) * (seq_len - starts)]
    assert writer.rows == len(rows)
    assert num_tokens == rows.size
    assert writer.dropped_tokens == len(expected) % (seq_len - starts)
    assert writer.documents == 600
    assert writer.characters == sum(map(len, TEXTS))
    assert writer.sha256 == file_sha256(tmp_path / "rows.bin")


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=12), seq_len=st.integers(2, 9), batch=st.integers(1, 40))
def test_any_texts_are_read_back_from_their_rows(tmp_path_factory, texts, seq_len, batch):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BATCH_CHARACTERS", batch)
        writer, rows, _ = write_rows(path, texts, RowFormat(seq_len, "<u2", END))
    expected = "".join(text + "<|endoftext|>" for text in texts)
    ids = [token for text in texts for token in (*TOKENIZER.encode(text), END)]
    assert ids[: rows.size] == rows.ravel().tolist()
    assert TOKENIZER.decode(rows.ravel().tolist() + ids[rows.size :]) == expected
    assert rows.size + writer.dropped_tokens == len(ids)


def test_no_documents_give_an_empty_file(tmp_path: Path):
    writer, rows, num_tokens = write_rows(tmp_path / "rows.bin", [], RowFormat(16, "<u2", END))
    assert writer.rows == num_tokens == rows.size == writer.dropped_tokens == 0
    assert (tmp_path / "rows.bin").read_bytes() == b""


def test_long_documents_are_encoded_fewer_at_once(tmp_path: Path):
    sizes = []

    class Spy:
        def encode_batch_fast(self, texts, add_special_tokens):
            sizes.append(sum(map(len, texts)))
            return TOKENIZER.backend_tokenizer.encode_batch_fast(["x"] * len(texts), add_special_tokens=False)

    with Encoder(Spy(), END, "<u2") as encoder:
        writer = RowWriter(tmp_path / "rows.bin", RowFormat(16, "<u2", END), encoder)
        for _ in range(20):
            writer.add("x" * 300_000)
        writer.close()
    assert sum(sizes) == 6_000_000
    assert max(sizes) < packing.BATCH_CHARACTERS + 300_000


def test_a_full_disk_is_an_error_and_the_file_is_closed():
    row_format = RowFormat(16, "<u2", END)
    with encoder_of(row_format) as encoder:
        writer = RowWriter(Path("/dev/full"), row_format, encoder)
        with pytest.raises(OSError, match="No space left"):
            deque(map(writer.add, TEXTS * 20))
    writer.discard()
    writer.discard()


def test_a_token_that_its_type_cannot_hold_is_an_error(tmp_path: Path):
    row_format = RowFormat(16, "<u2", 2**16)
    with encoder_of(row_format) as encoder:
        writer = RowWriter(tmp_path / "rows.bin", row_format, encoder)
        writer.add("a")
        with pytest.raises(OverflowError):
            writer.close()


def test_a_window_is_of_the_published_length_and_from_the_text():
    for length in (1000, 1001, 1500, 40_000):
        text = "".join(chr(0x4E00 + (n * n) % 20_000) for n in range(length))
        window = draw_window(text)
        assert len(window) == 1000 == WINDOW_CHARACTERS
        assert window in text
        assert draw_window(text) == window


def test_windows_come_from_all_places_of_their_texts():
    texts = [f"{n:06}" + "".join(f"{place:05}" for place in range(400)) for n in range(2000)]
    starts = [text.index(draw_window(text)) for text in texts]
    assert min(starts) < 10
    assert max(starts) > 1006 - 10
    counts = np.histogram(starts, bins=10, range=(0, 1007))[0]
    assert abs(counts - 200).max() < 5 * np.sqrt(200)
