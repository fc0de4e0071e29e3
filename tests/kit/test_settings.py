"""Settings: read once, bounded, and never a weak or missing secret in production."""

import os
from pathlib import Path

import pytest

from stockade.kit.errors import ConfigurationError
from stockade.kit.settings import DatabaseAccess, Environment, Secret, Settings, read_settings
from stockade.targets import NAMES

STRONG = "f3b1c5d7e9a1b3c5d7e9f1a3"
LEAST = {"STOCKADE_DATABASE_URL": "postgresql://db:5432/stockade"}


def read(**variables: str) -> Settings:
    return read_settings(Environment(LEAST | variables), NAMES)


def test_the_address_of_the_database_is_all_that_is_needed():
    settings = read()
    assert (settings.environment, settings.port, settings.database_pool_size) == ("production", 8080, 10)
    assert settings.database.current() == ("postgresql://db:5432/stockade", None, None)
    assert settings.service_urls["product-catalog-service"] == "http://product-catalog-service"


BOUNDS: list[tuple[str, str, float, float]] = [
    ("STOCKADE_DATABASE_POOL_SIZE", "database_pool_size", 1, 200),
    ("STOCKADE_PORT", "port", 0, 65_535),
    ("STOCKADE_ACCESS_TOKEN_LIFETIME_S", "access_token_lifetime_s", 30, 3_600),
    ("STOCKADE_REFRESH_TOKEN_LIFETIME_S", "refresh_token_lifetime_s", 600, 365 * 86_400),
    ("STOCKADE_BODY_LIMIT_BYTES", "body_limit_bytes", 1_024, 64 * 1_048_576),
    ("STOCKADE_REQUEST_DEADLINE_S", "request_deadline_s", 1, 600),
    ("STOCKADE_DRAIN_DELAY_S", "drain_delay_s", 0, 120),
    ("STOCKADE_DRAIN_LIMIT_S", "drain_limit_s", 1, 600),
]


@pytest.mark.parametrize(("variable", "field", "low", "high"), BOUNDS, ids=[bound[1] for bound in BOUNDS])
def test_every_number_has_bounds(variable: str, field: str, low: float, high: float):
    for value in (low, high):
        assert getattr(read(**{variable: f"{value:g}" if value < 1e5 else str(int(value))}), field) == value
    for value in (str(int(low) - 1), str(int(high) + 1), "many", "nan", "inf", "-inf", "1e400", "0x10", "1,5"):
        with pytest.raises(ConfigurationError, match=variable):
            read(**{variable: value})


@pytest.mark.parametrize("variable", [bound[0] for bound in BOUNDS if isinstance(getattr(read(), bound[1]), int)])
def test_whole_numbers_have_no_fraction(variable: str):
    with pytest.raises(ConfigurationError, match=f"{variable} must be a whole number"):
        read(**{variable: "1234.5"} if variable != "STOCKADE_DATABASE_POOL_SIZE" else {variable: "12.5"})


def test_an_empty_variable_is_as_good_as_none():
    assert read(STOCKADE_PORT="", STOCKADE_HOST="  ").port == 8080
    assert read(STOCKADE_HOST="  ").host == "127.0.0.1"


@pytest.mark.parametrize("name", ["staging", "Development", "prod", "test"])
def test_an_unknown_environment_stops_the_start(name: str):
    with pytest.raises(ConfigurationError, match="STOCKADE_ENVIRONMENT"):
        read(STOCKADE_ENVIRONMENT=name)


def test_the_addresses_of_other_services_can_be_given():
    assert read(STOCKADE_ORDER_SERVICE_URL="http://orders:81").service_urls["order-service"] == "http://orders:81"


@pytest.mark.parametrize("url", ["mysql://db/x", "db:5432", "http://db", "postgresql:/db"])
def test_an_address_of_another_database_stops_the_start(url: str):
    with pytest.raises(ConfigurationError, match="STOCKADE_DATABASE_URL must start with postgresql://"):
        read(STOCKADE_DATABASE_URL=url)


def test_a_missing_address_of_the_database_stops_the_start():
    with pytest.raises(ConfigurationError, match="STOCKADE_DATABASE_URL is not set"):
        read_settings(Environment({}), NAMES)


SECRETS = ["STOCKADE_JWT_SECRET", "STOCKADE_SERVICE_SECRET", "STOCKADE_DATABASE_PASSWORD"]
WEAK = [
    "tiny", "changeme-changeme", "change-me-please-now", "Password1234567", "secretsecretsecret", "development-secret-xyz",
    "your_secret_key_here", "your-super-secret-jwt-key", "postgrespostgres", "example-example-1",
]  # fmt: skip


@pytest.mark.parametrize("variable", SECRETS)
@pytest.mark.parametrize("weak", WEAK)
def test_a_weak_secret_stops_the_start_in_production_and_not_in_development(variable: str, weak: str):
    with pytest.raises(ConfigurationError, match=variable) as caught:
        read(**{variable: weak})
    assert weak not in str(caught.value)
    read(**{variable: weak, "STOCKADE_ENVIRONMENT": "development"})


@pytest.mark.parametrize("variable", SECRETS)
def test_a_weak_secret_in_a_file_stops_the_start_as_well(variable: str, tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("changeme-changeme\n")
    with pytest.raises(ConfigurationError, match="well-known example"):
        read(**{f"{variable}_FILE": str(path)})


def test_a_file_wins_over_a_value_and_loses_its_last_line_break(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text(f"{STRONG}\n")
    settings = read(STOCKADE_JWT_SECRET="another-strong-value", STOCKADE_JWT_SECRET_FILE=str(path))
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.value() == STRONG


@pytest.mark.parametrize("variable", [*SECRETS, "STOCKADE_DATABASE_URL", "STOCKADE_DATABASE_USER"])
def test_a_missing_or_unreadable_file_stops_the_start(variable: str, tmp_path: Path):
    for content, said in (
        (None, "cannot be read"),
        (b"", "empty file"),
        (b" \n\t ", "empty file"),
        (b"\xff\xfe", "UTF-8"),
    ):
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said) as caught:
            read(**{f"{variable}_FILE": str(path)})
        assert f"{variable}_FILE" in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(**{f"{variable}_FILE": str(tmp_path)})


def test_a_changed_file_is_read_again_and_a_missing_one_keeps_its_last_value(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("first")
    secret = Secret("X", path=path)
    path.write_text("second, longer")
    assert secret.value() == "second, longer"
    path.unlink()
    assert secret.value() == "second, longer"
    path.write_text("")
    assert secret.value() == "second, longer"
    path.write_text("third")
    assert secret.value() == "third"


def test_a_link_that_is_swapped_is_followed(tmp_path: Path):
    """As Kubernetes updates a mounted Secret: the link `..data` moves to another directory."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text(f"value {name}")
        os.utime(tmp_path / name / "secret", (1, 1))
    data = tmp_path / "..data"
    data.symlink_to(tmp_path / "one")
    (tmp_path / "secret").symlink_to(Path("..data") / "secret")
    secret = Secret("X", path=tmp_path / "secret")
    assert secret.value() == "value one"
    (tmp_path / "new").symlink_to(tmp_path / "two")
    (tmp_path / "new").rename(data)
    assert secret.value() == "value two"


def test_nothing_shows_a_secret(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text(STRONG)
    settings = read(
        STOCKADE_JWT_SECRET=STRONG, STOCKADE_SERVICE_SECRET_FILE=str(path), STOCKADE_DATABASE_PASSWORD=STRONG,
        STOCKADE_DATABASE_URL=f"postgresql://user:{STRONG}@db/stockade",
    )  # fmt: skip
    for shown in (
        repr(settings),
        str(settings),
        f"{settings.jwt_secret}",
        repr(settings.database),
        str(vars(settings)),
    ):
        assert STRONG not in shown


def test_credentials_apart_from_the_address_are_told_together():
    access = DatabaseAccess(
        Secret("url", value="postgresql://db/x"), Secret("user", value="u"), Secret("password", value="p")
    )
    assert access.current() == ("postgresql://db/x", "u", "p")
