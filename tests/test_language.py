"""Documents, docstrings, comments and messages are free of phrases that readers found unclear."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CODE = ("cflightning", "export", "serve", "tests")
DOCUMENTS = (
    "*.md", "docs/*.md", "serve/*.md", "tests/benchmarks/*.md", "configs/*.yaml", "Makefile", "*.toml", "serve/*.toml",
    "serve/Dockerfile",
)  # fmt: skip

OPENERS = re.compile(
    r"(Of|And|That|Those|What|Who|Whoever|Whom|Whose|Which|How|Whether|Where|When|Why|As|By|Between|Below|Above|Behind"
    r"|Beyond|But|Or|So|Such|Without|Within|Likewise|Else|Because|Since|Its|They|Also|Until)\b"
)
"""First words of a docstring that does not name its subject; a noun phrase or an imperative verb stands there."""

PHRASES = {  # pattern -> what to write instead
    r"hangs? together": "are correlated",
    r"in (?:its|their) stead": "instead",
    r"the same of\b": "repeat the noun",
    r"\bwhoever\b": "a user who",
    r"\b(?:some|any)body\b": "a user, a client",
    r"what (?:it|they|this|that|\w+ \w+) (?:is|are) worth": "the gain, the value",
    r"\b(?:leans?|leaning|leaned) on\b": "depends on, is shrunk towards",
    r"\bknows?\b (?:of )?(?:better|no better)": "has a lower validation error",
    r"\bat fault\b": "invalid",
    r"\bas it were\b": "omit",
    r"\bin peace\b|\bin vain\b|\bfor ever\b": "forever, without effect",
    r"\blets? go\b|\blet go\b": "shut down, release",
    r"\bby (?:what|who|whom)\b": "the number, the factor",
    r"\b(?:is|are|was|were|be|been|not) told\b|\btold (?:by|of|apart|from)\b": "recognised by, informed of",
    r"\bof nothing\b": "empty, no",
    r"\basks\b|\basked\b(?! to\b)|\basking\b": "request, call, read",
    r"\bquestions?\b(?! mark)": "request, graph, method",
    r"\b(?:go|goes|gone|going|went) on\b": "continue, resume",
    r"\btak(?:e|es|en|ing) up\b": "load",
    r"\bmade[- ]up\b": "synthetic, invented",
    r"\ba look\b|\blook(?:s|ed|ing)? at\b": "pass, update, read, evaluate",
    r"(?<!there )(?<!or )\b(?:is|are|was) no (?!longer|more|less|worse|better|larger|smaller|slower|faster)": "is not",
    r"\bbut for\b": "except for",
    r"\b(?:anew|afresh)\b": "again",
    r"\bdealt\b|\bdeals?\b(?! with)|\bdealing\b(?! with)": "stratify, assign",
    r"\bsettle[sd]?\b": "resolve, synchronise",
    r"\bsteer(?:s|ed|ing)?\b": "adapt",
    r"\bfigures\b": "metrics, results",
    r"\bsays\b|\bsaid\b|\bsays?,": "states, defines, reports",
    r"\bsay (?:so|who|what|nothing|little|hardly|why)\b": "state",
    r"\btells?\b|\btelling\b": "state, distinguish",
    r"\bthat answers\b|\banswers by\b|\banswers? (?:better|for)\b": "the served network, predicts",
    r"\b(?:is|are|was|be) sure\b|\bsurer\b|\bunsure\b": "unambiguous, certain",
    r"\bdoubts?\b": "uncertainty, standard deviation",
    r"\bwish(?:es|ed)?\b": "option, request",
    r"\brefusals?\b": "error",
    r"\b(?:knows|knew)\b": "has, contains",
    r"\bwants\b|\bbelieved?\b|\bhopes?\b|\bhoped\b": "name the mechanism",
    r"\b(?:lends?|lent)\b": "provide, override",
    r"\bapart\b(?! from)": "separate",
    r"\bfacts\b": "metadata",
    r"(?:that|which|what|who) (?:is|are|was|were) there\b": "exists, is present",
    r"\btwins?\b": "reference",
    r"\bstrangers?\b": "unknown user",
    r"\bunkind\b|\bkind and\b": "malicious",
    r"(?:^|[.;:] )Who(?:ever)? \w+": "A user who",
    r"\bwhat (?:lies|stands) (?:in|beside|behind|there)\b": "name the thing",
    r"\bstands? (?:there|here|in for|by itself)\b": "is",
    r"\bno more is known\b|\bnothing else is\b": "otherwise",
    r"\bdoes good\b|\bdo well\b|\bdoes well\b": "improves",
    r"\bha(?:s|ve|d) no say\b": "is ignored",
    r"\bc(?:ame|omes?) to nothing\b": "failed",
    r"\b(?:takes?|plays?) no part\b": "is ignored, unused",
    r"\bin one go\b": "together",
    r"\b(?:most|after|for|by|of) so (?:many|much)\b": "this number of",
    r"\bthought of by\b|\bas people know\b|\bof late\b": "name the thing",
    r"\bwhat (?:comes|came) out\b": "the result",
    r"\bbags?\b": "SVD++ term",
}  # fmt: skip
BANNED = [
    (re.compile(pattern, 0 if "Who" in pattern else re.IGNORECASE), better) for pattern, better in PHRASES.items()
]
COMMENT_OPENERS = re.compile(r"(of|who|whom|whose|what|whatever|whoever|which|that|and|but for)\b")
"""First words of a comment that is a fragment."""
ARGUMENT = re.compile(
    r"^ +\w+: (?:[oO]f|[tT]hat|[wW]ho|[wW]hose|[bB]y|[hH]ow|[tT]o be|[wW]here|[wW]hat) ", re.MULTILINE
)
"""An argument whose description is a fragment."""


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def texts(path):
    """Yield (line, kind, text) of the comments, docstrings and messages of a Python file."""
    source = path.read_text("utf-8")
    block, last = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or re.search("fmt:|noqa|type: ignore", token.string):
            continue
        whole_line = token.line.lstrip().startswith("#")
        if block and not (whole_line and token.start[0] == last + 1):
            yield block[0], "comment", " ".join(block[1:])
            block = []
        block, last = [*(block or [token.start[0]]), token.string.lstrip("#: ")], token.start[0]
    if block:
        yield block[0], "comment", " ".join(block[1:])
    tree = ast.parse(source)
    docstrings = {node.value for node in ast.walk(tree) if is_docstring(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, "docstring" if node in docstrings else "message", node.value


def faults(path):
    """Yield (line, phrase, better, text) for every unclear phrase of a file."""
    if path.suffix == ".py":
        found = texts(path)
    else:
        found = ((number, "document", line) for number, line in enumerate(path.read_text("utf-8").splitlines(), 1))
    for line, kind, text in found:
        if kind == "docstring":
            if match := OPENERS.match(text.strip()):
                yield line, match[0], "a noun or an imperative verb", text
            for match in ARGUMENT.finditer(text):
                yield line + text[: match.start()].count("\n"), match[0].strip(), "a noun", text[match.start() :]
        if kind == "comment" and (match := COMMENT_OPENERS.match(text)):
            yield line, match[0], "a noun or a sentence", text
        plain = " ".join(re.sub(r"``.*?``|`[^`\n]*`|https?://\S+", "", text).split())
        for pattern, better in BANNED:
            for match in pattern.finditer(plain):
                yield line, match[0], better, text


def check(paths):
    paths = [path for path in paths if path != Path(__file__) and "node_modules" not in path.parts]
    assert paths
    lines = [
        f"{path.relative_to(REPOSITORY)}:{line}: {phrase!r} (better: {better}) in {' '.join(text.split())[:100]!r}"
        for path in paths
        for line, phrase, better, text in faults(path)
    ]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("folder", CODE)
def test_code_has_no_unclear_phrases(folder):
    check(sorted((REPOSITORY / folder).rglob("*.py")))


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_documents_have_no_unclear_phrases(pattern):
    check(sorted(REPOSITORY.glob(pattern)))
