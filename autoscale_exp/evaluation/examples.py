"""Labelled examples, from a data set on the Hub or from local files with the same columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.hashing import file_sha256

READERS = {".jsonl": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class DataSource:
    """The source of the examples of a task.

    Attributes:
        path: path on the Hub, such as nyu-mll/glue.
        config: config of the data set on the Hub, or None.
        folder: folder of local files <split>.jsonl or <split>.parquet; None for the Hub.
    """

    path: str
    config: str | None
    folder: Path | None

    def identity(self, splits: Sequence[str]) -> Any:
        """Identifies the examples by the hashes of local files, or by the name on the Hub.

        Raises:
            UserError: a local file does not exist.
        """
        if self.folder is None:
            return "/".join(part for part in (self.path, self.config) if part)
        return {split: file_sha256(self.file(split)) for split in splits}

    def file(self, split: str) -> Path:
        """The local file of a split.

        Raises:
            UserError: there is none.
        """
        assert self.folder is not None
        for suffix in READERS:
            if (path := self.folder / f"{split}{suffix}").is_file():
                return path
        found = ", ".join(sorted(path.name for path in self.folder.glob("*"))) if self.folder.is_dir() else "no folder"
        raise UserError(
            f"'{self.folder}' has no {split}.jsonl or {split}.parquet (there is {found or 'nothing'}); put it there"
        )

    def load(self, split: str, texts: Sequence[str], others: Sequence[str]) -> datasets.Dataset:
        """Loads the examples of a split, with only these columns.

        Args:
            split: name of the split.
            texts: columns of texts.
            others: further columns.

        Raises:
            UserError: they cannot be loaded, there is none, a column is missing, or an example has no text.
        """
        if self.folder is None:
            where, arguments = f"{self.identity([])}, split {split}", (self.path, self.config)
            files = None
        else:
            path = self.file(split)
            where, arguments = f"'{path}'", (READERS[path.suffix], None)
            files = {split: str(path)}
            if not path.stat().st_size:
                raise UserError(f"{where} is empty; give it at least one example")
            datasets.disable_progress_bars()  # of reading a file; those of downloads stay
        try:
            examples = datasets.load_dataset(*arguments, data_files=files, split=split)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            remedy = "; without a network give datasets_dir=<folder>" if self.folder is None else ""
            raise UserError(f"{where} cannot be read: {first_line(error)}{remedy}") from None
        columns = [*texts, *others]
        missing = [column for column in columns if column not in examples.column_names]
        if missing:
            raise UserError(
                f"{where} has no column '{missing[0]}'; needed are {', '.join(columns)}, there are "
                f"{', '.join(examples.column_names)}"
            )
        for column in texts:
            number = next((k for k, text in enumerate(examples[column][:]) if not isinstance(text, str)), None)
            if number is not None:
                raise UserError(
                    f"{where}, example {number + 1}: {column} is {examples[number][column]!r}; give each example a text"
                )
        return examples.select_columns(columns)
