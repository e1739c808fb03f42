#!/usr/bin/env python3
"""Makes the graph that the `wordnet` semantics embed: the 1000 ImageNet classes and their hypernyms.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wn
    pip download --no-deps timm && unzip timm-*.whl 'timm/data/_info/imagenet_synsets.txt'
    scripts/wordnet.py wn/usr/share/wordnet/data.noun timm/data/_info/imagenet_synsets.txt \
        > challenge/src/semantics/data/imagenet.txt

An ImageNet id is `n` and the byte offset of a WordNet 3.0 synset in `data.noun`; class i of the
usual classifiers is the i-th id in rising order. The output is WordNet's notice, which must stay with
it, then a line for each synset by rising offset: its offset, the offsets of its direct hypernyms
(`@` and `@i` pointers), and for a class a tab and the synset's words.
"""

import sys

CLASSES = 1000


def read(path):
    """Notice, and offset -> (words, hypernyms) of every noun synset."""
    notice, synsets = [], {}
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("  "):
                notice.append(line.strip().split(" ", 1)[1].strip() if " " in line.strip() else "")
                continue
            # offset lexfile type w_cnt (word lex_id)* p_cnt (symbol offset pos source/target)* | gloss
            fields = line.split(" | ", 1)[0].split()
            words = int(fields[3], 16)
            names = [fields[4 + 2 * i].replace("_", " ") for i in range(words)]
            at = 4 + 2 * words
            pointers = [fields[at + 1 + 4 * i:at + 5 + 4 * i] for i in range(int(fields[at]))]
            synsets[fields[0]] = (names, [p[1] for p in pointers if p[0] in ("@", "@i") and p[2] == "n"])
    return notice, synsets


def main():
    notice, synsets = read(sys.argv[1])
    with open(sys.argv[2], encoding="ascii") as file:
        classes = [line.strip().removeprefix("n") for line in file if line.strip()]
    assert len(classes) == CLASSES and classes == sorted(set(classes)), "not the 1000 ImageNet ids in rising order"
    closure, waiting = set(), list(classes)
    while waiting:
        offset = waiting.pop()
        if offset not in closure:
            closure.add(offset)
            waiting.extend(synsets[offset][1])
    for line in notice:
        print(f"# {line}".rstrip())
    chosen = set(classes)
    for offset in sorted(closure):
        names, parents = synsets[offset]
        line = " ".join([offset, *parents])
        print(line + "\t" + ", ".join(names) if offset in chosen else line)
    edges = sum(len(synsets[o][1]) for o in closure)
    print(f"{len(closure)} synsets, {edges} hypernyms", file=sys.stderr)


main()
