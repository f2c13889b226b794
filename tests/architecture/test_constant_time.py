"""What is secret, or opens a secret, is compared in a time that does not tell how much of it was right."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import pytest

from tests.architecture.sources import package_sources

# On one worker, which parses the sources once.
pytestmark = pytest.mark.xdist_group("sources")
#: Words of a name whose value is secret, or is compared with something that is.
SECRET_WORDS = {
    "commit",
    "commitment",
    "mac",
    "nonce",
    "password",
    "private",
    "salt",
    "secret",
    "seed",
    "share",
    "tag",
    "token",
}


def plain_comparisons(nodes: Iterable[ast.AST]) -> list[str]:
    """Line and text of every `==` or `!=` of a value whose name says that it is secret; lengths are not."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in nodes
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and not any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
        and any(_is_secret(side) for side in (node.left, *node.comparators))
    ]


def _is_secret(side: ast.expr) -> bool:
    match side:
        case ast.Call(func=ast.Name(id="len")):
            return False
        case ast.Call(func=function):
            return _is_secret(function)
        case ast.Subscript(value=value):
            return _is_secret(value)
        case ast.Attribute(value=value, attr="value"):  # `secret.value`
            return _is_secret(value)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return not name.isupper() and bool(SECRET_WORDS & set(re.split(r"_+", name.lower())))
        case _:
            return False


def test_no_secret_is_compared_with_an_operator() -> None:
    sources = package_sources()
    assert len(sources) > 200
    assert [f"{source.shown}:{found}" for source in sources for found in plain_comparisons(source.nodes())] == []


@pytest.mark.parametrize(
    "naive",
    [
        "if secret.value == other.value: pass",
        "ok = commit_seed(setup_id, member, seed) != advert.seed_commitment",
        "ok = share_digest(salt, share) == digests[0]",
        "ok = known.token_hash == given",
        "ok = given == tokens_by_name['token'] or given == token[:8]",
    ],
)
def test_the_check_finds_a_naive_comparison(naive: str) -> None:
    assert plain_comparisons(ast.walk(ast.parse(naive))) != []


@pytest.mark.parametrize("fine", ["len(salt) != SALT_BYTES", "tag == 'tag:yaml.org,2002:null'", "a.digest == b.digest"])
def test_the_check_lets_public_values_be_compared(fine: str) -> None:
    assert plain_comparisons(ast.walk(ast.parse(fine))) == []
