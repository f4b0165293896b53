"""Words: which items' texts contain what was typed. The part of search that must be literal.

Full-text search is Tantivy's. On top: what share of a query an item contains, by the weight of its
words (Robertson and Spärck Jones's idf); misspelt words, one or two letters off, count for less;
scripts without spaces are cut into pairs of characters; an item has single ones as well, which are
what a query of one character (茶, tea) asks for.
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import tantivy
from rapidfuzz.distance import OSA

HEAP = 15_000_000  # bytes that the writer takes: Tantivy's least
MOST_WORDS = 24  # of a query that are looked for
LONGEST_WORD = 40
MISSPELT = 0.7  # what a word that is nearly the one asked for counts
# scripts that are written without spaces: CJK, kana, Thai, Lao, Khmer, Myanmar
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


class _Word(NamedTuple):
    text: str  # its stem; as it was typed when nobody has it
    weight: float
    off: int  # letters that may differ


def _spaced(text: str, apart: bool = False) -> str:
    """Runs of an unspaced script as overlapping pairs; apart: and as single characters.

    >>> _spaced("红茶杯 mug")
    ' 红茶 茶杯  mug'
    """

    def pairs(run: re.Match[str]) -> str:
        found = run[0]
        parts = [found[n : n + 2] for n in range(max(len(found) - 1, 1))]
        return f" {' '.join([*parts, *found] if apart else parts)} "

    return _UNSPACED.sub(pairs, unicodedata.normalize("NFKC", text))


def _off(word: str) -> int:
    """How many letters may be wrong in a word of that length."""
    return 0 if len(word) < 4 or any(c.isdigit() for c in word) else 1 if len(word) < 8 else 2


class Lexicon:
    """Texts by id. Callers may be in several threads.

    >>> words = Lexicon()
    >>> words.put([("1", "RED TEA MUG"), ("2", "BLUE MUG")])
    >>> words.search("tea mugs")
    {'1': 1.0, '2': 0.2...}
    """

    def __init__(self) -> None:
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        for field in ("stems", "forms"):  # the words' stems, and the words as they were typed
            schema.add_text_field(field, stored=True, tokenizer_name="words", index_option="freq")
        self._schema = schema.build()
        self._index = tantivy.Index(self._schema)
        build = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        for each in (
            tantivy.Filter.remove_long(LONGEST_WORD),
            tantivy.Filter.lowercase(),
            tantivy.Filter.ascii_fold(),
        ):
            build = build.filter(each)
        self._forms = build.build()
        stemmer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
        self._stems = stemmer.filter(tantivy.Filter.stemmer("english")).build()
        plain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        self._index.register_tokenizer("words", plain)
        self._writer = self._index.writer(HEAP, 1)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._index.searcher().num_docs)

    def put(self, texts: Iterable[tuple[str, str]]) -> None:
        """These items' texts are now so; their ids can be found too."""
        self.change(texts, ())

    def drop(self, names: Iterable[str]) -> None:
        """These are no items any more."""
        self.change((), names)

    def change(self, texts: Iterable[tuple[str, str]], gone: Iterable[str]) -> None:
        """Both at once."""
        with self._lock:
            for name in gone:
                self._writer.delete_documents_by_term("id", name)
            for name, text in texts:
                self._writer.delete_documents_by_term("id", name)
                forms = " ".join(self._forms.analyze(_spaced(f"{name} {text}", apart=True)))
                stems = " ".join(self._stems.analyze(forms))
                self._writer.add_document(tantivy.Document(id=name, forms=forms, stems=stems))
            self._commit()

    def search(self, query: str, most: int = 120) -> dict[str, float]:
        """Items that contain words of the query, at most so many; which share of it, 0 to 1."""
        searcher = self._index.searcher()
        words = self._weighed(searcher, query)
        total = sum(word.weight for word in words)
        if not total:
            return {}
        parts = [(tantivy.Occur.Should, part) for word in words for part in self._parts(word)]
        hits = searcher.search(tantivy.Query.boolean_query(parts), most).hits
        found = {}
        for _, address in hits:
            one = searcher.doc(address).to_dict()
            stems, forms = one["stems"][0].split(), one["forms"][0].split()
            found[one["id"][0]] = sum(_share(word, stems, forms) for word in words) / total
        return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))

    def _commit(self) -> None:
        self._writer.commit()
        self._index.reload()

    def _weighed(self, searcher: tantivy.Searcher, query: str) -> list[_Word]:
        """A word that no item has may be misspelt: it counts like a rare one, if there is one."""
        items = searcher.num_docs
        found = []
        for form in list(dict.fromkeys(self._forms.analyze(_spaced(query))))[:MOST_WORDS]:
            (text,) = self._stems.analyze(form)
            have = searcher.doc_freq("stems", text)
            off = 0 if have else _off(form)
            if not have and off:
                text = form
                near = self._near(form, off)
                have = getattr(searcher.search(near, 1, count=True), "count", 0) or 0
            if have:
                found.append(_Word(text, math.log1p((items - have + 0.5) / (have + 0.5)), off))
        return found

    def _near(self, text: str, off: int) -> tantivy.Query:
        return tantivy.Query.fuzzy_term_query(self._schema, "forms", text, off, True, False)

    def _parts(self, word: _Word) -> list[tantivy.Query]:
        if word.off:
            return [tantivy.Query.boost_query(self._near(word.text, word.off), word.weight)]
        return [tantivy.Query.term_query(self._schema, "stems", word.text)]


def _share(word: _Word, stems: list[str], forms: list[str]) -> float:
    if not word.off:
        return word.weight if word.text in stems else 0.0
    near = any(OSA.distance(word.text, each) <= word.off for each in forms)
    return MISSPELT * word.weight if near else 0.0
