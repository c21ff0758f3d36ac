"""The demo's own byte-pair vocabulary in CLIP's format: every word below becomes one token."""
import json
import os
import re
import sys
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
from clip_vocabulary import byte_symbols, write_tokenizer_folder

WORDS = """a an on in the of and with ground background picture drawing painting photo photograph image
red orange yellow green blue purple pink brown white black grey gray gold golden silver dark light bright pale
bird fish cat house tree flower car boat butterfly mushroom cup balloon umbrella rocket
dog horse cow duck mouse rabbit ship sun moon star sky cloud rain snow street road city town night day
driving heavy rainy sunny clear wet small big large little old new young happy
one two three four five six is are at by to from under over near front behind left right up down
water sea river mountain forest grass leaf wood stone paper glass metal
man woman boy girl child person people head eye hand foot wing tail hat shoe key book table chair lamp door window
beautiful colorful simple realistic cartoon sketch style art digital detailed high quality""".split()


def learn_merges(words):
    """Byte-pair merges, the most frequent pair first (ties by spelling), until every word is one symbol."""
    spelled = {word: list(word[:-1]) + [word[-1] + "</w>"] for word in sorted(set(words))}
    merges = []
    while any(len(parts) > 1 for parts in spelled.values()):
        pairs = Counter(pair for parts in spelled.values() for pair in zip(parts, parts[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in spelled.items():
            joined, index = [], 0
            while index < len(parts):
                if tuple(parts[index:index + 2]) == best:
                    joined.append("".join(best))
                    index += 2
                else:
                    joined.append(parts[index])
                    index += 1
            spelled[word] = joined
    return merges


def write(folder):
    vocabulary = write_tokenizer_folder(folder, learn_merges(WORDS), "exclamation")
    assert len(vocabulary) <= 2000
    return vocabulary


if __name__ == "__main__":
    print(len(write(sys.argv[1])))
