"""From text to a token store, in the order in which it happens.

1. `files.py` finds the files of each domain, local or remote; `folders.py` leaves out those that are no text of it, or
   that are there twice; `environment.py` writes the files of the quickstart.
2. `corpus.py` cuts them into parts: spans of files that one process works through, such as a stretch of web.jsonl.
3. `entries.py` reads a part: JSON lines, parquet or text; `compression.py` unpacks it, and tells what is none of these.
   `corpus.py` makes documents of it, each with a domain, a text and maybe a group.
4. `split.py` decides by a hash which documents are held out, and finds training documents whose text is held out too.
5. `data/tokenizer.py` trains the tokenizer on training documents, or loads one.
6. `parts.py` writes a part's rows: `encoding.py` encodes documents on several threads, `packing.py` joins the tokens
   and cuts them into rows of (seq_len,) ids. `workers.py` runs parts in several processes.
7. `sealing.py` draws the validation rows and writes manifest.json, last.

`pipeline.py` takes these steps one after another and skips each whose result is there.
"""
