"""Real text from the installed dependencies: code, prose about it, headers, documentation.

Only the dependencies of this package, direct and indirect, are read. So the corpus is the same for the
same lock file, whatever else is installed. Files are visited in the order of a hash of their names, so a cut at
`max_characters` takes a fair sample of all packages.
"""

import ast
import hashlib
import html.parser
import importlib.metadata
import io
import json
import logging
import pydoc_data.topics
import re
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

from autoscale_exp.base.atomic import replacing, write_json
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.versioned import differing_keys

log = logging.getLogger(__name__)

ROOT_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "pytorch-lightning",
    "hydra-core",
    "wandb",
    "scipy",
    "matplotlib",
    "rich",
)
MIN_CHARACTERS = 200  # shorter texts are mostly stubs and version files
MOST_DIFFERENCES = 3  # in a message
SourceFile = tuple[str, Path]  # name within the environment, place on the disk


def write_environment_corpus(domains: Sequence[str], max_characters: int, folder: Path) -> None:
    """Writes one <domain>.jsonl per domain with keys `text`, `group` and `source`, and last `manifest.json`.

    It does nothing if `folder` holds the same corpus already.

    Args:
        domains: any of python, prose, tests, cpp, docs.
        max_characters: characters per domain; the file that exceeds them is the last one taken.
        folder: folder to write to.

    Raises:
        UserError: a domain is unknown, or `folder` holds a corpus from other packages, which a store may depend on.
    """
    for domain in domains:
        if domain not in EXTRACTORS:
            raise UserError(f"data.domains names '{domain}'; data=environment has {', '.join(EXTRACTORS)}")
    packages = dependency_closure(ROOT_PACKAGES)
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **packages}
    identity = {"packages": versions, "domains": list(domains), "max_characters": max_characters}
    manifest = folder / "manifest.json"
    if manifest.is_file():
        written = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
        written["packages"].setdefault("python", versions["python"])  # early corpora do not name it
        _check_packages(folder, written["packages"], versions)
        if written == identity:
            return
    log.info("collecting %s from %d installed packages", ", ".join(domains), len(packages))
    folder.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    with ProcessPoolExecutor(max_workers=2) as pool:
        written = pool.map(partial(_write_domain, list(packages), max_characters, folder), domains)
        files = dict(zip(domains, written, strict=True))
    write_json(manifest, {"identity": identity, "domains": files})


def _check_packages(folder: Path, written: dict[str, str], installed: dict[str, str]) -> None:
    if differences := differing_keys(written, installed):
        if len(differences) > MOST_DIFFERENCES:
            differences[MOST_DIFFERENCES:] = [f"and {len(differences) - MOST_DIFFERENCES} more"]
        raise UserError(
            f"'{folder}' holds text from other packages than are installed ({'; '.join(differences)}); "
            f"delete the store's folder '{folder.parent}' or set data.store to another one"
        )


def dependency_closure(roots: Sequence[str]) -> dict[str, str]:
    """The installed packages that `roots` need, and these themselves, without extras: versions by name, sorted."""
    closure: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in closure:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        closure[name] = package.version
        needs = map(Requirement, package.requires or ())
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return dict(sorted(closure.items()))


def _write_domain(packages: list[str], max_characters: int, folder: Path, domain: str) -> dict[str, object]:
    characters, sources, digest = 0, {}, hashlib.sha256()
    with replacing(folder / f"{domain}.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for source, text in EXTRACTORS[domain](packages):
            if len(text) < MIN_CHARACTERS:
                continue
            entry = {"text": text, "group": _group(source), "source": source}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            sources[source] = hashlib.sha256(text.encode()).hexdigest()[:16]
            digest.update(text.encode())
            characters += len(text)
            if characters >= max_characters:
                break
    return {
        "documents": len(sources),
        "characters": characters,
        "sha256": digest.hexdigest(),
        "files": sources,
    }


def _group(source: str) -> str:
    """The group of a file: its folder, so that files of one folder are split together, in all domains."""
    return PurePosixPath(source).parent.as_posix()


def _files(packages: Sequence[str], suffixes: Sequence[str], *, tests: bool = False) -> Iterator[SourceFile]:
    """Yields the packages' files with one of the suffixes, in the order of a hash of their names."""
    found: dict[str, Path] = {}
    for package in packages:
        for file in importlib.metadata.distribution(package).files or ():
            is_test = bool({"tests", "test", "testing"} & set(file.parts)) or file.name.startswith("test_")
            if file.suffix in suffixes and is_test == tests and ".." not in file.parts:
                found[file.as_posix()] = Path(str(file.locate()))
    return iter(sorted(found.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()))


def _read(files: Iterator[SourceFile]) -> Iterator[tuple[str, str]]:
    for name, path in files:
        try:
            yield name, path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a few vendored files are not UTF-8; a package may list files that it does not install


def _python(packages: Sequence[str], *, tests: bool = False) -> Iterator[tuple[str, str]]:
    for name, source in _read(_files(packages, [".py"], tests=tests)):
        yield name, separate_code_and_prose(source)[0]


def _prose(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, source in _read(_files(packages, [".py"])):
        yield name, separate_code_and_prose(source)[1]


def separate_code_and_prose(source: str) -> tuple[str, str]:
    """Splits Python source into code without docstrings and comments, and those docstrings and comments.

    Returns:
        Code and prose; both empty if the source does not parse.
    """
    try:
        tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError):
        return "", ""
    docstrings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                docstrings[node.body[0].lineno] = (node.body[0].end_lineno or 0, text)
    lines = source.split("\n")
    first_statement = tree.body[0].lineno if tree.body else len(lines)
    comments = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    code, prose = [], []
    number = 0
    while number < len(lines):
        number += 1
        if number in docstrings:
            end, text = docstrings[number]
            prose.append(text + "\n")
            number = max(number, end)
            continue
        line = lines[number - 1]
        if number in comments:
            if number > first_statement:  # above it is the licence, the same in thousands of files
                prose.append(comments[number].string.lstrip("#!: ").rstrip())
            line = line[: comments[number].start[1]]
        if line.strip():
            code.append(line.rstrip())
    return "\n".join(code), "\n".join(part for part in prose if part)


def _cpp(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    return _read(_files(packages, [".h", ".hpp", ".cuh"]))


def _docs(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        yield f"pydoc/{topic}/topic.txt", text
    for package in packages:
        yield (
            f"readme/{package}/README",
            (importlib.metadata.distribution(package).read_text("METADATA") or "").partition("\n\n")[2],
        )
    for name, text in _read(_files(packages, [".html", ".rst", ".md", ".txt"])):
        if not re.search(r"licen[cs]e|notice|/data/|top_level|entry_points|cmake|requirements", name, re.IGNORECASE):
            yield name, _text_of_html(text) if name.endswith(".html") else text


def _text_of_html(source: str) -> str:
    parser = _TextOnly()
    parser.feed(source)
    return re.sub(r"\n\s*\n+", "\n\n", "".join(parser.parts)).strip()


class _TextOnly(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


EXTRACTORS: dict[str, Callable[[Sequence[str]], Iterator[tuple[str, str]]]] = {
    "python": _python,
    "prose": _prose,
    "cpp": _cpp,
    "docs": _docs,
    "tests": partial(_python, tests=True),
}
