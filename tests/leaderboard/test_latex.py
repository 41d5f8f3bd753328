"""Tables for a paper, made into a PDF."""

from __future__ import annotations

from board_case import Compile, Write, metric

from hambench.leaderboard import collect
from hambench.leaderboard.latex import escaped, latex
from hambench.results import Metric

HOSTILE = r"""\input{/etc/passwd} $x^2$ % & # _ ~ < > | " ' ` -- {} \end{table} ^^41 é"""

ACCENTS = {0x2C6: "^", 0x2DC: "~"}  # as pdftotext reads them; an underscore is a rule, no text


def without(text: str, characters: str) -> str:
    return text.translate({ord(c): None for c in characters})


def test_a_ranking_compiles_and_says_what_it_should(run: Write, compile_latex: Compile) -> None:
    psi = Metric(value=0.99913, unit="1", ci95=(0.99901, 0.99922), n=100)
    run("a", preset="best_one", metrics={"h_mae": metric(58.123), "psi": psi})
    runs = run("b", preset="other", metrics={"h_mae": metric(158.0), "psi": psi})
    text = compile_latex(latex(collect([runs]).tables))
    row = next(line for line in text.splitlines() if "best one" in line and "[" in line)
    assert "58.1 [55.2, 61.0]" in row
    assert r"\textbf{58.1 [55.2, 61.0]}" in latex(collect([runs]).tables)
    assert r"\textbf{158" not in latex(collect([runs]).tables)
    assert "settings" not in text  # what a paper has no room for


def test_hostile_names_are_shown_as_they_are(run: Write, compile_latex: Compile) -> None:
    text = compile_latex(latex(collect([run("a", preset=HOSTILE)]).tables))
    shown = r"\input{/etc/passwd} $x^2$ % & # _ ~ < > | ” ' ` -- {} \end{table} ^^41 ?"
    assert without(shown, " _") in without(text, " ").translate(ACCENTS)


def test_units_are_typeset(run: Write) -> None:
    assert r"h\_mae / \textmu{}$E_\mathrm{h}$" in latex(collect([run("a")]).tables)


def test_dashes_and_ligatures_stay_apart() -> None:
    assert escaped("a--b") == "a{-}{-}b"
    assert escaped("a\nb\x00") == "a b?"


def test_a_document_of_many_tables_compiles(run: Write, compile_latex: Compile) -> None:
    for task in ("md17_water", "qh9_stable", "water_mini"):
        runs = run(task, task=task, preset="helm", model="helm")
    text = compile_latex(latex(collect([runs]).tables))
    assert "Across tasks" in text
    assert "Published numbers for md17 water" in text.replace("\n", " ")
