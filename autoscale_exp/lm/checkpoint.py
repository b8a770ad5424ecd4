"""Models on disk: plain Hugging Face folders with safetensors weights, checked before use.

Nothing here runs code from a folder: weights are read as safetensors, never unpickled, and no remote code is trusted.
torch is imported only to load weights, so that mistakes are told at once.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from safetensors import SafetensorError, safe_open

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.hashing import file_sha256, fingerprint
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.conf import ModelConf
from autoscale_exp.lm.families import FAMILIES

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # if the weights are in several files


@dataclass(frozen=True)
class Checkpoint:
    """A language model's Hugging Face folder, whose weights are known to be whole.

    Attributes:
        folder: folder of the model.
        config: content of config.json.
        weight_files: safetensors files of the weights.
    """

    folder: Path
    config: dict[str, Any]
    weight_files: list[Path]

    @property
    def family(self) -> str:
        """The model's family, as in `model.family`."""
        return self.config["model_type"]

    @property
    def masked(self) -> bool:
        """Whether the model predicts masked tokens."""
        return FAMILIES[self.family].masked

    @property
    def positions(self) -> int:
        """Tokens of the longest sequence that the model can take."""
        return self.config[FAMILIES[self.family].positions]

    @property
    def vocab_size(self) -> int:
        """Number of rows of the embedding."""
        return self.config["vocab_size"]

    @cached_property
    def sha256(self) -> str:
        """A hash of the weights; it does not depend on where they lie."""
        if len(self.weight_files) == 1:
            return file_sha256(self.weight_files[0])
        return fingerprint({path.name: file_sha256(path) for path in self.weight_files})

    @cached_property
    def tokenizer(self) -> str:
        """A hash of what decides which text becomes which tokens.

        Raises:
            UserError: the folder has no tokenizer.json.
        """
        return tokenizer_fingerprint(self.folder)

    def require_store(self, store: TokenStore, key: str, store_key: str = "data.store") -> None:
        """Checks that the model can read a store's rows.

        Args:
            store: the store.
            key: key of the config that names the model, for messages.
            store_key: key of the config that names the store, for messages.

        Raises:
            UserError: the tokenizers differ, or the vocabulary is too small.
        """
        if self.tokenizer != tokenizer_fingerprint(store.folder / "tokenizer"):
            raise UserError(
                f"{key} is '{self.folder}', whose tokenizer is not the one of the store '{store.folder}'; prepare a "
                f"store with data.tokenizer.name={self.folder} and set {store_key} to it"
            )
        if self.vocab_size < store.vocab_size:
            raise UserError(
                f"{key} is '{self.folder}', whose vocab_size is {self.vocab_size}, but the store '{store.folder}' has "
                f"{store.vocab_size} entries; prepare a store with the model's own tokenizer"
            )


def open_checkpoint(folder: Path | str, key: str) -> Checkpoint:
    """Opens a Hugging Face folder and checks that its weights are whole safetensors files.

    Args:
        folder: a folder with config.json, tokenizer.json and safetensors weights.
        key: key of the config that names the folder, for messages.

    Raises:
        UserError: it is no such folder, its family is unknown here, its weights are of another kind, or they
            are truncated.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{key} is '{folder}', which has no config.json; give a model's Hugging Face folder") from None
    except ValueError:
        raise UserError(f"'{folder}/config.json' is damaged; save the model again") from None
    family = config.get("model_type")
    known = ", ".join(f"{name} ({of.architecture})" for name, of in FAMILIES.items())
    if family not in FAMILIES:
        raise UserError(f"{key} is '{folder}', whose model_type is '{family}'; known are {known}")
    if FAMILIES[family].architecture not in (config.get("architectures") or []):
        raise UserError(
            f"{key} is '{folder}', whose architectures are {config.get('architectures')}; a language model is needed: "
            f"{known}"
        )
    return Checkpoint(folder, config, _weight_files(folder, key))


def _weight_files(folder: Path, key: str) -> list[Path]:
    """The files that transformers would load, checked to be whole. A single file goes before an index of several."""
    indexed = (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file()
    files = _indexed_files(folder / INDEX) if indexed else [folder / WEIGHTS]
    for path in files:
        if not path.is_file():
            others = sorted(other.name for other in folder.glob("*.bin"))
            found = f"only {', '.join(others)}, which is not read because unpickling runs code" if others else "none"
            raise UserError(
                f"{key} is '{folder}', which has no {path.name} ({found}); save the model with transformers' "
                "save_pretrained, which writes safetensors"
            )
        try:
            safe_open(path, framework="np")  # reads the header and compares what it declares with the file's length
        except SafetensorError as error:
            raise UserError(f"'{path}' is truncated or damaged ({error}); copy or save the model again") from None
    return files


def _indexed_files(index: Path) -> list[Path]:
    """Lists the files that an index names, sorted.

    Raises:
        UserError: the file is no index, or names no files.
    """
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [index.parent / name for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError):
        files = []
    if not files:
        raise UserError(f"'{index}' is damaged; save the model again")
    return files


def tokenizer_fingerprint(folder: Path) -> str:
    """A hash of what decides which text becomes which tokens; it does not depend on how tokenizer.json is formatted.

    Raises:
        UserError: the folder has no tokenizer.json that can be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"'{folder}' has no tokenizer.json; save the tokenizer into it with save_pretrained")
    try:
        content = json.loads(tokenizers.Tokenizer.from_file(str(path)).to_str())
    except Exception as error:  # tokenizers raises no subclass
        raise UserError(f"'{path}' is damaged ({error}); save the tokenizer again") from None
    return fingerprint({part: content[part] for part in ("normalizer", "pre_tokenizer", "added_tokens", "model")})


def check_initial(conf: ModelConf, store: TokenStore) -> Checkpoint | None:
    """Opens the checkpoint that `model.init_from` names, and checks that it fits the config; None without one.

    Raises:
        UserError: the architecture differs from the config's, the tokenizer or vocabulary from the store's, or rows
            are longer than the model's positions.
    """
    if conf.init_from is None:
        return None
    checkpoint = open_checkpoint(conf.init_from, "model.init_from")
    if checkpoint.family != conf.family:
        raise UserError(
            f"model.init_from is '{conf.init_from}', a {checkpoint.family} model, but model.family is "
            f"'{conf.family}'; choose a model of the checkpoint's family"
        )
    asked = asdict(conf)
    stored = {key: checkpoint.config[name] for key, name in FAMILIES[checkpoint.family].sizes.items()}
    differing = [key for key, value in stored.items() if asked[key] != value]
    if differing:
        remedy = " ".join(f"model.{key}={stored[key]}" for key in differing)
        now = ", ".join(f"model.{key} is {asked[key]}" for key in differing)
        raise UserError(f"model.init_from is '{conf.init_from}', of another architecture: {now}; give {remedy}")
    checkpoint.require_store(store, "model.init_from")
    if store.seq_len > checkpoint.positions:
        raise UserError(
            f"model.init_from is '{conf.init_from}', which has {checkpoint.positions} positions, but rows of the store "
            f"have {store.seq_len} tokens; prepare a store with data.seq_len={checkpoint.positions} or less"
        )
    return checkpoint


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Loads the fast tokenizer in a checkpoint's folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    checkpoint.tokenizer  # noqa: B018 - tells what is wrong with tokenizer.json
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the tokenizer of '{checkpoint.folder}' cannot be loaded: {first_line(error)}; save it again"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"the tokenizer of '{checkpoint.folder}' is not a fast one; save a fast one into it")
    return tokenizer


def load_model(checkpoint: Checkpoint, model_class: Any, *, new: tuple[str, ...] = (), **options: Any) -> Any:
    """Loads a checkpoint's weights in float32.

    Args:
        checkpoint: a checkpoint from `open_checkpoint`.
        model_class: class of transformers, or one of its Auto classes.
        new: prefixes of parameters that the checkpoint need not have; they are initialised from torch's seed.
        options: values that replace the checkpoint's own in the model's config.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: weights are missing or of another shape.
    """
    import torch
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # missing weights are reported below
    try:
        model, info = model_class.from_pretrained(
            checkpoint.folder,
            use_safetensors=True,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except RuntimeError as error:  # shapes differ
        raise UserError(
            f"the weights of '{checkpoint.folder}' do not fit: {first_line(error)}; save the model again"
        ) from None
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(new))
    if missing:
        raise UserError(
            f"'{checkpoint.folder}' lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}; "
            "save the whole language model"
        )
    return model
