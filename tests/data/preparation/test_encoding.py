import os
import threading

import pytest

from autoscale_exp.data.preparation.encoding import Encoder


class Encoding:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


class Tokenizer:
    """Letters to numbers; counts the batches that are encoded at a time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.together = threading.Barrier(1)

    def encode_batch_fast(self, texts, add_special_tokens):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.together.wait(timeout=30)
        with self.lock:
            self.running -= 1
        return [Encoding([ord(letter) for letter in text]) for text in texts]


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_batches_are_encoded_at_a_time_as_are_allowed(threads):
    tokenizer = Tokenizer()
    tokenizer.together = threading.Barrier(threads)  # none goes on before all have begun
    with Encoder(tokenizer, 0, "<u2", lambda: threads) as encoder:
        batches = [encoder.submit([chr(65 + number), "xy"]) for number in range(12)]
        assert [batch.result().tolist() for batch in batches] == [[65 + n, 0, 120, 121, 0] for n in range(12)]
    assert tokenizer.most == threads


def test_an_error_reaches_the_one_who_asked_and_no_one_else():
    with Encoder(Tokenizer(), 0, "<u2") as encoder:
        wrong = encoder.submit(["\U0001f600"])  # more than two bytes hold
        right = encoder.submit(["a"])
        assert right.result().tolist() == [97, 0]
        with pytest.raises(OverflowError):
            wrong.result()


@pytest.mark.parametrize("before", [None, "true"])
def test_the_threads_of_the_tokenizer_itself_are_off_meanwhile(before, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    with Encoder(Tokenizer(), 0, "<u2"):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before
