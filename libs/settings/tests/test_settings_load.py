"""Reading a configuration: defaults, the environment over the file, and every way to be wrong."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from collegium_settings import MarkupSettings, Problem, Secret, Settings, SettingsError, effective, load
from collegium_settings.environment import expand
from collegium_settings.yaml_file import parse
from hypothesis import given
from hypothesis import strategies as st

SECRET = "q7" * 24
KEY = f"sk-clg-acmekey1-{SECRET}"
Write = Callable[[str], Path]

MODEL = "{name: glm-4.5, base_url: https://models.test/v1, price: {}}"
WHOLE = """
data_dir: ./.collegium
http: {host: 127.0.0.1, port: 8700, max_body_bytes: 10MB}
grpc: {host: 127.0.0.1, port: 8701}
nats: {url: null, creds: null, tls: null}
database: {url: null, read_url: null}
qdrant: {url: null, api_key: null}
durability: process
telemetry: {otlp_endpoint: null, capture_content: false, sample_ratio: 1.0}
embedded_model: true
models:
  - name: glm-4.5
    base_url: https://models.test/v1
    api_key: ${GLM_API_KEY}
    upstream_model: glm-4.5
    rank: student
    pool: general
    domains: []
    capabilities: [tools, json]
    context_tokens: 128000
    max_output_tokens: 4096
    price: {input_usd_per_mtok: "0.02", cached_input_usd_per_mtok: "0.002", cache_write_usd_per_mtok: null,
            output_usd_per_mtok: "0.06", reasoning_usd_per_mtok: null, call_usd: "0"}
    charge: {markup: "1.25"}
    limits: {concurrency: 4, requests_per_minute: null, tokens: {max: 800000000, window: 5h}}
    timeout_seconds: 45
    fallbacks: [smollm2-135m]
    labels: {region: eu}
embeddings: {base_url: null, model: null}
cache: {exact_ttl: 1h, semantic: false, wrong_max: 0.01}
routing: {quality_floor: null, shares: {student: 0.60, ta: 0.35, teacher: 0.05}, exploration: 0.03}
evolution: {interval_queries: 100, auto_spawn_students: true, max_models_per_domain: 10, min_teacher_confidence: 0.85}
off_peak: {from: "22:00", to: "06:00", timezone: UTC}
webhooks: {allow_private_addresses: false}
alerts: {webhook_url: "https://ops.test/hook", webhook_secret: whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY}
requests: {retention_days: 30}
jwt: {issuers: []}
encryption: {key: null}
tiers:
  free: {queries_per_day: 1000, models_max: 3, concurrency: 5, storage_bytes: 100MB, weight: 1}
tenants:
  - {id: acme, tier: pro, api_key: "${ACME_KEY}", budget: {usd: "25.00", window: 30d}, cache: {semantic: true},
     gates: []}
gates: {}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "collegium.yaml"
        path.write_text(text)
        return path

    return written


def problems(path: Path | None, environ: dict[str, str] | None = None) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    assert caught.value.code == "invalid_settings"
    assert caught.value.problems
    return {problem.path: problem for problem in caught.value.problems}


def test_the_defaults_run_on_a_laptop() -> None:
    settings = load(None, {})
    assert settings == Settings()
    assert settings.http.port == 8700
    assert settings.http.max_body_bytes == 10_000_000
    assert settings.cache.exact_ttl_seconds == 3600
    assert settings.tiers["enterprise"].storage_bytes == 10**12
    assert settings.models == ()


def test_every_key_of_the_reference_is_read(write: Write) -> None:
    settings = load(write(WHOLE), {"GLM_API_KEY": "glm-secret", "ACME_KEY": KEY})
    (model,) = settings.models
    assert model.api_key == Secret("glm-secret")
    assert model.limits.tokens is not None
    assert model.limits.tokens.window_seconds == 5 * 3600
    assert model.price_picos().input_picos == 20_000
    assert model.charge == MarkupSettings(markup=Decimal("1.25"))
    (tenant,) = settings.tenants
    assert tenant.budget is not None
    assert (tenant.budget.usd, tenant.budget.window_seconds) == (Decimal("25.00"), 30 * 86_400)
    assert settings.routing.shares == {"student": 0.60, "ta": 0.35, "teacher": 0.05}
    assert set(settings.tiers) == {"free", "pro", "enterprise"}


def test_an_empty_file_is_the_defaults(write: Write) -> None:
    assert load(write(""), {}) == load(write("http:\nmodels:\ngates:\n"), {}) == Settings()


def test_the_environment_wins_over_the_file(write: Write) -> None:
    path = write(f"http: {{port: 1}}\ncache: {{exact_ttl: 1h}}\nmodels: [{MODEL}]")
    environ = {
        "COLLEGIUM_HTTP__PORT": "9000",
        "COLLEGIUM_CACHE__EXACT_TTL": "2m",
        "COLLEGIUM_CACHE__SEMANTIC": "true",
        "COLLEGIUM_DATA_DIR": "/var/lib/collegium",
        "COLLEGIUM_EMBEDDED_MODEL": "off",
        "COLLEGIUM_MODELS__0__LIMITS__CONCURRENCY": "7",
        "COLLEGIUM_MODELS__0__PRICE__INPUT_USD_PER_MTOK": "0.5",
        "COLLEGIUM_TIERS__FREE__WEIGHT": "3",
        "COLLEGIUM_ROUTING__SHARES": '{"student": 0.5}',
        "COLLEGIUM_TELEMETRY__SAMPLE_RATIO": "0.1",
        "COLLEGIUM_QDRANT__URL": "",
    }
    settings = load(path, environ)
    assert settings.http.port == 9000
    assert settings.cache.exact_ttl_seconds == 120
    assert settings.cache.semantic is True
    assert settings.data_dir == Path("/var/lib/collegium")
    assert settings.embedded_model is False
    assert settings.models[0].limits.concurrency == 7
    assert settings.models[0].price_picos().input_picos == 500_000
    assert (settings.tiers["free"].weight, settings.tiers["free"].concurrency) == (3, 5)
    assert settings.routing.shares == {"student": 0.5}
    assert settings.telemetry.sample_ratio == 0.1


def test_short_names_yield_to_long_ones() -> None:
    short = {
        "COLLEGIUM_DATABASE_URL": "postgresql://a/x",
        "COLLEGIUM_NATS_URL": "nats://n",
        "COLLEGIUM_QDRANT_URL": "http://q",
    }
    settings = load(None, short)
    assert (settings.database.url, settings.nats.url, settings.qdrant.url) == (
        "postgresql://a/x",
        "nats://n",
        "http://q",
    )
    settings = load(None, short | {"COLLEGIUM_DATABASE__URL": "postgresql://b/x"})
    assert settings.database.url == "postgresql://b/x"


def test_the_otel_variable_is_a_fallback(write: Write) -> None:
    other = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"}
    assert load(None, other).telemetry.otlp_endpoint == "http://otel:4318"
    path = write('telemetry: {otlp_endpoint: "http://mine:4318"}')
    assert load(path, other).telemetry.otlp_endpoint == "http://mine:4318"


def test_variables_of_others_are_left_alone() -> None:
    environ = {
        "COLLEGIUM_URL": "x",
        "COLLEGIUM_LOG_LEVEL": "x",
        "COLLEGIUM_API_KEY": "x",
        "COLLEGIUM_NATS_PORT": "tcp://1",
    }
    assert load(None, environ) == Settings()


def test_the_text_null_from_the_environment_clears(write: Write) -> None:
    path = write("nats: {url: 'nats://there'}")
    assert load(path, {"COLLEGIUM_NATS__URL": "null"}).nats.url is None


def test_references_stand_anywhere_in_a_text(write: Write) -> None:
    path = write("database: {url: 'postgresql://u:${PW}@h/$${x}'}\nhttp: {port: '${PORT}'}")
    settings = load(path, {"PW": "s3cret", "PORT": "8000"})
    assert settings.database.url == "postgresql://u:s3cret@h/${x}"
    assert settings.http.port == 8000


# The reference's own example, with an address and the model that it falls back to.
EXAMPLE = """
models:
  - name: glm-4.5                                # what clients and the roster call it
    base_url: https://models.test/v1
    api_key: ${GLM_API_KEY}
    domains: []                                  # empty: all
    price: {input_usd_per_mtok: "0.02", cached_input_usd_per_mtok: "0.002", cache_write_usd_per_mtok: null,
            output_usd_per_mtok: "0.06", reasoning_usd_per_mtok: null, call_usd: "0"}    # at most 6 decimals
    charge: null                                 # what tenants pay: null = price, or {markup: "1.25"}, or ${A} block
    limits: {concurrency: 4, requests_per_minute: null, tokens: {max: 800000000, window: 5h}}
    fallbacks: [other-model]
    labels: {region: eu}
  - {name: other-model, base_url: https://models.test/v1, api_key: ${GLM_API_KEY}, price: {}}
tenants:
  - {id: acme, tier: pro, api_key: ${ACME_KEY}, budget: {usd: "25.00", window: 30d}, cache: {semantic: true}, gates: []}
"""


def test_the_references_example_is_read_as_it_stands(write: Write) -> None:
    model_key = "{a}: [\"b', #\n- c & *d"
    settings = load(write(EXAMPLE), {"ACME_KEY": KEY, "GLM_API_KEY": model_key})
    (acme,) = settings.tenants
    assert acme.api_key is not None
    assert acme.api_key.reveal() == KEY
    assert acme.cache.semantic
    assert [model.api_key.reveal() for model in settings.models if model.api_key] == [model_key, model_key]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("database: {url: ${A}}", "x://1"),
        ("database: {url: ${A}/${B}?c=${A}}", "x://1/2?c=x://1"),
        ("database: {url: '${A}'}", "x://1"),
        ('database: {url: "${A}"} # ${B}', "x://1"),
        ("database: {url: '${A}''s'}", "x://1's"),
        ("database:\n  url: ${A} # '${B}", "x://1"),
        ("database:\n  url: |-\n    ${A}", "x://1"),
        ("database: {url: $${A}}", "${A}"),
        ("database: {url: '\ue000${A}\ue001'}", "\ue000x://1\ue001"),
        ("\ufeffdatabase: {url: ${A}}", "x://1"),
    ],
)
def test_a_reference_may_stand_wherever_a_text_may(text: str, url: str) -> None:
    found = cast("dict[str, Any]", expand(parse(text.encode()), {"A": "x://1", "B": "2"}, []))
    assert found["database"]["url"] == url


def test_places_in_a_file_with_references_are_right(write: Write) -> None:
    (path,) = problems(write("nats: {url: ${A}, creds: ${B}}\nhttp: {host: ${A}, ]}"))
    assert "line 2, column 20" in path
    (path,) = problems(write("'${A}': 1\n${A}: 2"))
    assert "line 2" in path


def test_a_missing_variable_is_named_once(write: Write) -> None:
    found = problems(write(f"tenants: [{{id: a, api_key: '${{NOT_THERE}}'}}]\nmodels: [{MODEL}]"))
    assert list(found) == ["tenants[0].api_key"]
    assert found["tenants[0].api_key"].read == "${NOT_THERE}"
    assert "NOT_THERE" in found["tenants[0].api_key"].accepted


def test_all_problems_are_told_at_once_with_their_paths(write: Write) -> None:
    found = problems(
        write(
            """
            http: {port: 70000, hots: x}
            cache: {wrong_max: 2}
            off_peak: {from: 22:00}
            durability: forever
            models:
              - {name: a, base_url: 'ftp://x', price: {input_usd_per_mtok: 0.02}, rank: boss}
              - {base_url: 'http://x'}
            """
        )
    )
    assert set(found) == {
        "http.port", "http.hots", "cache.wrong_max", "off_peak.from", "durability", "models[0].base_url",
        "models[0].price.input_usd_per_mtok", "models[0].rank", "models[1].name",
    }  # fmt: skip
    assert found["http.port"] == Problem("http.port", "70000", "a whole number from 0 to 65535")
    assert "did you mean host?" in found["http.hots"].accepted
    assert found["models[0].rank"].accepted == "one of student, ta, teacher"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("http: [1]", "http"),
        ("http: {port: true}", "http.port"),
        ("http: {port: '8700'}", "http.port"),
        ("http: {max_body_bytes: 10 parsecs}", "http.max_body_bytes"),
        ("cache: {exact_ttl: 3600}", "cache.exact_ttl"),
        ("cache: {exact_ttl: 0s}", "cache.exact_ttl"),
        ("cache: {stale_ttl: false}", "cache.stale_ttl"),
        ("cache: {stale_ttl: 5}", "cache.stale_ttl"),
        ("cache: {wrong_max: .nan}", "cache.wrong_max"),
        ("telemetry: {sample_ratio: 1.1}", "telemetry.sample_ratio"),
        ("nats: {url: 'nats://a:port'}", "nats.url"),
        ("nats: {tls: {ca: a, cert: b}}", "nats.tls"),
        ("off_peak: {timezone: Mars/Olympus}", "off_peak.timezone"),
        ("grpc: {port: 8700}", "grpc.port"),
        ("routing: {shares: {student: 0.9, ta: 0.9}}", "routing.shares"),
        ("routing: {shares: {boss: 0.9}}", "routing.shares.boss"),
        ("models: {}", "models"),
        ("models: [{name: auto, base_url: 'http://x'}]", "models[0].name"),
        (f"models: [{MODEL}, {MODEL}]", "models[1].name"),
        ("models: [{name: a, base_url: 'http://x', fallbacks: [b]}]", "models[0].fallbacks[0]"),
        ("models: [{name: a, base_url: 'http://x', fallbacks: [a]}]", "models[0].fallbacks[0]"),
        ("models: [{name: a, base_url: 'http://x', pool: Big_Pool}]", "models[0].pool"),
        (
            "models: [{name: a, base_url: 'http://x', charge: {markup: '1', x: '1'}}]",
            "models[0].charge.x",
        ),
        ("models: [{name: a, base_url: 'http://x', context_tokens: 100}]", "models[0].max_output_tokens"),
        ("tenants: [{id: A}]", "tenants[0].id"),
        ("tenants: [{id: a, tier: gold}]", "tenants[0].tier"),
        ("tenants: [{id: a}, {id: a}]", "tenants[1].id"),
        (f"tenants: [{{id: a, api_key: {KEY}}}, {{id: b, api_key: {KEY}}}]", "tenants[1].api_key"),
        ("tenants: [{id: a, budget: {usd: '1.0000001'}}]", "tenants[0].budget.usd"),
        ("tiers: {gold: {weight: 1}}", "tiers.gold.concurrency"),
        ("gates: {age: 21}", "gates.age"),
        ("http: {host: '${BROKEN'}", "http.host"),
        ("http: &a {host: *a}", "http.host"),
    ],
)
def test_a_bad_value_is_named_by_its_path(write: Write, text: str, path: str) -> None:
    assert path in problems(write(text))


@pytest.mark.parametrize(
    ("text", "place"),
    [("http: {port: [", "line 2"), ("a: 1\nb: 2\na: 3", "line 3"), ("\x00", "somewhere"), ("- 1", "")],
)
def test_what_is_no_yaml_is_refused_with_its_line(write: Write, text: str, place: str) -> None:
    (path,) = problems(write(text))
    assert place in path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert list(problems(tmp_path / "nowhere.yaml")) == [str(tmp_path / "nowhere.yaml")]


@pytest.mark.parametrize("name", ["COLLEGIUM_FOO__BAR", "COLLEGIUM_MODELS__3__POOL", "COLLEGIUM_DURABILITY__X__Y"])
def test_an_unknown_variable_with_a_section_is_refused(write: Write, name: str) -> None:
    assert f"{name} (environment)" in problems(write("durability: process"), {name: "x"})


def test_no_error_shows_a_secret(write: Write) -> None:
    bad = SECRET.upper()
    text = f"""
        models: [{{name: a, base_url: '${{URL}}', api_key: ['{SECRET}']}}]
        tenants: [{{id: a, api_key: sk-clg-acmekey1-{bad}}}, {{id: b, api_key: 'x${{NONE}}{bad}'}}]
        database: {{url: 'mysql://u:{bad}@h'}}
        encryption: {{key: {{a: {bad}}}}}
        http: {{host: [{bad}]}}
    """
    with pytest.raises(SettingsError) as caught:
        load(write(text), {"URL": f"ftp://{bad}"})
    assert len(caught.value.problems) >= 7
    assert bad not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_settings_do_not_show_their_secrets(write: Write) -> None:
    text = WHOLE.replace("database: {url: null", "database: {url: 'postgresql://u:hunter2@h/d'")
    settings = load(write(text), {"GLM_API_KEY": "glm-secret", "ACME_KEY": KEY})
    for shown in (repr(settings), str(settings), str(effective(settings)), f"{settings.tenants[0].api_key}"):
        assert "glm-secret" not in shown
        assert SECRET not in shown
        assert "hunter2" not in shown
    assert pickle.loads(pickle.dumps(settings.tenants[0].api_key)).reveal() == KEY


def test_the_effective_configuration_reads_back(write: Write) -> None:
    text = WHOLE.replace("api_key: ${GLM_API_KEY}\n", "\n").replace('api_key: "${ACME_KEY}", ', "")
    alerts = 'webhook_url: "https://ops.test/hook", webhook_secret: whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY'
    text = text.replace(alerts, "")
    settings = load(write(text), {})
    printed = subprocess.run(
        [sys.executable, "-m", "collegium_settings", str(write(text))], capture_output=True, text=True, check=True
    ).stdout
    # Durations are printed as seconds and read with a unit.
    printed = printed.replace("window: 18000", "window: 5h").replace("window: 2592000", "window: 30d")
    printed = printed.replace("exact_ttl: 3600", "exact_ttl: 1h").replace("stale_ttl: 86400", "stale_ttl: 1d")
    printed = printed.replace("semantic_ttl: 86400", "semantic_ttl: 1d")
    printed = printed.replace("anchor_every: 3600", "anchor_every: 1h").replace("delay: 60", "delay: 1m")
    printed = printed.replace("expires: 86400", "expires: 1d")
    assert load(write(printed), {}) == settings


def test_the_command_tells_problems_on_standard_error(write: Write) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "collegium_settings", str(write("htpp: {}"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "htpp: read an unknown key; accepted: did you mean http?" in done.stderr


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Settings.__struct_fields__, "x"]), plain))
def test_reading_either_works_or_tells_every_problem(raw: dict[str, object]) -> None:
    from collegium_settings.reader import Reader

    reader = Reader()
    settings = reader.section(Settings, raw, "")
    assert (settings is None) == bool(reader.problems)
    assert all(problem.path for problem in reader.problems)


def test_old_answers_are_shown_for_a_while_or_never(write: Write) -> None:
    assert load(write("cache: {stale_ttl: 0}"), {}).cache.stale_ttl_seconds == 0
    assert load(write("cache: {}"), {"COLLEGIUM_CACHE__STALE_TTL": "0"}).cache.stale_ttl_seconds == 0
    settings = load(write("cache: {stale_ttl: 2h}\ntenants: [{id: acme, cache: {stale: true}}, {id: globex}]"), {})
    assert settings.cache.stale_ttl_seconds == 7200
    assert [tenant.cache.stale for tenant in settings.tenants] == [True, False]
