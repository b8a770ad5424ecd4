"""Encodes texts to token ids on threads, while the caller reads on."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tokenizers

Ids = npt.NDArray[Any]
Threads = Callable[[], int]  # how many may encode at a time; asked before every batch, as other workers may have ended


class Encoder:
    """Encodes batches of texts, each on one thread.

    The tokenizer's own threads would share one batch, and all but one would wait for its longest text.

    Args:
        tokenizer: a tokenizer without truncation and padding.
        separator: id that goes after every text.
        dtype: type of the ids.
        threads: how many batches may be encoded at a time.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, separator: int, dtype: str, threads: Threads = lambda: 1
    ) -> None:
        self._tokenizer = tokenizer
        self._separator = separator
        self._dtype = dtype
        self._threads = threads
        self._executor = ThreadPoolExecutor()  # it starts a thread when none is idle
        self._running: deque[Future[Ids]] = deque()

    def __enter__(self) -> Self:
        self._parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read by the tokenizer at every call
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self._parallelism is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = self._parallelism

    def submit(self, texts: Sequence[str]) -> Future[Ids]:
        """Begins to encode texts once a thread is free; the result is the (n,) ids of all of them."""
        while len(self._running) >= self._threads():
            self._running.popleft().exception()  # waits; the caller of `submit` gets the error
        self._running.append(self._executor.submit(self._encode, texts))
        return self._running[-1]

    def _encode(self, texts: Sequence[str]) -> Ids:
        ids: list[int] = []
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            ids += encoding.ids
            ids.append(self._separator)
        return np.asarray(ids, dtype=self._dtype)
