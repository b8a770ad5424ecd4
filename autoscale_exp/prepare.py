"""The `prepare` job: text to token store. A finished store is left as it is, an unfinished one is resumed."""

import logging

from autoscale_exp.base.job import job
from autoscale_exp.config import PrepareConf
from autoscale_exp.data.preparation.pipeline import prepare_store
from autoscale_exp.data.store import TokenStore
from autoscale_exp.reporting.next_steps import after_prepare, tell_next

log = logging.getLogger(__name__)


@job("prepare", lambda: "what was prepared stays; the same command goes on from there")
def main(conf: PrepareConf) -> None:
    """Prepares the token store of `data`, or one shard of it."""
    store = prepare_store(conf.data, num_workers=conf.num_workers, shard=conf.shard, num_shards=conf.num_shards)
    if store:
        log.info("'%s' is ready: %s", store.folder, summary(store))
        trained = [store.num_rows("train", domain) * store.seq_len for domain in store.domains]
        tell_next(log.info, after_prepare(str(store.folder), trained))
    else:
        log.info("shard %d of %d is done; the one that ends last completes the store", conf.shard, conf.num_shards)


def summary(store: TokenStore) -> str:
    """A line with the training tokens of each domain."""
    sizes = (f"{d} {store.num_rows('train', d) * store.seq_len / 1e6:.2f}M" for d in store.domains)
    return f"{', '.join(sizes)} tokens in rows of {store.seq_len}, {store.vocab_size} entries"


if __name__ == "__main__":
    main()
