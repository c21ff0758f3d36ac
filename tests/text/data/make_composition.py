"""Makes composition.tsv beside this script: prompts that try composition (NFC) where implementations differ.

Usage: make_composition.py FOLDER, with the `transformers` package (the file was made with 4.35.2; 5.23 gives the same)
and a folder that holds vocab.json and merges.txt (tests/golden/tokenizer, inflated) and the configs of its variant
`exclamation`. A line is the prompt's UTF-8 in hex, a tab, and its ids without padding.
"""

import os
import random
import sys
import unicodedata

from transformers import CLIPTokenizerFast

# Marks and compositions of Unicode 10 to 14, which the tokenizers library does not know.
LATER = "\u07fd\u0898\u08ca\u09fe\u0c3c\u0d3b\u0eba\u1715\u1abf\u1df6\ua82c\U00010d24\U00010f46\U00011070\U0001133b" \
        "\U00011935\U00011930\U00011938\U0001193d\U00011943\U00016ff0\U0001e130\U0001e2ae\U0001e2ec"


def edges():
    """Every composition once, alone and with a mark between or behind; Hangul syllables at the ends of its ranges."""
    prompts = []
    for point in range(0x110000):
        parts = unicodedata.normalize("NFD", chr(point)) if not 0xD800 <= point < 0xE000 else chr(point)
        if parts != chr(point) and not 0xAC00 <= point < 0xD7A4:
            prompts.append(chr(point) + parts + parts[0] + "\u0323" + parts[1:] + chr(point) + "\u0301" + parts[-1] + parts[0])
    for lead in "\u10ff\u1100\u1112\u1113":
        for vowel in "\u1160\u1161\u1175\u1176":
            for final in "\u11a6\u11a7\u11a8\u11c2\u11c3":
                prompts.append(lead + vowel + final + "\uac00" + final + "\uac01" + final + lead + vowel + "\u0301" + final)
    return prompts


def piles(count):
    """Bases with piles of marks in any order."""
    source = random.Random(5)
    marks = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000 and unicodedata.combining(chr(point))]
    bases = [prompt[0] for prompt in edges()] + list("aeiou \u1100\uac00")
    return [source.choice(bases) + "".join(source.choice([source.choice(marks), source.choice(LATER)])
                                           for _ in range(source.randrange(1, 12))) for _ in range(count)]


def main():
    tokenizer = CLIPTokenizerFast.from_pretrained(sys.argv[1])
    chosen = random.Random(7).sample(edges(), 600) + piles(600)
    chosen = [prompt for prompt in chosen if all(unicodedata.category(character) != "Cn" for character in prompt)]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "composition.tsv"), "w", encoding="ascii") as file:
        for prompt, ids in zip(chosen, tokenizer(chosen, max_length=77, truncation=True)["input_ids"]):
            file.write(f"{prompt.encode('utf-8').hex()}\t{' '.join(map(str, ids))}\n")


if __name__ == "__main__":
    main()
