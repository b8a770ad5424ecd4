"""A stand-in, for plans, for a token store that is not prepared yet: domains, tokenizer, about how much text."""

from dataclasses import asdict
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import DataConf
from autoscale_exp.data.manifest import DomainEntry, FileEntry, Manifest, TokenizerEntry, TrainEntry, ValidationEntry
from autoscale_exp.data.store import TokenStore

CHARACTERS_PER_TOKEN = 4  # about, for English text and a tokenizer of some 50,000 entries
ENDLESS = 10**12  # rows of each domain, if nothing limits its text
VOCABULARIES = {"gpt2": 50257, "bert-base-uncased": 30522, "bert-large-uncased": 30522}


def unprepared_store(conf: DataConf) -> TokenStore:
    """Returns the store that a `data` section will become if each domain has as much text as it may take.

    Raises:
        UserError: the section does not tell how many entries its tokenizer has.
    """
    entries = conf.tokenizer.vocab_size or VOCABULARIES.get(conf.tokenizer.name)
    if entries is None:
        raise UserError(
            f"data.tokenizer.vocab_size is null, and what data.tokenizer.name={conf.tokenizer.name} has is known only "
            "once the token store is prepared; give the number of its entries for the plan, or prepare first"
        )
    rows = conf.validation_rows
    validation = ValidationEntry(rows, rows * conf.seq_len, 0, 0, 0, "")
    limit = conf.max_characters
    of_train = ENDLESS if limit is None else max(1, limit // CHARACTERS_PER_TOKEN // conf.seq_len)
    files = {"all": FileEntry(of_train, "")}
    train = TrainEntry(of_train, of_train * conf.seq_len, 0, 0, 0, files)
    domains = {domain: DomainEntry(validation, 0, 0, train) for domain in conf.domains}
    domains |= {domain: DomainEntry(validation, 0, 0) for domain in conf.held_out_domains}
    tokenizer = TokenizerEntry(conf.tokenizer.name, entries, "")
    dtype = "uint16" if entries <= 2**16 else "uint32"
    return TokenStore(Path(conf.store), Manifest(asdict(conf), dtype, tokenizer, domains, 0, 0.0))
