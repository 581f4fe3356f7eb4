# `just` alone lists what there is to do. Every verb is one line; CI runs the same ones.

python := env("COLLEGIUM_VENV", justfile_directory() / ".venv") / "bin/python"
bin := parent_directory(python)
uv := "uv"
chaos_results := justfile_directory() / ".chaos" / "results.jsonl"

# Lists the verbs.
default:
    @just --list --unsorted

# Makes the environment, with what tests and checks need.
[group("work")]
setup:
    ./collegium test --version

# Runs the tests; arguments go to pytest.
[group("work")]
test *arguments:
    ./collegium test {{ arguments }}

# Shows the whole journey on the embedded model.
[group("work")]
demo:
    ./collegium demo

# Runs everything on this machine.
[group("work")]
up *arguments:
    ./collegium up {{ arguments }}

# Looks for mistakes in the code.
[group("check")]
lint:
    {{ bin }}/ruff check

# Checks types and the borders between packages.
[group("check")]
types:
    {{ bin }}/basedpyright && {{ bin }}/lint-imports

# Formats the code.
[group("check")]
fmt:
    {{ bin }}/ruff check --fix && {{ bin }}/ruff format

# Checks docker-compose.yml with Compose itself, without an engine.
[group("check")]
compose-check:
    $({{ python }} -c 'import compose, pathlib; print(pathlib.Path(compose.__file__).parent / "docker-compose")') config --quiet

# Plays every fault of the matrix, and writes docs/operate/faults.md from what came of it.
[group("check")]
chaos *arguments:
    rm -f {{ chaos_results }}; COLLEGIUM_CHAOS=full COLLEGIUM_CHAOS_RESULTS={{ chaos_results }} ./collegium test tests/chaos {{ arguments }}; code=$?; {{ python }} -m collegium_testing.faults.results {{ chaos_results }} docs/operate/faults.md; exit $code

# Plays the tests that kill and wait for half a minute and more.
[group("check")]
long *arguments:
    COLLEGIUM_TESTS=long ./collegium test -m long {{ arguments }}

# Kills processes at random under load, for so many injections.
[group("check")]
soak *arguments:
    {{ python }} -m collegium_testing.faults.soak {{ arguments }}

# One budget spent by a thousand at once over two gateways and two replicas of billing.
[group("check")]
purse *arguments:
    {{ python }} -m collegium_testing.faults.purse {{ arguments }}

# Measures the gateway against a direct call.
[group("measure")]
bench-gateway *arguments:
    ./collegium bench gateway {{ arguments }}

# Measures tasks a second, with what each process costs; peers by --peers.
[group("measure")]
bench-tasks *arguments:
    ./collegium bench tasks {{ arguments }}

# Measures what a tenant waits beside a greedy one, and shares by weight.
[group("measure")]
bench-fairness *arguments:
    ./collegium bench fairness {{ arguments }}

# Measures how long a killed process is felt, and what is lost.
[group("measure")]
bench-failover *arguments:
    ./collegium bench failover {{ arguments }}

# Pins every dependency anew, with hashes.
[group("generate")]
lock *arguments:
    cd requirements && for name in build runtime dev models compose names; do UV_CUSTOM_COMPILE_COMMAND='just lock' {{ uv }} pip compile --quiet --universal --python-version 3.11 --generate-hashes $(case $name in models|compose) echo --no-deps ;; esac) {{ arguments }} $name.in -o $name.txt; done

# Generates the gRPC code from proto/.
[group("generate")]
proto:
    {{ python }} proto/generate.py

# Generates docs/journey.md from the table in the code.
[group("generate")]
journey-docs:
    {{ python }} -m collegium_contracts.journey_docs docs/journey.md
