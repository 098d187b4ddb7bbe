# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module documents is what it accepts: its argument_spec against its DOCUMENTATION, fragments included."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils import _errors
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import MissingLibrary

yaml = pytest.importorskip("yaml", reason="comes with ansible-core")
pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "buildfleet.buildx"
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
FRAGMENTS = sorted(path.stem for path in (ROOT / "plugins" / "doc_fragments").glob("*.py"))
EVERY = pytest.mark.parametrize("name", MODULES)


def constants(path: Path) -> dict[str, str]:
    """The texts that a file gives names to, in classes as well."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found.update({item.id: str(node.value.value) for item in node.targets if isinstance(item, ast.Name)})
    return found


@cache
def fragment(name: str) -> dict[str, Any]:
    text = constants(ROOT / "plugins" / "doc_fragments" / f"{name}.py")["DOCUMENTATION"]
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@cache
def texts(name: str) -> dict[str, str]:
    return constants(ROOT / "plugins" / "modules" / f"{name}.py")


@cache
def documentation(name: str) -> dict[str, Any]:
    """A module's, joined with its fragments as Ansible does."""
    own: dict[str, Any] = yaml.safe_load(texts(name)["DOCUMENTATION"])
    options, attributes = dict(own.get("options") or {}), dict(own.get("attributes") or {})
    for other in own.get("extends_documentation_fragment") or []:
        collection, _dot, part = other.rpartition(".")
        assert collection == COLLECTION, f"{other} is another collection's"
        for key, value in (fragment(part).get("options") or {}).items():
            assert key not in options, f"{key} is documented twice"
            options[key] = value
        for key, value in (fragment(part).get("attributes") or {}).items():
            attributes[key] = {**value, **attributes.get(key, {})}
    return {**own, "options": options, "attributes": attributes}


@cache
def accepted(name: str) -> dict[str, Any]:
    """What the module gives to AnsibleModule."""
    module: Any = importlib.import_module(f"ansible_collections.buildfleet.buildx.plugins.modules.{name}")
    given: dict[str, Any] = {}

    class Stop(Exception):  # noqa: N818 - no error
        pass

    def record(**arguments: Any) -> None:
        given.update(arguments)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AnsibleModule", record)
        with pytest.raises(Stop):
            module.main()
    return given


def spec(name: str) -> dict[str, Any]:
    found: dict[str, Any] = accepted(name)["argument_spec"]
    return found


def facts(option: dict[str, Any]) -> dict[str, Any]:
    """What both sides say of an option, in one form."""
    kind = option.get("type", "str")
    default = option.get("default")
    return {
        "type": kind,
        "elements": option.get("elements"),
        "required": bool(option.get("required", False)),
        "default": default,
        "choices": sorted(option.get("choices") or []),
        "aliases": sorted(option.get("aliases") or []),
    }


def test_the_modules_are_there() -> None:
    assert {"buildx_builder", "buildx_build", "buildx_info"} <= set(MODULES)


@EVERY
def test_what_is_documented_is_what_is_accepted(name: str) -> None:
    documented = {option: facts(value) for option, value in documentation(name)["options"].items()}
    assert {option: facts(value) for option, value in spec(name).items()} == documented


@EVERY
def test_nothing_else_is_asked_of_the_options(name: str) -> None:
    """Conditions between options would have to be documented as well."""
    known = {
        "argument_spec", "supports_check_mode", "mutually_exclusive", "required_together", "required_one_of",
        "required_if", "required_by",
    }  # fmt: skip
    assert set(accepted(name)) <= known


@EVERY
def test_the_environment_is_documented(name: str) -> None:
    for option, value in spec(name).items():
        for variable in value.get("fallback", (None, []))[1]:
            text = str(documentation(name)["options"][option]["description"])
            assert f"E({variable})" in text, f"{option} is read from {variable}"


@EVERY
def test_each_option_is_described(name: str) -> None:
    for option, value in documentation(name)["options"].items():
        description = value["description"]
        assert description, option
        sentences = [description] if isinstance(description, str) else description
        assert all(sentence.rstrip().endswith((".", ")")) for sentence in sentences), option
        if isinstance(value.get("choices"), dict):
            assert all(value["choices"].values()), option


@EVERY
def test_options_that_are_named_exist(name: str) -> None:
    """O(…) in a text is an option of the same module, RV(…) a value that some module returns."""
    whole = "\n".join(texts(name)[part] for part in ("DOCUMENTATION", "RETURN"))
    whole += "".join(
        str(fragment(part.rpartition(".")[2])) for part in documentation(name)["extends_documentation_fragment"]
    )
    options = set(documentation(name)["options"])
    assert set(re.findall(r"\bO\((\w+)", whole)) <= options
    for module, value in re.findall(r"RV\(buildfleet\.buildx\.(\w+)#module:(\w+)", whole):
        assert value in yaml.safe_load(texts(module)["RETURN"])
    assert set(re.findall(r"M\(buildfleet\.buildx\.(\w+)\)", whole)) <= set(MODULES)


@EVERY
def test_failures_are_of_the_kinds_that_are_documented(name: str) -> None:
    """What a playbook may test: each kind that is named exists, and the modules that do more name all of them."""
    kinds = {error.kind for error in _hierarchy(_errors.BuildxError)} | {MissingLibrary.kind}
    named = set(re.findall(r"V\((\w+)\)", str(yaml.safe_load(texts(name)["RETURN"])["error"])))
    assert {"config", "store", "missing_library"} <= named <= kinds
    if name == "buildx_build":
        assert named == kinds


def _hierarchy(error: type[_errors.BuildxError]) -> Iterator[type[_errors.BuildxError]]:
    yield error
    for kind in error.__subclasses__():
        if kind.__module__ == _errors.__name__:
            yield from _hierarchy(kind)


@EVERY
def test_secrets_are_not_logged(name: str) -> None:
    """An option that takes one says so; no_log on a dict would mask every leaf of the result (DESIGN §4.10)."""
    for option, value in spec(name).items():
        if value.get("no_log") is not None:
            assert value.get("type", "str") != "dict", option
        if re.search(r"password|secret|token", option):
            assert value.get("no_log") is not None, option


@EVERY
def test_check_mode_is_supported_and_documented(name: str) -> None:
    attributes = documentation(name)["attributes"]
    assert set(attributes) >= {"check_mode", "diff_mode", "idempotent", "platform", "action_group"}
    assert accepted(name)["supports_check_mode"] is True
    assert attributes["check_mode"]["support"] in ("full", "partial")
    for attribute in attributes.values():
        assert attribute["support"] in ("full", "partial", "none", "N/A")
        assert attribute["description"]
        assert attribute["support"] != "partial" or attribute["details"], "what is not supported is said"


@EVERY
def test_the_group_of_actions(name: str) -> None:
    """So that module_defaults works for it."""
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert name in runtime["action_groups"]["buildx"]
    membership = documentation(name)["attributes"]["action_group"]["membership"]
    assert membership == [f"{COLLECTION}.buildx"]


def test_the_group_has_nothing_else() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    actions = sorted(path.stem for path in (ROOT / "plugins").glob("action/*.py"))
    assert sorted(set(runtime["action_groups"]["buildx"])) == sorted({*MODULES, *actions})


@EVERY
def test_examples_use_whole_names(name: str) -> None:
    keywords = {
        "name", "register", "when", "loop", "loop_control", "become", "become_user", "vars", "environment",
        "delegate_to", "run_once", "changed_when", "failed_when", "retries", "until", "delay", "tags", "notify",
        "async", "poll", "check_mode", "diff", "ignore_errors", "module_defaults", "no_log",
    }  # fmt: skip
    used = set()
    for task in yaml.safe_load(texts(name)["EXAMPLES"]):
        assert task["name"][0].isupper(), task
        [action] = set(task) - keywords
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+\.[a-z_]+", action), f"{action} is no whole name"
        used.add(action)
        if action == f"{COLLECTION}.{name}":
            options = documentation(name)["options"]
            names = {word for option, value in options.items() for word in (option, *(value.get("aliases") or []))}
            assert set(task[action] or {}) <= names
    assert f"{COLLECTION}.{name}" in used


@EVERY
def test_what_is_returned_is_described(name: str) -> None:
    def check(values: dict[str, Any], top: bool) -> None:
        for key, value in values.items():
            assert value["description"], key
            assert value["type"] in ("str", "int", "bool", "float", "list", "dict", "raw"), key
            assert not top or value["returned"], key
            assert value["type"] != "list" or value["elements"], key
            check(value.get("contains") or {}, False)

    check(yaml.safe_load(texts(name)["RETURN"]), True)


@EVERY
def test_a_module_says_who_and_since_when(name: str) -> None:
    found = documentation(name)
    assert found["module"] == name
    assert found["author"]
    assert found["short_description"][0].isupper()
    assert not found["short_description"].endswith(".")
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    since = tuple(int(part) for part in str(found["version_added"]).split("."))
    assert since <= tuple(int(part) for part in re.split(r"[.-]", str(galaxy["version"]))[:3])


@pytest.mark.parametrize("name", FRAGMENTS)
def test_each_fragment_is_used_and_has_its_group(name: str) -> None:
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _argspec

    users = [
        module
        for module in MODULES
        if f"{COLLECTION}.{name}" in documentation(module)["extends_documentation_fragment"]
    ]
    assert users
    group = getattr(_argspec, name[1:].upper(), {})
    assert set(fragment(name).get("options") or {}) == set(group)
