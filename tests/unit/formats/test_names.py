from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats import names
from kaos_formats.errors import InvalidName

IDS = st.text("0123456789abcdef", min_size=32, max_size=32)


@pytest.mark.parametrize("name", ["default", "a", "A-b_9", "9lives", "x" * 51])
def test_workspace_names_that_pachyderm_can_hold(name: str) -> None:
    assert names.check_workspace(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a/b", "ü", "a.b", "x" * 52, "a\n"])
def test_workspace_names_that_it_cannot(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        names.check_workspace(name)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["mnist", "My data", "v1.2", "ü", "-x", "a:b"])
def test_bundle_names_are_folder_names(name: str) -> None:
    assert names.check_bundle_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x00b", "x" * 129])
def test_bundle_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidName):
        names.check_bundle_name(name)


@given(IDS)
def test_staging_branch_and_back(bundle_id: str) -> None:
    branch = names.staging_branch(bundle_id, "0a1b2c3d4e5f6071")
    assert names.parse_staging_branch(branch) == (bundle_id, "0a1b2c3d4e5f6071")
    assert names.parse_staging_branch(f"staging-{bundle_id}") == (bundle_id, "")
    assert names.parse_staging_branch("x" + branch) is None


@given(st.text("0123456789abcdef", min_size=8, max_size=12))
def test_params_path_and_back(params_id: str) -> None:
    assert names.parse_params_path(names.params_path(params_id)) == params_id


def test_a_model_id_tells_what_made_it() -> None:
    assert names.model_id("1909d1" + "0" * 26, "5c3ca7" + "f" * 26, "828c4e55") == "1909d1-5c3ca7-828c4e55"


@pytest.mark.parametrize("text", ["master", "staging-", "staging-xyz", "staging-" + "A" * 32])
def test_other_branches_are_no_staging_branches(text: str) -> None:
    assert names.parse_staging_branch(text) is None


def test_image_names_are_lower_case_for_docker() -> None:
    assert names.image_name("MyWork", "ab" * 16) == "kaos/mywork:" + "ab" * 16
