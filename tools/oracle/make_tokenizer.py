"""Makes the tokenizer goldens: vocabulary, awkward strings, an exhaustive pass over code points.

Needs the `transformers` and `tokenizers` packages (no PyTorch) and OpenAI's list of byte-pair merges
`bpe_simple_vocab_16e6.txt.gz`, which the PyPI package `open_clip_torch` ships (MIT licence).

    make_tokenizer.py --merges bpe_simple_vocab_16e6.txt.gz --code-points pinned.npy        # with the pinned versions
    make_tokenizer.py --merges bpe_simple_vocab_16e6.txt.gz --agree-with pinned.npy --output tests/golden/tokenizer

Versions of the tokenizers library differ in their Unicode tables, so code points on which the two runs differ, and
those unassigned in Python's table, are left out of the exhaustive pass.

The formats are described in tests/golden/README.md.
"""

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import unicodedata
import zlib

import numpy as np

from clip_vocabulary import read_merges, write_tokenizer_folder

# Every code point is put into this pattern, so that the ids tell its category (does it join the letters
# around it? is it white space?), its lower case, its composition and its bytes.
CODE_POINT_PATTERN = "A{0}b7{0}{0} e{0}."
BLOCK = 256


def awkward_strings():
    """About 200 prompts that users write, and many that they do not."""
    plain = [
        "", " ", "   ", "\t\n\r\x0b\x0c", "a", "A", "a blue bird", "driving in the night", "driving in the day",
        "driving in heavy rain", "a watercolor painting of a fox, trending on artstation, 8k, highly detailed",
        "  leading and trailing  ", "multiple   spaces\tand\ttabs\nand lines\r\nof text", "UPPER lower MiXeD",
        "CamelCaseWord snake_case_word kebab-case-word", "it's we're they've I'm you'll he'd don't",
        "IT'S WE'RE THEY'VE I'M YOU'LL HE'D DON'T", "'s 't 're 've 'm 'll 'd", "'S 'T 'RE", "''s ''' '", "'sa 'ts 'rex",
        "rock'n'roll o'clock", "dogs' toys'", "it’s curly", "“curly quotes”", "1234567890", "1 22 333 4444", "3.14159",
        "1,000,000", "½ ¼ ¾ ² ³ ¹", "Ⅷ Ⅻ ⅷ", "①②③ ⑴ ⒈", "٠١٢٣٤٥٦٧٨٩", "०१२३ ๔๕๖ 零一二三", "a1b2c3", "4k 8K 1080p",
        "50% off!", "!", "!!", "!!!", "! ! !", "wow!", "wow!!! amazing", "!wow", "a!b!c", "hello! world!", "¡hola!",
        "！fullwidth！", "?!?!", "!'s", "'s!'t", "it!'s", "<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>",
        "<|EndOfText|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "x <|startoftext|> y", "<|endoftext|",
        "|endoftext|>", "< |endoftext| >", "<|endof text|>", "<|end!oftext|>", "!<|endoftext|>!", "<|İstartoftext|>",
        "<|pad|> <pad> [PAD] <unk>", "</w>", "a</w>b", "hello</w>", "<html>&amp;&lt;&gt;&nbsp;&#39;</html>", "&amp;amp;",
        "naïve café résumé", "NAÏVE CAFÉ RÉSUMÉ", "nai\u0308ve cafe\u0301 re\u0301sume\u0301",
        "A\u030a Å \u212b", "e\u0301\u0323 e\u0323\u0301", "o\u0302\u0301 ộ o\u0323\u0302", "q\u0307\u0323", "\u0301abc",
        "a\u0300\u0301\u0302\u0303\u0304", "\u1e9b\u0323", "ﬁ ﬂ ﬃ ſ", "ｆｕｌｌ　ｗｉｄｔｈ", "①", "ｶﾞ ガ か\u3099", "\u0958 \u0915\u093c",
        "Ω \u2126 K \u212a", "ß ẞ STRASSE straße", "İstanbul ISTANBUL ıi", "I\u0307", "ΣΑΣ ΟΔΥΣΣΕΥΣ σς", "ǅ ǆ Ǆ", "ŉ ǰ ΐ", "ᾳ ᾼ ᾈ",
        "Ä Ö Ü ä ö ü", "Æ Ø Å æ ø å", "Ł ł Đ đ", "Þ ð", "Ⓐ ⓐ", "𝐀𝐁𝐂 𝕬", "𐐀 𐐨", "Ꭰ ꭰ Ᏸ", "ა Ა", "Ἀ ᾼ", "Ｚ ｚ",
        "привет мир", "ПРИВЕТ МИР", "Ё ё Й й и\u0306", "Ελληνικά", "中文字符", "日本語のテキスト", "한국어 텍스트", "\u1112\u1161\u11ab\u1100\u1173\u11af",
        "한\u11a8", "العربية", "עברית שָׁלוֹם", "हिन्दी", "தமிழ்", "ไทย", "ພາສາລາວ", "မြန်မာ", "ខ្មែរ", "བོད་", "ქართული", "Հայերեն",
        "አማርኛ", "Tiếng Việt", "İİİ", "🐦", "🐦 a bird 🐦", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "☃️", "❤️‍🔥", "a🐦b", "✓✗ ★☆", "→ ← ↑ ↓",
        "a\u00a0b", "a\u2003b", "a\u3000b", "a\u200bb", "a\u200db", "a\ufeffb", "a\u0085b", "a\u2028b\u2029c", "a\u180eb", "a\u1680b",
        "a\u202fb\u205fc", "a\u00adb", "\ufeffstart", "a\x00b", "\x00", "a\x01\x02\x1fb", "a\x1cb\x1db\x1eb\x1fb", "a\x7fb", "\x80\x9f",
        "\ufffd \ufffe \uffff", "\U0010ffff", "\ue000 \U000f0000", "\u0378 unassigned", "\U0001fae8 new emoji", "\U00011f02",
        "\u0600123", "\u0300", "\u20dd", "a\u20ddb", "x\u0489", "\u0e33 \u0eb3", "\u2160\u2170", "\u3007", "\u16ee", "\u09f4", "\u0bf0",
        "a_b", "__init__", "a.b.c", "...", "…", "--", "—–", "a--b", "(parentheses) [brackets] {braces}", "a/b\\c|d", "#hashtag @user",
        "http://example.com/path?query=1&x=%20", "user@example.com", "$100 €50 £20 ¥1000", "C++ C# .NET", "a*b+c=d", "`code` ~tilde ^caret",
        "\"double\" 'single'", ":) ;-) :D", "emoji:smile:", "(a:1.2), [b], {c|d}", "a,b;c:d", "100°C 5′ 6″", "§ ¶ † ‡", "™ © ®",
        "a" * 10, "a" * 200, "ab" * 300, "1" * 100, "!" * 100, "word " * 100, "bird! " * 40, "é" * 100, "🐦" * 60,
        "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicovolcanoconiosis", "xqzjvkw", "zzzzzzzzzzzz",
        "a bird " * 24 + "and <|endoftext|> more", "x" * 75 + " y", " ".join("abcdefghijklmnopqrstuvwxyz" * 3),
        " ".join("abcdefghijklmnopqrstuvwxyz" * 3)[:149], " ".join("abcdefghijklmnopqrstuvwxyz" * 3)[:147],
        "\u00b5 \u03bc", "\u0344 \u0308\u0301", "\u0f73 \u0f71\u0f72", "\u2adc", "\ufb1d \u05d9\u05b4", "\U0001d15e \U0001d1bb",
        "\u1100\u1161 \uac00\u11a7", "\u0cc6\u0cc2\u0cd5", "\u0b47\u0b3e \u0b47\u0b56", "e\u034f\u0301", "\u0041\u030a\u0301",
    ]
    random = np.random.default_rng(20240312)
    for low, high in ((0, 0x80), (0, 0x250), (0x250, 0x3000), (0x3000, 0x11000), (0x10000, 0x20000)):
        for length in (5, 30, 120):
            points = random.integers(low, high, length)
            plain.append("".join(chr(point) for point in points if not 0xD800 <= point < 0xE000))
    return plain


def ids_of(tokenizer, strings):
    """The 77 ids of each string, as the official code asks for them."""
    return tokenizer(strings, max_length=77, padding="max_length", truncation=True)["input_ids"]


def write_strings(path, tokenizers):
    """One line a string and variant: variant, the string's UTF-8 bytes in hex, its 77 ids."""
    with open(path, "w", encoding="ascii") as file:
        for name, tokenizer in tokenizers:
            for string, ids in zip(awkward_strings(), ids_of(tokenizer, awkward_strings())):
                assert len(ids) == 77
                text = string.encode("utf-8").hex() or "-"
                file.write(f"{name}\t{text}\t{' '.join(map(str, ids))}\n")


def code_point_hashes(tokenizer):
    """CRC-32 of each code point's unpadded ids as little-endian uint16, BOS and EOS included; 0 for surrogates."""
    hashes = np.zeros(0x110000, np.uint32)
    for first in range(0, len(hashes), BLOCK):
        if 0xD800 <= first < 0xE000:
            continue
        texts = [CODE_POINT_PATTERN.format(chr(first + offset)) for offset in range(BLOCK)]
        for offset, ids in enumerate(tokenizer(texts)["input_ids"]):
            hashes[first + offset] = zlib.crc32(np.asarray(ids, "<u2").tobytes())
    return hashes


def is_settled(point):
    """Whether no later version of Unicode can change the code point: it is assigned, or a noncharacter."""
    return unicodedata.category(chr(point)) not in ("Cn", "Cs") or point & 0xFFFE == 0xFFFE


def write_code_points(folder, hashes, other_hashes):
    """Blocks' checksums of the code points on which both versions agree, and the ranges of all the others."""
    kept = (hashes == other_hashes) & np.array([is_settled(point) for point in range(len(hashes))])
    with open(os.path.join(folder, "codepoints.tsv"), "w", encoding="ascii") as file:
        for first in range(0, len(hashes), BLOCK):
            block = slice(first, first + BLOCK)
            if kept[block].any():
                checksum = zlib.crc32(hashes[block][kept[block]].astype("<u4").tobytes())
                file.write(f"{first:06x}\t{checksum:08x}\n")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], kept, [True]]).astype(np.int8)))
    with open(os.path.join(folder, "codepoints_excluded.tsv"), "w", encoding="ascii") as file:
        for first, end in zip(edges[::2], edges[1::2]):
            file.write(f"{first:06x}\t{end - 1:06x}\n")
    print(f"{kept.sum()} code points kept, {(hashes != other_hashes).sum()} differ between the versions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merges", required=True, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--code-points", help="only write each code point's hash to this .npy file")
    parser.add_argument("--agree-with", help="the .npy file that another version wrote")
    parser.add_argument("--output", help="the folder to write")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import CLIPTokenizerFast
    import tokenizers as tokenizers_library
    import transformers

    merges = read_merges(arguments.merges)
    variants = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("exclamation", "eos"):
            folder = os.path.join(scratch, name)
            write_tokenizer_folder(folder, merges, pad=name)
            variants.append((name, CLIPTokenizerFast.from_pretrained(folder)))
        if arguments.code_points:
            np.save(arguments.code_points, code_point_hashes(variants[0][1]))
            return
        for name, _ in variants:
            target = os.path.join(arguments.output, name)
            os.makedirs(target, exist_ok=True)
            for file in ("tokenizer_config.json", "special_tokens_map.json"):
                shutil.copy(os.path.join(scratch, name, file), target)
        for file in ("vocab.json", "merges.txt"):
            with open(os.path.join(scratch, "eos", file), "rb") as source:
                with open(os.path.join(arguments.output, file + ".gz"), "wb") as target:
                    target.write(gzip.compress(source.read(), 9, mtime=0))
        write_strings(os.path.join(arguments.output, "strings.tsv"), variants)
        write_code_points(arguments.output, code_point_hashes(variants[0][1]), np.load(arguments.agree_with))
    print(f"tokenizers {tokenizers_library.__version__}, transformers {transformers.__version__}, "
          f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
