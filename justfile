# Recipes for just (https://just.systems). `just` alone lists them.

set positional-arguments

_default:
    @just --list --unsorted

# Formatting, clippy, rustdoc, a build of the benches, and all tests that need no root
check:
    netns-tests/run --unprivileged

# The tests beside the code; arguments go to cargo test (just test nat::table)
test *ARGUMENTS:
    cargo test --locked --all-features --lib "$@"

# Tests in network namespaces whose name contains FILTER, such as failover or doctor:: (root)
netns FILTER:
    netns-tests/run "$1"

# Mixed traffic for SECONDS while everything goes wrong (root)
chaos SECONDS="3600":
    NATBOX_CHAOS_SECONDS="$1" netns-tests/run chaos

# Rewrites netns-tests/CONFORMANCE.md from the tests behind it (root)
conformance:
    netns-tests/run --conformance

# Rewrites the files that are made from the code: docs/reference and configs/reference.yaml
bless:
    NATBOX_BLESS=1 cargo test --locked --all-features --lib --test docs

# Fuzz targets with cargo-fuzz: those named, or all (10 minutes each, one a processor at a time)
fuzz *TARGETS:
    fuzz/run "$@"

# The criterion benches: one target (packet, table, engine, limits), or all of them
bench *TARGET:
    cargo bench --locked {{ if TARGET == "" { "--bench packet --bench table --bench engine --bench limits" } else { "--bench " + TARGET } }}

# natbox beside plain forwarding, nftables and haproxy (10 minutes, root)
compare *ARGUMENTS:
    benches/compare "$@"

# Floods of nine kinds, and what must hold meanwhile (5 minutes, root)
overload *ARGUMENTS:
    benches/overload "$@"

# Everything that must hold before a push; the CI workflow runs the same (root)
ci:
    netns-tests/run
