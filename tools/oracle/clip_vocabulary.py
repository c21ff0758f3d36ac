"""Makes CLIP tokenizer folders (vocab.json, merges.txt and their configs) from OpenAI's list of merges."""

import gzip
import json
import os

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
ALL_MERGES = 49152 - 256 - 2  # what CLIP uses of the list


def byte_symbols():
    """GPT-2's printable symbol of each byte, in the vocabulary's order: printable bytes first, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def read_merges(path, count=ALL_MERGES):
    """The first `count` merges of bpe_simple_vocab_16e6.txt.gz as pairs of symbols."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1:count + 1]
    return [tuple(line.split()) for line in lines]


def write_tokenizer_folder(folder, merges, pad):
    """Writes a folder that transformers loads as CLIPTokenizer.

    pad: "exclamation" (SD-Turbo: the pad token is `!`, cut out of prompts before anything else) or "eos" (SD 1.x)."""
    os.makedirs(folder, exist_ok=True)
    symbols = byte_symbols()
    entries = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(pair) for pair in merges] + [BEGIN, END]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    assert len(vocabulary) == len(entries)
    write_json(os.path.join(folder, "vocab.json"), vocabulary, indent=None)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))

    def token(content, normalized=True):
        return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}

    typed = {"__type": "AddedToken"}
    config = {
        "add_prefix_space": False, "bos_token": {**typed, **token(BEGIN)}, "do_lower_case": True,
        "eos_token": {**typed, **token(END)}, "errors": "replace", "model_max_length": 77, "pad_token": END,
        "tokenizer_class": "CLIPTokenizer", "unk_token": {**typed, **token(END)},
    }
    special = {"bos_token": token(BEGIN), "eos_token": token(END), "pad_token": END, "unk_token": token(END)}
    if pad == "exclamation":
        config["added_tokens_decoder"] = {
            "0": {**token("!", normalized=False), "special": True},
            str(vocabulary[BEGIN]): {**token(BEGIN), "special": True},
            str(vocabulary[END]): {**token(END), "special": True},
        }
        config.update(bos_token=BEGIN, eos_token=END, unk_token=END, pad_token="!", clean_up_tokenization_spaces=True)
        special["pad_token"] = "!"
    write_json(os.path.join(folder, "tokenizer_config.json"), config)
    write_json(os.path.join(folder, "special_tokens_map.json"), special)
    return vocabulary


def write_json(path, value, indent=2):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=indent)
        file.write("\n")
