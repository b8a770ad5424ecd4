"""Which files of a folder are a domain's text. Nothing is read twice, and nothing is left out in silence."""

import filecmp
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from autoscale_exp.base.errors import UserError, refusal
from autoscale_exp.data.preparation.entries import compression_of, kind_of

REASONS = {  # why files are left out, in the words that follow their number
    "hidden": "hidden",
    "temporary": "temporary, or an editor's or Spark's own",
    "about_data": "about the data: cards, infos, loading scripts",
    "links": "leading to files that are read already",
    "copies": "equal to files that are read already",
    "other_kinds": "of other kinds",
}
TEMPORARY = [
    *("*~", "#*#", "*.bak", "*.orig", "*.swp", "*.swo", "*.tmp"),  # editors and tools
    *("*.part", "*.partial", "*.crdownload", "*.incomplete"),  # downloads
    *("_SUCCESS", "_metadata", "_common_metadata", "_committed_*", "_started_*", "*.crc"),  # Spark and Parquet
    *(SPARK_FOLDERS := ("_temporary", "_spark_metadata", "_delta_log")),
]
BACKUPS = {".bak", ".orig", ".tmp"}  # as in web.bak.jsonl
ABOUT_DATA = (  # JSON that the Hugging Face Hub and `datasets` keep beside data
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "croissant.json"),
)
CARDS = re.compile(r"(readme|licen[cs]e|copying|citation|notice|changelog|datasheet)([._-]|$)", re.IGNORECASE)
ENDS_BYTES = 4096  # of a file's beginning and end, which differ between most files of the same size

LeftOut = dict[str, dict[str, None]]  # paths, by reason, in order


def text_files(folder: Path, left_out: LeftOut) -> list[str]:
    """Lists the files in a folder that hold text, in order, and notes the others in `left_out`.

    Raises:
        UserError: the folder is ambiguous: two forms of one file, a broken link, or files that `save_to_disk` wrote.
    """
    files = list(_walk(folder, left_out))
    _check_not_saved(files)
    return [path for path in sorted_out(files, left_out) if _has_kind(path, left_out)]


def sorted_out(paths: Sequence[str], left_out: LeftOut) -> list[str]:
    """Drops by-products and second copies from a list of files, keeps its order, and notes them in `left_out`.

    Raises:
        UserError: two of them look like two forms of one, such as a.jsonl and a.jsonl.gz, or one is a broken link.
    """
    beside_data = {
        str(folder)
        for path in paths
        if kind_of(path) in ("json", "parquet") and os.path.basename(path) not in ABOUT_DATA
        for folder in PurePath(path).parents
    }
    kept = []
    for path in paths:
        if _is_temporary(os.path.basename(path)) or not set(PurePath(path).parts).isdisjoint(SPARK_FOLDERS):
            _note(left_out, "temporary", path)
        elif os.path.dirname(path) in beside_data and _is_about_data(path):
            _note(left_out, "about_data", path)
        else:
            kept.append(path)
    for reason, repeated in (("links", _links), ("copies", _copies)):
        again = repeated(kept)
        for path in sorted(again):
            _note(left_out, reason, path)
        kept = [path for path in kept if path not in again]
    for path in kept:
        if kind_of(path) and not os.path.exists(path):
            raise UserError(f"'{path}' is a broken link; put back the file that it leads to, or delete the link")
    _check_forms(kept)
    return kept


def described(left_out: LeftOut) -> str:
    """Says how many files were left out for which reason, with an example of each."""
    return "; ".join(f"{len(p)} {REASONS[reason]}, such as '{next(iter(p))}'" for reason, p in left_out.items())


def _note(left_out: LeftOut, reason: str, path: str) -> None:
    left_out.setdefault(reason, {})[path] = None


def _walk(folder: Path, left_out: LeftOut, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yields all files below a folder. Links to folders are followed, but never into a folder that contains them."""
    try:
        stat = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be read: {refusal(error)}; change its permissions, or name files") from None
    above |= {(stat.st_dev, stat.st_ino)}
    for entry in entries:
        if entry.name.startswith("."):
            _note(left_out, "hidden", entry.path)
        elif not entry.is_dir():
            yield entry.path
        elif _is_temporary(entry.name):
            _note(left_out, "temporary", entry.path)
        elif (os.stat(entry.path).st_dev, os.stat(entry.path).st_ino) in above:
            _note(left_out, "links", entry.path)
        else:
            yield from _walk(Path(entry.path), left_out, above)


def _has_kind(path: str, left_out: LeftOut) -> bool:
    if kind_of(path) is None:
        _note(left_out, "other_kinds", path)
        return False
    return True


def _is_temporary(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in TEMPORARY) or not BACKUPS.isdisjoint(PurePath(name).suffixes)


def _is_about_data(path: str) -> bool:
    """Whether a file beside data or above it has the name of a card, an info file or a loading script."""
    name = os.path.basename(path)
    return name in ABOUT_DATA or (kind_of(name) == "text" and (name.endswith(".py") or bool(CARDS.match(name))))


def _links(paths: Sequence[str]) -> set[str]:
    """Links to files that another path leads to as well; the path that is no link is read."""
    places: dict[tuple[int, int], list[str]] = defaultdict(list)
    for path in paths:
        if os.path.exists(path):
            stat = os.stat(path)
            places[stat.st_dev, stat.st_ino].append(path)
    again: set[str] = set()
    for same in places.values():
        again |= set(sorted(same, key=os.path.islink)[1:])
    return again


def _copies(paths: Sequence[str]) -> set[str]:
    """Files of data with the same content as an earlier file."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        if kind_of(path) in ("json", "parquet") and os.path.exists(path) and os.path.getsize(path):
            sizes[os.path.getsize(path)].append(path)
    originals: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    copies: set[str] = set()
    for size, same in sizes.items():
        for path in same if len(same) > 1 else ():
            before = originals[size, _ends(path, size)]
            if any(filecmp.cmp(path, other, shallow=False) for other in before):
                copies.add(path)
            else:
                before.append(path)
    return copies


def _ends(path: str, size: int) -> bytes:
    with open(path, "rb") as file:
        first = file.read(ENDS_BYTES)
        file.seek(max(0, size - ENDS_BYTES))
        return first + file.read()


def _check_forms(paths: Sequence[str]) -> None:
    forms: dict[str, str] = {}
    for path in paths:
        if not kind_of(path) or not os.path.getsize(path):
            continue
        plain = path if compression_of(path) is None else path[: path.rindex(".")]
        form = plain if kind_of(path) == "text" else plain[: plain.rindex(".")]
        if form in forms:
            raise UserError(
                f"'{forms[form]}' and '{path}' look like two forms of the same text, which would be trained on twice; "
                "keep one of them, or name both in data.sources.<domain>.files"
            )
        forms[form] = path


def _check_not_saved(paths: Sequence[str]) -> None:
    saved = {os.path.dirname(path) for path in paths if path.endswith(".arrow")}
    for path in paths:
        folder, name = os.path.split(path)
        if name == "state.json" and folder in saved:
            raise UserError(
                f"'{folder}' was written by save_to_disk of Hugging Face datasets, whose .arrow files are not read; "
                f"write it as parquet, as with datasets.load_from_disk('{folder}').to_parquet('{folder}.parquet'), and "
                "move the old folder elsewhere"
            )
