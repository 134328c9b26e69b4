"""Credentials of backup targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.backup_credentials import VARIABLES, credential, parse_variables
from instance_manager.core.errors import InvalidArgumentError, UpstreamError

SECRET = "hunter2"
PAIR = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET}
S3 = dict.fromkeys(
    (
        "AWS_ENDPOINTS",
        "AWS_CERT",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "VIRTUAL_HOSTED_STYLE",
        "AWS_SIGN_ACCEPT_ENCODING",
    ),
    "",
)
ALL = {name: name.lower() for name in VARIABLES}


def test_there_are_fifteen_variables() -> None:
    assert len(VARIABLES) == 15


CERTIFICATE = "-----BEGIN CERTIFICATE-----\r\n\tMII=\n"
WRITTEN = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20) | st.just(CERTIFICATE)


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), WRITTEN))
def test_values_are_taken_as_they_are(variables: dict[str, str]) -> None:
    assert parse_variables([f"{key}={value}" for key, value in variables.items()]) == variables


@pytest.mark.parametrize("text", [SECRET, f"={SECRET}", ""])
def test_an_entry_of_another_form_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(UpstreamError) as error:
        parse_variables([text])
    assert error.value.code == "INTERNAL"
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("text", [f"{SECRET}=", f"{SECRET}==", f"{SECRET}{'x' * 64}=x", f"{SECRET}\n=x"])
def test_a_secret_that_looks_like_a_key_is_not_told(text: str) -> None:
    with pytest.raises(UpstreamError, match="failed to set envs: ") as error:
        parse_variables([text])
    assert error.value.code == "INTERNAL"
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("character", ["\0", "\x01", "\x1b", "\x7f"])
def test_no_variable_has_control_characters(character: str) -> None:
    with pytest.raises(UpstreamError, match="failed to set envs: the value of AWS_CERT") as error:
        parse_variables([f"AWS_CERT={SECRET}{character}"])
    assert error.value.code == "INTERNAL"
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("key", ["PATH", "LD_PRELOAD", "aws_cert", "AWS_CERT "])
def test_no_other_variable_can_be_set(key: str) -> None:
    with pytest.raises(UpstreamError) as error:
        parse_variables([f"{key}={SECRET}"])
    text = f'failed to set envs: env key "{key}" is not permitted by the backup env allowlist'
    assert (error.value.code, str(error.value)) == ("INTERNAL", text)


@pytest.mark.parametrize(
    ("target", "variables", "told"),
    [
        ("s3://b@r/", {}, S3),
        ("s3://b@r/", PAIR, S3 | PAIR),
        ("s3://b@r/", ALL, {each: ALL[each] for each in (*S3, *PAIR)}),
        ("cifs://h/s", ALL, {each: ALL[each] for each in ("CIFS_USERNAME", "CIFS_PASSWORD")}),
        ("cifs://h/s", {}, {"CIFS_USERNAME": "", "CIFS_PASSWORD": ""}),
        (
            "azblob://c@b/",
            ALL,
            {
                each: ALL[each]
                for each in ALL
                if each.startswith("AZBLOB_") or each in {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
            },
        ),
        ("nfs://h:/x", ALL, {}),
        ("vfs:///x", ALL, {}),
        ("foo://x/", ALL, {}),
        ("nonsense", ALL, {}),
        ("", ALL, {}),
    ],
)
def test_a_target_gets_what_it_needs_and_nothing_else(
    target: str, variables: dict[str, str], told: dict[str, str]
) -> None:
    assert credential(target, variables) == told


@pytest.mark.parametrize("half", sorted(PAIR))
def test_half_of_a_key_pair_is_refused(half: str) -> None:
    with pytest.raises(InvalidArgumentError, match="failed to get backup credential: s3 credential") as error:
        credential("s3://b@r/", {half: SECRET})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("end", ["[", "\0", "\n", "\x7f", "%zz", "%", "%4"])
def test_what_is_no_url_is_refused_without_its_text(end: str) -> None:
    with pytest.raises(InvalidArgumentError, match="failed to get backup credential") as error:
        credential(f"s3://[{SECRET}" if end == "[" else f"s3://{SECRET}{end}", {})
    assert SECRET not in str(error.value)
