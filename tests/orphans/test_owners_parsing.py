"""What a file of owners says, and what is refused because it could be misread."""

import json
from typing import Any

import pytest
import yaml

from instance_manager.orphans.model import Owner, OwnerKind
from instance_manager.orphans.owners.parse import MAX_YAML, InvalidOwnersError, parse
from tests.support.owner_files import listed, replica


def as_json(*objects: dict[str, Any]) -> bytes:
    return json.dumps(listed(*objects)).encode()


def as_yaml(*documents: object) -> bytes:
    return yaml.safe_dump_all(documents).encode()


def test_a_list_in_json_tells_every_field_of_each_owner() -> None:
    volume = replica("v-e-0", kind="Engine", current="starting", node="node-2", manager="im-2")
    assert parse(as_json(replica("v-r-1", deleting=True), volume)) == [
        Owner("v-r-1", OwnerKind.REPLICA, True, "node-1", "node-1", "running", "running", "im-1"),
        Owner("v-e-0", OwnerKind.ENGINE, False, "node-2", "node-2", "running", "starting", "im-2"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(replica("a")).encode(),
        as_json(replica("a")),
        as_yaml(replica("a")),
        as_yaml(listed(replica("a"))),
        as_yaml(None, replica("a"), None),
        b"\n\t " + as_json(replica("a")),
        b"\xef\xbb\xbf" + as_json(replica("a")),
    ],
)
def test_one_object_and_a_list_are_understood_in_json_and_in_yaml(text: bytes) -> None:
    assert [owner.name for owner in parse(text)] == ["a"]


def test_each_document_of_yaml_may_be_an_object_or_a_list() -> None:
    text = as_yaml(replica("a"), listed(replica("b"), replica("c")), replica("d", kind="Engine"))
    assert [owner.name for owner in parse(text)] == ["a", "b", "c", "d"]


def test_the_items_of_a_list_of_the_kubernetes_api_have_its_kind() -> None:
    engine = {key: value for key, value in replica("a").items() if key != "kind"}
    (owner,) = parse(json.dumps({"kind": "EngineList", "items": [engine]}).encode())
    assert owner.kind is OwnerKind.ENGINE


def test_a_list_without_items_says_that_there_are_no_owners() -> None:
    assert parse(as_json()) == []


def test_what_is_not_filled_in_yet_is_empty() -> None:
    new = {"kind": "Replica", "metadata": {"name": "a"}, "spec": {"nodeID": None}, "status": None}
    assert parse(json.dumps(new).encode()) == [Owner("a", OwnerKind.REPLICA)]


def test_a_time_of_deletion_that_yaml_reads_as_a_time_is_one() -> None:
    (owner,) = parse(
        b"kind: Replica\nmetadata: {name: a, deletionTimestamp: 2026-08-01T10:00:00Z}\nspec: {}\n"
    )
    assert owner.deleting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"# nothing\n", "it holds no object"),
        (as_json(replica("a"))[:-1], "not all of it"),
        (b"kind: [", "it is no YAML"),
        (b"--- !!python/object/apply:os.getcwd []", "it is no YAML"),
        (b'{"kind": "List", "items": ["\xff"]}', "not UTF-8"),
        (b"[1]", "the object has to be an object, not a list"),
        (b"just words", 'the object has to be an object, not "just words"'),
        (b'{"kind": "List"}', "without a list of items"),
        (b'{"kind": "List", "items": {}}', "without a list of items"),
        (b'{"kind": "List", "items": [null]}', "item 1 of the object has to be an object, not null"),
        (b'{"kind": "ReplicaList", "items": [], "metadata": {"continue": "x"}}', "only a part of a list"),
        (b'{"kind": "Pod", "metadata": {"name": "a"}}', 'is of kind "Pod": only Engine and Replica'),
        (b'{"metadata": {"name": "a"}}', "the object has no kind"),
        (b'{"kind": "Replica"}', "metadata of the object has to be an object, not null"),
        (b'{"kind": "Replica", "metadata": {}}', "has no name"),
        (
            b'{"kind": "Replica", "metadata": {"name": 7}}',
            "name in metadata of the object has to be text, not 7",
        ),
        (b'{"kind": "Replica", "metadata": {"name": "a", "deletionTimestamp": false}}', "has to be text"),
        (b'{"kind": "Replica", "metadata": {"name": "a"}, "status": "x"}', "status of Replica a has to be"),
        (
            b"kind: Replica\nmetadata: {name: a}\nspec: {desireState: off}\n",
            "desireState in spec of Replica a has to be text, not false",
        ),
        (as_yaml(replica("a"), {"kind": "Node"}), 'document 2 is of kind "Node"'),
    ],
)
def test_what_is_not_understood_is_refused_with_where_it_is(text: bytes, message: str) -> None:
    with pytest.raises(InvalidOwnersError, match=message.replace("[", r"\[")):
        parse(text)


@pytest.mark.parametrize(
    "text", [b"[" * 200_000, b'{"a":' * 200_000, b"a: " + b"[" * 200_000, b"- " * 100_000]
)
def test_what_is_nested_too_deeply_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidOwnersError, match="nested too deeply"):
        parse(text)


def test_a_list_in_the_yaml_of_kubectl_that_was_cut_off_is_refused_wherever_that_was() -> None:
    whole = yaml.safe_dump(listed(replica("a"), replica("b"))).encode()
    assert len(parse(whole)) == 2
    # Its keys are sorted, so the kind of the list comes after the items.
    end = whole.index(b"\nkind: List")
    lines = [at for at in range(1, end) if whole[at : at + 1] == b"\n"]
    for at in lines:
        with pytest.raises(InvalidOwnersError):
            parse(whole[:at])


def test_yaml_that_would_take_too_long_is_refused() -> None:
    with pytest.raises(InvalidOwnersError, match="write JSON"):
        parse(b"# " + b"x" * MAX_YAML)
