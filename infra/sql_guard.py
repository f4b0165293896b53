"""What strangers may ask of the embedded engine: one SELECT, with functions that only compute.

A read-only connection alone still runs `SELECT file('/etc/hostname')`, `INTO OUTFILE` and
`KILL QUERY`. So the engine itself tells us what a query is: it rewrites the text into its
canonical form (which fails for two statements), and dumps the syntax tree of exactly that form;
every node of the tree must be of a kind, and every function and table on a list, known here.
What is run is the canonical form that was examined, never the text that came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from infra.binding import bind
from infra.warehouse_types import WarehouseError

MAX_QUERY = 256 * 1024  # characters

SYNTAX_ERROR, UNKNOWN_FORMAT, READONLY, QUERY_IS_TOO_LARGE, ACCESS_DENIED = 62, 73, 164, 171, 497

# Kinds of functions, in the engine's own words, that read nothing but their arguments.
_CATEGORIES = (
    "Arithmetic", "Arrays", "Bit", "Bitmap", "Comparison", "Conditional", "Dates and Times",
    "Distance", "Encoding", "Hash", "IP Address", "JSON", "Logical", "Map", "Mathematical",
    "Null", "Random Number", "Rounding", "String", "String Replacement",
    "String Search", "String Splitting", "Time Window", "Tuple", "Type Conversion", "URL", "UUID",
)  # fmt: skip
_ALSO = frozenset(
    """bar currentDatabase currentUser formatReadableDecimalSize formatReadableQuantity
    formatReadableSize formatReadableTimeDelta hostName identity ignore isConstant materialize
    neighbor rowNumberInAllBlocks rowNumberInBlock runningDifference timezone toColumnTypeName
    toTypeName transform uptime version widthBucket exists lambda caseWithExpression
    currentSchemas defaultValueOfTypeName byteSize _CAST""".split()
)
_NEVER = frozenset(
    """aggThrow arrayReduce arrayReduceInRanges chdb file flameGraph formatRow
    formatRowNoNewline groupFormat naiveBayesNgrams sleep sleepEachRow""".split()
)
# Combinators of aggregate functions. -Merge is not among them: it would read made-up states.
_COMBINATORS = (
    "SimpleState", "OrDefault", "OrNull", "Distinct", "ForEach", "Resample", "ArgMin", "ArgMax",
    "Array", "State", "Null", "Map", "If",
)  # fmt: skip
_TABLE_FUNCTIONS = frozenset("numbers numbers_mt zeros values generateSeries".split())
_SYSTEM_TABLES = frozenset(
    """aggregate_function_combinators collations columns contributors data_skipping_indices
    data_type_families databases formats functions keywords numbers one parts settings
    table_functions tables time_zones""".split()
)
_OPEN_DATABASES = frozenset({"default", "information_schema", "INFORMATION_SCHEMA"})
_NODES = frozenset(
    """SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList Literal
    Identifier TableIdentifier Function TablesInSelectQuery TablesInSelectQueryElement
    TableExpression TableJoin ArrayJoin Subquery WithElement Asterisk QualifiedAsterisk
    ColumnsTransformerList ColumnsExceptTransformer ColumnsReplaceTransformer
    ColumnsReplaceTransformer::Replacement ColumnsRegexpMatcher ColumnsListMatcher
    QualifiedColumnsRegexpMatcher QualifiedColumnsListMatcher OrderByElement InterpolateElement
    WindowDefinition WindowListElement SampleRatio StorageOrderByElement""".split()
)
_CASTS = frozenset("CAST _CAST accurateCast accurateCastOrNull accurateCastOrDefault".split())
_SETS = frozenset(
    """in notIn globalIn globalNotIn nullIn notNullIn globalNullIn globalNotNullIn inIgnoreSet
    notInIgnoreSet""".split()
)
_FORMATS = re.compile(
    r"(JSON\w*|CSV\w*|TSV\w*|TabSeparated\w*|Pretty\w*|Vertical|Values|Markdown|XML|SQLInsert"
    r"|RowBinary\w*|Native|Arrow|ArrowStream|Parquet|ORC|Avro|MsgPack|BSONEachRow|RawBLOB"
    r"|LineAsString|Null)"
)
_LAST_FORMAT = re.compile(r" FORMAT (\w+)\s*\Z")
_PLAIN = re.compile(r"[A-Za-z_]\w*")  # a name with other characters could mean a file
_TABLE = r"(?:default\.)?[A-Za-z_]\w*"
_ABOUT_TABLES = re.compile(
    rf"(?:SHOW TABLES(?: FROM default)?|SHOW DATABASES|(?:DESCRIBE|EXISTS|SHOW CREATE) "
    rf"TABLE {_TABLE})"
)

Ask = Callable[[str, Mapping[str, str]], str]  # (sql, server-side parameters) -> text


class Checked(NamedTuple):
    """A query that may run: its canonical text, and the format that it names, if any."""

    sql: str
    format: str | None


@dataclass(slots=True)
class Node:
    kind: str
    rest: str  # what the engine says beside the kind: a name, a literal, an alias
    children: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.rest.split(" ", 1)[0]

    def walk(self) -> Iterator[tuple[Node | None, Node]]:
        """Every node below with its parent, and this one."""
        stack: list[tuple[Node | None, Node]] = [(None, self)]
        while stack:
            parent, node = stack.pop()
            yield parent, node
            stack.extend((node, child) for child in node.children)


def tree(dump: str) -> Node:
    """The syntax tree in an answer to EXPLAIN AST: one node a line, its depth in spaces.

    >>> tree("Function f (children 1)\\n Literal 'x'\\n").children[0].rest
    "'x'"
    """
    path: list[Node] = []
    for line in dump.split("\n"):
        text = line.lstrip(" ")
        if not text:
            continue
        depth = len(line) - len(text)
        kind, _, rest = text.partition(" ")
        node = Node(kind, rest)
        if depth > len(path) or (depth == 0 and path):
            raise WarehouseError("the query has names that cannot be examined", ACCESS_DENIED)
        if depth:
            path[depth - 1].children.append(node)
        path[depth:] = [node]
    if not path:
        raise WarehouseError("the engine shows no syntax tree for this query", ACCESS_DENIED)
    return path[0]


class Guard:
    """Examines queries with the engine that `ask` reaches."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._plain, self._aggregates, self._any_case = _functions(ask)

    def check(self, sql: str, parameters: Mapping[str, str]) -> Checked:
        """The query as it may be run. Raises WarehouseError: what is not allowed, what is."""
        if len(sql) > MAX_QUERY:
            raise WarehouseError(
                f"the query has {len(sql)} characters: at most {MAX_QUERY} are allowed",
                QUERY_IS_TOO_LARGE,
            )
        canonical = self._ask(bind("SELECT formatQuerySingleLine(%(q)s)", {"q": sql}), {})
        canonical = canonical.removesuffix("\n")
        form = _LAST_FORMAT.search(canonical)
        if form:
            canonical = canonical[: form.start()]
            check_format(form[1])
        if not _ABOUT_TABLES.fullmatch(canonical):
            self._examine(canonical, parameters)
        return Checked(canonical, form[1] if form else None)

    def _examine(self, sql: str, parameters: Mapping[str, str]) -> None:
        try:
            dump = self._ask(f"EXPLAIN AST SELECT * FROM ({sql})", parameters)
        except WarehouseError as fault:
            if fault.code != SYNTAX_ERROR:
                raise
            raise WarehouseError(
                "only a single SELECT is answered here, without SETTINGS after FORMAT and "
                "without INTO OUTFILE (or SHOW TABLES, DESCRIBE TABLE name): "
                f"{sql[:80]!r} is none",
                READONLY,
            ) from None
        for parent, node in tree(dump).walk():
            self._check(parent, node)

    def _check(self, parent: Node | None, node: Node) -> None:
        if node.kind == "Set":
            raise WarehouseError("SETTINGS cannot be changed here: leave them out", READONLY)
        if node.kind not in _NODES:
            raise WarehouseError(f"{node.kind} is not allowed here", ACCESS_DENIED)
        if node.kind == "Literal" and "AggregateFunction" in node.rest:
            raise WarehouseError("states of aggregates are not read from values", ACCESS_DENIED)
        if node.kind == "TableIdentifier":
            _check_table(node.name)
        elif node.kind == "Function":
            if parent is not None and parent.kind == "TableExpression":
                _check_table_function(node.name)
            else:
                self._check_function(node)

    def _check_function(self, node: Node) -> None:
        if not self.allows(node.name):
            raise WarehouseError(f"function {node.name} is not allowed here", ACCESS_DENIED)
        for argument in (a for arguments in node.children for a in arguments.children[1:]):
            if node.name in _SETS and argument.kind == "Identifier":
                _check_table(argument.name)
            if node.name in _CASTS and argument.kind != "Literal":
                raise WarehouseError("the type of a CAST is a plain text", ACCESS_DENIED)

    def allows(self, name: str) -> bool:
        """Whether a function may be called by this name."""
        if name in _NEVER or name.lower() in _NEVER:
            return False
        if name in self._plain or name.lower() in self._any_case:
            return True
        return self._is_aggregate(name)

    def _is_aggregate(self, name: str) -> bool:
        while name not in self._aggregates:
            suffix = next((c for c in _COMBINATORS if name.endswith(c)), None)
            if suffix is None:
                return name.lower() in self._any_case
            name = name.removesuffix(suffix)
        return name not in _NEVER


def check_format(name: str) -> None:
    if not _FORMATS.fullmatch(name):
        raise WarehouseError(f"format {name} is not offered here: try JSON or CSV", UNKNOWN_FORMAT)


def _check_table(name: str) -> None:
    database, dot, table = name.rpartition(".")
    if _PLAIN.fullmatch(table) and (not dot or database in _OPEN_DATABASES):
        return
    if database == "system" and table in _SYSTEM_TABLES:
        return
    raise WarehouseError(
        f"table {name} is not open here: see SHOW TABLES, and of database system "
        f"{', '.join(sorted(_SYSTEM_TABLES))}",
        ACCESS_DENIED,
    )


def _check_table_function(name: str) -> None:
    if name not in _TABLE_FUNCTIONS:
        raise WarehouseError(
            f"table function {name} is not allowed here: {', '.join(sorted(_TABLE_FUNCTIONS))} are",
            ACCESS_DENIED,
        )


def _functions(ask: Ask) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Allowed plain functions, allowed aggregates, and those of both that ignore case (lower)."""
    said = ask(
        "SELECT name, is_aggregate, case_insensitive, alias_to, categories FROM system.functions",
        {},
    )
    known = [line.split("\t") for line in said.splitlines()]
    plain = _also_aliases(
        known, {r[0] for r in known if r[1] == "0" and r[4] in _CATEGORIES} | _ALSO
    )
    aggregates = _also_aliases(known, {r[0] for r in known if r[1] == "1"})
    allowed = plain | aggregates
    any_case = frozenset(r[0].lower() for r in known if r[2] == "1" and r[0] in allowed)
    return plain, aggregates, any_case


def _also_aliases(known: Iterable[list[str]], names: set[str] | frozenset[str]) -> frozenset[str]:
    return frozenset((set(names) | {r[0] for r in known if r[3] in names}) - _NEVER)
