from __future__ import annotations

from cutk.report.naming import distinct, natural, slug, slugs


def test_distinct_only_as_far_as_needed():
    traits = {1: {"a": "1", "provider": "x"}, 2: {"a": "2", "provider": "y"}, 3: {"a": "2", "provider": "z"}}
    assert distinct({1: "m", 2: "m", 3: "n"}, traits) == {1: "m [a=1]", 2: "m [a=2]", 3: "n"}
    named = distinct(dict.fromkeys((1, 2, 3), "m"), traits)
    assert named == {1: "m [a=1, provider=x]", 2: "m [a=2, provider=y]", 3: "m [a=2, provider=z]"}
    assert distinct({1: "m", 2: "m"}, {1: {}, 2: {}}) == {1: "m", 2: "m #2"}


def test_names_sort_as_people_count():
    assert sorted(["c10", "c9", "2", "1e1", "0.5"], key=natural) == ["0.5", "2", "1e1", "c9", "c10"]


def test_slugs_are_short_safe_and_differ():
    assert slugs(["a b", "a|b", "c"]) == {"a b": "a-b", "a|b": "a-b-2", "c": "c"}
    assert len(slug("x" * 1000)) <= 80
    assert len(set(slugs([f"{'x' * 200}{i}" for i in range(5)]).values())) == 5
    assert slug("קוף/../<script>") == "script"
