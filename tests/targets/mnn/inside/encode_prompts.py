"""Encodes prompts with MNN's own tokenizer; runs in MNN's own Python.

encode_prompts.py FOLDER: it holds tokenizer.mtok and prompts.json, and gets ids.json. The
tokenizer is part of MNN's language models; it is loaded before the model, which is none.
"""

import json
import sys
from pathlib import Path

import MNN.llm

FOLDER = Path(sys.argv[1])
names = {"llm_model": "none.mnn", "llm_weight": "none.mnn.weight", "embedding_file": "none"}
for name in names.values():
    (FOLDER / name).write_bytes(b"none")
config = FOLDER / "config.json"
config.write_text(json.dumps({**names, "tokenizer_file": "tokenizer.mtok", "hidden_size": 8}))
model = MNN.llm.create(str(config))
model.load()
prompts = json.loads((FOLDER / "prompts.json").read_text())
ids = [list(model.tokenizer_encode(prompt)) for prompt in prompts]
(FOLDER / "ids.json").write_text(json.dumps(ids))
